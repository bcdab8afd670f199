from __future__ import annotations

import stat
import threading
from pathlib import Path

from standalone.database import FILE, Database
from standalone.files import signing_secret


def test_the_database_is_closed_after_the_query_of_another_thread(tmp_path: Path) -> None:
    """SQLite crashes the process otherwise: the cleaning of expired files may run while the server stops."""
    database = Database(tmp_path)
    closing = threading.Thread(target=database.close)
    with database.reading() as connection:
        closing.start()
        closing.join(timeout=0.2)
        assert connection.execute("SELECT count(*) FROM objects").fetchone() == (0,)
    closing.join()
    assert not closing.is_alive()


def test_only_their_owner_can_read_the_database_and_the_secret_of_urls(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    Database(folder).close()
    signing_secret(folder)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / FILE, folder / "secret")}
    assert modes == {"data": 0o700, FILE: 0o600, "secret": 0o600}

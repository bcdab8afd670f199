from __future__ import annotations

import threading
from pathlib import Path

from standalone.database import Database


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

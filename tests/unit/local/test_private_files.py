import stat
from pathlib import Path

from local.stack import write_private


def test_a_file_with_a_key_can_only_be_read_by_its_owner_even_if_it_was_readable_before(tmp_path: Path) -> None:
    new, readable = tmp_path / "new", tmp_path / "readable"
    readable.write_text("a much longer text than the new one")
    readable.chmod(0o644)
    for path in (new, readable):
        write_private(path, "secret")
        assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("secret", 0o600)

import io
import os
import zipfile
from pathlib import Path

from local.deploy import zipped


def test_a_zip_depends_on_names_and_contents_alone(tmp_path: Path) -> None:
    for folder, names in (("one", ("a.py", "b.py")), ("two", ("b.py", "a.py"))):
        (tmp_path / folder / "inner").mkdir(parents=True)
        for name in names:
            (tmp_path / folder / "inner" / name).write_text(name)
    os.utime(tmp_path / "two" / "inner" / "a.py", (0, 0))
    assert zipped(tmp_path / "one") == zipped(tmp_path / "two")
    with zipfile.ZipFile(io.BytesIO(zipped(tmp_path / "one"))) as archive:
        assert archive.namelist() == ["inner/a.py", "inner/b.py"]
        assert archive.read("inner/a.py") == b"a.py"


def test_a_changed_file_changes_the_zip(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    before = zipped(tmp_path)
    (tmp_path / "a.py").write_text("2")
    assert zipped(tmp_path) != before

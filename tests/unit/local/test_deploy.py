import io
import os
import zipfile
from pathlib import Path

from local.deploy import zip_folder


def test_a_zip_depends_only_on_file_names_and_contents(tmp_path: Path) -> None:
    for folder, names in (("one", ("a.py", "b.py")), ("two", ("b.py", "a.py"))):
        (tmp_path / folder / "inner").mkdir(parents=True)
        for name in names:
            (tmp_path / folder / "inner" / name).write_text(name)
    os.utime(tmp_path / "two" / "inner" / "a.py", (0, 0))
    assert zip_folder(tmp_path / "one") == zip_folder(tmp_path / "two")
    with zipfile.ZipFile(io.BytesIO(zip_folder(tmp_path / "one"))) as archive:
        assert archive.namelist() == ["inner/a.py", "inner/b.py"]
        assert archive.read("inner/a.py") == b"a.py"


def test_a_changed_file_changes_the_zip(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    before = zip_folder(tmp_path)
    (tmp_path / "a.py").write_text("2")
    assert zip_folder(tmp_path) != before

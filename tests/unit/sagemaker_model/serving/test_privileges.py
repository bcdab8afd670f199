"""The servers of the container continue as another user than root."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

PROGRAM = """
import logging, os, sys
from pathlib import Path
from sagemaker_model.serving.privileges import drop_root
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
drop_root(10001, reads=Path(sys.argv[1]), owns=Path(sys.argv[2]))
print(os.getuid(), os.geteuid(), os.getgid(), os.getgroups())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("mode", "expected"), [(0o644, "10001 10001 10001 []"), (0o600, "0 0 0")])
def test_a_server_started_as_root_continues_as_another_user_that_owns_its_data(mode: int, expected: str) -> None:
    with TemporaryDirectory() as name:  # pytest's own folder is closed to other users
        folder = Path(name)
        folder.chmod(0o755)
        check(folder, mode, expected)


def check(folder: Path, mode: int, expected: str) -> None:
    weights, data = folder / "weights", folder / "data"
    weights.mkdir()
    data.mkdir()
    (weights / "a.onnx").touch()
    (weights / "a.onnx").chmod(mode)
    (data / "maskdrop.db").touch()
    done = subprocess.run(  # noqa: S603  fixed arguments
        [sys.executable, "-c", PROGRAM, str(weights), str(data)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].startswith(expected), done.stdout
    assert (data / "maskdrop.db").stat().st_uid == int(expected.split()[0])
    assert ("runs as root" in done.stdout) == (mode == 0o600)


def test_a_server_that_is_not_root_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sagemaker_model.serving.privileges import drop_root

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    drop_root(10001, reads=tmp_path, owns=tmp_path / "data")
    assert not (tmp_path / "data").exists()

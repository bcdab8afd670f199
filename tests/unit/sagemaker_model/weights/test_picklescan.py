from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sagemaker_model.weights import picklescan
from sagemaker_model.weights.picklescan import LEGACY_MAGIC, PICKLE_BYTES_MAX, rejection_reason
from tests.unit.sagemaker_model.weights.fake_checkpoints import a_checkpoint, a_legacy_checkpoint, pickled, state


@pytest.fixture(params=["without PyTorch", "with PyTorch"], autouse=True)
def _torch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs each test with and without PyTorch: the results must be the same."""
    if request.param == "with PyTorch":
        pytest.importorskip("torch", reason="PyTorch is not installed")
    else:
        monkeypatch.setattr(picklescan, "_rejection_by_torch", lambda _: None)


class MakesFolder:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def written(folder: Path, data: bytes) -> Path:
    path = folder / "some.ckpt"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("make", [a_checkpoint, a_legacy_checkpoint])
def test_a_checkpoint_is_accepted(tmp_path: Path, make: Any) -> None:
    assert rejection_reason(written(tmp_path, make())) is None
    nested = {"model": state(), "epoch": 3, "loss": 0.5, "note": "ü", "done": [True, None, (1, 2**40)]}
    assert rejection_reason(written(tmp_path, make(nested))) is None


@pytest.mark.parametrize("make", [a_checkpoint, a_legacy_checkpoint])
def test_code_in_a_checkpoint_is_detected_without_running_it(tmp_path: Path, make: Any) -> None:
    marker = tmp_path / "marker"
    path = written(tmp_path, make({**state(), "more": MakesFolder(marker)}))
    assert "imports posix.mkdir" in str(rejection_reason(path))
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [0, 1, 3, 4, 5])
def test_code_is_detected_in_every_pickle_protocol(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "marker"
    program = pickle.dumps({"more": MakesFolder(marker)}, protocol=protocol)
    assert rejection_reason(written(tmp_path, a_checkpoint(program=program)))
    assert rejection_reason(written(tmp_path, program))
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    ["builtins eval", "torch.storage _load_from_bytes", "torch load", "torch.hub load", "os system", "torch  Size"],
)
def test_globals_other_than_those_of_tensors_are_rejected(tmp_path: Path, name: str) -> None:
    module, _, attribute = name.partition(" ")
    program = f"\x80\x02c{module}\n{attribute}\n.".encode("latin-1")
    assert "a pickle with more than weights" in str(rejection_reason(written(tmp_path, a_checkpoint(program=program))))


def test_a_pickle_without_tensors_is_rejected(tmp_path: Path) -> None:
    assert rejection_reason(written(tmp_path, a_checkpoint({"a": 1}))) == "contains no tensors"
    assert rejection_reason(written(tmp_path, a_legacy_checkpoint({"a": 1}))) == "contains no tensors"
    assert (
        rejection_reason(written(tmp_path, pickle.dumps([1, 2, 3], protocol=2)))
        == "is a pickle, but not a PyTorch checkpoint"
    )


def test_other_files_are_rejected(tmp_path: Path) -> None:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("readme.txt", "hello")
    for data in (b"", b"<html>Sign in</html>", b"\x80", b"\x00" * 100, zipped.getvalue()):
        assert rejection_reason(written(tmp_path, data))


def test_an_archive_with_a_second_pickle_is_rejected(tmp_path: Path) -> None:
    data = io.BytesIO(a_checkpoint())
    with zipfile.ZipFile(data, "a") as archive:
        archive.writestr("archive/constants.pkl", pickled({}))
    assert "not a PyTorch checkpoint of tensors alone" in str(rejection_reason(written(tmp_path, data.getvalue())))


def test_a_pickle_that_decompresses_to_too_many_bytes_is_not_read(tmp_path: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"]0" * (PICKLE_BYTES_MAX // 2) + b".")
    assert len(data.getvalue()) < PICKLE_BYTES_MAX / 100
    assert "at most 16,777,216 are accepted" in str(rejection_reason(written(tmp_path, data.getvalue())))


def test_a_pickle_with_an_archive_at_its_end_is_scanned_as_a_pickle(tmp_path: Path) -> None:
    # PyTorch loads the pickle, `zipfile` would open the archive.
    program = pickled(MakesFolder(tmp_path / "marker"))
    assert rejection_reason(written(tmp_path, program + a_checkpoint()))
    checkpoint = io.BytesIO(a_checkpoint())
    prefixed = tmp_path / "prefixed.ckpt"
    prefixed.write_bytes(a_legacy_checkpoint({**state(), "more": MakesFolder(tmp_path / "marker")}))
    with zipfile.ZipFile(prefixed, "a") as archive, zipfile.ZipFile(checkpoint) as harmless:
        for entry in harmless.infolist():
            archive.writestr(entry, harmless.read(entry))
    assert zipfile.is_zipfile(prefixed)
    assert "imports posix.mkdir" in str(rejection_reason(prefixed))


def test_the_first_pickle_of_a_legacy_checkpoint_is_scanned_too(tmp_path: Path) -> None:
    checkpoint = a_legacy_checkpoint()
    first = pickle.dumps(LEGACY_MAGIC, protocol=2)
    assert checkpoint.startswith(first)
    program = pickled([MakesFolder(tmp_path / "marker"), LEGACY_MAGIC]) + checkpoint[len(first) :]
    assert "imports posix.mkdir" in str(rejection_reason(written(tmp_path, program)))


def test_a_truncated_archive_is_rejected(tmp_path: Path) -> None:
    checkpoint = a_checkpoint()
    for length in range(0, len(checkpoint), 7):
        assert rejection_reason(written(tmp_path, checkpoint[:length])), length


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(data=b"PK\x03\x04")
@given(data=st.binary(max_size=200))
def test_random_bytes_are_rejected_with_a_reason(tmp_path: Path, data: bytes) -> None:
    assert rejection_reason(written(tmp_path, data))
    assert rejection_reason(written(tmp_path, b"\x80\x02" + data))
    assert rejection_reason(written(tmp_path, a_checkpoint(program=data)))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_checkpoint_never_crashes_the_scan(tmp_path: Path, data: st.DataObject) -> None:
    checkpoint = bytearray(data.draw(st.sampled_from([a_checkpoint(), a_legacy_checkpoint()])))
    for at in data.draw(st.lists(st.integers(0, len(checkpoint) - 1), min_size=1, max_size=8)):
        checkpoint[at] = data.draw(st.integers(0, 255))
    reason = rejection_reason(written(tmp_path, bytes(checkpoint)))
    assert reason is None or "\n" not in reason


@pytest.mark.parametrize("zipped", [True, False])
def test_a_saved_state_dict_is_accepted_and_a_saved_module_is_rejected(tmp_path: Path, zipped: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    training = {"model": network.state_dict(), "best": torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))}
    for thing in (network.state_dict(), network.half().state_dict(), training):
        torch.save(thing, tmp_path / "some.pt", _use_new_zipfile_serialization=zipped)
        assert rejection_reason(tmp_path / "some.pt") is None
    torch.save(network, tmp_path / "some.pt", _use_new_zipfile_serialization=zipped)
    assert "a pickle with more than weights" in str(rejection_reason(tmp_path / "some.pt"))

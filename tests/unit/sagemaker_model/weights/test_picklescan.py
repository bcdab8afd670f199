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
from sagemaker_model.weights.picklescan import PROGRAM_BYTES_MAX, flaw
from tests.unit.sagemaker_model.weights.fake_checkpoints import a_checkpoint, a_legacy_checkpoint, pickled, state


@pytest.fixture(params=["without PyTorch", "with PyTorch"], autouse=True)
def _torch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer is the same where PyTorch is installed and where it is not."""
    if request.param == "with PyTorch":
        pytest.importorskip("torch", reason="PyTorch is not installed")
    else:
        monkeypatch.setattr(picklescan, "_flaw_by_torch", lambda _: None)


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def written(folder: Path, data: bytes) -> Path:
    path = folder / "some.ckpt"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("make", [a_checkpoint, a_legacy_checkpoint])
def test_a_checkpoint_is_weights(tmp_path: Path, make: Any) -> None:
    assert flaw(written(tmp_path, make())) is None
    nested = {"model": state(), "epoch": 3, "loss": 0.5, "note": "ü", "done": [True, None, (1, 2**40)]}
    assert flaw(written(tmp_path, make(nested))) is None


@pytest.mark.parametrize("make", [a_checkpoint, a_legacy_checkpoint])
def test_a_program_among_weights_is_found_and_not_run(tmp_path: Path, make: Any) -> None:
    trap = tmp_path / "trapped"
    path = written(tmp_path, make({**state(), "more": Runs(trap)}))
    assert "calls for posix.mkdir" in str(flaw(path))
    assert not trap.exists()


@pytest.mark.parametrize("protocol", [0, 1, 3, 4, 5])
def test_a_program_is_found_in_every_protocol_of_pickle(tmp_path: Path, protocol: int) -> None:
    trap = tmp_path / "trapped"
    program = pickle.dumps({"more": Runs(trap)}, protocol=protocol)
    assert flaw(written(tmp_path, a_checkpoint(program=program)))
    assert flaw(written(tmp_path, program))
    assert not trap.exists()


@pytest.mark.parametrize(
    "name",
    ["builtins eval", "torch.storage _load_from_bytes", "torch load", "torch.hub load", "os system", "torch  Size"],
)
def test_names_beyond_tensors_are_refused(tmp_path: Path, name: str) -> None:
    module, _, attribute = name.partition(" ")
    program = f"\x80\x02c{module}\n{attribute}\n.".encode("latin-1")
    assert "does more than hold weights" in str(flaw(written(tmp_path, a_checkpoint(program=program))))


def test_a_pickle_without_tensors_is_no_weights(tmp_path: Path) -> None:
    assert flaw(written(tmp_path, a_checkpoint({"a": 1}))) == "holds no tensors"
    assert flaw(written(tmp_path, a_legacy_checkpoint({"a": 1}))) == "holds no tensors"
    assert flaw(written(tmp_path, pickle.dumps([1, 2, 3], protocol=2))) == "is a pickle, but no checkpoint of PyTorch"


def test_other_files_are_no_weights(tmp_path: Path) -> None:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("readme.txt", "hello")
    for data in (b"", b"<html>Sign in</html>", b"\x80", b"\x00" * 100, zipped.getvalue()):
        assert flaw(written(tmp_path, data))


def test_an_archive_with_a_second_program_is_refused(tmp_path: Path) -> None:
    data = io.BytesIO(a_checkpoint())
    with zipfile.ZipFile(data, "a") as archive:
        archive.writestr("archive/constants.pkl", pickled({}))
    assert "not one of PyTorch's" in str(flaw(written(tmp_path, data.getvalue())))


def test_a_program_that_unpacks_to_too_much_is_not_read(tmp_path: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"]0" * (PROGRAM_BYTES_MAX // 2) + b".")
    assert len(data.getvalue()) < PROGRAM_BYTES_MAX / 100
    assert "too many" in str(flaw(written(tmp_path, data.getvalue())))


def test_an_archive_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    whole = a_checkpoint()
    for length in range(0, len(whole), 7):
        assert flaw(written(tmp_path, whole[:length])), length


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(data=b"PK\x03\x04")
@given(data=st.binary(max_size=200))
def test_whatever_the_bytes_are_the_answer_is_a_sentence(tmp_path: Path, data: bytes) -> None:
    assert flaw(written(tmp_path, data))
    assert flaw(written(tmp_path, b"\x80\x02" + data))
    assert flaw(written(tmp_path, a_checkpoint(program=data)))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_checkpoint_never_breaks_the_check(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(data.draw(st.sampled_from([a_checkpoint(), a_legacy_checkpoint()])))
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=8)):
        whole[at] = data.draw(st.integers(0, 255))
    answer = flaw(written(tmp_path, bytes(whole)))
    assert answer is None or "\n" not in answer


@pytest.mark.parametrize("zipped", [True, False])
def test_what_pytorch_saves_of_a_network_is_weights_and_the_network_itself_is_not(tmp_path: Path, zipped: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    training = {"model": network.state_dict(), "best": torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))}
    for thing in (network.state_dict(), network.half().state_dict(), training):
        torch.save(thing, tmp_path / "some.pt", _use_new_zipfile_serialization=zipped)
        assert flaw(tmp_path / "some.pt") is None
    torch.save(network, tmp_path / "some.pt", _use_new_zipfile_serialization=zipped)
    assert "does more than hold weights" in str(flaw(tmp_path / "some.pt"))

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from sagemaker_model.nets.modnet import MODNet  # noqa: E402
from sagemaker_model.weights.checkpoints import (  # noqa: E402 - they need torch
    MismatchedWeights,
    NonFiniteWeights,
    NotWeights,
    TruncatedWeights,
    WrongHash,
    load_checkpoint,
    load_into,
    modnet_state,
)
from sagemaker_model.weights.store import InvalidWeights  # noqa: E402
from tests.unit.sagemaker_model.nets import published_modnet  # noqa: E402

SMALL = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2), "steps": torch.tensor(3)}

both_formats = pytest.mark.parametrize("as_zip", [True, False])


def saved(path: Path, content: Any, *, as_zip: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)
    return path


@both_formats
def test_a_checkpoint_of_the_published_layout_loads_strictly(tmp_path: Path, as_zip: bool) -> None:
    published = published_modnet.state()
    path = saved(tmp_path / "modnet.ckpt", published, as_zip=as_zip)
    net = MODNet()
    load_into(net, modnet_state(load_checkpoint(path, hashlib.sha256(path.read_bytes()).hexdigest())))
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, published[f"module.{name}"])


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_nested_state_dicts_are_loaded(tmp_path: Path, wrapper: str) -> None:
    found = load_checkpoint(saved(tmp_path / "x.pt", {wrapper: SMALL, "epoch": 3}))
    assert found.keys() == SMALL.keys()


def test_a_file_with_a_wrong_hash_is_rejected_before_it_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(WrongHash, match="SHA-256"):
        load_checkpoint(saved(tmp_path / "x.pt", SMALL), "0" * 64)


def test_a_missing_file_raises_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidWeights, match=r"x\.pt cannot be read"):
        load_checkpoint(tmp_path / "x.pt")


@both_formats
def test_a_file_truncated_at_any_byte_is_rejected(tmp_path: Path, as_zip: bool) -> None:
    path = saved(tmp_path / "x.pt", SMALL, as_zip=as_zip)
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises((TruncatedWeights, NotWeights)):
            load_checkpoint(path)


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@both_formats
def test_a_pickle_with_code_is_rejected_without_running_it(tmp_path: Path, as_zip: bool) -> None:
    marker = tmp_path / "marker"
    path = saved(tmp_path / "x.pt", {"weight": Malicious(marker)}, as_zip=as_zip)
    with pytest.raises(NotWeights):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Malicious(marker), protocol=2))
    with pytest.raises(NotWeights):
        load_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [3, [torch.ones(1)], {}, {"weight": 1}, {1: torch.ones(1)}, {"model": {}}])
def test_content_other_than_named_tensors_is_rejected(tmp_path: Path, content: Any) -> None:
    with pytest.raises(NotWeights):
        load_checkpoint(saved(tmp_path / "x.pt", content))


@pytest.mark.parametrize("data", [b"", b"not a checkpoint", b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_other_file_formats_are_rejected(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(data)
    with pytest.raises((TruncatedWeights, NotWeights)):
        load_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_tensor_that_is_not_finite_is_rejected_with_its_name(tmp_path: Path, value: float) -> None:
    with pytest.raises(NonFiniteWeights, match="bias"):
        load_checkpoint(saved(tmp_path / "x.pt", {**SMALL, "bias": torch.tensor([1.0, value])}))


def test_missing_unknown_and_misshapen_entries_are_reported_together() -> None:
    net = torch.nn.Linear(3, 2)
    before = net.weight.clone()
    with pytest.raises(MismatchedWeights, match=r"lacks bias; .* unknown scale; .* weight \(3, 2\) \(not \(2, 3\)\)"):
        load_into(net, {"weight": torch.ones(3, 2), "scale": torch.ones(1)})
    assert torch.equal(net.weight, before)


def test_many_missing_entries_are_counted() -> None:
    with pytest.raises(MismatchedWeights, match=r"lacks backbone.* and 438 more"):
        load_into(MODNet(), {})


def test_differing_copies_of_the_backbone_are_rejected() -> None:
    published = published_modnet.state()
    name = "module.lr_branch.backbone.model.features.3.conv.0.weight"
    published[name] = published[name] + 1
    with pytest.raises(MismatchedWeights, match="two copies"):
        modnet_state(published)


def test_a_state_dict_without_prefix_and_second_backbone_is_unchanged() -> None:
    once = MODNet().state_dict()
    assert modnet_state(once).keys() == once.keys()

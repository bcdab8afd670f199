from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from typer.testing import CliRunner  # noqa: E402 - what follows needs torch

from cli.app import app  # noqa: E402
from sagemaker_model.nets.attention_unet import AttentionUNet  # noqa: E402
from sagemaker_model.training.train import save_weights  # noqa: E402
from sagemaker_model.weights.checkpoints import load_checkpoint  # noqa: E402


def weights(path: Path, seed: int, filters: int = 4) -> Path:
    torch.manual_seed(seed)
    net = AttentionUNet(filters)
    net.train()(torch.rand(2, 3, 32, 32))  # norms count
    save_weights(net, path)
    return path


def blend(*words: object) -> str:
    result = CliRunner().invoke(app, ["blend", "attention-unet", *map(str, words)])
    return "" if result.exit_code == 0 else result.output


def test_weights_between_two_are_between_them(tmp_path: Path) -> None:
    start, end = weights(tmp_path / "a.safetensors", 0), weights(tmp_path / "b.safetensors", 1)
    assert not blend(start, end, tmp_path / "c.safetensors", "--share", "0.25")
    before, after, made = (load_checkpoint(tmp_path / f"{name}.safetensors") for name in "abc")
    assert made.keys() == after.keys()
    for name, tensor in made.items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, 0.75 * before[name] + 0.25 * after[name], atol=1e-6), name
        else:
            assert torch.equal(tensor, after[name]), name


def test_other_networks_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    start, end = weights(tmp_path / "a.safetensors", 0, filters=8), weights(tmp_path / "b.safetensors", 1)
    assert "other sizes" in blend(start, end, tmp_path / "c.safetensors")
    assert not (tmp_path / "c.safetensors").exists()

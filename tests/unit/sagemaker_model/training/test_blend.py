from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from typer.testing import CliRunner  # noqa: E402 - needs torch

from cli.app import app  # noqa: E402
from sagemaker_model.nets.attention_unet import AttentionUNet  # noqa: E402
from sagemaker_model.training.train import save_weights  # noqa: E402
from sagemaker_model.weights.checkpoints import load_checkpoint  # noqa: E402


def weights(path: Path, seed: int, filters: int = 4) -> Path:
    torch.manual_seed(seed)
    net = AttentionUNet(filters)
    net.train()(torch.rand(2, 3, 32, 32))  # updates the counters of the norms
    save_weights(net, path)
    return path


def blend(*words: object) -> str:
    result = CliRunner().invoke(app, ["blend", "attention-unet", *map(str, words)])
    return "" if result.exit_code == 0 else result.output


def test_blended_weights_are_interpolated_and_counters_are_those_of_the_end(tmp_path: Path) -> None:
    start, end = weights(tmp_path / "a.safetensors", 0), weights(tmp_path / "b.safetensors", 1)
    assert not blend(start, end, tmp_path / "c.safetensors", "--share", "0.25")
    start_state, end_state, blended = (load_checkpoint(tmp_path / f"{name}.safetensors") for name in "abc")
    assert blended.keys() == end_state.keys()
    for name, tensor in blended.items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, 0.75 * start_state[name] + 0.25 * end_state[name], atol=1e-6), name
        else:
            assert torch.equal(tensor, end_state[name]), name


def test_weights_of_different_sizes_are_rejected_without_output(tmp_path: Path) -> None:
    start, end = weights(tmp_path / "a.safetensors", 0, filters=8), weights(tmp_path / "b.safetensors", 1)
    assert "different sizes" in blend(start, end, tmp_path / "c.safetensors")
    assert not (tmp_path / "c.safetensors").exists()

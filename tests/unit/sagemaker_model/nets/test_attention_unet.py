from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from sagemaker_model.nets.attention_unet import AttentionUNet  # noqa: E402 - it needs torch


@pytest.mark.parametrize(("filters", "parameters"), [(8, 519_437), (12, 1_167_185), (16, 2_073_621)])
def test_the_number_of_parameters_is_as_documented(filters: int, parameters: int) -> None:
    assert sum(parameter.numel() for parameter in AttentionUNet(filters).parameters()) == parameters


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
@torch.inference_mode()
def test_a_matte_has_the_size_of_its_image_and_values_in_0_to_1(size: tuple[int, int]) -> None:
    matte = AttentionUNet(4).eval()(torch.rand(2, 3, *size))
    assert matte.shape == (2, 1, *size)
    assert 0 <= matte.min() < matte.max() <= 1


@torch.inference_mode()
def test_the_matte_is_the_sigmoid_of_the_logits() -> None:
    net, image = AttentionUNet(4).eval(), torch.rand(1, 3, 32, 32)
    assert torch.equal(net(image), net.logits(image).sigmoid())


def test_every_parameter_gets_a_gradient() -> None:
    net = AttentionUNet(4).train()
    net(torch.rand(2, 3, 32, 32)).mean().backward()
    assert [name for name, parameter in net.named_parameters() if not parameter.grad.abs().sum()] == []


@torch.inference_mode()
def test_a_closed_gate_blocks_the_features_of_the_finer_level() -> None:
    net, image = AttentionUNet(4, depth=1).eval(), torch.rand(1, 3, 16, 16)
    captured = {}
    net.up[0].register_forward_pre_hook(lambda _, inputs: captured.update(features=inputs[0]))
    net.gates[0].weight[1].bias.fill_(-1e4)
    net(image)
    assert not captured["features"][:, :4].any()
    assert captured["features"][:, 4:].any()

"""MODNet compared with the published network, reimplemented in `published_modnet`."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from sagemaker_model.nets.modnet import MODNet  # noqa: E402
from sagemaker_model.weights.checkpoints import load_into, modnet_state  # noqa: E402 - they need torch
from tests.unit.sagemaker_model.nets import published_modnet  # noqa: E402


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def published_net(seed: int = 0) -> MODNet:
    net = MODNet()
    load_into(net, modnet_state(published_modnet.state(seed)))
    return net


def test_the_state_dict_is_the_published_one_with_the_backbone_once() -> None:
    ours = {name: tuple(tensor.shape) for name, tensor in MODNet().state_dict().items()}
    published = published_modnet.shapes()
    twice = {name for name in published if name.startswith("lr_branch.backbone.")}
    assert len(published) == 751
    assert len(twice) == 312
    assert ours == {name: shape for name, shape in published.items() if name not in twice}


def test_it_has_as_many_parameters_as_the_published_one() -> None:
    assert sum(parameter.numel() for parameter in MODNet().parameters()) == 6_487_075


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("backbone.model.features.0.0.weight", (32, 3, 3, 3)),
        ("backbone.model.features.1.conv.3.weight", (16, 32, 1, 1)),
        ("backbone.model.features.14.conv.3.weight", (576, 1, 3, 3)),
        ("backbone.model.features.17.conv.7.running_var", (320,)),
        ("backbone.model.features.18.1.bias", (1280,)),
        ("lr_branch.se_block.fc.0.weight", (320, 1280)),
        ("lr_branch.conv_lr16x.layers.0.weight", (96, 1280, 5, 5)),
        ("lr_branch.conv_lr16x.layers.1.bnorm.weight", (48,)),
        ("lr_branch.conv_lr.layers.0.bias", (1,)),
        ("hr_branch.conv_hr4x.0.layers.0.weight", (64, 99, 3, 3)),
        ("hr_branch.conv_hr2x.3.layers.1.bnorm.running_mean", (16,)),
        ("hr_branch.conv_hr.1.layers.0.weight", (1, 32, 1, 1)),
        ("f_branch.conv_lr4x.layers.0.weight", (32, 32, 5, 5)),
        ("f_branch.conv_f.0.layers.1.bnorm.num_batches_tracked", ()),
        ("f_branch.conv_f.1.layers.0.weight", (1, 16, 1, 1)),
    ],
)
def test_parameters_have_the_published_names_and_shapes(name: str, shape: tuple[int, ...]) -> None:
    assert tuple(MODNet().state_dict()[name].shape) == shape


@pytest.mark.parametrize("shape", [(2, 3, 64, 96), (1, 3, 32, 32), (1, 3, 256, 128)])
@pytest.mark.parametrize("seed", [0, 1])
@torch.inference_mode()
def test_its_outputs_are_those_of_the_published_network(seed: int, shape: tuple[int, ...]) -> None:
    net, x = published_net(seed).eval(), images(*shape)
    semantic, detail, matte = published_modnet.forward(published_modnet.state(seed), x)
    assert matte.std() > 0.01  # a constant matte would make the comparison meaningless
    assert torch.allclose(net(x), matte, rtol=0, atol=1e-4)
    net.training = True  # returns all outputs, with the norms still in eval mode
    for ours, published in zip(net(x), (semantic, detail, matte), strict=True):
        assert torch.allclose(ours, published, rtol=0, atol=1e-4)


def test_eval_mode_returns_the_matte_and_training_mode_all_three_outputs() -> None:
    net, x = published_net(), images(2, 3, 64, 96)
    matte = net.eval()(x)
    assert matte.shape == (2, 1, 64, 96)
    assert 0 <= matte.min() < matte.max() <= 1
    semantic, detail, matte = net.train()(x)
    assert semantic.shape == (2, 1, 4, 6)
    assert detail.shape == matte.shape == (2, 1, 64, 96)


def test_every_parameter_gets_a_gradient() -> None:
    net = published_net().train()
    sum(output.mean() for output in net(images(2, 3, 64, 64))).backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


@torch.inference_mode()
def test_an_image_has_the_same_matte_in_a_batch_as_on_its_own() -> None:
    net, x = published_net().eval(), images(3, 3, 64, 64)
    assert torch.allclose(net(x)[1:2], net(x[1:2]), rtol=0, atol=1e-4)

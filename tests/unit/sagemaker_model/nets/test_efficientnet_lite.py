"""EfficientNet-Lite0: the published form of its weights, and the small file made of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from torch import Tensor, nn  # noqa: E402
from torch.nn.functional import batch_norm, conv2d, pad  # noqa: E402

from sagemaker_model.engines.onnx_session import onnx_session  # noqa: E402
from sagemaker_model.export.places import PLACES, Place, with_small_weights  # noqa: E402
from sagemaker_model.nets.efficientnet_lite import CLASSES, NORM_EPSILON, EfficientNetLite, load  # noqa: E402


def published(net: EfficientNetLite) -> dict[str, Tensor]:
    """Returns random weights in the published form."""
    random = torch.Generator().manual_seed(0)
    state = {}

    def layer(name: str, norm: str, conv: nn.Conv2d) -> None:
        state[f"{name}.weight"] = torch.randn(conv.weight.shape, generator=random) / math.sqrt(conv.weight[0].numel())
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{part}"] = torch.rand(len(conv.weight), generator=random) + 0.5

    layer("_conv_stem", "_bn0", net.stem.conv)
    for n, block in enumerate(net.blocks):
        if block.expand is not None:
            layer(f"_blocks.{n}._expand_conv", f"_blocks.{n}._bn0", block.expand.conv)
        layer(f"_blocks.{n}._depthwise_conv", f"_blocks.{n}._bn1", block.depthwise.conv)
        layer(f"_blocks.{n}._project_conv", f"_blocks.{n}._bn2", block.project.conv)
    layer("_conv_head", "_bn1", net.head.conv)
    state["_fc.weight"], state["_fc.bias"] = net.classify.weight.data, net.classify.bias.data
    return state


def test_the_norms_are_folded_and_the_padding_is_that_of_tensorflow() -> None:
    net = EfficientNetLite().eval()
    state = published(net)
    load(net, state)
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        x = conv2d(pad(image, (0, 1, 0, 1)), state["_conv_stem.weight"], stride=2)
        norm = [state[f"_bn0.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        expected = batch_norm(x, *norm, eps=NORM_EPSILON).clamp(0, 6)
        assert torch.allclose(net.stem(image), expected, atol=1e-5)
        assert net(image).shape == (1, CLASSES)


def test_weights_of_another_network_are_rejected() -> None:
    with pytest.raises(KeyError):
        load(EfficientNetLite(), {"stem.weight": torch.zeros(1)})


def test_the_share_of_places_is_that_of_their_classes() -> None:
    logits = torch.full((1, CLASSES), -20.0)
    logits[0, [PLACES[0], PLACES[-1], 0, 1]] = 0
    assert Place(lambda _: logits)(torch.zeros(1)).item() == pytest.approx(0.5)  # type: ignore[arg-type]


def test_small_weights_give_nearly_the_same_result(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 4)).eval()
    image = torch.rand(1, 3, 8, 8)
    large, small = tmp_path / "large.onnx", tmp_path / "small.onnx"
    torch.onnx.export(net, (image,), large, dynamo=False, opset_version=17, input_names=["image"])
    onnx.save(with_small_weights(onnx.load(large)), small)
    assert small.stat().st_size < large.stat().st_size / 2
    result = onnx_session(small, 1).run(None, {"image": image.numpy()})[0]
    assert np.allclose(result, net(image).detach().numpy(), atol=0.02)

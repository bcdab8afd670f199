"""BiRefNet compared with the published network, reimplemented in `published_birefnet`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from sagemaker_model.nets import birefnet, deform  # noqa: E402
from sagemaker_model.nets.birefnet import BACKBONES, Backbone, BiRefNet  # noqa: E402
from sagemaker_model.weights.checkpoints import MismatchedWeights, birefnet_state, load_checkpoint, load_into  # noqa: E402
from tests.unit.sagemaker_model.nets import published_birefnet as published  # noqa: E402

TINY = Backbone(published.TINY.width, (2, 2, 2, 2), (1, 2, 2, 4), published.TINY.window)
PUBLISHED = {"T": published.T, "L": published.L}


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def tiny_net(order: published.Order = "new", seed: int = 0) -> BiRefNet:
    net = birefnet.empty(TINY)
    load_into(net, birefnet_state(published.state(published.TINY, seed), old_tiles=order == "old"))
    return net.eval()


@cache
def on_meta(backbone: str) -> BiRefNet:
    with torch.device("meta"):
        return BiRefNet(BACKBONES[backbone]).eval()


# The layout of the published files


@pytest.mark.parametrize(("backbone", "entries", "parameters"), [("T", 586, 44_313_720), ("L", 754, 220_176_498)])
def test_the_state_dict_is_the_published_one(backbone: str, entries: int, parameters: int) -> None:
    net, layout = on_meta(backbone), published.shapes(PUBLISHED[backbone])
    assert len(layout) == entries
    assert {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()} == layout
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    integers = {name for name, tensor in net.state_dict().items() if tensor.dtype == torch.int64}
    assert len(integers) == {"T": 55, "L": 67}[backbone]


@pytest.mark.parametrize(
    ("backbone", "name", "shape"),
    [
        ("L", "bb.layers.2.blocks.17.attn.relative_position_bias_table", (529, 24)),
        ("L", "bb.layers.3.blocks.1.attn.relative_position_index", (144, 144)),
        ("L", "squeeze_module.0.conv_in.weight", (64, 5760, 3, 3)),
        ("L", "decoder.decoder_block4.conv_in.weight", (64, 3456, 3, 3)),
        ("L", "decoder.decoder_block1.conv_out.weight", (192, 64, 3, 3)),
        ("L", "decoder.ipt_blk5.conv1.weight", (64, 3072, 3, 3)),
        ("L", "decoder.lateral_block4.conv.weight", (1536, 1536, 1, 1)),
        ("L", "decoder.conv_out1.0.weight", (1, 240, 1, 1)),
        ("T", "bb.layers.0.blocks.0.attn.relative_position_bias_table", (169, 3)),
        ("T", "bb.layers.2.downsample.reduction.weight", (768, 1536)),
        ("T", "squeeze_module.0.dec_att.aspp_deforms.2.atrous_conv.offset_conv.weight", (98, 64, 7, 7)),
        ("T", "decoder.gdt_convs_attn_4.0.weight", (1, 16, 1, 1)),
        ("T", "decoder.conv_out1.0.weight", (1, 120, 1, 1)),
    ],
)
def test_entries_have_the_published_names_and_shapes(backbone: str, name: str, shape: tuple[int, ...]) -> None:
    assert tuple(on_meta(backbone).state_dict()[name].shape) == shape


def test_a_file_of_the_published_layout_in_float16_loads_strictly(tmp_path: Path) -> None:
    """The file has the published size in bytes, so its names, shapes and types are the published ones."""
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    path = tmp_path / "model.safetensors"
    safetensors.save_file(published.zeros(published.T, torch.float16), path, metadata={"format": "pt"})
    assert path.stat().st_size == 88_965_896
    net = birefnet.empty(BACKBONES["T"])
    load_into(net, birefnet_state(load_checkpoint(path), old_tiles=True))
    assert {tensor.dtype for tensor in net.state_dict().values()} == {torch.float32, torch.int64}
    assert not any(tensor.any() for tensor in net.state_dict().values())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.module."])
def test_a_released_pth_file_loads_with_any_chain_of_prefixes(prefix: str, tmp_path: Path) -> None:
    state = published.state(published.TINY)
    torch.save({f"{prefix}{name}": tensor for name, tensor in state.items()}, tmp_path / "epoch_244.pth")
    net = birefnet.empty(TINY)
    load_into(net, birefnet_state(load_checkpoint(tmp_path / "epoch_244.pth"), old_tiles=False))
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())


def test_a_file_of_another_backbone_or_an_older_layout_is_rejected_with_the_differences() -> None:
    with pytest.raises(MismatchedWeights, match=r"not for BiRefNet: .*another shape for bb\.patch_embed\.proj\.weight"):
        load_into(on_meta("L"), birefnet_state(published.zeros(published.T, torch.float16), old_tiles=True))
    before_may_2024 = {
        name: tensor for name, tensor in published.state(published.TINY).items() if "ipt_blk5" not in name
    }
    with pytest.raises(MismatchedWeights, match=r"lacks decoder\.ipt_blk5\.conv1\.weight and 3 more"):
        load_into(birefnet.empty(TINY), birefnet_state(before_may_2024, old_tiles=True))
    misshapen = published.state(published.TINY) | {"decoder.ipt_blk5.conv1.weight": torch.zeros(3, 5)}
    with pytest.raises(MismatchedWeights, match=r"another shape for decoder\.ipt_blk5\.conv1\.weight"):
        load_into(birefnet.empty(TINY), birefnet_state(misshapen, old_tiles=True))


@pytest.mark.parametrize("row", [-1, 25])
def test_a_file_whose_index_leaves_its_table_is_rejected(row: int) -> None:
    """On a GPU such an index would crash the server."""
    state = published.state(published.TINY)
    state["bb.layers.1.blocks.0.attn.relative_position_index"][3, 4] = row
    with pytest.raises(MismatchedWeights, match=r"bb\.layers\.1\.blocks\.0\.attn\.relative_position_index has rows"):
        birefnet_state(state, old_tiles=False)


# The forward pass


@pytest.mark.parametrize(("height", "width", "order", "seed"), [(64, 64, "new", 0), (32, 96, "old", 1)])
@torch.inference_mode()
def test_its_logits_are_those_of_the_published_network(
    height: int, width: int, order: published.Order, seed: int
) -> None:
    x = images(1, 3, height, width)
    expected = published.forward(published.state(published.TINY, seed), published.TINY, x, order)
    assert expected.std() > 0.1  # constant logits would make the comparison meaningless
    net = tiny_net(order, seed)
    found = net.logits(x)
    assert found.shape == (1, 1, height, width)
    assert (found - expected).abs().max() <= 1e-4
    assert (net.double().logits(x.double()) - expected).abs().max() <= 1e-9


@torch.inference_mode()
def test_the_order_of_the_tiles_changes_the_logits() -> None:
    """So that an old checkpoint read as a new one would be noticed by the comparison above."""
    x = images(1, 3, 64, 64)
    assert (tiny_net("old").logits(x) - tiny_net("new").logits(x)).abs().max() > 0.01


@torch.inference_mode()
def test_the_matte_is_the_sigmoid_of_the_logits() -> None:
    net, x = tiny_net(), images(1, 3, 32, 64)
    assert torch.equal(net(x), torch.sigmoid(net.logits(x)))


@torch.inference_mode()
def test_a_batch_has_the_mattes_of_its_images() -> None:
    net, x = tiny_net(), images(3, 3, 64, 96)
    for number, matte in enumerate(net(x)):
        assert torch.allclose(matte, net(x[number : number + 1])[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "height", "width"), [("L", 1024, 1024), ("L", 288, 416), ("T", 1440, 2560), ("T", 32, 32)]
)
def test_a_network_of_published_size_takes_any_multiple_of_32(backbone: str, height: int, width: int) -> None:
    x = torch.zeros(2, 3, height, width, device="meta")
    assert on_meta(backbone)(x).shape == (2, 1, height, width)


@pytest.mark.parametrize(("height", "width"), [(272, 256), (256, 272), (16, 32)])
def test_other_sizes_are_rejected(height: int, width: int) -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        tiny_net()(torch.zeros(1, 3, height, width))


@torch.inference_mode()
def test_the_twelve_entries_of_the_supervision_are_loaded_and_not_used() -> None:
    net = tiny_net()
    unused = [name for name in net.state_dict() if "conv_ms_spvn" in name or "gdt_convs_pred" in name]
    assert len(unused) == 12
    for name in unused:
        net.state_dict()[name].fill_(float("nan"))
    assert net(images(1, 3, 32, 32)).isfinite().all()


# Deformable convolutions


def arguments(side: int, batch: int = 1) -> tuple[torch.Tensor, ...]:
    """Arguments on a map of 7x5, with positions far outside of it."""
    generator = torch.Generator().manual_seed(side)
    x, offset, mask, weight = (
        torch.randn(shape, generator=generator)
        for shape in ((batch, 4, 7, 5), (batch, 2 * side**2, 7, 5), (batch, side**2, 7, 5), (6, 4, side, side))
    )
    return x, 3 * offset, mask, weight


@pytest.mark.parametrize("side", [1, 3, 7])
def test_a_deformable_convolution_is_that_of_the_loop_over_its_pixels(side: int) -> None:
    x, offset, mask, weight = arguments(side, batch=2)
    found = deform.plain_deform_conv(x, offset, mask, weight, side // 2)
    for number in range(2):
        one = [tensor.double().numpy() for tensor in (x[number], offset[number], mask[number], weight)]
        expected = torch.from_numpy(published.deformable(*one, side))
        assert (found[number] - expected).abs().max() <= 1e-4


def test_positions_that_are_not_numbers_give_a_result_that_is_not_a_number() -> None:
    x, offset, mask, weight = arguments(3)
    offset[0, 8, 2, 2], offset[0, 9, 4, 4] = float("nan"), float("inf")
    found = deform.plain_deform_conv(x, offset, mask, weight, 1)
    assert found.isnan().any(1).sum() == 2


def test_without_offsets_it_is_a_plain_convolution() -> None:
    x, offset, mask, weight = arguments(3)
    found = deform.plain_deform_conv(x, 0 * offset, torch.ones_like(mask), weight, 1)
    assert torch.allclose(found, torch.nn.functional.conv2d(x, weight, padding=1), rtol=0, atol=1e-5)


def test_the_bands_of_a_map_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = deform.plain_deform_conv(*arguments(3), 1)
    monkeypatch.setattr(deform, "BAND_BYTES", {"cpu": 1, "cuda": 1})
    assert torch.allclose(deform.plain_deform_conv(*arguments(3), 1), whole, rtol=0, atol=1e-5)


@pytest.fixture
def chosen_anew() -> Iterator[None]:
    """The form of each device is chosen again, in the test and after it."""
    deform.operator_for.cache_clear()
    yield
    deform.operator_for.cache_clear()


@pytest.mark.usefixtures("chosen_anew")
def test_torchvision_computes_it_where_its_operator_works(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def deform_conv2d(x, offset, weight, padding, mask):
        calls.append(len(x))
        return deform.plain_deform_conv(x, offset, mask, weight, padding[0])

    ops = ModuleType("torchvision.ops")
    ops.deform_conv2d = deform_conv2d
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.ops", ops)
    found = deform.deform_conv(*arguments(3, batch=2), 1)
    assert torch.equal(found, deform.plain_deform_conv(*arguments(3, batch=2), 1))
    assert calls == [1, 2]  # the first with zeros, to see whether it works
    monkeypatch.setattr(deform, "COLUMNS_BYTES", 0)  # a batch whose samples would not fit into the memory
    assert torch.allclose(deform.deform_conv(*arguments(3, batch=2), 1), found, rtol=0, atol=1e-5)
    assert calls == [1, 2, 1, 1]


@pytest.mark.usefixtures("chosen_anew")
@pytest.mark.parametrize("error", [ImportError("absent"), RuntimeError("operator torchvision::nms does not exist")])
def test_without_torchvision_the_plain_form_does(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(deform, "torchvision_deform_conv", fail)
    assert deform.operator_for("cpu") is deform.plain_deform_conv


# Parts


def test_a_window_of_a_shifted_map_has_the_published_mask() -> None:
    """4x4 tokens, windows of 2, shift 1: the last row and column of windows hold tokens of both ends of the map."""
    upper_left, upper_right, lower_left, lower_right = birefnet.shift_mask(4, 4, 2, 1, torch.device("cpu"))
    assert not upper_left.any()
    assert upper_right[0].tolist() == [False, True, False, True]
    assert lower_left[0].tolist() == [False, False, True, True]
    assert lower_right[0].tolist() == [False, True, True, True]


def test_the_rows_of_the_bias_table_are_the_published_ones() -> None:
    for window in (2, 3, 7, 12):
        assert birefnet.relative_positions(window).tolist() == published.bias_rows(window)

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from sagemaker_model.nets.tiny_detector import LOG_SIZE_MAX, PRIOR, TinyDetector, cells, decode  # noqa: E402


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
@torch.inference_mode()
def test_every_cell_has_a_box_and_a_logit_for_each_class(size: tuple[int, int]) -> None:
    boxes, logits = TinyDetector(("a", "b", "c"), 4).eval()(torch.rand(2, 3, *size))
    count = sum(size[0] // stride * (size[1] // stride) for stride in (8, 16, 32))
    assert (boxes.shape, logits.shape) == ((2, count, 4), (2, count, 3))
    assert (boxes[..., :2] < boxes[..., 2:]).all()


def test_cells_are_in_the_order_of_rows_with_their_centres_in_pixels() -> None:
    centres, strides = cells(32, 64)
    assert centres[:9].tolist() == [[4 + 8 * x, 4] for x in range(8)] + [[4, 12]]
    assert centres[32:36].tolist() == [[8, 8], [24, 8], [40, 8], [56, 8]]
    assert centres[40:].tolist() == [[16, 16], [48, 16]]
    assert strides[:, 0].tolist() == [8] * 32 + [16] * 8 + [32] * 2


def test_a_box_is_an_offset_and_the_logarithms_of_its_sides_in_cells() -> None:
    centres, strides = torch.tensor([[12.0, 20.0]]), torch.tensor([[8.0]])
    raw = torch.tensor([[[0.5, -1.0, 0.0, float(torch.tensor(2.0).log())]]])
    assert torch.allclose(decode(raw, centres, strides), torch.tensor([[[12.0, 4, 20, 20]]]))
    assert decode(torch.full((1, 1, 4), 1e6), centres, strides).isfinite().all()
    assert LOG_SIZE_MAX < 88  # exp(89) overflows float32


@torch.inference_mode()
def test_an_untrained_network_gives_low_scores() -> None:
    torch.manual_seed(0)
    _, logits = TinyDetector(("a", "b"), 8).eval()(torch.rand(1, 3, 64, 64))
    assert 0.3 * PRIOR < logits.sigmoid().mean() < 3 * PRIOR


def test_a_network_is_restored_from_its_metadata_with_classes_in_order() -> None:
    restored = TinyDetector.restored(TinyDetector(("zebra", "ant"), 6).metadata)
    assert (restored.names, restored.filters) == (("zebra", "ant"), 6)


def test_a_detector_without_classes_is_an_error() -> None:
    with pytest.raises(ValueError, match="class"):
        TinyDetector(())


@pytest.mark.parametrize("count", [1, 80])
def test_the_default_size_is_below_ten_megabytes(count: int) -> None:
    assert sum(weight.numel() for weight in TinyDetector(tuple(map(str, range(count)))).parameters()) * 4 < 10e6

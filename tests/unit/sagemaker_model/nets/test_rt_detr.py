from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import safetensors.torch  # noqa: E402

from sagemaker_model.nets.rt_detr import RtDetr, r18  # noqa: E402
from sagemaker_model.weights.checkpoints import MismatchedWeights, load_into  # noqa: E402
from sagemaker_model.weights.store import InvalidWeights  # noqa: E402
from tests.unit.sagemaker_model.nets.small_rt_detr import save, small_rt_detr  # noqa: E402


@torch.inference_mode()
def test_boxes_are_corners_in_pixels_of_the_input() -> None:
    net, x = small_rt_detr("a", "b").eval(), torch.rand(2, 3, 64, 96)
    boxes, logits = net(x)
    assert (boxes.shape, logits.shape) == ((2, 20, 4), (2, 20, 2))
    centres = net.net(pixel_values=x).pred_boxes
    assert torch.allclose((boxes[..., 0] + boxes[..., 2]) / 2, centres[..., 0] * 96, atol=1e-4)
    assert torch.allclose(boxes[..., 3] - boxes[..., 1], centres[..., 3] * 64, atol=1e-4)


def test_the_loss_is_lower_for_the_boxes_that_the_network_finds() -> None:
    pytest.importorskip("scipy", reason="scipy is not installed")
    net = small_rt_detr("a", "b").eval()
    net.net.config.num_denoising = 0
    x = torch.rand(1, 3, 64, 64)
    boxes, logits = net(x)
    at = int(logits[0].max(1).values.argmax())
    found = torch.cat((logits[0, at].argmax()[None].float(), boxes[0, at].detach()))
    none = torch.full((5,), -1.0)
    far = torch.cat((1 - found[:1], torch.tensor([0.0, 0, 3, 3])))
    losses = [net.loss(x, torch.stack((objects, none))[None]).detach() for objects in (found, far)]
    assert losses[0] < losses[1]
    assert net.loss(x, none.expand(1, 2, 5)).isfinite()  # an image without objects


def test_a_folder_of_save_pretrained_is_loaded_with_its_weights(tmp_path: Path) -> None:
    loaded = RtDetr(("c", "d"), save(tmp_path, "a", "b"))
    expected = small_rt_detr("a", "b").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())
    assert loaded.net.config.id2label == {0: "c", 1: "d"}


def test_the_last_layers_of_a_folder_are_replaced_for_another_number_of_classes(tmp_path: Path) -> None:
    loaded = RtDetr(("c", "d", "e"), save(tmp_path, "a", "b")).eval()
    with torch.inference_mode():
        assert loaded(torch.rand(1, 3, 64, 64))[1].shape == (1, 20, 3)
    name = "net.model.backbone.model.embedder.embedder.0.convolution.weight"
    assert torch.equal(loaded.state_dict()[name], small_rt_detr("a", "b").state_dict()[name])


def test_a_folder_without_config_or_with_missing_weights_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InvalidWeights, match=r"save_pretrained"):
        RtDetr(("a",), tmp_path)
    file = save(tmp_path, "a") / "model.safetensors"
    state = safetensors.torch.load_file(file)
    state.pop(next(name for name in state if "backbone" in name))
    safetensors.torch.save_file(state, file, {"format": "pt"})
    with pytest.raises(MismatchedWeights, match="backbone"):
        RtDetr(("a",), tmp_path)


def test_a_network_is_restored_from_its_metadata() -> None:
    net = small_rt_detr("zebra", "ant")
    restored = RtDetr.restored(net.metadata)
    assert restored.names == ("zebra", "ant")
    load_into(restored, net.state_dict())


def test_random_weights_have_the_sizes_of_r18() -> None:
    with torch.device("meta"):
        net = RtDetr(("a",), config=r18())
    assert 19e6 < sum(weight.numel() for weight in net.parameters()) < 21e6


@torch.inference_mode()
def test_random_weights_give_different_queries() -> None:
    """With the initial weights of transformers, all queries of an image are equal, and export and training fail."""
    _, logits = small_rt_detr("a", "b").eval()(torch.rand(1, 3, 64, 64))
    assert logits.std(1).min() > 1e-3

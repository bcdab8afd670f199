"""The objective of Mask R-CNN, with a fake detector where torchvision is not needed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from maskdrop.settings import InvalidSettings  # noqa: E402 - needs torch
from sagemaker_model.training.objectives import Instance, objective_of  # noqa: E402
from sagemaker_model.training.settings import SETTINGS  # noqa: E402

TORCHVISION = importlib.util.find_spec("torchvision") is not None

Instances = list[dict[str, torch.Tensor]]


class FakeDetector(torch.nn.Module):
    """Like torchvision's detectors: returns losses with targets, else detections."""

    def __init__(self, detections: Instances) -> None:
        super().__init__()
        self.detections, self.targets = detections, []

    def forward(
        self, images: list[torch.Tensor], targets: Instances | None = None
    ) -> dict[str, torch.Tensor] | Instances:
        if targets is None:
            return self.detections
        self.targets += targets
        return {"loss_mask": torch.tensor(2.0), "loss_box_reg": torch.tensor(0.5)}


def test_a_mask_is_one_instance_in_its_box_and_an_empty_mask_is_no_instance() -> None:
    alpha = torch.zeros(2, 1, 8, 10)
    alpha[0, 0, 2:5, 3:9] = 1
    net = FakeDetector([])
    loss = Instance(net)(torch.rand(2, 3, 8, 10), alpha)
    assert loss.item() == 2.5
    subject, empty = net.targets
    assert subject["boxes"].tolist() == [[3, 2, 8, 4]]
    assert subject["labels"].tolist() == [1]
    assert torch.equal(subject["masks"][0], alpha[0, 0].to(torch.uint8))
    assert [len(empty[name]) for name in ("boxes", "labels", "masks")] == [0, 0, 0]


def test_the_matte_is_the_mask_with_the_highest_score_or_empty() -> None:
    masks = torch.rand(2, 1, 8, 10)
    net = FakeDetector([{"masks": masks}, {"masks": masks[:0]}])
    matte = Instance(net).matte(net, torch.rand(2, 3, 8, 10))
    assert matte.shape == (2, 1, 8, 10)
    assert torch.equal(matte[0], masks[0])
    assert not matte[1].any()


@pytest.mark.skipif(TORCHVISION, reason="torchvision is installed")
def test_mask_rcnn_without_torchvision_raises_invalid_settings() -> None:
    with pytest.raises(InvalidSettings, match="torchvision"):
        objective_of("mask-rcnn", SETTINGS["mask-rcnn"], None)


@pytest.mark.skipif(not TORCHVISION, reason="torchvision is not installed")
def test_mask_rcnn_trains_only_its_heads_and_replaces_the_91_published_classes(tmp_path: Path) -> None:
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    published = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    torch.save(published, tmp_path / "published.pth")
    objective = objective_of("mask-rcnn", SETTINGS["mask-rcnn"], tmp_path / "published.pth")
    trainable = {name for name, parameter in objective.net.named_parameters() if parameter.requires_grad}
    assert trainable
    assert all(name.startswith("roi_heads.") for name in trainable)
    state = objective.net.state_dict()
    assert torch.equal(state["backbone.body.conv1.weight"], published["backbone.body.conv1.weight"])
    assert len(state["roi_heads.box_predictor.cls_score.bias"]) == 2

"""Mask R-CNN's part of the loop, with a network in its place where torchvision is not needed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from maskdrop.settings import InvalidSettings  # noqa: E402 - they need torch
from sagemaker_model.training.objectives import Instance, objective_of  # noqa: E402
from sagemaker_model.training.settings import SETTINGS  # noqa: E402

TORCHVISION = importlib.util.find_spec("torchvision") is not None

Instances = list[dict[str, torch.Tensor]]


class Detector(torch.nn.Module):
    """As torchvision's: losses in training, else what was found."""

    def __init__(self, found: Instances) -> None:
        super().__init__()
        self.found, self.targets = found, []

    def forward(
        self, pictures: list[torch.Tensor], targets: Instances | None = None
    ) -> dict[str, torch.Tensor] | Instances:
        if targets is None:
            return self.found
        self.targets += targets
        return {"loss_mask": torch.tensor(2.0), "loss_box_reg": torch.tensor(0.5)}


def test_a_mask_is_one_instance_in_its_box_and_an_empty_one_none() -> None:
    alpha = torch.zeros(2, 1, 8, 10)
    alpha[0, 0, 2:5, 3:9] = 1
    net = Detector([])
    loss = Instance(net)(torch.rand(2, 3, 8, 10), alpha)
    assert loss.item() == 2.5
    subject, nothing = net.targets
    assert subject["boxes"].tolist() == [[3, 2, 8, 4]]
    assert subject["labels"].tolist() == [1]
    assert torch.equal(subject["masks"][0], alpha[0, 0].to(torch.uint8))
    assert [len(nothing[name]) for name in ("boxes", "labels", "masks")] == [0, 0, 0]


def test_the_matte_is_the_mask_of_the_best_score_and_empty_where_nothing_was_found() -> None:
    masks = torch.rand(2, 1, 8, 10)
    net = Detector([{"masks": masks}, {"masks": masks[:0]}])
    matte = Instance(net).matte(net, torch.rand(2, 3, 8, 10))
    assert matte.shape == (2, 1, 8, 10)
    assert torch.equal(matte[0], masks[0])
    assert not matte[1].any()


@pytest.mark.skipif(TORCHVISION, reason="torchvision is installed")
def test_without_torchvision_mask_rcnn_says_what_it_needs() -> None:
    with pytest.raises(InvalidSettings, match="torchvision"):
        objective_of("mask-rcnn", SETTINGS["mask-rcnn"], None)


@pytest.mark.skipif(not TORCHVISION, reason="torchvision is not installed")
def test_only_the_heads_of_mask_rcnn_learn_and_91_published_classes_become_two(tmp_path: Path) -> None:
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    published = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    torch.save(published, tmp_path / "published.pth")
    objective = objective_of("mask-rcnn", SETTINGS["mask-rcnn"], tmp_path / "published.pth")
    learned = {name for name, parameter in objective.net.named_parameters() if parameter.requires_grad}
    assert learned
    assert all(name.startswith("roi_heads.") for name in learned)
    state = objective.net.state_dict()
    assert torch.equal(state["backbone.body.conv1.weight"], published["backbone.body.conv1.weight"])
    assert len(state["roi_heads.box_predictor.cls_score.bias"]) == 2

"""Mask R-CNN (He et al., 2017): torchvision's, ResNet-50 with FPN, with the classes background and subject.

Names of the weights are torchvision's. Importing this module raises NotInstalled if torchvision is missing or its
compiled operators are not those of the installed torch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sagemaker_model.weights.store import NotInstalled

try:
    from torchvision.models import detection
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops import FrozenBatchNorm2d
except (ImportError, RuntimeError) as missing:  # RuntimeError: torchvision was built for another build of torch
    raise NotInstalled(
        f"mask-rcnn needs torchvision for the installed torch, and it cannot be imported ({missing}): "
        "install the extra `mask-rcnn` of pyproject.toml."
    ) from missing

SIDE = 800
"""Side of the square to which images are resized, in pixels: the shorter side in torchvision's training."""


class MaskRCNN(detection.MaskRCNN):  # type: ignore[misc]  # torchvision has no types
    """From images Nx3xHxW in 0..1 to mattes Nx1xHxW in 0..1: in each, the mask with the highest score, or zeros.

    Only the heads are trainable; the backbone with its norms and the region proposals are frozen. The buffer `side` is
    saved with the weights, so that they are used at the size at which they were trained.
    """

    side: Tensor
    one_image = True
    """Exported files accept one image at a time: the number of images is fixed when a graph is traced."""

    def __init__(self, side: int = SIDE) -> None:
        super().__init__(
            resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=0),
            num_classes=2,
            fixed_size=(side, side),
            box_detections_per_img=1,  # the highest score; each other detection would take a mask of the image's size
        )
        self.register_buffer("side", torch.tensor(side))
        for module in self.modules():
            if isinstance(module, FrozenBatchNorm2d):
                module.eps = 0.0  # the published weights were trained without epsilon
        for name, parameter in self.named_parameters():
            parameter.requires_grad = name.startswith("roi_heads.")

    def losses(self, image: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Returns torchvision's losses by name. The network must be in training mode. targets: boxes, labels and masks
        of each image."""
        losses: dict[str, Tensor] = super().forward(list(image), targets)
        return losses

    def forward(self, image: Tensor) -> Tensor:
        detections: list[dict[str, Tensor]] = super().forward(list(image))
        empty = torch.zeros_like(image[:1, :1])
        return torch.cat([torch.cat((one["masks"], empty))[:1] for one in detections])


def sized_for(state: Mapping[str, Tensor]) -> MaskRCNN:
    """Creates the network with the side of a state dict; SIDE if it has none."""
    return MaskRCNN(int(state.get("side", SIDE)))

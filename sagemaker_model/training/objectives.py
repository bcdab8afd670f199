"""What each network is trained for: its loss for a batch, and its matte for validation. One table at the end.

An objective is a module around the network, so that whatever else it holds is in the checkpoint too, and so that
PyTorch's DistributedDataParallel can wrap it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from maskdrop.settings import InvalidSettings
from sagemaker_model.training import losses
from sagemaker_model.training.settings import TrainingSettings
from sagemaker_model.weights.checkpoints import State, load_checkpoint, load_into, modnet_state
from sagemaker_model.weights.published import portrait_state

EDGE = 64
"""The band along the edge reaches a 64th of the square's side to both sides: 4 pixels of 256."""

TRIMAP = 32
"""MODNet's detail is learned within a 32nd: 16 pixels of 512."""


class Objective(nn.Module):
    """image: Nx3xHxW in 0..1. alpha: Nx1xHxW in 0..1. The network runs in `precision`, the loss in float32."""

    def __init__(self, net: nn.Module, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.net, self.precision = net, precision

    def forward(self, picture: Tensor, alpha: Tensor) -> Tensor:
        """The loss, a number."""
        with torch.autocast(picture.device.type, self.precision, enabled=self.precision != torch.float32):
            outputs = self.outputs(picture)
        return self.loss([output.float() for output in outputs], picture, alpha)

    def outputs(self, picture: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def loss(self, outputs: list[Tensor], picture: Tensor, alpha: Tensor) -> Tensor:
        """outputs: in float32."""
        raise NotImplementedError

    def matte(self, net: nn.Module, picture: Tensor) -> Tensor:
        """Nx1xHxW in 0..1, of a network like ours in eval mode."""
        return net(picture)

    def begin_epoch(self) -> None:
        """Called before the first batch of every epoch."""

    def learned(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.net.parameters() if parameter.requires_grad]


class Segmentation(Objective):
    """Of a network with `logits`: where the subject is, and its edge."""

    def outputs(self, picture: Tensor) -> tuple[Tensor, ...]:
        return (self.net.logits(picture),)

    def loss(self, outputs: list[Tensor], picture: Tensor, alpha: Tensor) -> Tensor:
        return losses.segmentation(outputs[0], alpha, max(1, picture.shape[-1] // EDGE))


class Matting(Objective):
    """Of MODNet, by masks."""

    def outputs(self, picture: Tensor) -> tuple[Tensor, ...]:
        return self.net(picture * 2 - 1)

    def loss(self, outputs: list[Tensor], picture: Tensor, alpha: Tensor) -> Tensor:
        semantic, detail, matte = outputs
        return losses.modnet(semantic, detail, matte, picture * 2 - 1, alpha, max(1, picture.shape[-1] // TRIMAP))

    def matte(self, net: nn.Module, picture: Tensor) -> Tensor:
        return net(picture * 2 - 1)


class SelfConsistency(Matting):
    """Of MODNet, by the images alone: masks are for validation. Norms stay as they are; `before` is the network as it
    was at the beginning of the epoch."""

    def __init__(self, net: nn.Module, precision: torch.dtype = torch.float32) -> None:
        super().__init__(net, precision)
        self.before = copy.deepcopy(net).requires_grad_(requires_grad=False)

    def train(self, mode: bool = True) -> SelfConsistency:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def begin_epoch(self) -> None:
        self.before.load_state_dict(self.net.state_dict())

    def outputs(self, picture: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            _, detail, matte = self.before(picture * 2 - 1)
        return (*self.net(picture * 2 - 1), detail, matte)

    def loss(self, outputs: list[Tensor], picture: Tensor, alpha: Tensor) -> Tensor:  # noqa: ARG002 - no mask is needed
        return losses.self_consistency(*outputs)


class Instance(Objective):
    """Of torchvision's Mask R-CNN, its heads alone: the backbone stays, norms and all. A mask is one instance. In
    training the network makes its losses itself."""

    def forward(self, picture: Tensor, alpha: Tensor) -> Tensor:
        with torch.autocast(picture.device.type, self.precision, enabled=self.precision != torch.float32):
            parts: dict[str, Tensor] = self.net(list(picture), [_target(mask) for mask in alpha[:, 0] > 0.5])
        return torch.stack([part.float() for part in parts.values()]).sum()

    def matte(self, net: nn.Module, picture: Tensor) -> Tensor:
        """The mask of the best score, and an empty one where nothing was found."""
        found = net(list(picture))
        return torch.stack(
            [one["masks"][0] if len(one["masks"]) else torch.zeros_like(picture[0, :1]) for one in found]
        )


def _target(mask: Tensor) -> dict[str, Tensor]:
    """HxW bool to boxes Nx4 (x0, y0, x1, y1), labels N and masks NxHxW; N is 1, or 0 where there is no subject."""
    ys, xs = torch.where(mask)
    wide = len(xs) > 0 and bool(xs.min() < xs.max()) and bool(ys.min() < ys.max())  # torchvision takes no flat box
    count = 1 if wide else 0
    corners = [xs.min(), ys.min(), xs.max(), ys.max()] if wide else []
    return {
        "boxes": torch.tensor(corners, dtype=torch.float32, device=mask.device).reshape(count, 4),
        "labels": torch.ones(count, dtype=torch.int64, device=mask.device),
        "masks": mask[None][:count].to(torch.uint8),
    }


# The networks, made when they are asked for: each needs packages of its own.


def _attention_unet(settings: TrainingSettings) -> nn.Module:
    from sagemaker_model.nets.attention_unet import AttentionUNet

    return AttentionUNet(settings.filters)


def _modnet(_settings: TrainingSettings) -> nn.Module:
    from sagemaker_model.nets.modnet import MODNet

    return MODNet()


def _portrait(_settings: TrainingSettings) -> nn.Module:
    from sagemaker_model.nets.portrait import Portrait

    return Portrait()


def _mask_rcnn(_settings: TrainingSettings) -> nn.Module:
    """torchvision's Mask R-CNN, ResNet-50 with FPN, for background and subject. Only the heads are learned; the norms
    of the backbone are frozen ones, without the small number that was added to variances later."""
    try:
        from torchvision.models.detection import MaskRCNN
        from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
        from torchvision.ops import FrozenBatchNorm2d
    except (ImportError, RuntimeError) as error:  # RuntimeError: one that was built for another torch
        raise InvalidSettings(f"mask-rcnn needs torchvision, which cannot be imported here: {error}") from error
    net = MaskRCNN(resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=0), num_classes=2)
    for module in net.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0  # as the published weights were trained
    for name, parameter in net.named_parameters():
        parameter.requires_grad = name.startswith("roi_heads.")
    return net


_NETWORKS: dict[str, tuple[Callable[[TrainingSettings], nn.Module], type[Objective]]] = {
    "attention-unet": (_attention_unet, Segmentation),
    "portrait": (_portrait, Segmentation),
    "modnet": (_modnet, Matting),
    "modnet-soc": (_modnet, SelfConsistency),
    "mask-rcnn": (_mask_rcnn, Instance),
}
"""The networks that can be trained; `settings.SETTINGS` has their settings."""

NEED_A_START = ("modnet-soc", "mask-rcnn")
"""Training these from random weights leads nowhere."""


def objective_of(
    network: str, settings: TrainingSettings, start: Path | None, precision: torch.dtype = torch.float32
) -> Objective:
    """start: weights to begin with. Raises InvalidSettings, InvalidWeights."""
    make, kind = _NETWORKS[network]
    net = make(settings)
    if start is not None:
        load_into(net, _state(network, net, start))
    elif network in NEED_A_START:
        raise InvalidSettings(f"{network} goes on from weights that are there: name them with --start.")
    return kind(net, precision)


def _state(network: str, net: nn.Module, start: Path) -> State:
    """The entries of a file, published ones by the names of our network. Raises InvalidWeights, NotInstalled."""
    if network == "portrait" and start.suffix == ".tflite":
        return portrait_state(start)
    state = load_checkpoint(start)
    if network.startswith("modnet"):
        return modnet_state(state)
    if network == "mask-rcnn":  # torchvision's know 91 classes: their last layers give way to ours
        ours = net.state_dict()
        same = {name: tensor for name, tensor in state.items() if ours.get(name, tensor).shape == tensor.shape}
        return {name: tensor for name, tensor in ours.items() if "_predictor." in name} | same
    return state

"""Training objectives: the loss of each network for a batch, and its matte for validation.

An objective is a module around the network. So its other state is part of the checkpoint, and PyTorch's
DistributedDataParallel can wrap it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from maskdrop.settings import InvalidSettings
from sagemaker_model.training import losses
from sagemaker_model.training.settings import TrainingSettings
from sagemaker_model.weights.checkpoints import State, load_checkpoint, load_into, mask_rcnn_state, modnet_state
from sagemaker_model.weights.published import portrait_state

if TYPE_CHECKING:
    from sagemaker_model.nets.attention_unet import AttentionUNet
    from sagemaker_model.nets.mask_rcnn import MaskRCNN
    from sagemaker_model.nets.portrait import Portrait

EDGE_DIVISOR = 64
"""The edge band extends by 1/64 of the square's side to both sides: 4 pixels of 256."""

TRIMAP_DIVISOR = 32
"""MODNet's detail is trained within 1/32 of the square's side: 16 pixels of 512."""


class Objective(nn.Module):
    """A network with its loss. The network runs in `precision`, the loss in float32.

    image: Nx3xHxW in 0..1. alpha: Nx1xHxW in 0..1.
    """

    def __init__(self, net: nn.Module, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.net, self.precision = net, precision

    def forward(self, image: Tensor, alpha: Tensor) -> Tensor:
        """Returns the loss, a number."""
        with torch.autocast(image.device.type, self.precision, enabled=self.precision != torch.float32):
            outputs = self.outputs(image)
        return self.loss([output.float() for output in outputs], image, alpha)

    def outputs(self, image: Tensor) -> tuple[Tensor, ...]:
        """Returns the outputs of the network that the loss needs."""
        raise NotImplementedError

    def loss(self, outputs: list[Tensor], image: Tensor, alpha: Tensor) -> Tensor:
        """Returns the loss. outputs: in float32."""
        raise NotImplementedError

    def matte(self, net: nn.Module, image: Tensor) -> Tensor:
        """Returns the matte, Nx1xHxW in 0..1. net: a network of the same class as `self.net`, in eval mode."""
        matte: Tensor = net(image)
        return matte

    def begin_epoch(self) -> None:
        """Called before the first batch of every epoch."""

    def trainable_parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.net.parameters() if parameter.requires_grad]


class Segmentation(Objective):
    """The objective of a network with the method `logits`: mask and edge of the subject."""

    net: AttentionUNet | Portrait

    def outputs(self, image: Tensor) -> tuple[Tensor, ...]:
        return (self.net.logits(image),)

    def loss(self, outputs: list[Tensor], image: Tensor, alpha: Tensor) -> Tensor:
        return losses.segmentation(outputs[0], alpha, max(1, image.shape[-1] // EDGE_DIVISOR))


class Matting(Objective):
    """MODNet's supervised objective."""

    def outputs(self, image: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.net(image * 2 - 1)
        return outputs

    def loss(self, outputs: list[Tensor], image: Tensor, alpha: Tensor) -> Tensor:
        semantic, detail, matte = outputs
        return losses.modnet(semantic, detail, matte, image * 2 - 1, alpha, max(1, image.shape[-1] // TRIMAP_DIVISOR))

    def matte(self, net: nn.Module, image: Tensor) -> Tensor:
        matte: Tensor = net(image * 2 - 1)
        return matte


class SelfConsistency(Matting):
    """MODNet's objective for images without masks; masks serve validation only. Norm layers are frozen.

    before: the network as it was at the beginning of the epoch. Checkpoints contain the attribute's name.
    """

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

    def outputs(self, image: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            _, detail, matte = self.before(image * 2 - 1)
        return (*self.net(image * 2 - 1), detail, matte)

    def loss(self, outputs: list[Tensor], image: Tensor, alpha: Tensor) -> Tensor:  # noqa: ARG002 - needs no mask
        return losses.self_consistency(*outputs)


class Instance(Objective):
    """The objective of torchvision's Mask R-CNN. Only the heads are trained; the backbone and its norms are frozen.

    A mask is one instance. In training mode, the network computes its losses itself.
    """

    net: MaskRCNN

    def forward(self, image: Tensor, alpha: Tensor) -> Tensor:
        with torch.autocast(image.device.type, self.precision, enabled=self.precision != torch.float32):
            parts = self.net.losses(image, [_target(mask) for mask in alpha[:, 0] > 0.5])
        return torch.stack([part.float() for part in parts.values()]).sum()


def _target(mask: Tensor) -> dict[str, Tensor]:
    """Converts a mask, HxW bool, to boxes Nx4 (x0, y0, x1, y1), labels N and masks NxHxW; N is 1, or 0 without a
    subject."""
    ys, xs = torch.where(mask)
    # torchvision rejects a box of zero width or height.
    has_box = len(xs) > 0 and bool(xs.min() < xs.max()) and bool(ys.min() < ys.max())
    count = 1 if has_box else 0
    corners = [xs.min(), ys.min(), xs.max(), ys.max()] if has_box else []
    return {
        "boxes": torch.tensor(corners, dtype=torch.float32, device=mask.device).reshape(count, 4),
        "labels": torch.ones(count, dtype=torch.int64, device=mask.device),
        "masks": mask[None][:count].to(torch.uint8),
    }


# Network factories. Each one imports its own packages when it is called.


def _attention_unet(settings: TrainingSettings) -> nn.Module:
    from sagemaker_model.nets.attention_unet import AttentionUNet

    return AttentionUNet(settings.filters)


def _modnet(_settings: TrainingSettings) -> nn.Module:
    from sagemaker_model.nets.modnet import MODNet

    return MODNet()


def _portrait(_settings: TrainingSettings) -> nn.Module:
    from sagemaker_model.nets.portrait import Portrait

    return Portrait()


def _mask_rcnn(settings: TrainingSettings) -> nn.Module:
    from sagemaker_model.nets.mask_rcnn import MaskRCNN

    return MaskRCNN(settings.side)


_NETWORKS: dict[str, tuple[Callable[[TrainingSettings], nn.Module], type[Objective]]] = {
    "attention-unet": (_attention_unet, Segmentation),
    "portrait": (_portrait, Segmentation),
    "modnet": (_modnet, Matting),
    "modnet-soc": (_modnet, SelfConsistency),
    "mask-rcnn": (_mask_rcnn, Instance),
}
"""The networks that can be trained. `settings.SETTINGS` has their settings."""

START_REQUIRED = ("modnet-soc", "mask-rcnn")
"""Networks that cannot be trained from random weights."""


def objective_of(
    network: str, settings: TrainingSettings, start: Path | None, precision: torch.dtype = torch.float32
) -> Objective:
    """Returns the objective of a network. start: initial weights; None for random ones.
    Raises InvalidSettings, InvalidWeights, NotInstalled."""
    create_network, create_objective = _NETWORKS[network]
    net = create_network(settings)
    if start is not None:
        load_into(net, _initial_state(network, net, start))
    elif network in START_REQUIRED:
        raise InvalidSettings(f"{network} requires initial weights: pass them with --start.")
    return create_objective(net, precision)


def _initial_state(network: str, net: nn.Module, start: Path) -> State:
    """Reads the entries of a weights file; renames published entries to those of the network.
    Raises InvalidWeights, NotInstalled."""
    if network == "portrait" and start.suffix == ".tflite":
        return portrait_state(start)
    state = load_checkpoint(start)
    if network.startswith("modnet"):
        return modnet_state(state)
    if network == "mask-rcnn":  # published weights have 91 classes: their last layers are replaced by new ones
        state, new = mask_rcnn_state(state), net.state_dict()
        same_shape = {name: tensor for name, tensor in state.items() if new.get(name, tensor).shape == tensor.shape}
        last_layers = {name: tensor for name, tensor in new.items() if "_predictor." in name}
        return last_layers | same_shape | {"side": new["side"]}
    return state

"""Training objectives: the loss of each network for a batch, and its validation.

An objective is a module around the network. So its other state is part of the checkpoint, and PyTorch's
DistributedDataParallel can wrap it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from maskdrop.settings import InvalidSettings
from sagemaker_model.data.detection import DetectionRecord
from sagemaker_model.detectors.suppression import suppress
from sagemaker_model.evaluation.detection import Found, coco_scores
from sagemaker_model.training import box_losses, losses
from sagemaker_model.training.samples import NO_OBJECT
from sagemaker_model.training.settings import TrainingSettings
from sagemaker_model.weights.checkpoints import State, load_checkpoint, load_into, mask_rcnn_state, modnet_state
from sagemaker_model.weights.published import portrait_state
from sagemaker_model.weights.store import NotInstalled

if TYPE_CHECKING:
    from sagemaker_model.nets.attention_unet import AttentionUNet
    from sagemaker_model.nets.mask_rcnn import MaskRCNN
    from sagemaker_model.nets.portrait import Portrait
    from sagemaker_model.nets.rt_detr import RtDetr
    from sagemaker_model.nets.tiny_detector import TinyDetector

EDGE_DIVISOR = 64
"""The edge band extends by 1/64 of the square's side to both sides: 4 pixels of 256."""

TRIMAP_DIVISOR = 32
"""MODNet's detail is trained within 1/32 of the square's side: 16 pixels of 512."""


MEASURED_SCORE_MIN = 0.01
"""Lowest score of the boxes that count for mAP. Boxes of lower scores change it by less than 0.001."""


class Objective(nn.Module):
    """A network with its loss. The network runs in `precision`, the loss in float32.

    image: Nx3xHxW in 0..1. target: of the objectives of mattes, the alpha Nx1xHxW in 0..1; of detectors, the objects of
    `samples.Batch`. metric: the result of `measure` that chooses the best weights. metadata: texts that a reader of the
    weights file needs.
    """

    metric = "iou"

    def __init__(self, net: nn.Module, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.net, self.precision = net, precision
        self.metadata: dict[str, str] = {}

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Returns the loss, a number."""
        with self.autocast(image):
            outputs = self.outputs(image)
        return self.loss([output.float() for output in outputs], image, target)

    def autocast(self, image: Tensor) -> torch.autocast:
        return torch.autocast(image.device.type, self.precision, enabled=self.precision != torch.float32)

    def outputs(self, image: Tensor) -> tuple[Tensor, ...]:
        """Returns the outputs of the network that the loss needs."""
        raise NotImplementedError

    def loss(self, outputs: list[Tensor], image: Tensor, target: Tensor) -> Tensor:
        """Returns the loss. outputs: in float32."""
        raise NotImplementedError

    def measure(self, net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Returns the validation of a network by metric, over all processes; {} without images.

        net: a network of the same class as `self.net`, in eval mode. batches: images and targets of this process.
        Here: the mean IoU at a threshold of 0.5.
        """
        total, count, device = 0.0, 0, next(net.parameters()).device
        for image, alpha in batches:
            with self.autocast(image):
                predicted = self.matte(net, image) > 0.5
            total += float(_batch_iou(predicted, alpha > 0.5).sum())
            count += len(image)
        sums = torch.tensor([total, count], dtype=torch.float64, device=device)
        if distributed.is_initialized():
            distributed.all_reduce(sums)
        return {self.metric: float(sums[0] / sums[1])} if sums[1] else {}

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

    def loss(self, outputs: list[Tensor], image: Tensor, target: Tensor) -> Tensor:
        return losses.segmentation(outputs[0], target, max(1, image.shape[-1] // EDGE_DIVISOR))


class Matting(Objective):
    """MODNet's supervised objective."""

    def outputs(self, image: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.net(image * 2 - 1)
        return outputs

    def loss(self, outputs: list[Tensor], image: Tensor, target: Tensor) -> Tensor:
        semantic, detail, matte = outputs
        return losses.modnet(semantic, detail, matte, image * 2 - 1, target, max(1, image.shape[-1] // TRIMAP_DIVISOR))

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

    def loss(self, outputs: list[Tensor], image: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002 - needs no mask
        return losses.self_consistency(*outputs)


class Instance(Objective):
    """The objective of torchvision's Mask R-CNN. Only the heads are trained; the backbone and its norms are frozen.

    A mask is one instance. In training mode, the network computes its losses itself.
    """

    net: MaskRCNN

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        with self.autocast(image):
            parts = self.net.losses(image, [_target(mask) for mask in target[:, 0] > 0.5])
        return torch.stack([part.float() for part in parts.values()]).sum()


class Detection(Objective):
    """The objective of TinyDetector: its loss in box_losses.py, and mAP as the metric."""

    net: TinyDetector | RtDetr
    metric = "map"

    def __init__(self, net: TinyDetector | RtDetr, precision: torch.dtype = torch.float32) -> None:
        super().__init__(net, precision)
        self.metadata = dict(net.metadata)

    def outputs(self, image: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, Tensor] = self.net(image)
        return outputs

    def loss(self, outputs: list[Tensor], image: Tensor, target: Tensor) -> Tensor:
        from sagemaker_model.nets.tiny_detector import cells

        boxes, logits = outputs
        centres, strides = cells(image.shape[2], image.shape[3], image.device)
        return box_losses.detection(boxes, logits, centres, strides, target[..., :5])

    def measure(self, net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Returns COCO's mAP (over IoU 0.5 to 0.95) as `map` and the one at 0.5 as `map50`. Boxes are compared in the
        network's input, which has the aspect ratio of the image."""
        found: list[tuple[DetectionRecord, Found]] = []
        for image, objects in batches:
            with self.autocast(image):
                boxes, logits = net(image)
            scores = logits.float().sigmoid().cpu().numpy()
            for number, rows in enumerate(objects.cpu().numpy()):
                side = image.shape[-1]
                chosen = suppress(boxes[number].cpu().numpy(), scores[number], MEASURED_SCORE_MIN, (side, side))
                found.append((_truth(rows[rows[:, 0] != NO_OBJECT], side), Found(*chosen)))
        if distributed.is_initialized():
            everyone: list[Any] = [None] * distributed.get_world_size()
            distributed.all_gather_object(everyone, found)
            found = [one for part in everyone for one in part]
        if not found:
            return {}
        truths, detections = zip(*found, strict=True)
        measured = coco_scores(truths, detections, self.net.names)
        return {"map": measured.map, "map50": measured.map50}


def _truth(objects: NDArray[np.float32], side: int) -> DetectionRecord:
    """Returns the true boxes of one image for the metrics. objects: Mx6; see `samples.Batch`."""
    labels, boxes, crowd = objects[:, 0].astype(np.int64), objects[:, 1:5], objects[:, 5] > 0
    return DetectionRecord(Path(), side, side, boxes, labels, crowd)


class RtDetrLoss(Detection):
    """The objective of RT-DETR: the loss of transformers, Hungarian matching included."""

    net: RtDetr

    def __init__(self, net: RtDetr, precision: torch.dtype = torch.float32) -> None:
        """Raises NotInstalled without scipy, which transformers' matching needs."""
        if find_spec("scipy") is None:
            raise NotInstalled("Training rt-detr needs scipy: install requirements-models.txt.")
        super().__init__(net, precision)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        with self.autocast(image):
            return self.net.loss(image, target)


def _batch_iou(predicted: Tensor, truth: Tensor) -> Tensor:
    """Returns the IoU of each pair of masks, Nx1xHxW bool; 1 for two empty masks. Like `metrics.iou`, on the device."""
    intersection, union = ((predicted & truth).sum((1, 2, 3)), (predicted | truth).sum((1, 2, 3)))
    return torch.where(union > 0, intersection / union.clamp(min=1), 1.0)


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


class Start(NamedTuple):
    """What a network is created from. start: initial weights. names: classes of a detector."""

    settings: TrainingSettings
    start: Path | None
    names: tuple[str, ...]


def _attention_unet(given: Start) -> nn.Module:
    from sagemaker_model.nets.attention_unet import AttentionUNet

    return AttentionUNet(given.settings.filters)


def _modnet(_given: Start) -> nn.Module:
    from sagemaker_model.nets.modnet import MODNet

    return MODNet()


def _portrait(_given: Start) -> nn.Module:
    from sagemaker_model.nets.portrait import Portrait

    return Portrait()


def _tiny_detector(given: Start) -> nn.Module:
    from sagemaker_model.nets.tiny_detector import TinyDetector

    return TinyDetector(given.names, given.settings.filters)


def _rt_detr(given: Start) -> nn.Module:
    from sagemaker_model.nets.rt_detr import RtDetr

    return RtDetr(given.names, given.start)


def _mask_rcnn(given: Start) -> nn.Module:
    from sagemaker_model.nets.mask_rcnn import MaskRCNN

    return MaskRCNN(given.settings.side)


_NETWORKS: dict[str, tuple[Callable[[Start], nn.Module], type[Objective]]] = {
    "attention-unet": (_attention_unet, Segmentation),
    "portrait": (_portrait, Segmentation),
    "modnet": (_modnet, Matting),
    "modnet-soc": (_modnet, SelfConsistency),
    "mask-rcnn": (_mask_rcnn, Instance),
    "detector": (_tiny_detector, Detection),
    "rt-detr": (_rt_detr, RtDetrLoss),
}
"""The networks that can be trained. `settings.SETTINGS` has their settings."""

START_REQUIRED = ("modnet-soc", "mask-rcnn")
"""Networks that cannot be trained from random weights."""


CLASS_LAYERS = {
    "mask-rcnn": ("_predictor.",),
    "detector": ("class_branch.1.",),
    "rt-detr": ("class_embed.", "enc_score_head."),
}
"""Parts of the names of the last layers, by network: new ones replace those of initial weights for other classes."""


def pretrained_file(start: Path) -> Path:
    """Returns the weights file of a folder that transformers wrote; a file unchanged."""
    return start / "model.safetensors" if start.is_dir() else start


def objective_of(
    network: str,
    settings: TrainingSettings,
    start: Path | None,
    precision: torch.dtype = torch.float32,
    names: tuple[str, ...] = (),
) -> Objective:
    """Returns the objective of a network. start: initial weights; None for random ones. names: classes of a detector.
    Raises InvalidSettings, InvalidWeights, NotInstalled."""
    create_network, create_objective = _NETWORKS[network]
    net = create_network(Start(settings, start, names))
    if start is not None and not start.is_dir():
        load_into(net, _initial_state(network, net, start))
    elif start is None and network in START_REQUIRED:
        raise InvalidSettings(f"{network} requires initial weights: pass them with --start.")
    objective = create_objective(net, precision)
    if objective.metadata:
        objective.metadata["side"] = str(settings.side)
    return objective


def _initial_state(network: str, net: nn.Module, start: Path) -> State:
    """Reads the entries of a weights file; renames published entries to those of the network.
    Raises InvalidWeights, NotInstalled."""
    if network == "portrait" and start.suffix == ".tflite":
        return portrait_state(start)
    state = load_checkpoint(start)
    if network.startswith("modnet"):
        return modnet_state(state)
    if network == "mask-rcnn":
        state = mask_rcnn_state(state) | {"side": net.state_dict()["side"]}
    if layers := CLASS_LAYERS.get(network):
        new = net.state_dict()
        same_shape = {name: tensor for name, tensor in state.items() if new.get(name, tensor).shape == tensor.shape}
        return {name: tensor for name, tensor in new.items() if any(part in name for part in layers)} | same_shape
    return state

"""RT-DETR: a transformer detector for GPUs (Zhao et al., "DETRs Beat YOLOs on Real-time Object Detection", CVPR 2024).

The network and its loss are those of the package transformers. Input and output are TinyDetector's, so that both share
data, validation, export and engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import RTDetrConfig, RTDetrForObjectDetection

from sagemaker_model.weights.checkpoints import MismatchedWeights
from sagemaker_model.weights.store import InvalidWeights

CONFIG = "config.json"


class RtDetr(nn.Module):
    """From an image to boxes and logits. Input: Nx3xHxW float, RGB in 0..1, H and W multiples of 32.

    names: labels of the classes, in the order of the logits. start: folder that transformers' `save_pretrained` wrote:
    config.json and model.safetensors; their last layers are replaced for another number of classes. None: random
    weights with the sizes of RT-DETR-R18, 20 million parameters.
    The boxes are NxQx4, x0, y0, x1, y1 in pixels of the input; the logits NxQxC, of Q queries.
    Raises InvalidWeights for a folder that cannot be used, ValueError without names.
    """

    def __init__(self, names: Sequence[str], start: Path | None = None, config: RTDetrConfig | None = None) -> None:
        super().__init__()
        if not names:
            raise ValueError("A detector needs at least one class.")
        self.names = tuple(names)
        labels = dict(enumerate(self.names))
        if start is not None and start.is_dir():
            self.net = _pretrained(start, labels)
        else:
            config = config or r18()
            config.id2label, config.label2id = labels, {name: number for number, name in labels.items()}
            self.net = RTDetrForObjectDetection(config)
            _initialise(self.net)

    @property
    def metadata(self) -> dict[str, str]:
        """Texts for the header of a weights file, from which `restored` creates the network."""
        return {"names": json.dumps(self.names), "config": json.dumps(self.net.config.to_dict())}

    @classmethod
    def restored(cls, metadata: Mapping[str, str]) -> RtDetr:
        """Creates the untrained network of a weights file. Raises KeyError, ValueError for other metadata."""
        return cls(json.loads(metadata["names"]), config=RTDetrConfig.from_dict(json.loads(metadata["config"])))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        found = self.net(pixel_values=image)
        height, width = image.shape[2:]
        x, y, w, h = (
            found.pred_boxes.float() * torch.tensor((width, height, width, height), device=image.device)
        ).unbind(-1)
        return torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), -1), found.logits

    def loss(self, image: Tensor, objects: Tensor) -> Tensor:
        """Returns the loss of a batch. objects: NxMx5 or more: label, x0, y0, x1, y1 in pixels; label -1: no object."""
        height, width = image.shape[2:]
        size = torch.tensor((width, height), device=image.device)
        targets = []
        for rows in objects:
            present = rows[rows[:, 0] >= 0]
            low, high = present[:, 1:3] / size, present[:, 3:5] / size
            boxes = torch.cat(((low + high) / 2, high - low), 1)
            targets.append({"class_labels": present[:, 0].long(), "boxes": boxes})
        loss: Tensor = self.net(pixel_values=image, labels=targets).loss
        return loss


def r18() -> RTDetrConfig:
    """Returns the sizes of the published RT-DETR-R18, for random weights: norms are trained too."""
    backbone = {
        "model_type": "rt_detr_resnet",
        "depths": [2, 2, 2, 2],
        "hidden_sizes": [64, 128, 256, 512],
        "layer_type": "basic",
        "out_indices": [2, 3, 4],
    }
    return RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[128, 256, 512],
        hidden_expansion=0.5,
        decoder_layers=3,
        freeze_backbone_batch_norms=False,
    )


def _initialise(net: nn.Module) -> None:
    """Sets random weights for training from scratch. transformers draws the weights of convolutions and batch norms
    around 0 with a deviation of 0.01: each norm then scales its features by 0.01, and after a few blocks all positions
    of an image are equal."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)


def _pretrained(folder: Path, labels: dict[int, str]) -> Any:
    """Loads a folder without a network connection. Raises InvalidWeights, MismatchedWeights."""
    try:
        loaded: Any = RTDetrForObjectDetection.from_pretrained(
            folder,
            id2label=labels,
            label2id={name: number for number, name in labels.items()},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            local_files_only=True,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise InvalidWeights(
            f"{folder} is not a folder of transformers' save_pretrained with {CONFIG} and model.safetensors: {error}"
        ) from error
    net, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise MismatchedWeights(f"{folder} is not an RT-DETR: it lacks {missing[0]} and {len(missing) - 1} more.")
    return net

"""Exports trained detectors to ONNX and compares the file with its network.

The file is that of `detectors.trained`: any batch, one size, boxes and scores before suppression. Names of the classes
and the size are in its metadata, so that the file is all that a server needs.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from sagemaker_model.detectors.base import Floats
from sagemaker_model.detectors.trained import BOXES_NAME, INPUT_NAME, SCORES_NAME, network_input
from sagemaker_model.engines.onnx_session import onnx_session
from sagemaker_model.evaluation.detection import pairwise_ious
from sagemaker_model.export.formats import OPSET, Exported, ExportFailed, one_thread, timed
from sagemaker_model.imaging.letterbox import letterboxed
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.nets.tiny_detector import TinyDetector
from sagemaker_model.training.settings import DETECTORS
from sagemaker_model.weights.checkpoints import NotWeights, load_checkpoint, load_into, read_metadata
from sagemaker_model.weights.files import atomic_write

COMPARED_BOXES = 100
"""Number of boxes that are compared for each image, those with the highest scores: the others are never returned."""


class Scored(nn.Module):
    """A detector with scores in place of logits."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        boxes, logits = self.net(image)
        return boxes, logits.sigmoid()


def load(network: str, weights: Path) -> tuple[nn.Module, dict[str, str]]:
    """Loads a detector in eval mode, and the metadata of its weights file. Raises InvalidWeights, NotInstalled."""
    metadata = read_metadata(weights)
    net: nn.Module
    try:
        if network == "rt-detr":
            from sagemaker_model.nets.rt_detr import RtDetr

            net = RtDetr.restored(metadata)
        else:
            net = TinyDetector.restored(metadata)
        int(metadata["side"])
    except (KeyError, ValueError, TypeError) as error:
        raise NotWeights(
            f"{weights} is not a file that `maskdrop train {network}` wrote: its header lacks {error}."
        ) from error
    load_into(net, load_checkpoint(weights))
    return net.eval(), metadata


def export(network: str, weights: Path, folder: Path, images: Sequence[Pixels]) -> Exported:
    """Writes `folder`/detector.onnx, and compares it with its network on `images`.

    network: one of DETECTORS. The differences are those of the scores, by rank: RT-DETR sorts its boxes by score, and
    equal scores may be in another order. `iou` is the mean IoU of the COMPARED_BOXES boxes with the highest scores.
    Raises ExportFailed, InvalidWeights, OSError.
    """
    if network not in DETECTORS:
        raise ExportFailed(f"network must be one of {', '.join(DETECTORS)}; got {network!r}.")
    if not images:
        raise ExportFailed("No images to compare the export with its network; pass at least one image.")
    net, metadata = load(network, weights)
    side = int(metadata["side"])
    inputs = [network_input(letterboxed(rgb, side)[0]) for rgb in images]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "detector.onnx"
    with atomic_write(path) as temporary, one_thread():
        to_onnx(net, temporary, side, {"names": metadata["names"], "side": str(side)})
        session = onnx_session(temporary, threads=1)
        found, ms = timed(lambda x: session.run([BOXES_NAME, SCORES_NAME], {INPUT_NAME: x}), inputs)
        scored = Scored(net)
        reference, network_ms = timed(lambda x: [part.numpy() for part in scored(torch.from_numpy(x))], inputs)
    differences = [np.abs(np.sort(a[1].max(1)) - np.sort(b[1].max(1))) for a, b in zip(found, reference, strict=True)]
    return Exported(
        path=path,
        bytes=path.stat().st_size,
        ms=statistics.median(ms),
        network_ms=statistics.median(network_ms),
        max_difference=max(float(difference.max()) for difference in differences),
        mean_difference=statistics.mean(float(difference.mean()) for difference in differences),
        iou=statistics.mean(_best_iou(*a, *b) for a, b in zip(found, reference, strict=True)),
    )


def to_onnx(net: nn.Module, path: Path, side: int, metadata: Mapping[str, str]) -> None:
    """Exports a detector to ONNX in float32, for any batch of images of side x side, with texts as metadata."""
    any_batch = {0: "n"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the deprecated exporter, and of sizes that become constants
        torch.onnx.export(
            Scored(net).eval(),
            (torch.zeros(2, 3, side, side),),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[BOXES_NAME, SCORES_NAME],
            dynamic_axes=dict.fromkeys((INPUT_NAME, BOXES_NAME, SCORES_NAME), any_batch),
        )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)


def _best_iou(boxes: Floats, scores: Floats, reference: Floats, reference_scores: Floats) -> float:
    """Returns the mean IoU of the boxes with the highest scores: each one's best match among those of the network."""
    ours, theirs = (
        rows[np.argsort(-best.max(1), kind="stable")[:COMPARED_BOXES]]
        for rows, best in ((boxes, scores), (reference, reference_scores))
    )
    return float(pairwise_ious(ours, theirs, np.zeros(len(theirs), np.bool_)).max(1).mean())

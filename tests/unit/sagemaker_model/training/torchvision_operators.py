"""torchvision's operators in Python, where its compiled ones cannot be loaded: beside torch's build for the CPU.

`make` installs torchvision into a folder of its own, because transformers imports it wherever it is installed, and
fails without these operators. `import_torchvision` makes it importable in a test process.

    python -m tests.unit.sagemaker_model.training.torchvision_operators --network mask-rcnn …

trains with them in another process.
"""

from __future__ import annotations

import importlib
import sys
from functools import partialmethod
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

FOLDER = Path(sys.prefix) / "torchvision"
"""Where the Makefile installs torchvision."""


def import_torchvision() -> None:
    """Imports torchvision, and defines its operators in Python if its compiled ones cannot be loaded. A Mask R-CNN that
    is created afterwards takes few proposals, so that a step takes half a second on one core."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    try:
        importlib.import_module("torchvision")
    except RuntimeError:  # operator torchvision::nms does not exist
        _define()
        importlib.import_module("torchvision")
        for module in ("torchvision.ops.boxes", "torchvision.ops.roi_align"):
            sys.modules[module]._assert_has_ops = _accept
        sys.modules["torchvision.ops.roi_align"]._has_ops = lambda: True
    network = sys.modules["torchvision.models.detection"].MaskRCNN
    network.__init__ = partialmethod(
        network.__init__, box_batch_size_per_image=16, rpn_post_nms_top_n_train=50, rpn_post_nms_top_n_test=50
    )


def _accept() -> None:
    """Replaces a check for the compiled operators. TorchScript compiles it: it must not be a lambda."""


def _define() -> None:
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    )
    library.impl("nms", nms, "CPU")
    library.impl("roi_align", roi_align, "CompositeImplicitAutograd")
    sys.modules[__name__].library = library  # its operators are removed when it is deleted


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Returns the indices of the boxes to keep, Nx4, by descending score."""
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    sides = torch.minimum(boxes[:, None, 2:], boxes[:, 2:]) - torch.maximum(boxes[:, None, :2], boxes[:, :2])
    intersections = sides.clamp(min=0).prod(2)
    overlaps = (intersections > iou_threshold * (areas[:, None] + areas - intersections)).numpy()
    kept: list[int] = []
    for number in range(len(overlaps)):
        if not overlaps[number, kept].any():
            kept.append(number)
    return order[kept]


def roi_align(
    features: Tensor, rois: Tensor, scale: float, height: int, width: int, samples: int, aligned: bool
) -> Tensor:
    """Returns the means of `samples` x `samples` points in each cell of each region, K x C x height x width.

    torchvision takes an adaptive number of points where `samples` is -1, for the targets of masks; here it is 2.
    """
    assert not aligned
    samples = samples if samples > 0 else 2
    starts = rois[:, 1:3] * scale
    sizes = (rois[:, 3:5] * scale - starts).clamp(min=1)
    x, y = (
        starts[:, axis, None] + (torch.arange(cells * samples) + 0.5) * sizes[:, axis, None] / (cells * samples)
        for axis, cells in enumerate((width, height))
    )
    # grid_sample's coordinates are -1 and 1 at the centres of the first and the last pixel.
    x, y = (2 * at / max(1, features.shape[axis] - 1) - 1 for at, axis in ((x, 3), (y, 2)))
    grid = torch.stack((x[:, None].expand(-1, y.shape[1], -1), y[:, :, None].expand(-1, -1, x.shape[1])), -1)
    sampled = features.new_zeros((len(rois), features.shape[1], *grid.shape[1:3]))
    for number, image in enumerate(features):
        of_image = torch.where(rois[:, 0] == number)[0]
        points = grid[of_image].flatten(0, 1)[None]
        values = grid_sample(image[None], points, padding_mode="border", align_corners=True)[0]
        sampled = sampled.index_copy(0, of_image, values.unflatten(1, (len(of_image), y.shape[1])).transpose(0, 1))
    return avg_pool2d(sampled, samples)


if __name__ == "__main__":
    from sagemaker_model.training.__main__ import main

    import_torchvision()
    sys.exit(main(sys.argv[1:]))

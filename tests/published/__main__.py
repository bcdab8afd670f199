"""`make compare-published`: compares SAM and SAM 2.1 of nets/sam.py with the classes that their authors published.

The published packages are segment-anything 1.0 and sam2 1.1.0, both Apache-2.0. Both sides get the same random weights
and an image of noise. The exit status is 1 if they differ by more than DIFFERENCE_MAX. The packages are installed from
the package index into .local/, without their dependencies for training and for reading images.

MODNet's authors published no package: tests/unit/sagemaker_model/nets/published_modnet.py reimplements its class.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

from local.config import ROOT
from sagemaker_model.nets import sam

FOLDER = ROOT / ".local" / "published"

PACKAGES = ("segment-anything==1.0", "hydra-core==1.3.8", "sam2==1.1.0")

UNUSED = (
    *("torchvision", "torchvision.ops", "torchvision.ops.boxes"),
    *("torchvision.transforms", "torchvision.transforms.functional"),
    *("iopath", "iopath.common", "iopath.common.file_io"),
)
"""Modules that the packages import and this comparison does not use; they are replaced by mocks."""

DIFFERENCE_MAX = 1e-4
"""Largest accepted difference of logits and scores. Their standard deviation is 0.04 to 0.15 with these weights; the
rounding of float32 gives differences of about 1e-6."""

POINTS = torch.tensor([[[300.0, 420.0], [700.0, 80.0]], [[10.0, 20.0], [900.0, 1000.0]]])
LABELS = torch.tensor([[1, 0], [1, 1]])
PADDING = torch.zeros(2, 1, 2), torch.full((2, 1), -1)
"""The padding point that the published code appends to points without a box."""

Outputs = tuple[Tensor, Tensor]
"""Logits and scores, in the form of `sam.Decoder`."""


def main() -> int:
    _install()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    image = torch.randn(1, 3, 1024, 1024)
    worst = 0.0
    for name, published in (("vit_b", _sam), ("tiny", _sam2)):
        network, run_published = published()
        with torch.inference_mode():
            ours = sam.from_official(name, _randomised(network))
            expected = run_published(image)
            points, labels = torch.cat((POINTS, PADDING[0]), 1), torch.cat((LABELS, PADDING[1]), 1)
            actual = sam.Decoder(ours)(points, labels, *sam.Encoder(ours)(image))
        for output, ours_values, published_values in zip(("logits", "scores"), actual, expected, strict=True):
            difference = float((ours_values - published_values).abs().max())
            worst = max(worst, difference)
            print(f"{name}, {output}: {difference:.1e} at most, standard deviation {float(published_values.std()):.2g}")
    return int(worst > DIFFERENCE_MAX)


def _install() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    sys.path[:0] = [str(FOLDER / "site"), str(FOLDER / "sam2-1.1.0")]
    for module in UNUSED:
        sys.modules[module] = MagicMock()
    if (FOLDER / "sam2-1.1.0").exists():
        return
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    pure, source = PACKAGES[:-1], PACKAGES[-1]
    subprocess.run([*pip, "install", "--target", FOLDER / "site", *pure], check=True)  # noqa: S603
    # sam2 is published as source only; installing it would build it with CUDA.
    subprocess.run([*pip, "download", "--no-deps", "--no-build-isolation", "--dest", FOLDER, source], check=True)  # noqa: S603
    shutil.unpack_archive(FOLDER / "sam2-1.1.0.tar.gz", FOLDER)


def _randomised(network: nn.Module) -> dict[str, Tensor]:
    """Adds normal noise to all weights and returns the state dict.

    So no weight is 0 or 1 by design. The noise is small enough that no layer overflows.
    """
    for weight in network.parameters():
        weight.data.add_(torch.randn_like(weight) * 0.02)
    return {name: value.clone() for name, value in network.state_dict().items()}


def _sam() -> tuple[nn.Module, Callable[[Tensor], Outputs]]:
    from segment_anything import sam_model_registry

    network: Any = sam_model_registry["vit_b"]().eval()

    def run_published(image: Tensor) -> Outputs:
        embedding = network.image_encoder(image)
        sparse, dense = network.prompt_encoder((POINTS, LABELS), None, None)
        return _all_masks(network.mask_decoder, embedding, network.prompt_encoder.get_dense_pe(), sparse, dense)

    return network, run_published


def _sam2() -> tuple[nn.Module, Callable[[Tensor], Outputs]]:
    from sam2.build_sam import build_sam2

    network: Any = build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu", apply_postprocessing=False)

    def run_published(image: Tensor) -> Outputs:
        features = network.forward_image(image)
        _, (*fine, coarse), _, sizes = network._prepare_backbone_features(features)
        coarse = coarse + network.no_mem_embed
        maps = [part.permute(1, 2, 0).unflatten(2, size) for part, size in zip([*fine, coarse], sizes, strict=True)]
        sparse, dense = network.sam_prompt_encoder((POINTS, LABELS), None, None)
        positions = network.sam_prompt_encoder.get_dense_pe()
        return _all_masks(network.sam_mask_decoder, maps[-1], positions, sparse, dense, True, maps[:-1])

    return network, run_published


def _all_masks(
    decoder: Any, embedding: Tensor, positions: Tensor, sparse: Tensor, dense: Tensor, *more: Any
) -> Outputs:
    """Returns the four masks and scores of each prompt."""
    logits, scores, *_ = decoder.predict_masks(embedding, positions, sparse, dense, *more)
    return logits, scores


if __name__ == "__main__":
    sys.exit(main())

"""`make compare-published`: our SAM and SAM 2.1 beside the classes that their authors published (segment-anything 1.0
and sam2 1.1.0, both Apache-2.0), with the same random weights on an image of noise. Fails where they differ by more
than DIFFERENCE_MAX. The packages come from the package index into .local/, without what they need for training and for
images alone.

MODNet's authors published no package: tests/unit/sagemaker_model/nets/published_modnet.py writes its class out anew.
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
"""What they import and nothing here calls."""

DIFFERENCE_MAX = 1e-4
"""Of logits and scores. With these weights they spread by 0.04 to 0.15; float32 alone makes some 1e-6 of difference."""

POINTS = torch.tensor([[[300.0, 420.0], [700.0, 80.0]], [[10.0, 20.0], [900.0, 1000.0]]])
LABELS = torch.tensor([[1, 0], [1, 1]])
NOTHING = torch.zeros(2, 1, 2), torch.full((2, 1), -1)
"""Where there is no box, the published code has a point follow that says nothing."""

Answer = tuple[Tensor, Tensor]
"""Logits and scores, as `sam.Decoder` gives them."""


def main() -> int:
    _install()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    picture = torch.randn(1, 3, 1024, 1024)
    worst = 0.0
    for name, published in (("vit_b", _sam), ("tiny", _sam2)):
        network, asked = published()
        with torch.inference_mode():
            ours = sam.from_official(name, _randomised(network))
            theirs = asked(picture)
            points, labels = torch.cat((POINTS, NOTHING[0]), 1), torch.cat((LABELS, NOTHING[1]), 1)
            found = sam.Decoder(ours)(points, labels, *sam.Encoder(ours)(picture))
        for what, one, other in zip(("logits", "scores"), found, theirs, strict=True):
            difference = float((one - other).abs().max())
            worst = max(worst, difference)
            print(f"{name}, {what}: {difference:.1e} at most, spread {float(other.std()):.2g}")
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
    # It is sent as source alone, and would be built with all of CUDA.
    subprocess.run([*pip, "download", "--no-deps", "--no-build-isolation", "--dest", FOLDER, source], check=True)  # noqa: S603
    shutil.unpack_archive(FOLDER / "sam2-1.1.0.tar.gz", FOLDER)


def _randomised(network: nn.Module) -> dict[str, Tensor]:
    """Its state, in which nothing is 0 or 1 by design any more. Normal numbers, small enough that no layer blows up."""
    for weight in network.parameters():
        weight.data.add_(torch.randn_like(weight) * 0.02)
    return {name: value.clone() for name, value in network.state_dict().items()}


def _sam() -> tuple[nn.Module, Callable[[Tensor], Answer]]:
    from segment_anything import sam_model_registry

    network: Any = sam_model_registry["vit_b"]().eval()

    def asked(picture: Tensor) -> Answer:
        embedding = network.image_encoder(picture)
        sparse, dense = network.prompt_encoder((POINTS, LABELS), None, None)
        return _all_masks(network.mask_decoder, embedding, network.prompt_encoder.get_dense_pe(), sparse, dense)

    return network, asked


def _sam2() -> tuple[nn.Module, Callable[[Tensor], Answer]]:
    from sam2.build_sam import build_sam2

    network: Any = build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu", apply_postprocessing=False)

    def asked(picture: Tensor) -> Answer:
        features = network.forward_image(picture)
        _, (*fine, coarse), _, sizes = network._prepare_backbone_features(features)
        coarse = coarse + network.no_mem_embed
        maps = [part.permute(1, 2, 0).unflatten(2, size) for part, size in zip([*fine, coarse], sizes, strict=True)]
        sparse, dense = network.sam_prompt_encoder((POINTS, LABELS), None, None)
        places = network.sam_prompt_encoder.get_dense_pe()
        return _all_masks(network.sam_mask_decoder, maps[-1], places, sparse, dense, True, maps[:-1])

    return network, asked


def _all_masks(decoder: Any, embedding: Tensor, places: Tensor, sparse: Tensor, dense: Tensor, *more: Any) -> Answer:
    """Four masks a prompt."""
    logits, scores, *_ = decoder.predict_masks(embedding, places, sparse, dense, *more)
    return logits, scores


if __name__ == "__main__":
    sys.exit(main())

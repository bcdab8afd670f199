"""Refines the edges of an alpha by ViTMatte (Yao et al. 2024), which `transformers` implements.

An optional step after any engine (`refine: "vitmatte"`), not an engine of its own. It needs torch, transformers and
one of the published checkpoints. The trimap comes from the alpha: uncertain pixels, and those near an edge, are
unknown.
"""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.refine import to_full_size
from sagemaker_model.imaging.resize import resized
from sagemaker_model.weights.store import InvalidWeights, NotInstalled, known, verify

if TYPE_CHECKING:  # torch need not be installed
    from torch import nn

LONG_MAX = 1024
"""Pixels of the long side of the network's input. The memory of its global attention grows with the square of the
pixels: a score tensor of the small network has 0.4 GB at 1024x1024, 6.4 GB at 2048x2048."""

MULTIPLE = 32
"""The sides of the input are padded to multiples of this."""

UNCERTAIN = 0.05
"""Alpha from this value to 1 - this value is unknown in the trimap."""

UNKNOWN_SHARE = 0.01
"""Width of the unknown band on each side of an edge, as a share of the input's long side: about three pixels of a
320-pixel matte, the largest error of most edges."""

MARGIN = 0.1
"""Padding of the crop around the subject, as a share of the box's side: context for the network."""

WIDTHS = {"small": (384, 6), "base": (768, 12)}
"""Width and attention heads of the backbone by variant."""


class Refiner(Protocol):
    """Refines the edges of an alpha at full size."""

    def refine(self, rgb: Pixels, alpha: Pixels) -> Pixels:
        """Returns the refined alpha. rgb: HxWx3 uint8. alpha: HxW uint8. Called from any thread."""


class VitMatte:
    """The refinement `vitmatte`."""

    weights_sha256 = ""

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:
        """Loads the first published checkpoint that the folder has.

        Raises NotInstalled if it has none or torch or transformers is missing, InvalidWeights.
        """
        rows = [weights for weights in known().values() if weights.engine == "vitmatte"]
        weights = next((one for one in rows if (weights_dir / one.file).exists()), None)
        if weights is None:
            raise NotInstalled(f"{weights_dir} has none of {', '.join(one.file for one in rows)}.")
        self.weights_sha256 = verify(weights, weights_dir)
        try:
            import torch

            from sagemaker_model.weights import checkpoints

            net = build(*WIDTHS[weights.variant])
            checkpoints.load_into(net, checkpoints.load_checkpoint(weights_dir / weights.file))
        except ModuleNotFoundError as error:
            raise NotInstalled(f"{weights.name} needs the package {error.name}: install it.") from error
        if device == "cpu":
            torch.set_num_threads(threads)
        self.use(net, device)
        grey = np.full((64, 64, 3), 128, np.uint8)
        if not np.isfinite(self._infer(grey, np.full((64, 64), 0.5, np.float32))).all():
            raise InvalidWeights(f"{weights.file} gives NaN or infinity for a grey image: fetch it again.")

    def use(self, net: nn.Module, device: str = "cpu") -> None:
        """Takes a loaded network."""
        self._net, self._device, self._lock = net.eval().to(device), device, threading.Lock()

    def refine(self, rgb: Pixels, alpha: Pixels) -> Pixels:
        """Returns the refined alpha, HxW uint8; pixels far from an edge keep their value.

        Takes about 6 s for 1024x1024 on one core with the small network. One image at a time: memory.
        """
        box = _crop(alpha)
        if box is None:
            return alpha
        image, matte = rgb[box], alpha[box]
        height, width = matte.shape
        scale = min(1.0, LONG_MAX / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        trimap = make_trimap(resized(matte, size))
        with self._lock:
            fine = self._infer(resized(image, size), trimap)
        fine = np.where(trimap == 0.5, fine, trimap).astype(np.float32)
        result = alpha.copy()
        result[box] = to_full_size(fine, image) if scale < 1 else np.rint(fine * 255).astype(np.uint8)
        return result

    def _infer(self, rgb: Pixels, trimap: NDArray[np.float32]) -> NDArray[np.float32]:
        """Runs the network on an image hxwx3 uint8 and its trimap hxw (0, 0.5 or 1): alpha hxw in 0..1."""
        import torch

        height, width = trimap.shape
        planes = np.concatenate((rgb.transpose(2, 0, 1) / np.float32(127.5) - 1, trimap[None]), dtype=np.float32)
        padding = ((0, 0), (0, -height % MULTIPLE), (0, -width % MULTIPLE))
        values = torch.from_numpy(np.pad(planes, padding))[None].to(self._device)
        with torch.inference_mode():
            alphas = self._net(pixel_values=values).alphas[0, 0, :height, :width]
        return np.asarray(alphas.float().cpu().numpy(), np.float32).clip(0, 1)


def build(width: int, heads: int, layers: int = 12) -> nn.Module:
    """Returns ViTMatte without weights, in the layout of the published checkpoints. width: of the backbone."""
    from transformers import VitDetConfig, VitMatteConfig, VitMatteForImageMatting

    residual = [layer for layer in range(layers) if layer % 3 == 2]
    backbone = VitDetConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=512,
        pretrain_image_size=224,
        patch_size=16,
        num_channels=4,
        window_size=14,
        window_block_indices=[layer for layer in range(layers) if layer not in residual],
        residual_block_indices=residual,
        use_relative_position_embeddings=True,
        out_features=[f"stage{layers}"],  # type: ignore[call-arg] # its alias, which the stub lacks
    )
    # Lists: the defaults are tuples, which transformers 5.23 rejects.
    config = VitMatteConfig(
        backbone_config=backbone,
        hidden_size=width,
        convstream_hidden_sizes=[48, 96, 192],
        fusion_hidden_sizes=[256, 128, 64, 32],
    )
    net: nn.Module = VitMatteForImageMatting(config)
    return net


def make_trimap(alpha: Pixels) -> NDArray[np.float32]:
    """Returns 0 (background), 0.5 (unknown) or 1 (subject) for each pixel of an alpha, HxW float32."""
    reach = max(2, math.ceil(UNKNOWN_SHARE * max(alpha.shape)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    low = round(UNCERTAIN * 255)
    subject = cv2.erode((alpha > 255 - low).astype(np.uint8), kernel)
    possible = cv2.dilate((alpha >= low).astype(np.uint8), kernel)
    trimap: NDArray[np.float32] = (subject.reshape(alpha.shape) + possible.reshape(alpha.shape)) / np.float32(2)
    return trimap


def _crop(alpha: Pixels) -> tuple[slice, slice] | None:
    """Rows and columns of the padded box around the subject; None without one."""
    x, y, width, height = cv2.boundingRect(alpha)
    if not width:
        return None
    pad = math.ceil(MARGIN * max(width, height)) + MULTIPLE
    return slice(max(0, y - pad), y + height + pad), slice(max(0, x - pad), x + width + pad)


def load_refiner(device: str, weights_dir: Path, threads: int = 1) -> Refiner | None:
    """Returns the installed ViTMatte, or None. Raises InvalidWeights."""
    refiner = VitMatte()
    try:
        refiner.setup(device, weights_dir, threads)
    except NotInstalled:
        return None
    return refiner

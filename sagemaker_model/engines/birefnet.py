"""Cut-outs of any object at high resolution by BiRefNet's published checkpoints (MIT), in one pass.

One class runs them all; a variant is a row of VARIANTS, and its files are rows of weights.toml. On a GPU torch runs the
checkpoint, in half precision and in batches. On the CPU ONNX Runtime runs the file that `maskdrop export` makes of it,
or else torch does. Where only rembg's ONNX file is installed, ONNX Runtime runs that, one image at a time.

The whole image is resized to the size of the variant's training, without its aspect ratio, as in training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskdrop.prompt import Prompts
from sagemaker_model.engines.base import Alpha
from sagemaker_model.engines.onnx_models import IMAGENET_MEAN, IMAGENET_STD, MODELS, OnnxModel
from sagemaker_model.engines.onnx_session import onnx_session, run_matting
from sagemaker_model.engines.verification import Comparison
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.weights.store import InvalidWeights, NotInstalled, digest, known, verify

if TYPE_CHECKING:  # torch need not be installed
    from torch import nn

    from sagemaker_model.engines.torch_runner import TorchRunner
    from sagemaker_model.weights.checkpoints import State

Floats = NDArray[np.float32]

Network = Callable[[Sequence[Floats]], Sequence[Floats]]
"""Runs the network: from normalised images 3xhxw of one size to mattes hxw in 0..1, float32 or float16."""

EXPORTED = ".deform.onnx"
"""Suffix of the file that `maskdrop export` writes, after the name of the engine; rembg's file has ".onnx"."""

MULTIPLE, SIDE_MIN, SIDE_MAX = 32, 256, 2304
"""Sides of the input of a variant without a size: a multiple of MULTIPLE, inside the range of its training."""

WARM = (1024, 1024)
"""The one (width, height) of such a variant whose batches are prepared; images of other sizes run one at a time."""

BATCH_PIXELS = 4 * 1024 * 1024
"""Largest number of pixels of a batch. One image of 1024x1024 takes 2.5 TFLOP, so larger batches gain little; four take
about 14 GB of a GPU in half precision (four times the published 3.5 GB)."""

TEST_SIDE = 64
"""Side in pixels of the input that `setup` runs."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One published checkpoint.

    backbone: Swin-T or Swin-L. size: (width, height) of the input in pixels, that of its training; None: the image's.
    old_tiles: trained with the code before November 2024, which stacked the tiles of the image in another order. The
    evidence is the dates of the files, and comparisons with the published ONNX files.
    """

    backbone: Literal["T", "L"]
    size: tuple[int, int] | None
    old_tiles: bool


VARIANTS = {
    "birefnet-general": Variant("L", (1024, 1024), old_tiles=True),
    "birefnet-general-lite": Variant("T", (1024, 1024), old_tiles=True),
    "birefnet-portrait": Variant("L", (1024, 1024), old_tiles=True),
    "birefnet-matting": Variant("L", (1024, 1024), old_tiles=True),
    "birefnet-lite-matting": Variant("T", (1024, 1024), old_tiles=False),
    "birefnet-hr": Variant("L", (2048, 2048), old_tiles=False),
    "birefnet-hr-matting": Variant("L", (2048, 2048), old_tiles=False),
    "birefnet-dynamic": Variant("L", None, old_tiles=False),
    "birefnet-dynamic-matting": Variant("L", None, old_tiles=False),
    "birefnet-lite-2k": Variant("T", (2560, 1440), old_tiles=True),
    "birefnet-512x512": Variant("L", (512, 512), old_tiles=False),
}
"""The variants by engine; source: the project's README, its history and the model cards."""


SUFFIX = ".safetensors"
"""Suffix of the checkpoints in the weights folder. A release's .pth file gets it too when it is imported."""


class BiRefNet:
    """The engine of one row of VARIANTS."""

    weights_sha256 = ""

    def __init__(self, name: str) -> None:
        self._name, self._variant = name, VARIANTS[name]

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:
        """Loads the exported file (CPU only), the checkpoint or rembg's ONNX file, the first that is installed.

        Raises NotInstalled if there are no weights or the package that runs them is missing, InvalidWeights if they are
        not BiRefNet's or of another variant.
        """
        self._runner: TorchRunner | None = None
        self._by_rembg: OnnxModel | None = None
        exported = weights_dir / f"{self._name}{EXPORTED}"
        checkpoint = next(one for one in known().values() if one.engine == self._name and one.file.endswith(SUFFIX))
        path = weights_dir / checkpoint.file
        if device == "cpu" and exported.exists():
            # Exported files differ from one machine to the next: none has a published SHA-256.
            self.weights_sha256 = digest(exported)
            self._network = _by_onnx(exported, threads)
        elif path.exists() or self._name not in MODELS:
            self.weights_sha256 = verify(checkpoint, weights_dir)
            try:
                self._runner = runner = _by_torch(self._name, path, device, threads)
            except ModuleNotFoundError as error:
                raise NotInstalled(f"{self._name} needs the package {error.name} to run {path}: install it.") from error
            self._network = lambda images: [matte for (matte,) in runner.run(images)]
        else:
            self._by_rembg = published = OnnxModel(self._name)
            published.setup(device, weights_dir, threads)
            self.weights_sha256 = published.weights_sha256
            self._network = lambda images: [_sigmoid(logits) for logits in published.infer(images)]
            return  # its file takes only images of full size
        if not np.isfinite(self.infer([np.zeros((3, TEST_SIDE, TEST_SIDE), np.float32)])).all():
            raise InvalidWeights(f"{self._name} returns NaN or infinity for a grey image: import its weights again.")

    def warm_up(self, batch_max: int) -> tuple[Comparison, ...]:
        """Prepares batches of at most BATCH_PIXELS. Variants without a size: of WARM."""
        if self._by_rembg:
            return self._by_rembg.warm_up(batch_max)
        if not self._runner:
            return ()
        width, height = self._variant.size or WARM
        return self._runner.warm_up({(3, height, width)}, max(1, min(batch_max, BATCH_PIXELS // (width * height))))

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:
        return self.finish(self.infer([self.prepare(rgb, prompts)])[0], rgb, prompts)

    def prepare(self, rgb: Pixels, prompts: Prompts) -> Floats:  # noqa: ARG002 - the catalogue lists no prompts for it
        """Returns the network's input, 3xhxw float32; h and w are multiples of 32."""
        return network_input(rgb, self._variant)

    def infer(self, batch: Sequence[Floats]) -> Sequence[Floats]:
        """Returns one matte hxw in 0..1 for each input. Raises MemoryError, torch.OutOfMemoryError."""
        return self._network(batch)

    def finish(self, output: Floats, rgb: Pixels, prompts: Prompts) -> Alpha:  # noqa: ARG002 - one contract for all engines
        return Alpha(np.clip(output.astype(np.float32, copy=False), 0, 1))


def network_input(rgb: Pixels, variant: Variant) -> Floats:
    """Returns the input for an image HxWx3 uint8: resized bilinearly with antialiasing, normalised by ImageNet's mean
    and standard deviation; 3xhxw float32."""
    size = network_size(rgb.shape[1], rgb.shape[0], variant)
    small = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR))
    planes = np.ascontiguousarray(small.transpose(2, 0, 1), np.float32)
    mean, std = (np.asarray(colour, np.float32)[:, None, None] * 255 for colour in (IMAGENET_MEAN, IMAGENET_STD))
    planes -= mean
    planes /= std
    return planes


def network_size(width: int, height: int, variant: Variant) -> tuple[int, int]:
    """Returns the (width, height) of the input for an image of this size.

    Without a size of the variant, that of the image in multiples of MULTIPLE, rounded down. An image with a side above
    SIDE_MAX is reduced first; a side below SIDE_MIN is enlarged.
    """
    if variant.size:
        return variant.size
    scale = min(1.0, SIDE_MAX / max(width, height))
    across, down = (max(SIDE_MIN, round(scale * side) // MULTIPLE * MULTIPLE) for side in (width, height))
    return across, down


def load_state(name: str, path: Path) -> State:
    """Reads a checkpoint for the engine `name`. Needs torch. Raises InvalidWeights."""
    from sagemaker_model.nets.birefnet import BACKBONES
    from sagemaker_model.weights import checkpoints

    variant = VARIANTS[name]
    state = checkpoints.birefnet_state(checkpoints.load_checkpoint(path), old_tiles=variant.old_tiles)
    widths: dict[tuple[int, ...], str] = {(backbone.width,): letter for letter, backbone in BACKBONES.items()}
    embedding = state.get("bb.patch_embed.norm.weight")
    found = None if embedding is None else widths.get(tuple(embedding.shape))
    if found and found != variant.backbone:
        raise checkpoints.MismatchedWeights(
            f"{path} has the backbone Swin-{found}, and {name} has Swin-{variant.backbone}: import it for another "
            f"engine, such as {', '.join(other for other in VARIANTS if VARIANTS[other].backbone == found)}."
        )
    return state


def new_network(name: str) -> nn.Module:
    """Returns the network of the engine `name` without values, in eval mode. Needs torch."""
    from sagemaker_model.nets import birefnet

    return birefnet.empty(birefnet.BACKBONES[VARIANTS[name].backbone])


def _by_torch(name: str, path: Path, device: str, threads: int) -> TorchRunner:
    from sagemaker_model.engines.torch_runner import matting_runner
    from sagemaker_model.weights.checkpoints import load_into

    net = new_network(name)
    load_into(net, load_state(name, path))
    return matting_runner(net, device, threads)


def _by_onnx(path: Path, threads: int) -> Network:
    session = onnx_session(path, threads, keep_memory=False)
    try:
        run_matting(session, np.zeros((1, 3, TEST_SIDE, TEST_SIDE), np.float32))
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise InvalidWeights(f"{path} is not BiRefNet with any size of input: export it again.") from error
    return lambda images: list(run_matting(session, np.stack(images))[:, 0])


def _sigmoid(logits: Floats) -> Floats:
    return (1 / (1 + np.exp(-np.clip(logits, -30, 30)))).astype(np.float32)

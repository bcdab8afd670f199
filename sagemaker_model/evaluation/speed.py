"""Time of an engine for one image, from the bytes of a file to the bytes of the result."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Sequence

import numpy as np
from PIL import Image

from maskdrop import catalog
from maskdrop.options import Options
from sagemaker_model.cutout import cut_out
from sagemaker_model.engines.base import Engine
from sagemaker_model.evaluation.cases import Case
from sagemaker_model.imaging.pixels import decode
from sagemaker_model.settings import ServerSettings

MEGAPIXELS = (1, 12)
"""Sizes that are timed: an image of the web, and one of a phone."""

IMAGES = 9
"""Images that are timed at each size, from the whole data set."""

PATIENCE_S = 20.0
"""Seconds after which no further image of a size is timed. At least one is."""


def sample(datasets: Sequence[Sequence[Case]], count: int = IMAGES) -> list[Case]:
    """Returns `count` cases, from each data set in turn and spread over it."""
    each = math.ceil(count / len(datasets))
    picked = [cases[(2 * number + 1) * len(cases) // (2 * each)] for number in range(each) for cases in datasets]
    return picked[:count]


def milliseconds(engine: Engine, row: catalog.Engine, cases: Sequence[Case], megapixels: int, device: str) -> float:
    """Returns the median time of a cut-out as PNG from a JPEG of this size, with decoding and encoding.

    device: "cpu" measures the CPU time, which other programs distort less; other devices the time that passes.
    Raises what `cut_out` raises.
    """
    limits, spent = ServerSettings().limits, []
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = time.perf_counter()
    for case in cases:
        data = _jpeg(case, megapixels)
        begin = clock()
        cut_out(data, Options(engine=row.name), engine, limits)
        spent.append(clock() - begin)
        if time.perf_counter() - started > PATIENCE_S:
            break
    return 1000 * float(np.median(spent))


def _jpeg(case: Case, megapixels: int) -> bytes:
    """Returns the image of a case, resized to the number of megapixels."""
    image = Image.fromarray(decode(case.image.read_bytes(), ServerSettings().limits).rgb)
    scale = math.sqrt(megapixels * 1e6 / (image.width * image.height))
    buffer = io.BytesIO()
    image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC).save(
        buffer, "JPEG", quality=92
    )
    return buffer.getvalue()

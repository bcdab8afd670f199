"""One image: from the bytes of a file, or of an array, to the bytes of its result."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import cv2
import numpy as np

from maskdrop import __version__, catalog
from maskdrop.errors import InputError, InvalidBackground
from maskdrop.job import Subject
from maskdrop.options import Options
from maskdrop.output import BackgroundImage, Format, Output, Region
from maskdrop.prompt import Prompts
from sagemaker_model.engines.base import Alpha, Engine
from sagemaker_model.imaging.foreground import estimate_foreground
from sagemaker_model.imaging.layout import Rectangle, lay_out, plan
from sagemaker_model.imaging.pixels import DecodedImage, Limits, Pixels, decode, encode
from sagemaker_model.imaging.refine import to_full_size

Read = Callable[[bytes, Limits], DecodedImage]
"""From what came in: `pixels.decode`, or `arrays.read_array`."""

Write = Callable[[Pixels, Pixels, Output, tuple[float, float] | None, Mapping[str, str]], bytes]
"""To what goes out: `pixels.encode`, or `arrays.write_array`, which has no use for `format`."""


@dataclass(frozen=True, slots=True)
class Cutout:
    """A finished image.

    width, height: of the result, in pixels.
    full: the same in the size "original".
    subject: with its box in pixels of the upright source, whatever the layout.
    place: that box in pixels of the result: x0, y0, x1, y1; None when nothing was found.
    timings: milliseconds by stage.
    """

    data: bytes
    format: Format
    width: int
    height: int
    full: tuple[int, int]
    subject: Subject
    place: Rectangle | None
    warnings: tuple[str, ...]
    timings: dict[str, float]


@dataclass(slots=True)
class Timings:
    """Milliseconds by stage."""

    ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.ms[name] = round((time.perf_counter() - start) * 1000, 1)


@dataclass(frozen=True, slots=True)
class Begun:
    """An image that is decoded and waits for its engine. The prompts are clipped to it."""

    picture: DecodedImage
    prompts: Prompts
    options: Options
    timings: Timings


def begin(data: bytes, options: Options, limits: Limits, read: Read = decode) -> Begun:
    """Raises the InputErrors of `read`, InvalidPrompt for a box or a point outside the image, and RegionOutside or
    RegionEmpty for the region of interest."""
    timings = Timings()
    with timings.stage("decode"):
        picture = read(data, limits)
    height, width = picture.rgb.shape[:2]
    prompts = tuple(prompt.inside(width, height) for prompt in options.prompts)
    if options.output.roi:
        options.output.roi.inside(width, height)
    return Begun(picture, prompts, options, timings)


def end(
    begun: Begun, predicted: Alpha, engine: Engine, limits: Limits, write: Write = encode, background: bytes = b""
) -> Cutout:
    """background: the file that `output.background` refers to, if it refers to one. Raises InvalidBackground, and
    ResolutionTooHigh for a result above the limits, or one that its format cannot hold."""
    picture, options, timings = begun.picture, begun.options, begun.timings
    output, row = options.output, catalog.engine(options.engine)
    image = _background(background, limits) if isinstance(output.background, BackgroundImage) else None
    with timings.stage("refine"):
        alpha = FULL_SIZE[row.returns](predicted, picture)
        if output.roi:
            alpha = _only_in(alpha, output.roi)
    subject = subject_of(alpha)
    warnings = picture.warnings + predicted.warnings
    if subject.box is None:
        warnings += (f"no_subject: nothing was found ({row.name} knows {row.subject}); all of it is background.",)
    rgb = picture.rgb
    if output.channels == "rgba":
        with timings.stage("foreground"):
            rgb = estimate_foreground(rgb, alpha)
    with timings.stage("layout"):
        layout = plan(output, alpha)
        limits.check_pixels(*layout.size)  # margins and scale can make a canvas of four times the image
        rgb, alpha = lay_out(rgb, alpha, output, layout, picture, image)
    with timings.stage("encode"):
        result = write(rgb, alpha, output, picture.dpi, _provenance(options, engine))
    place = layout.to_result(subject.box) if subject.box else None
    return Cutout(result, output.format, *layout.size, layout.full_size, subject, place, warnings, timings.ms)


def cut_out(
    data: bytes,
    options: Options,
    engine: Engine,
    limits: Limits,
    read: Read = decode,
    write: Write = encode,
    background: bytes = b"",
) -> Cutout:
    """All of it in one thread. Raises what `begin` and `end` raise."""
    begun = begin(data, options, limits, read)
    with begun.timings.stage("predict"):
        predicted = engine.predict(begun.picture.rgb, begun.prompts)
    return end(begun, predicted, engine, limits, write, background)


def _background(data: bytes, limits: Limits) -> DecodedImage:
    try:
        return decode(data, limits)
    except InputError as error:
        raise InvalidBackground(f"The background image cannot be used. {error}", "background") from error


def _only_in(alpha: Pixels, region: Region) -> Pixels:
    """Alpha HxW inside the region, 0 outside."""
    height, width = alpha.shape
    x0, y0, x1, y1 = region.inside(width, height)
    kept = np.zeros_like(alpha)
    kept[y0:y1, x0:x1] = alpha[y0:y1, x0:x1]
    return kept


def _from_alpha(predicted: Alpha, picture: DecodedImage) -> Pixels:
    """HxW uint8. What the source had transparent stays transparent: its own alpha is multiplied in."""
    alpha = to_full_size(predicted.values, picture.rgb)
    return alpha if picture.alpha is None else cv2.multiply(alpha, picture.alpha, scale=1 / 255).reshape(alpha.shape)


FULL_SIZE: dict[catalog.Returns, Callable[[Alpha, DecodedImage], Pixels]] = {"alpha": _from_alpha}
"""From what an engine returns to the alpha of the image, by the catalogue's `returns`."""


def subject_of(alpha: Pixels) -> Subject:
    """The box around all that is at least half opaque in alpha HxW uint8. score: how far its pixels are from half
    opaque on average, 0..1."""
    _, solid = cv2.threshold(alpha, 127, 255, cv2.THRESH_BINARY)
    x, y, width, height = cv2.boundingRect(solid.reshape(alpha.shape))
    coverage = cv2.mean(alpha)[0] / 255
    if width == 0:
        return Subject(None, coverage, 0.0)
    inside = alpha[y : y + height, x : x + width]
    score = cv2.mean(cv2.absdiff(inside, cv2.bitwise_not(inside)))[0] / 255
    return Subject((x, y, x + width, y + height), coverage, score)


def _provenance(options: Options, engine: Engine) -> dict[str, str]:
    """Says how a result was made, and nothing of whose it is."""
    text = json.dumps(options.to_json(), sort_keys=True, separators=(",", ":"))
    return {
        "software": f"maskdrop {__version__}",
        "engine": options.engine,
        "weights_sha256": engine.weights_sha256,
        "options_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }

"""Processes one image: from the bytes of a file or array to the bytes of its result."""

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
from maskdrop.background import BackgroundImage
from maskdrop.errors import InputError, InvalidBackground
from maskdrop.job import Subject
from maskdrop.options import Options
from maskdrop.output import Format, Output, Region
from maskdrop.prompt import Prompts
from sagemaker_model.engines.base import Alpha, Engine
from sagemaker_model.imaging.foreground import estimate_foreground
from sagemaker_model.imaging.layout import Rectangle, lay_out, plan
from sagemaker_model.imaging.pixels import DecodedImage, Limits, Pixels, decode, encode
from sagemaker_model.imaging.refine import to_full_size

ImageReader = Callable[[bytes, Limits], DecodedImage]
"""Decodes the input: `pixels.decode` or `arrays.read_array`."""

ImageWriter = Callable[[Pixels, Pixels, Output, tuple[float, float] | None, Mapping[str, str]], bytes]
"""Encodes the result: `pixels.encode`, or `arrays.write_array`, which ignores `format`."""


@dataclass(frozen=True, slots=True)
class Cutout:
    """A finished image.

    data: the encoded result. width, height: of the result, in pixels.
    full_size: width and height that the result has with the size "original".
    subject: its box is in pixels of the upright source, for every layout.
    box_in_result: the subject's box in pixels of the result: x0, y0, x1, y1; None if no subject was found.
    timings: milliseconds by stage.
    """

    data: bytes
    format: Format
    width: int
    height: int
    full_size: tuple[int, int]
    subject: Subject
    box_in_result: Rectangle | None
    warnings: tuple[str, ...]
    timings: dict[str, float]


@dataclass(slots=True)
class Timings:
    """Measures the stages of an image, in milliseconds."""

    ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.ms[name] = round((time.perf_counter() - start) * 1000, 1)


@dataclass(frozen=True, slots=True)
class CutoutRequest:
    """A decoded image with its options. The prompts are clipped to the image."""

    image: DecodedImage
    prompts: Prompts
    options: Options
    timings: Timings


def decode_image(data: bytes, options: Options, limits: Limits, read: ImageReader = decode) -> CutoutRequest:
    """Decodes an image, and checks prompts and region of interest.

    Raises the InputErrors of `read`, InvalidPrompt for a box or a point outside the image, and RegionOutside or
    RegionEmpty for the region of interest.
    """
    timings = Timings()
    with timings.stage("decode"):
        image = read(data, limits)
    height, width = image.rgb.shape[:2]
    prompts = tuple(prompt.inside(width, height) for prompt in options.prompts)
    if options.output.roi:
        options.output.roi.inside(width, height)
    return CutoutRequest(image, prompts, options, timings)


def render(
    decoded: CutoutRequest,
    predicted: Alpha,
    engine: Engine,
    limits: Limits,
    write: ImageWriter = encode,
    background: bytes = b"",
) -> Cutout:
    """Refines the engine's alpha, composes the result and encodes it.

    background: content of the file to which `output.background` refers, b"" if it refers to none. Raises
    InvalidBackground, and ResolutionTooHigh for a result above the limits or above the maximum of its format.
    """
    image, options, timings = decoded.image, decoded.options, decoded.timings
    output, row = options.output, catalog.engine(options.engine)
    has_image = isinstance(output.background, BackgroundImage)
    background_image = _decode_background(background, limits) if has_image else None
    with timings.stage("refine"):
        alpha = FULL_SIZE_ALPHA[row.returns](predicted, image)
        if output.roi:
            alpha = _clear_outside(alpha, output.roi)
    subject = subject_of(alpha)
    warnings = image.warnings + predicted.warnings
    if subject.box is None:
        warnings += (f"no_subject: {row.name} finds {row.subject} and found none; all of the image is background.",)
    rgb = image.rgb
    if output.channels == "rgba":
        with timings.stage("foreground"):
            rgb = estimate_foreground(rgb, alpha)
    with timings.stage("layout"):
        layout = plan(output, alpha)
        limits.check_pixels(*layout.size)  # margins and scale can make the canvas four times as large as the image
        rgb, alpha = lay_out(rgb, alpha, output, layout, image, background_image)
    with timings.stage("encode"):
        result = write(rgb, alpha, output, image.dpi, _provenance(options, engine))
    box_in_result = layout.to_result(subject.box) if subject.box else None
    return Cutout(result, output.format, *layout.size, layout.full_size, subject, box_in_result, warnings, timings.ms)


def cut_out(
    data: bytes,
    options: Options,
    engine: Engine,
    limits: Limits,
    read: ImageReader = decode,
    write: ImageWriter = encode,
    background: bytes = b"",
) -> Cutout:
    """Runs all steps in the calling thread. Raises what `decode_image` and `render` raise."""
    decoded = decode_image(data, options, limits, read)
    with decoded.timings.stage("predict"):
        predicted = engine.predict(decoded.image.rgb, decoded.prompts)
    return render(decoded, predicted, engine, limits, write, background)


def _decode_background(data: bytes, limits: Limits) -> DecodedImage:
    try:
        return decode(data, limits)
    except InputError as error:
        raise InvalidBackground(f"The background image cannot be used. {error}", "background") from error


def _clear_outside(alpha: Pixels, region: Region) -> Pixels:
    """Returns alpha HxW with 0 outside the region."""
    height, width = alpha.shape
    x0, y0, x1, y1 = region.inside(width, height)
    inside = np.zeros_like(alpha)
    inside[y0:y1, x0:x1] = alpha[y0:y1, x0:x1]
    return inside


def _full_size_alpha(predicted: Alpha, image: DecodedImage) -> Pixels:
    """Returns the refined alpha, HxW uint8, multiplied by the source's own alpha if it has one."""
    alpha = to_full_size(predicted.values, image.rgb)
    if image.alpha is None:
        return alpha
    return np.asarray(cv2.multiply(alpha, image.alpha, scale=1 / 255), np.uint8).reshape(alpha.shape)


def no_conversion(_predicted: object, _image: object) -> Pixels:
    """Raises NotImplementedError. The row of FULL_SIZE_ALPHA for a kind of prediction that no engine returns yet."""
    raise NotImplementedError("This kind of prediction has no row in FULL_SIZE_ALPHA (cutout.py).")


FULL_SIZE_ALPHA: dict[catalog.Returns, Callable[[Alpha, DecodedImage], Pixels]] = {
    "alpha": _full_size_alpha,
    "masks": no_conversion,
    "boxes": no_conversion,
    "image": no_conversion,
}
"""The conversion of a prediction to the alpha of the image, HxW uint8, by the catalogue's `returns`."""


def subject_of(alpha: Pixels) -> Subject:
    """Returns the subject of alpha, HxW uint8: the box around all pixels of 128 or more, coverage and score.

    score: the mean of the pixels' distance from half opaque inside the box, 0..1.
    """
    _, solid = cv2.threshold(alpha, 127, 255, cv2.THRESH_BINARY)
    x, y, width, height = cv2.boundingRect(solid.reshape(alpha.shape))
    coverage = cv2.mean(alpha)[0] / 255
    if width == 0:
        return Subject(None, coverage, 0.0)
    inside = alpha[y : y + height, x : x + width]
    score = cv2.mean(cv2.absdiff(inside, cv2.bitwise_not(inside)))[0] / 255
    return Subject((x, y, x + width, y + height), coverage, score)


def _provenance(options: Options, engine: Engine) -> dict[str, str]:
    """Returns the software, engine, weights and options of a result, without data of the user."""
    text = json.dumps(options.to_json(), sort_keys=True, separators=(",", ":"))
    return {
        "software": f"maskdrop {__version__}",
        "engine": options.engine,
        "weights_sha256": engine.weights_sha256,
        "options_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }

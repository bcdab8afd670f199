"""Processes one image: from the bytes of a file or array to the bytes of its results.

decode ──► detect ──► predict ──► refine ──► strokes ──► foreground ──► layout ──► encode
         (labels)   (the engine)                       once for each result
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from maskdrop import __version__, catalog
from maskdrop.background import BackgroundImage
from maskdrop.canvas import Canvas
from maskdrop.edit import EditorModel
from maskdrop.errors import EditRefused, InputError, InvalidBackground, InvalidPrompt, UnknownEngine
from maskdrop.job import Subject
from maskdrop.options import Options
from maskdrop.output import CONTENT_TYPE, Output, Region
from maskdrop.prompt import Prompt, Prompts
from sagemaker_model.detectors.base import Detector
from sagemaker_model.detectors.labels import Labels, knows
from sagemaker_model.detectors.targets import (
    INSTANCES_MAX,
    Target,
    Targets,
    empty_alpha,
    find_targets,
    union,
    without,
)
from sagemaker_model.engines.base import Alpha, Engine
from sagemaker_model.engines.confidence import REVIEW_BELOW
from sagemaker_model.engines.prompted import check_boxes
from sagemaker_model.engines.sam import Masks
from sagemaker_model.engines.vitmatte import Refiner
from sagemaker_model.imaging.edits import EditFiles, edit_files, read_alpha, replaced_subject
from sagemaker_model.imaging.encode import encode
from sagemaker_model.imaging.foreground import estimate_foreground
from sagemaker_model.imaging.geometry import Layout, Rectangle, plan
from sagemaker_model.imaging.layout import lay_out
from sagemaker_model.imaging.metadata import SourceMetadata
from sagemaker_model.imaging.pixels import DecodedImage, Limits, Pixels, decode
from sagemaker_model.imaging.refine import to_full_size
from sagemaker_model.imaging.resize import resized
from sagemaker_model.imaging.source_alpha import combined_alpha, own_alpha
from sagemaker_model.imaging.strokes import draw_strokes

ImageReader = Callable[[bytes, Limits], DecodedImage]
"""Decodes the input: `pixels.decode` or `arrays.read_array`."""

ImageWriter = Callable[[Pixels, Pixels, Output, tuple[float, float] | None, Mapping[str, str], SourceMetadata], bytes]
"""Encodes the result: `encode.encode`, or `arrays.write_array`, which ignores `format`."""

PERSON = "person"
"""The label that points without one select where SAM is not installed."""

RESULT_PIXELS_MAX = 64 * 12_000_000
"""Maximum pixels of the results of all instances of one image, at its size: 64 instances of 12 MP, or 16 of 48 MP. 64
cut-outs of 12 MP take 14 s on one busy core."""

ENLARGED_MIN = 1.1
"""Pixels of the result for one of the image from which the warning `enlarged` is added. Below, the blur is not seen."""

EVERYTHING_SIDE = 1024
"""Pixels of the long side of the masks of the everything mode: the resolution of SAM's input."""


@dataclass(frozen=True, slots=True)
class Part:
    """One of several results of an image.

    data: the encoded result. width, height: of the result, in pixels.
    label, score, box: of the instance; see `ResultItem`.
    """

    data: bytes
    width: int
    height: int
    label: str = ""
    score: float = 0.0
    box: Rectangle | None = None


@dataclass(frozen=True, slots=True)
class Cutout:
    """A finished image.

    data: the encoded result; b"" where `edit` is set. width, height: of the result, in pixels.
    format: the file format of every result, or "json" for detections.
    full_size: width and height that the result has with the size "original".
    subject: its box is in pixels of the upright source, for every layout.
    box_in_result: the subject's box in pixels of the result: x0, y0, x1, y1; None if no subject was found.
    timings: milliseconds by stage.
    parts: one for each instance or candidate; () where the result is the only one.
    edit: the input of the editor, where the job goes on with its stage "edit".
    cost_usd: price of paid services, in US dollars.
    engine: that processed the image, which may not be that of the options.
    """

    data: bytes
    format: str
    width: int
    height: int
    full_size: tuple[int, int]
    subject: Subject
    box_in_result: Rectangle | None
    warnings: tuple[str, ...]
    timings: dict[str, float]
    parts: tuple[Part, ...] = ()
    edit: EditFiles | None = None
    cost_usd: float = 0.0
    engine: str = ""

    @property
    def content_type(self) -> str:
        return content_type(self.format)


def content_type(name: str) -> str:
    """Returns the content type of a result's format."""
    return "application/json" if name == "json" else {**CONTENT_TYPE}[name]  # type: ignore[index]


@dataclass(slots=True)
class Timings:
    """Measures the stages of an image, in milliseconds. A stage that runs several times is the sum."""

    ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.ms[name] = round(self.ms.get(name, 0.0) + (time.perf_counter() - start) * 1000, 1)


@dataclass(frozen=True, slots=True)
class CutoutRequest:
    """A decoded image with its options. The prompts are clipped to the image."""

    image: DecodedImage
    prompts: Prompts
    options: Options
    timings: Timings
    targets: Targets = field(default_factory=Targets)


@dataclass(frozen=True, slots=True)
class Segmenter:
    """An engine with one image.

    alpha: returns the alpha of the union of the prompts. everything: returns the masks of all objects, at a size
    (width, height); only of engines whose row of the catalogue has `everything`.
    """

    alpha: Callable[[Prompts], Alpha]
    everything: Callable[[tuple[int, int]], Masks]

    @classmethod
    def of(cls, engine: Any, rgb: Pixels) -> Segmenter:
        """Runs the network at each call."""
        return cls(
            lambda prompts: engine.predict(rgb, prompts), lambda size: engine.everything(engine.embed(rgb), size)
        )


def decode_image(data: bytes, options: Options, limits: Limits, read: ImageReader = decode) -> CutoutRequest:
    """Decodes an image, and checks prompts and region of interest.

    Raises the InputErrors of `read`, InvalidPrompt for a box or a point outside the image, RegionOutside or RegionEmpty
    for the region of interest, and ResolutionTooHigh for a canvas above the limits.
    """
    timings, canvas = Timings(), options.output.canvas
    if isinstance(canvas, Canvas):
        limits.check_canvas(canvas.width, canvas.height)
    with timings.stage("decode"):
        image = read(data, limits)
    height, width = image.rgb.shape[:2]
    prompts = tuple(prompt.inside(width, height) for prompt in options.prompts)
    if options.output.roi:
        options.output.roi.inside(width, height)
    return CutoutRequest(image, prompts, options, timings)


def with_targets(request: CutoutRequest, detector: Detector) -> CutoutRequest:
    """Resolves the prompts of a request to targets. Without SAM, points select the person that they mark.

    Raises what `find_targets` and `check_boxes` raise, and InvalidPrompt where the engine needs a prompt and there is
    none.
    """
    prompts, rgb, options = request.prompts, request.image.rgb, request.options
    if catalog.engine(options.engine).everything and not prompts and options.task != "mask":
        raise InvalidPrompt(
            f"The engine {options.engine!r} needs a box or points: give at least one for the subject. Without a prompt "
            'it supports the task "mask", which returns all objects.'
        )
    # SAM segments boxes and points better than a detector does; other engines take the detector's boxes and masks.
    by_detector = not catalog.engine(options.engine).everything
    if by_detector and knows(detector, PERSON):
        prompts = tuple(
            replace(one, label=PERSON) if one.points and not (one.box or one.label) else one for one in prompts
        )
    if any(prompt.label for prompt in prompts):
        with request.timings.stage("detect"):
            targets = find_targets(rgb, prompts, detector, masks=by_detector)
    else:
        targets = find_targets(rgb, prompts, detector)
    if by_detector and (options.engine == catalog.PROMPTED_ENGINE or options.instances == "each"):
        unmasked = [target.prompt.box for target in (*targets.keep, *targets.ignore) if target.mask is None]
        check_boxes([box for box in unmasked if box], rgb.shape[1], rgb.shape[0])
    return replace(request, targets=targets)


def render(
    decoded: CutoutRequest,
    segmenter: Segmenter,
    engine: Engine,
    limits: Limits,
    write: ImageWriter = encode,
    background: bytes = b"",
    editor: EditorModel | None = None,
    refiner: Refiner | None = None,
    read_file: ImageReader = decode,
) -> Cutout:
    """Segments the image, refines alpha, composes the results and encodes them.

    background: content of the file to which `output.background` refers, b"" if it refers to none; `read_file` decodes
    it. editor: whose limits apply to the images of an edit; None raises ValueError for options with an edit. refiner:
    the installed ViTMatte. Raises InvalidBackground, ResolutionTooHigh for a result above the limits or above the
    maximum of its format, MaskEmpty, MaskFull, and UnknownEngine for a refinement that is not installed.
    """
    image, options, timings = decoded.image, decoded.options, decoded.timings
    output, row = options.output, catalog.engine(options.engine)
    check_refinement(options, refiner)
    has_image = isinstance(output.background, BackgroundImage)
    background_image = _decode_background(background, limits, read_file) if has_image else None
    everything = row.everything and not decoded.targets.prompted
    instances_max = max(1, min(INSTANCES_MAX, RESULT_PIXELS_MAX // _pixels_of_result(image, output)))
    with timings.stage("predict"):
        if everything:
            instances = _everything(segmenter, image)
            predicted = union([alpha for _, alpha in instances]) if instances else empty_alpha()
            found = len(instances)
        else:
            found = len(decoded.targets.keep) if options.instances == "each" else 0
            instances = _instances(decoded.targets, segmenter, instances_max) if found else []
            whole = instances and found == len(instances)
            predicted = union([one for _, one in instances]) if whole else _union(decoded.targets, segmenter)
    provenance = _provenance(options, engine)
    compose = _Composer(image, options, limits, write, background_image, timings, provenance, refiner)
    alpha = compose.full_size(predicted, refined=not everything)
    subject = _described(subject_of(own_alpha(alpha, image.alpha)), predicted, options)
    warnings = image.warnings + decoded.targets.warnings + predicted.warnings
    if subject.box is None:
        warnings += (f"no_subject: {row.name} finds {row.subject} and found none; all of the image is background.",)
    if found > instances_max:
        warnings += (
            f"instances_omitted: {found} instances were found; the first {instances_max} have a result of "
            "their own. A smaller image may have more.",
        )
    size = image.rgb.shape[1], image.rgb.shape[0]
    if options.edit:
        if editor is None:
            raise ValueError("Options with an edit need an editor.")
        with timings.stage("edit_files"):
            files = edit_files(image.rgb, alpha, editor)
        return Cutout(
            b"", output.format, *size, size, subject, subject.box, warnings, timings.ms, edit=files,
            cost_usd=decoded.targets.cost_usd, engine=options.engine,
        )  # fmt: skip
    data, layout = compose.encode(alpha)
    composed = [
        compose.part(compose.full_size(one, refined=not everything), target)
        for target, one in instances[:instances_max]
    ]
    parts = tuple(part for part, _ in composed)
    warnings += _enlarged([layout, *(layout for _, layout in composed)])
    box_in_result = layout.to_result(subject.box) if subject.box else None
    return Cutout(
        data, output.format, *layout.size, layout.full_size, subject, box_in_result, warnings, timings.ms, parts,
        cost_usd=decoded.targets.cost_usd, engine=options.engine,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Composer:
    """Makes the results of one image from the alpha of each."""

    image: DecodedImage
    options: Options
    limits: Limits
    write: ImageWriter
    background: DecodedImage | None
    timings: Timings
    provenance: Mapping[str, str]
    refiner: Refiner | None = None

    def full_size(self, predicted: Alpha, *, refined: bool) -> Pixels:
        """Returns the alpha at the image's size, HxW uint8. refined: False for masks that are only enlarged."""
        output, task = self.options.output, self.options.task
        with self.timings.stage("refine"):
            if refined:
                alpha = FULL_SIZE_ALPHA[catalog.engine(self.options.engine).returns](predicted, self.image)
                if self.refiner and self.options.refine == "vitmatte":
                    alpha = self.refiner.refine(self.image.rgb, alpha)
                    if self.image.alpha is not None:
                        alpha = np.minimum(alpha, self.image.alpha)
            else:
                size = self.image.rgb.shape[1], self.image.rgb.shape[0]
                alpha = np.rint(resized(predicted.values, size) * 255).astype(np.uint8)
        if self.options.strokes:
            with self.timings.stage("strokes"):
                alpha = draw_strokes(alpha, self.options.strokes, self.image.alpha)
        with self.timings.stage("refine"):
            if output.roi:
                alpha = _clear_outside(alpha, output.roi)
            if task == "mask":
                alpha = np.asarray(cv2.threshold(alpha, 127, 255, cv2.THRESH_BINARY)[1], np.uint8).reshape(alpha.shape)
        return alpha

    def encode(self, alpha: Pixels) -> tuple[bytes, Layout]:
        """Returns the encoded result and its geometry."""
        output, rgb = self.options.output, self.image.rgb
        if output.channels == "rgba":
            with self.timings.stage("foreground"):
                rgb = estimate_foreground(rgb, own_alpha(alpha, self.image.alpha))
        with self.timings.stage("layout"):
            layout = plan(output, alpha)
            self.limits.check_canvas(*layout.size)
            rgb, alpha = lay_out(rgb, alpha, output, layout, self.image, self.background)
        with self.timings.stage("encode"):
            return self.write(rgb, alpha, output, self.image.dpi, self.provenance, self.image.metadata), layout

    def part(self, alpha: Pixels, target: Target) -> tuple[Part, Layout]:
        """Returns the result of one instance and its geometry."""
        data, layout = self.encode(alpha)
        subject = subject_of(own_alpha(alpha, self.image.alpha))
        score = subject.score if target.score is None else target.score
        return Part(data, *layout.size, target.label, score, subject.box), layout


def _pixels_of_result(image: DecodedImage, output: Output) -> int:
    """Returns the pixels of the image, or of a canvas that has more."""
    canvas = output.canvas.width * output.canvas.height if isinstance(output.canvas, Canvas) else 0
    return max(image.rgb[..., 0].size, canvas)


def _enlarged(layouts: Sequence[Layout]) -> tuple[str, ...]:
    """Returns the warning for results whose subject is enlarged so much that it is visibly blurred."""
    scale = max(layout.scale for layout in layouts)
    if scale < ENLARGED_MIN:
        return ()
    return (
        f"enlarged: the image was enlarged {scale:.1f} times to fill the canvas, and is not sharp; use a smaller "
        "canvas, an aspect ratio, or a larger image.",
    )


def _union(targets: Targets, segmenter: Segmenter) -> Alpha:
    """Returns the alpha of all targets to keep, without those to ignore; of the whole image without prompts."""
    if not targets.prompted:
        return segmenter.alpha(())
    kept = _alpha(targets.keep, segmenter)
    return without(kept, _alpha(targets.ignore, segmenter)) if targets.ignore else kept


def _alpha(targets: Sequence[Target], segmenter: Segmenter) -> Alpha:
    """Returns the union of targets. The engine segments those without a mask of their own."""
    parts = [target.mask for target in targets if target.mask]
    if prompts := tuple(target.prompt for target in targets if target.mask is None):
        parts.append(segmenter.alpha(prompts))
    return union(parts) if parts else empty_alpha()


def _instances(targets: Targets, segmenter: Segmenter, count: int) -> list[tuple[Target, Alpha]]:
    """Returns the alpha of each of the first `count` targets to keep, without those to ignore."""
    ignored = _alpha(targets.ignore, segmenter) if targets.ignore else None
    alphas = [(target, _alpha([target], segmenter)) for target in targets.keep[:count]]
    return [(target, without(alpha, ignored) if ignored else alpha) for target, alpha in alphas]


def _everything(segmenter: Segmenter, image: DecodedImage) -> list[tuple[Target, Alpha]]:
    """Returns the masks of all objects under a grid of points, the best first, at most INSTANCES_MAX."""
    height, width = image.rgb.shape[:2]
    scale = min(1.0, EVERYTHING_SIDE / max(height, width))
    masks = segmenter.everything((max(1, round(width * scale)), max(1, round(height * scale))))
    return [
        (Target(Prompt(), score=float(score)), Alpha(mask.astype(np.float32)))
        for mask, score in zip(masks.masks[:INSTANCES_MAX], masks.scores, strict=False)
    ]


def cut_out(
    data: bytes,
    options: Options,
    engine: Engine,
    limits: Limits,
    read: ImageReader = decode,
    write: ImageWriter = encode,
    background: bytes = b"",
    detector: Detector | None = None,
    editor: EditorModel | None = None,
    refiner: Refiner | None = None,
    read_file: ImageReader = decode,
) -> Cutout:
    """Runs all steps in the calling thread. detector: finds the labels of prompts; None knows no label.

    Raises what `decode_image`, `with_targets` and `render` raise.
    """
    check_refinement(options, refiner)  # before the network runs
    decoded = with_targets(decode_image(data, options, limits, read), detector or Labels())
    segmenter = Segmenter.of(engine, decoded.image.rgb)
    return render(decoded, segmenter, engine, limits, write, background, editor, refiner, read_file)


def check_refinement(options: Options, refiner: Refiner | None) -> None:
    """Raises UnknownEngine for a refinement that is not installed."""
    if options.refine == "vitmatte" and refiner is None:
        raise UnknownEngine(
            'The refinement "vitmatte" is not installed on this server; use "guided", or install it: `maskdrop models '
            "import vitmatte-small FILE`, torch and transformers."
        )


def detect_objects(
    data: bytes, options: Options, detector: Detector, limits: Limits, read: ImageReader = decode
) -> Cutout:
    """Detects the labels of the prompts, or all labels that the detector lists, and returns them as JSON.

    Raises what `decode_image` and `detector.detect` raise.
    """
    decoded = decode_image(data, options, limits, read)
    image = decoded.image
    with decoded.timings.stage("detect"):
        if decoded.prompts:
            targets = find_targets(image.rgb, decoded.prompts, detector)
            ignored = {target.prompt.box for target in targets.ignore}
            found = [(one.label, one.score or 0.0, one.prompt.box) for one in targets.keep]
            rows = [row for row in found if row[2] not in ignored]
            warnings, cost_usd = targets.warnings, targets.cost_usd
        else:
            every = detector.detect(image.rgb)
            rows = list(zip(every.labels, map(float, every.scores), map(_as_box, every.boxes), strict=True))
            warnings, cost_usd = every.warnings, every.cost_usd
    height, width = image.rgb.shape[:2]
    rows.sort(key=lambda row: -row[1])
    detections = [
        {"label": label, "score": round(score, 4), "box": [round(value, 1) for value in box or ()]}
        for label, score, box in rows
    ]
    known = None if detector.labels is None else list(detector.labels)
    report = {"width": width, "height": height, "engine": options.engine, "labels": known, "detections": detections}
    subject = _detected_subject(rows, width, height)
    return Cutout(
        json.dumps(report, separators=(",", ":"), ensure_ascii=False).encode(), "json", width, height, (width, height),
        subject, subject.box, image.warnings + warnings, decoded.timings.ms, cost_usd=cost_usd,
    )  # fmt: skip


def _as_box(values: Any) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = map(float, values)
    return x0, y0, x1, y1


def _detected_subject(rows: Sequence[tuple[str, float, Any]], width: int, height: int) -> Subject:
    """Returns the detection with the highest score as subject. coverage: its share of the image."""
    if not rows:
        return Subject(None, 0.0, 0.0)
    x0, y0, x1, y1 = rows[0][2]
    box = max(0, int(x0)), max(0, int(y0)), min(width, round(x1)), min(height, round(y1))
    return Subject(box, (x1 - x0) * (y1 - y0) / (width * height), rows[0][1])


def compose_candidates(
    data: bytes,
    options: Options,
    stored_alpha: bytes,
    generated: Sequence[bytes],
    engine: Engine,
    limits: Limits,
    read: ImageReader = decode,
) -> Cutout:
    """Composes the generated images of an edit with the source: the last stage of a job with an edit.

    stored_alpha: the PNG of `EditFiles.alpha`. generated: one image file for each candidate, at least one. The first
    candidate is the result too. Raises the InputErrors of `decode_image`, and EditRefused for a generated image that
    cannot be decoded.
    """
    if options.edit is None:
        raise ValueError("The options have no edit.")
    decoded = decode_image(data, replace(options, prompts=()), limits, read)
    image, timings = decoded.image, decoded.timings
    alpha = read_alpha(stored_alpha, image.rgb.shape[:2])
    parts, layout = [], None
    for file in generated:
        with timings.stage("generated"):
            backdrop = _decode_generated(file, limits, read)
        if options.edit.change == "background":
            shown = replace(options, output=replace(options.output, background=BackgroundImage("", "")))
            source, visible = image, alpha
        else:
            shown = options
            source, visible = replaced_subject(image, alpha, backdrop)
        compose = _Composer(source, shown, limits, encode, backdrop, timings, _provenance(options, engine))
        encoded, layout = compose.encode(visible)
        parts.append(Part(encoded, *layout.size))
    if layout is None:
        raise ValueError("An edit needs at least one generated image.")
    subject = subject_of(alpha)
    box_in_result = layout.to_result(subject.box) if subject.box else None
    return Cutout(
        parts[0].data, options.output.format, *layout.size, layout.full_size, subject, box_in_result,
        image.warnings + _enlarged([layout]), timings.ms, tuple(parts), engine=options.engine,
    )  # fmt: skip


def _decode_generated(data: bytes, limits: Limits, read: ImageReader) -> DecodedImage:
    try:
        return read(data, limits)
    except InputError as error:
        raise EditRefused(f"The generated image cannot be used. {error}") from error


def _decode_background(data: bytes, limits: Limits, read: ImageReader) -> DecodedImage:
    try:
        return read(data, limits)
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
    """Returns the refined alpha, HxW uint8, combined with the source's own alpha if it has one."""
    return combined_alpha(to_full_size(predicted.values, image.rgb), image.alpha)


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


def _described(subject: Subject, predicted: Alpha, options: Options) -> Subject:
    """Returns the subject with the kind, the engine and the score of the prediction."""
    row = catalog.engine(options.engine)
    kind = "none" if subject.box is None else row.kind if predicted.kind == "unknown" else predicted.kind
    score = subject.score if predicted.score is None or subject.box is None else predicted.score
    review_below = options.review_below
    if review_below is None:
        review_below = 0.0 if predicted.score is None else REVIEW_BELOW
    engine = predicted.engine or row.name
    return replace(subject, score=score, kind=kind, engine=engine, needs_review=score < review_below)


def _provenance(options: Options, engine: Engine) -> dict[str, str]:
    """Returns the software, engine, weights and options of a result, without data of the user."""
    text = json.dumps(options.to_json(), sort_keys=True, separators=(",", ":"))
    return {
        "software": f"maskdrop {__version__}",
        "engine": options.engine,
        "weights_sha256": engine.weights_sha256,
        "options_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }

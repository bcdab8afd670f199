"""Processes images in this process: the engines and detectors of the weights folder, and an editor. No stack is used.

The stages are those of the container (`sagemaker_model.installed`) and of the function `edit` (`Editor`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from cli.engines import device_and_threads, load_engine
from lambdas.adapters.editors.local import LocalEditor
from local.config import LocalError
from maskdrop import catalog
from maskdrop.edit import EDITORS, Change, Edit, EditorModel, EditorName
from maskdrop.editing import CALL_S
from maskdrop.errors import EditFiltered, EditorUnavailable, SpendingCapReached
from maskdrop.options import Options
from maskdrop.services import EditedImage, Editor, EditRequest
from sagemaker_model.cutout import Cutout, check_refinement
from sagemaker_model.detectors.base import Detector
from sagemaker_model.detectors.labels import load_detectors
from sagemaker_model.engines.base import Engine, installation
from sagemaker_model.engines.prompted import PREFERRED
from sagemaker_model.engines.vitmatte import load_refiner
from sagemaker_model.imaging.edits import EditFiles
from sagemaker_model.imaging.pixels import Limits
from sagemaker_model.installed import Installed
from sagemaker_model.settings import ServerSettings
from sagemaker_model.weights.store import NotInstalled

ATTEMPTS = 4
"""Calls of the editor for one image, as long as no call may have been billed: waits of 2, 4 and 8 seconds."""


@dataclass(frozen=True, slots=True)
class Made:
    """The results of one photo. candidates: prompt and seed of each part of an edit."""

    cutout: Cutout
    candidates: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Paint:
    """An editor with the limits of its model.

    usd_max: maximum price of a command, in US dollars. sleep: waits that many seconds between two attempts.
    """

    editor: Editor
    model: EditorModel
    usd_max: float
    sleep: Callable[[float], None] = time.sleep

    def check(self, prompts: Iterable[str], images: int, change: Change = "background") -> float:
        """Returns the price of that many images in US dollars, before anything is paid.

        Raises TextNotSupported, and SpendingCapReached for a price above `usd_max`.
        """
        for prompt in prompts:
            self.editor.check(prompt, change)
        price = images * self.editor.usd_per_image
        if price > self.usd_max:
            raise SpendingCapReached(
                f"{images} images cost ${price:.2f}, more than --max-usd {self.usd_max:.2f}. No image was generated: "
                "raise --max-usd, or use fewer texts, seeds or photos."
            )
        return price

    def generate(self, files: EditFiles, edit: Edit) -> tuple[list[EditedImage | None], str]:
        """Returns an image for each candidate of the edit, None for one that the content filter refused; and the
        message of the last refusal. Raises what `Editor.edit` raises."""
        request, images, refusal = EditRequest.of(edit, files.image, files.mask), list[EditedImage | None](), ""
        for prompt, seed in edit.candidates:
            try:
                images.append(self._edit(replace(request, prompt=prompt, seed=seed)))
            except EditFiltered as error:
                images.append(None)
                refusal = error.message
        return images, refusal

    def _edit(self, request: EditRequest) -> EditedImage:
        for attempt in range(1, ATTEMPTS):
            try:
                return self.editor.edit(request)
            except EditorUnavailable as error:
                if error.maybe_billed:
                    raise
            self.sleep(2**attempt)
        return self.editor.edit(request)


@dataclass(frozen=True, slots=True)
class Processor:
    """The engines and detectors that a command needs. paint: None for options without an edit."""

    installed: Installed
    limits: Limits
    paint: Paint | None = None

    def process(self, data: bytes, options: Options, background: bytes = b"") -> Made:
        """Processes one image, with all stages of an edit. background: content of the file of a background image.

        Raises what `segment` and `generate` raise.
        """
        segmented = self.segment(data, options, background)
        return self.generate(data, options, segmented) if segmented.edit else Made(segmented)

    def segment(self, data: bytes, options: Options, background: bytes = b"") -> Cutout:
        """Runs the first stage. Raises what `Installed.process` raises."""
        model = self.paint.model if self.paint else None
        return self.installed.process(data, options, self.limits, background=background, editor=model)

    def generate(self, data: bytes, options: Options, segmented: Cutout) -> Made:
        """Generates the candidates of an edit and composes them with their source. segmented: of `segment`.

        Raises what `Editor.edit` and `Installed.compose` raise, and EditFiltered where the content filter refused every
        candidate.
        """
        edit, files = options.edit, segmented.edit
        if edit is None or files is None or self.paint is None:
            raise ValueError("Candidates need options with an edit, a segmented image and an editor.")
        images, refusal = self.paint.generate(files, edit)
        kept = [(one, image) for one, image in zip(edit.candidates, images, strict=True) if image]
        refused = f"The content filter refused {len(images) - len(kept)} of {len(images)} candidates. {refusal}"
        if not kept:
            raise EditFiltered(refused)
        composed = self.installed.compose(data, options, files.alpha, [image.data for _, image in kept], self.limits)
        warnings = dict.fromkeys((*segmented.warnings, *composed.warnings))
        if len(kept) < len(images):
            warnings[f"edit_filtered: {refused}"] = None
        cutout = replace(
            composed,
            warnings=tuple(warnings),
            timings={**segmented.timings, **composed.timings},
            cost_usd=segmented.cost_usd + sum(image.cost_usd for _, image in kept),
        )
        return Made(cutout, tuple(one for one, _ in kept))


def load_processor(
    options: Options, folder: Path, *, rekognition: bool = False, paint: Paint | None = None, workers: int = 1
) -> Processor:
    """Sets up the engine and the detectors that options need, from the weights folder.

    rekognition: whether labels that no own detector knows are sent to Amazon Rekognition.
    workers: images processed at the same time.
    Raises InvalidWeights, and
    NotInstalled if weights or packages of the engine are missing.
    """
    detectors: dict[str, Detector] = {}
    if options.task == "detect" or any(prompt.label or prompt.points for prompt in options.prompts):
        paid = rekognition or catalog.engine(options.engine).paid
        device, threads = device_and_threads(workers)
        detectors = load_detectors(device, folder, threads, paid=paid)
    engines: dict[str, Engine] = {}
    if options.task != "detect":
        names = (*PREFERRED, options.engine) if options.engine == catalog.PROMPTED_ENGINE else (options.engine,)
        for name in names:
            try:
                engines = engines or {name: load_engine(catalog.engine(name), folder, workers)}
            except NotInstalled:
                if name == options.engine:
                    raise
    elif options.engine not in detectors:
        raise NotInstalled(
            f"The detector {options.engine} cannot be loaded. {installation(catalog.engine(options.engine))}"
        )
    device, threads = device_and_threads(workers)
    refiner = load_refiner(device, folder, threads) if options.refine == "vitmatte" else None
    check_refinement(options, refiner)
    return Processor(Installed(engines, detectors, refiner=refiner), ServerSettings().limits, paint)


def paint_of(name: EditorName, usd_max: float, region: str | None = None) -> Paint:
    """Returns an editor: `local`, or a model on Amazon Bedrock with the AWS credentials of the user.

    region: None for that of the AWS configuration. Raises LocalError without a Region or credentials.
    """
    if name == "local":
        return Paint(LocalEditor(), EDITORS[name], usd_max)
    import boto3  # with botocore 0.1 s, which the other commands save
    from botocore.config import Config

    from lambdas.adapters.editors.bedrock import BEDROCK_EDITORS
    from local.account import region_of_environment

    region = region or region_of_environment()
    if not region:
        raise LocalError(f"--editor {name} needs an AWS Region: use --region, or set AWS_REGION.")
    # One attempt: a call that timed out may have been billed. `Paint` repeats those that were not.
    config = Config(read_timeout=CALL_S, connect_timeout=10, retries={"total_max_attempts": 1})
    session = boto3.session.Session(region_name=region)
    if session.get_credentials() is None:
        raise LocalError(f"--editor {name} needs AWS credentials: run `aws configure`, or set AWS_PROFILE.")
    client = cache(partial(session.client, "bedrock-runtime", config=config))
    return Paint(BEDROCK_EDITORS[name](client, region), EDITORS[name], usd_max)

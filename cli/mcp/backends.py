"""Where the tools process images: in this process, by the installed engines, or by the HTTP API of a stage."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from anyio import to_thread

from cli.processing import Made, Paint, Processor, load_processor
from lambdas.adapters.fetch import PublicWeb
from lambdas.http.cutouts import options_of
from maskdrop import catalog
from maskdrop.edit import EDITORS
from maskdrop.errors import InvalidOptions, MaskdropError, SpendingCapReached
from maskdrop.options import Options
from maskdrop.output import parsed
from maskdrop.presets import BUILT_IN
from maskdrop_client import ApiError, AsyncMaskdrop
from maskdrop_client.result import SUFFIXES
from sagemaker_model.detectors.rekognition import USD_PER_IMAGE

T = TypeVar("T")

ToolTask = Literal["cutout", "mask", "detect", "replace"]

Report = Callable[[str], Awaitable[None]]
"""Reports the progress of a call in words."""

PROCESSORS_MAX = 4
"""Engines in memory at a time. One takes up to 1 GB."""

FILE_BUCKET = "file"
"""Bucket of a background image that is a file on this machine."""


class PriceNotAccepted(MaskdropError):
    """The call costs money, and its `max_usd` does not cover the price."""

    code, status = "price_not_accepted", 402


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRequest:
    """One call of a tool.

    source: the bytes of the image, or its URL. fields: options in the JSON form of the API. usd_max: the price that the
    caller accepts. background: content of the file of a background image, and fit its words, such as "cover".
    """

    task: ToolTask
    source: bytes | str
    fields: Mapping[str, Any] = field(default_factory=dict)
    usd_max: float = 0.0
    background: bytes = b""
    fit: str = ""

    @property
    def candidates(self) -> int:
        """Number of images to generate."""
        edit = self.fields.get("edit")
        return max(1, len(edit["prompts"]) * len(edit["seeds"])) if edit else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of a result. box: in pixels of the upright source. prompt, seed: of a generated image."""

    data: bytes = field(repr=False)
    width: int
    height: int
    label: str = ""
    score: float = 0.0
    box: tuple[int, int, int, int] | None = None
    prompt: str = ""
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Processed:
    """A processed image. suffix: of its files. parts: one for each instance or candidate; () where `main` is the only
    file. timings: milliseconds by step."""

    main: Part
    suffix: str
    engine: str
    subject: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    cost_usd: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of one call in US dollars. note: for the user."""

    usd: float
    note: str


@dataclass(slots=True)
class Purse:
    """The money that the server may spend in its lifetime, in US dollars."""

    usd_max: float
    spent: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, usd: float) -> None:
        """Reserves the price of one call. Raises SpendingCapReached."""
        with self.lock:
            if self.spent + usd > self.usd_max + 1e-9:
                raise SpendingCapReached(
                    f"The call costs ${usd:.3f}; of --max-usd {self.usd_max:.2f} this server has spent "
                    f"${self.spent:.3f}. Restart it with a higher --max-usd."
                )
            self.spent += usd

    def give_back(self, usd: float) -> None:
        """Returns the reserved price of a call that was not billed."""
        with self.lock:
            self.spent -= usd


class Backend(Protocol):
    """Processes images."""

    def price(self, task: ToolTask, engine: str | None, candidates: int) -> Price:
        """Returns the price of one call. candidates: images to generate."""

    async def process(self, request: ToolRequest, report: Report) -> Processed:
        """Processes one image. Raises MaskdropError or ClientError; a cancelled call writes and pays nothing more."""

    async def close(self) -> None: ...


def check_price(price: Price, usd_max: float) -> None:
    """Raises PriceNotAccepted."""
    if price.usd > usd_max + 1e-9:
        raise PriceNotAccepted(
            f"This call costs up to ${price.usd:.3f}; its max_usd is {usd_max:g}. Call the tool quote, let the user "
            f"confirm the price, then repeat the call with max_usd={price.usd:.3f}."
        )


def _is_paid(engine: str | None) -> bool:
    """Whether each call of the engine costs money. An unknown engine is refused by the call itself."""
    row = catalog.ENGINES.get(engine or "")
    return row is not None and row.paid


class _Cancelled(Exception):
    """The call was cancelled before its thread started to work."""


@dataclass(slots=True)
class LocalBackend:
    """The engines of this machine. It processes one image at a time, with all cores.

    weights: folder of the weights. paint: the editor of texts.
    """

    weights: Path
    paint: Paint
    purse: Purse
    web: PublicWeb
    _processors: OrderedDict[tuple[Any, ...], Processor] = field(default_factory=OrderedDict)
    _gate: threading.Lock = field(default_factory=threading.Lock)

    def price(self, task: ToolTask, engine: str | None, candidates: int) -> Price:
        if candidates and (usd := self.paint.editor.usd_per_image):
            return Price(usd=candidates * usd, note=f"{candidates} images by {self.paint.model.model} at ${usd} each.")
        if _is_paid(engine):
            return Price(usd=USD_PER_IMAGE, note=f"One call of Amazon Rekognition at ${USD_PER_IMAGE}.")
        return Price(usd=0.0, note=f"The {task} runs on this machine and costs nothing.")

    async def process(self, request: ToolRequest, report: Report) -> Processed:
        options = self._options(request)
        price = self.price(request.task, options.engine, request.candidates)
        check_price(price, request.usd_max)
        if options.edit:
            for prompt in options.edit.prompts:
                self.paint.editor.check(prompt, options.edit.change)
        cancelled = threading.Event()

        async def run(function: Callable[[], T]) -> T:
            def work() -> T:
                with self._gate:
                    if cancelled.is_set():
                        raise _Cancelled
                    return function()

            return await to_thread.run_sync(work, abandon_on_cancel=True)

        try:
            data = request.source
            if isinstance(data, str):
                await report("Downloading the image")
                fetch = partial(self.web.fetch, data)
                data = (await to_thread.run_sync(fetch, abandon_on_cancel=True)).body
            await report("Loading the engine")
            processor = await run(partial(self._processor, options))
            await report("Segmenting the image" if request.task != "detect" else "Detecting objects")
            if request.task == "detect":
                self.purse.take(price.usd)
            made = Made(await run(partial(processor.segment, data, options, request.background)))
            if made.cutout.edit:
                await report("Generating the background")
                self.purse.take(price.usd)
                made = await run(partial(processor.generate, data, options, made.cutout))
        finally:
            cancelled.set()
        return _processed(made)

    async def close(self) -> None:
        self._processors.clear()

    def _options(self, request: ToolRequest) -> Options:
        """Merges the options with the built-in preset. Raises as `options_of` does."""
        fields = {"task": request.task, **request.fields}
        if not request.background:
            return options_of(BUILT_IN, fields)[1]
        image = parsed({"background": f"{request.fit} s3://{FILE_BUCKET}/image".strip()})["background"]
        # Requests of the API must not name an image, so that a colour takes its place until the options are checked.
        _, options = options_of(BUILT_IN, {**fields, "output": {**fields.get("output", {}), "background": "white"}})
        return replace(options, output=replace(options.output, background=image))

    def _processor(self, options: Options) -> Processor:
        """Returns the loaded engine and detectors of some options; called by one thread at a time."""
        prompts = any(prompt.label or prompt.points for prompt in options.prompts)
        key = options.engine, options.task == "detect", prompts, options.refine
        if key not in self._processors:
            while len(self._processors) >= PROCESSORS_MAX:
                self._processors.popitem(last=False)
            self._processors[key] = load_processor(options, self.weights, paint=self.paint)
        self._processors.move_to_end(key)
        return self._processors[key]


def _processed(made: Made) -> Processed:
    cutout = made.cutout
    candidates = made.candidates or (("", None),) * len(cutout.parts)
    return Processed(
        main=Part(data=cutout.data, width=cutout.width, height=cutout.height),
        suffix=f".{cutout.format}",
        engine=cutout.engine,
        subject=cutout.subject.to_json(),
        warnings=cutout.warnings,
        timings=cutout.timings,
        parts=tuple(
            Part(
                data=one.data,
                width=one.width,
                height=one.height,
                label=one.label,
                score=round(one.score, 4),
                box=one.box,
                prompt=prompt,
                seed=seed,
            )
            for one, (prompt, seed) in zip(cutout.parts, candidates, strict=True)
        ),
        cost_usd=round(cutout.cost_usd, 6),
    )


METHODS = {"cutout": "cutout", "mask": "mask", "detect": "detect", "replace": "edit"}
"""The method of the client for each task."""


@dataclass(frozen=True, slots=True)
class ApiBackend:
    """The HTTP API of a deployed stage or of `maskdrop serve`. It fetches URLs itself, by its own SSRF policy."""

    client: AsyncMaskdrop
    purse: Purse

    def price(self, task: ToolTask, engine: str | None, candidates: int) -> Price:
        """The API does not state which editor its stage has: the price is that of the most expensive one."""
        if candidates:
            name, model = max(EDITORS.items(), key=lambda item: item[1].usd_per_image)
            usd = model.usd_per_image
            note = f"At most {candidates} images at ${usd} each ({name}); the editor of the stage may cost less."
            return Price(usd=candidates * usd, note=note)
        if _is_paid(engine):
            return Price(usd=USD_PER_IMAGE, note=f"One call of Amazon Rekognition at ${USD_PER_IMAGE}.")
        return Price(
            usd=0.0,
            note=f"The API charges nothing for a {task}; AWS bills the endpoint of the stage by its own prices.",
        )

    async def process(self, request: ToolRequest, report: Report) -> Processed:
        if request.background:
            raise InvalidOptions("The API accepts no file as background; use a preset of the stage with an image.")
        price = self.price(request.task, request.fields.get("engine"), request.candidates)
        check_price(price, request.usd_max)
        await report("Sending the image to the API")
        self.purse.take(price.usd)
        try:
            made = await getattr(self.client, METHODS[request.task])(request.source, **request.fields)
        except ApiError as error:
            if error.status < 500:
                self.purse.give_back(price.usd)
            raise
        if request.task == "detect":
            body = {
                "width": made.width,
                "height": made.height,
                "engine": made.engine,
                "labels": made.labels,
                "detections": [{"label": one.label, "score": one.score, "box": one.box} for one in made.detections],
            }
            main = Part(data=json.dumps(body).encode(), width=made.width, height=made.height)
            return Processed(
                main=main, suffix=".json", engine=made.engine, warnings=made.warnings, timings=made.timings
            )
        parts = []
        for item in made.results:
            await report("Downloading the results")
            file = item.result
            parts.append(
                Part(
                    data=await self.client.download(item),
                    width=file.width,
                    height=file.height,
                    label=item.label,
                    score=item.score,
                    box=item.box,
                    prompt=item.prompt,
                    seed=item.seed,
                )
            )
        subject = made.subject
        return Processed(
            main=Part(data=made.data, width=made.width, height=made.height),
            suffix=SUFFIXES.get(made.content_type, (".bin",))[0],
            engine=made.engine,
            subject=None
            if subject is None
            else {
                "box": subject.box,
                "coverage": subject.coverage,
                "score": subject.score,
                "kind": subject.kind,
                "engine": subject.engine,
                "needs_review": subject.needs_review,
            },
            warnings=made.warnings,
            timings=made.timings,
            parts=tuple(parts),
            cost_usd=(made.job.cost_usd if made.job else None) or 0.0,
        )

    async def close(self) -> None:
        await self.client.close()

"""The tools of the MCP server, by the official package `mcp`."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

import anyio
from anyio import CancelScope, to_thread
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import CallToolResult, ImageContent, TextContent, ToolAnnotations
from pydantic import BaseModel, Field

from cli.mcp.backends import Backend, Part, Processed, ToolRequest, ToolTask
from cli.mcp.files import Files, preview_of
from maskdrop import __version__
from maskdrop.catalog import ENGINES
from maskdrop.edit import CANDIDATES_MAX
from maskdrop.errors import InvalidOptions, MaskdropError
from maskdrop.output import FIELDS
from maskdrop.presets import PRESETS
from maskdrop_client import ApiError, ClientError

LOOPBACK = "127.0.0.1"

HEARTBEAT_S = 5.0
"""Seconds between two progress notifications: hosts cancel a call without one after 60 s or less."""

DETECTIONS_MAX = 100
"""Detections in one response."""

INSTRUCTIONS = """Removes backgrounds, segments, detects objects and replaces backgrounds in image files. The argument
`image` is a path below the allowed folders, or an https URL. Results are written as new files; responses have the paths
and a small preview. Work on this machine costs $0. Generating images from text can cost money: call `quote`, let the
user confirm the price, then pass it as `max_usd`."""

Image = Annotated[str, Field(description="Path of an image file, or https URL of an image.", min_length=1)]
Labels = Annotated[
    list[str] | None, Field(description="Labels of the subjects, such as face or person; all of their instances.")
]
Boxes = Annotated[
    list[tuple[float, float, float, float]] | None,
    Field(description="Boxes around subjects: x0, y0, x1, y1 in pixels of the upright image."),
]
Points = Annotated[
    list[tuple[float, float]] | None,
    Field(description="Points on the subject: x, y in pixels. With labels, they select instances."),
]
Instances = Annotated[
    Literal["union", "each"], Field(description="each: also one file for each instance; union: one file.")
]
Preset = Annotated[str | None, Field(description=f"Options by name: {', '.join(PRESETS)}.")]
Output = Annotated[
    dict[str, str] | None,
    Field(description="Form of the result. " + " ".join(f"{name}: {one.grammar}." for name, one in FIELDS.items())),
]
Out = Annotated[
    str | None, Field(description="Folder for the result, below the allowed folders; by default that of the image.")
]
MaxUsd = Annotated[
    float, Field(ge=0, description="Highest price in US dollars that the user accepts for this call; see quote.")
]


def _engines(task: ToolTask) -> Any:
    names = ", ".join(name for name, row in ENGINES.items() if task in row.tasks)
    return Field(description=f"Engine; by default the best one. Known: {names}.")


class Subject(BaseModel):
    """The subject of an image. score: 0 to 1. box: x0, y0, x1, y1 in pixels of the upright image."""

    kind: str = "unknown"
    score: float = 0.0
    box: tuple[int, int, int, int] | None = None
    coverage: float = 0.0
    needs_review: bool = False


class ResultFile(BaseModel):
    """A file that a tool wrote. label, score, box: of an instance. prompt, seed: of a generated image."""

    path: str
    width: int
    height: int
    bytes: int
    label: str = ""
    score: float = 0.0
    box: tuple[int, int, int, int] | None = None
    prompt: str = ""
    seed: int | None = None


class ImageResult(BaseModel):
    """The result of cutout, mask or repaint. file: the result, or the first generated image. files: one for each
    instance or generated image."""

    file: ResultFile
    files: list[ResultFile] = []
    engine: str
    subject: Subject | None = None
    warnings: list[str] = []
    timings_ms: dict[str, float] = {}
    cost_usd: float = 0.0


class Detection(BaseModel):
    """One detected instance. score: 0 to 1. box: x0, y0, x1, y1 in pixels of the upright image."""

    label: str
    score: float
    box: tuple[float, float, float, float]


class DetectResult(BaseModel):
    """The instances in an image of width x height pixels. total: their number; `detections` has the first 100.
    labels: that the detector knows; null for any label."""

    width: int
    height: int
    engine: str
    total: int
    detections: list[Detection]
    labels: list[str] | None = None
    warnings: list[str] = []


class Quote(BaseModel):
    """The price of calls in US dollars, and the `max_usd` of one call that accepts it."""

    usd: float
    usd_per_call: float
    calls: int
    note: str


@dataclass(slots=True)
class Progress:
    """The progress notifications of one call: a number that grows, and a text."""

    context: Context[Any, Any]
    count: int = 0

    async def report(self, message: str) -> None:
        self.count += 1
        await self.context.report_progress(self.count, None, message)

    async def repeat(self) -> None:
        """Sends a notification every HEARTBEAT_S seconds."""
        while True:
            await anyio.sleep(HEARTBEAT_S)
            await self.report("Still processing")


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools, over a backend and the allowed files."""

    backend: Backend
    files: Files

    async def image(
        self,
        context: Context[Any, Any],
        task: ToolTask,
        image: str,
        fields: dict[str, Any],
        out: str | None,
        usd: float,
    ) -> CallToolResult:
        """Processes an image and writes its files."""

        async def work(progress: Progress) -> CallToolResult:
            request, folder, stem = await self._request(task, image, fields, out, usd)
            processed = await self.backend.process(request, progress.report)
            with CancelScope(shield=True):  # of a cancelled call either no file or all files are written
                written = partial(self._write, processed, folder, f"{stem}-{SUFFIXES[task]}")
                result, preview = await to_thread.run_sync(written)
            return _response(result, _summary(result), preview)

        return await _caught(context, work)

    async def detect(
        self, context: Context[Any, Any], image: str, fields: dict[str, Any], usd: float
    ) -> CallToolResult:
        """Detects objects in an image."""

        async def work(progress: Progress) -> CallToolResult:
            request, _, _ = await self._request("detect", image, fields, None, usd)
            processed = await self.backend.process(request, progress.report)
            found = json.loads(processed.main.data)
            rows = found.pop("detections")
            result = DetectResult(
                **found, total=len(rows), detections=rows[:DETECTIONS_MAX], warnings=list(processed.warnings)
            )
            if result.labels == []:
                result.warnings.append("no_detector: no detector is installed where the tools run.")
            counts = ", ".join(f"{one.label} {one.score:.2f}" for one in result.detections[:20]) or "nothing"
            warnings = "".join(f"\nWarning: {warning}" for warning in result.warnings)
            return _response(result, f"Found {result.total}: {counts}.{warnings}")

        return await _caught(context, work)

    async def _request(
        self, task: ToolTask, image: str, fields: dict[str, Any], out: str | None, usd: float
    ) -> tuple[ToolRequest, Path, str]:
        """Reads the image. Returns the request, the folder for the results, and the stem of their names."""
        behind, fit = b"", ""
        text = fields.get("output", {}).get("background", "")
        words, mark, path = text.partition("file://")
        if mark:
            behind, fit = (await to_thread.run_sync(self.files.read, mark + path)).data, words.strip()
            fields = {**fields, "output": {k: v for k, v in fields["output"].items() if k != "background"}}
        source: bytes | str
        if image.lower().startswith(("https://", "http://")):
            source, place = image, None
            stem = Path(unquote(urlsplit(image).path)).stem
        else:
            read = await to_thread.run_sync(self.files.read, image)
            source, place, stem = read.data, read.path, read.path.stem
        stem = "".join(one if one.isalnum() or one in "-_. " else "_" for one in stem)[:100] or "image"
        request = ToolRequest(task=task, source=source, fields=fields, usd_max=usd, background=behind, fit=fit)
        return request, self.files.folder(place, out), stem

    def _write(self, processed: Processed, folder: Path, stem: str) -> tuple[ImageResult, bytes | None]:
        def written(part: Part, name: str) -> ResultFile:
            path = self.files.write(folder, name, processed.suffix, part.data)
            size = len(part.data)
            return ResultFile(
                path=str(path), width=part.width, height=part.height, bytes=size, label=part.label, score=part.score,
                box=part.box, prompt=part.prompt, seed=part.seed,
            )  # fmt: skip

        files = [written(part, f"{stem}-{number}") for number, part in enumerate(processed.parts, 1)]
        generated = any(part.seed is not None for part in processed.parts)
        result = ImageResult(
            file=files[0] if generated else written(processed.main, stem),  # the main file of an edit is its first one
            files=files,
            engine=processed.engine,
            subject=None if processed.subject is None else Subject.model_validate(processed.subject),
            warnings=list(processed.warnings),
            timings_ms=dict(processed.timings),
            cost_usd=processed.cost_usd,
        )
        return result, preview_of(processed.main.data)


SUFFIXES: dict[ToolTask, str] = {"cutout": "cutout", "mask": "mask", "replace": "repainted"}
"""End of the name of a result, after that of its source."""


def server_of(backend: Backend, files: Files) -> MCPServer:
    """Returns the server with the tools."""

    @asynccontextmanager
    async def lifespan(_: MCPServer) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await backend.close()

    server = MCPServer(
        "maskdrop", instructions=INSTRUCTIONS, version=__version__, lifespan=lifespan, log_level="WARNING"
    )
    tools = Tools(backend, files)
    writes = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True)
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=True)

    @server.tool(title="Cut out the subject", annotations=writes)
    async def cutout(
        image: Image,
        context: Context[Any, Any],
        labels: Labels = None,
        boxes: Boxes = None,
        points: Points = None,
        instances: Instances = "union",
        engine: Annotated[str | None, _engines("cutout")] = None,
        preset: Preset = None,
        output: Output = None,
        out: Out = None,
    ) -> Annotated[CallToolResult, ImageResult]:
        """Removes the background of an image: writes the subject with transparency as a new file. Costs $0 on this
        machine. `output` sets the form: {"background": "white", "format": "jpg", "crop": "true"}."""
        fields = _fields(preset, engine, labels, boxes, points, instances, output)
        return await tools.image(context, "cutout", image, fields, out, 0.0)

    @server.tool(title="Segment the subject", annotations=writes)
    async def mask(
        image: Image,
        context: Context[Any, Any],
        labels: Labels = None,
        boxes: Boxes = None,
        points: Points = None,
        instances: Instances = "union",
        engine: Annotated[str | None, _engines("mask")] = None,
        output: Output = None,
        out: Out = None,
    ) -> Annotated[CallToolResult, ImageResult]:
        """Writes the mask of the subject as a new file: white on the subject, black elsewhere. Costs $0 on this
        machine."""
        fields = _fields(None, engine, labels, boxes, points, instances, output)
        return await tools.image(context, "mask", image, fields, out, 0.0)

    @server.tool(title="Detect objects", annotations=reads)
    async def detect(
        image: Image,
        context: Context[Any, Any],
        labels: Labels = None,
        engine: Annotated[str | None, _engines("detect")] = None,
        max_usd: MaxUsd = 0.0,
    ) -> Annotated[CallToolResult, DetectResult]:
        """Detects the instances of labels, by default of all labels of the installed detectors. Returns their boxes and
        scores, and writes no file."""
        fields = _fields(None, engine, labels, None, None, "union", None)
        return await tools.detect(context, image, fields, max_usd)

    @server.tool(title="Replace the background", annotations=writes)
    async def repaint(
        image: Image,
        context: Context[Any, Any],
        background: Annotated[
            str | None,
            Field(
                description='Background without a price: a colour, "gradient white navy", "studio white", "blur", or '
                'an image file such as "cover file:///photos/beach.jpg".'
            ),
        ] = None,
        texts: Annotated[
            list[str] | None,
            Field(description="Texts from which backgrounds are generated, instead of `background`; can cost money."),
        ] = None,
        seeds: Annotated[list[int] | None, Field(description="Seeds: one image for each text and seed.")] = None,
        negative_text: Annotated[str | None, Field(description="What generated images must not show.")] = None,
        change: Annotated[
            Literal["background", "subject"], Field(description="Part that is generated from the text.")
        ] = "background",
        max_usd: MaxUsd = 0.0,
        labels: Labels = None,
        boxes: Boxes = None,
        points: Points = None,
        engine: Annotated[str | None, _engines("replace")] = None,
        output: Output = None,
        out: Out = None,
    ) -> Annotated[CallToolResult, ImageResult]:
        """Replaces the background of an image and writes a new file. With `texts`, call quote first and pass the
        confirmed price as `max_usd`."""
        fields = _fields(None, engine, labels, boxes, points, "union", output)
        if background is not None:
            fields["output"] = {**fields.get("output", {}), "background": background}
        if texts:
            fields["edit"] = {"prompts": texts, "seeds": seeds or [0], "change": change}
            if negative_text is not None:
                fields["edit"]["negative_prompt"] = negative_text
        return await tools.image(context, "replace", image, fields, out, max_usd)

    @server.tool(title="Quote the price", annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
    async def quote(
        context: Context[Any, Any],
        tool: Annotated[
            Literal["cutout", "mask", "detect", "repaint"], Field(description="Tool whose calls are priced.")
        ] = "cutout",
        calls: Annotated[int, Field(ge=1, le=100_000, description="Number of images, one call each.")] = 1,
        generated: Annotated[
            int,
            Field(
                ge=0,
                le=CANDIDATES_MAX,
                description="Images that each call of repaint generates: texts times seeds; 0 without texts.",
            ),
        ] = 0,
        engine: Annotated[str | None, Field(description="Engine of the calls, if one is chosen.")] = None,
    ) -> Annotated[CallToolResult, Quote]:
        """Returns the price of calls before they are made. It calls no paid service."""

        async def work(_: Progress) -> CallToolResult:
            if engine is not None and engine not in ENGINES:
                raise InvalidOptions(f"Unknown engine {engine!r:.80}; known: {', '.join(ENGINES)}.")
            task: ToolTask = "replace" if tool == "repaint" else tool
            price = backend.price(task, engine, generated if tool == "repaint" else 0)
            result = Quote(
                usd=round(price.usd * calls, 6), usd_per_call=round(price.usd, 6), calls=calls, note=price.note
            )
            return _response(
                result, f"${result.usd:.3f} for {calls} call{'s' if calls > 1 else ''} of {tool}. {price.note}"
            )

        return await _caught(context, work)

    return server


def serve_http(server: MCPServer, port: int) -> None:
    """Serves streamable HTTP at http://127.0.0.1:PORT/mcp until SIGINT or SIGTERM.

    Requests with another Host or Origin are refused, so that a web page in a browser cannot call the tools (DNS
    rebinding).
    """
    names = [f"{LOOPBACK}:{port}", f"localhost:{port}"]
    security = TransportSecuritySettings(allowed_hosts=names, allowed_origins=[f"http://{name}" for name in names])
    server.run("streamable-http", host=LOOPBACK, port=port, transport_security=security)


def _fields(
    preset: str | None,
    engine: str | None,
    labels: list[str] | None,
    boxes: list[tuple[float, float, float, float]] | None,
    points: list[tuple[float, float]] | None,
    instances: str,
    output: dict[str, str] | None,
) -> dict[str, Any]:
    """Returns options in the JSON form of the API. Each label and box is a prompt of its own."""
    prompts: list[dict[str, Any]] = [
        {"label": label} | ({"points": points} if points else {}) for label in labels or ()
    ]
    prompts += [{"box": box} for box in boxes or ()]
    if points and not labels:
        prompts.append({"points": points})
    chosen: dict[str, Any] = {
        "preset": preset,
        "engine": engine,
        "prompt": [{name: _listed(value) for name, value in prompt.items()} for prompt in prompts] or None,
        "instances": None if instances == "union" else instances,
        "output": output or None,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _listed(value: Any) -> Any:
    """JSON has lists only."""
    return [_listed(one) for one in value] if isinstance(value, list | tuple) else value


async def _caught(context: Context[Any, Any], work: Callable[[Progress], Awaitable[CallToolResult]]) -> CallToolResult:
    """Returns an error of the tool, with its code, where the work raises a known error. Reports progress meanwhile."""
    progress = Progress(context)
    async with anyio.create_task_group() as group:
        group.start_soon(progress.repeat)
        try:
            response = await work(progress)
        except (MaskdropError, ClientError) as error:
            message = error.message if isinstance(error, MaskdropError | ApiError) else str(error)
            info = {"code": error.code, "message": message, "retryable": error.retryable}
            text = TextContent(text=f"{error.code}: {message}")
            response = CallToolResult(content=[text], structured_content={"error": info}, is_error=True)
        group.cancel_scope.cancel()
    return response


def _response(result: BaseModel, text: str, preview: bytes | None = None) -> CallToolResult:
    content: list[Any] = [TextContent(text=text)]
    if preview:
        content.append(ImageContent(data=base64.b64encode(preview).decode(), mime_type="image/jpeg"))
    return CallToolResult(content=content, structured_content=result.model_dump(mode="json"))


def _summary(result: ImageResult) -> str:
    """Returns the result in words, for hosts that show no structured content."""
    lines = [
        f"Wrote {file.path} ({file.width} x {file.height} pixels)."
        for file in (result.files if result.file in result.files else (result.file, *result.files))
    ]
    if result.subject:
        review = "; a person should review it" if result.subject.needs_review else ""
        lines.append(f"Subject: {result.subject.kind}, score {result.subject.score:.2f}{review}.")
    lines += [f"Warning: {warning}" for warning in result.warnings]
    lines.append(f"Engine: {result.engine}. Cost: ${result.cost_usd:.3f}.")
    return "\n".join(lines)

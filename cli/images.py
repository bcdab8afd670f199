"""Segment photos, detect objects and replace backgrounds on this machine, without a stack."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import cv2
import typer
from rich.console import Console
from rich.markup import escape

from cli.batch import FAILURES_CSV, Batch, Failures, Photo, Record, cores
from cli.engines import Weights, weights_for
from cli.options import (
    BoxFlag,
    ChangeFlag,
    ConfidenceFlag,
    DetectorFlag,
    EngineFlag,
    IgnoreFlag,
    InstancesFlag,
    LabelFlag,
    NegativeTextFlag,
    OutputFlag,
    PointFlag,
    PresetFlag,
    PromptFlag,
    PromptFlags,
    RefineFlag,
    ReviewFlag,
    SeedFlag,
    SelectFlag,
    TextFlag,
    edit_of,
    options_of,
    output_of,
)
from cli.processing import Made, Paint, Processor, load_processor, paint_of
from cli.results import Target, Work, read_file, read_photo, watched, write_results, write_stdout
from cli.terminal import UsageError, console, messages, print_errors
from maskdrop.catalog import Task
from maskdrop.edit import EditorName
from maskdrop.errors import Internal, MaskdropError
from maskdrop.options import Options
from sagemaker_model.cutout import Cutout, Part

FILE = "file://"
"""Start of the path of a background image on this machine."""

FILE_BUCKET = "file"
"""Bucket in the options of such an image."""

USD_MAX = 1.0
"""Default maximum price of a command in US dollars: 14 images of Stability at $0.07."""

Photos = Annotated[
    list[Path],
    typer.Argument(
        metavar="PHOTO",
        help="Image files, folders with their subfolders, or - for standard input.",
        show_default=False,
        allow_dash=True,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        allow_dash=True,
        help="Folder for the results; for one photo also a file, or - for standard output.",
        show_default="results; - for standard input",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Images processed at the same time.", show_default="one for each CPU core"),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Process photos again that have a result; otherwise, with a folder or several photos, they are skipped.",
    ),
]
WatchFlag = Annotated[
    bool, typer.Option("--watch", help="Then process new and changed photos of the folders until Ctrl-C.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON for each photo.")]
RekognitionFlag = Annotated[
    bool,
    typer.Option(
        "--rekognition",
        help="Send labels that no installed detector knows to Amazon Rekognition, with your AWS credentials: $0.001 a "
        "call.",
    ),
]
EditorFlag = Annotated[
    EditorName,
    typer.Option(
        "--editor",
        help="Editor of texts: local draws studio backdrops; stability, titan and nova are models on Amazon Bedrock, "
        "called with your AWS credentials.",
    ),
]
UsdMax = Annotated[
    float, typer.Option("--max-usd", min=0, help="Maximum price of all images in US dollars; checked before any call.")
]
Region = Annotated[str | None, typer.Option(help="Region of Amazon Bedrock.", show_default="that of the AWS profile")]

log = logging.getLogger(__name__)


def cutout(
    photos: Photos,
    preset: PresetFlag = None,
    label: LabelFlag = None,
    box: BoxFlag = None,
    point: PointFlag = None,
    select: SelectFlag = None,
    min_confidence: ConfidenceFlag = None,
    ignore: IgnoreFlag = None,
    prompt: PromptFlag = None,
    instances: InstancesFlag = None,
    engine: EngineFlag = None,
    refine: RefineFlag = None,
    review_below: ReviewFlag = None,
    output: OutputFlag = None,
    out: Out = None,
    workers: Workers = None,
    overwrite: Overwrite = False,
    watch: WatchFlag = False,
    rekognition: RekognitionFlag = False,
    folder: Weights = None,
    as_json: Json = False,
) -> None:
    """Cut out the subject of each photo. Exits 1 if a photo fails."""
    with print_errors():
        prompts = _prompts(label, box, point, select, min_confidence, ignore, prompt)
        target = Target.of(photos, out)
        options = options_of(
            "cutout",
            prompts,
            engine=engine,
            output=target.output(output or ()),
            instances=instances,
            refine=refine,
            review_below=review_below,
            preset=preset,
        )
        work = _work(photos, target, options, overwrite=overwrite, watch=watch)
        arriving = watched(photos, work) if watch else ()
        process(work, options, folder, workers, arriving, rekognition=rekognition, as_json=as_json)


def mask(
    photos: Photos,
    label: LabelFlag = None,
    box: BoxFlag = None,
    point: PointFlag = None,
    select: SelectFlag = None,
    min_confidence: ConfidenceFlag = None,
    ignore: IgnoreFlag = None,
    prompt: PromptFlag = None,
    instances: InstancesFlag = None,
    engine: EngineFlag = None,
    refine: RefineFlag = None,
    review_below: ReviewFlag = None,
    output: OutputFlag = None,
    out: Out = None,
    workers: Workers = None,
    overwrite: Overwrite = False,
    watch: WatchFlag = False,
    rekognition: RekognitionFlag = False,
    folder: Weights = None,
    as_json: Json = False,
) -> None:
    """Write the mask of each photo: white on the subject, black elsewhere. Exits 1 if a photo fails."""
    with print_errors():
        prompts = _prompts(label, box, point, select, min_confidence, ignore, prompt)
        target = Target.of(photos, out)
        options = options_of(
            "mask",
            prompts,
            engine=engine,
            output=target.output(output or ()),
            instances=instances,
            refine=refine,
            review_below=review_below,
        )
        work = _work(photos, target, options, overwrite=overwrite, watch=watch)
        arriving = watched(photos, work) if watch else ()
        process(work, options, folder, workers, arriving, rekognition=rekognition, as_json=as_json)


def detect(
    photos: Photos,
    label: LabelFlag = None,
    point: PointFlag = None,
    select: SelectFlag = None,
    min_confidence: ConfidenceFlag = None,
    ignore: IgnoreFlag = None,
    prompt: PromptFlag = None,
    engine: DetectorFlag = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            allow_dash=True,
            help="Folder for the detections as JSON files; for one photo also a file, or - for standard output "
            "(default: none).",
        ),
    ] = None,
    workers: Workers = None,
    overwrite: Overwrite = False,
    watch: WatchFlag = False,
    rekognition: RekognitionFlag = False,
    folder: Weights = None,
    as_json: Json = False,
) -> None:
    """Detect the objects of labels, by default of all installed detectors. Exits 1 if a photo fails."""
    with print_errors():
        prompts = _prompts(label, None, point, select, min_confidence, ignore, prompt)
        target = Target.of(photos, out, default=None)
        options = options_of("detect", prompts, engine=engine)
        work = _work(photos, target, options, overwrite=overwrite, watch=watch)
        arriving = watched(photos, work) if watch else ()
        process(work, options, folder, workers, arriving, rekognition=rekognition, as_json=as_json)


def replace(
    photos: Photos,
    background: Annotated[
        str | None,
        typer.Option(
            help='Background: a colour, "gradient white navy", "studio white", blur, or an image such as '
            '"cover file://beach.jpg".',
        ),
    ] = None,
    text: TextFlag = None,
    seed: SeedFlag = None,
    negative_text: NegativeTextFlag = None,
    change: ChangeFlag = "background",
    editor: EditorFlag = "local",
    region: Region = None,
    max_usd: UsdMax = USD_MAX,
    label: LabelFlag = None,
    box: BoxFlag = None,
    point: PointFlag = None,
    select: SelectFlag = None,
    min_confidence: ConfidenceFlag = None,
    ignore: IgnoreFlag = None,
    prompt: PromptFlag = None,
    engine: EngineFlag = None,
    refine: RefineFlag = None,
    review_below: ReviewFlag = None,
    output: OutputFlag = None,
    out: Out = None,
    workers: Workers = None,
    overwrite: Overwrite = False,
    rekognition: RekognitionFlag = False,
    folder: Weights = None,
    as_json: Json = False,
) -> None:
    """Replace the background of each photo. Exits 1 if a photo fails."""
    with print_errors():
        prompts = _prompts(label, box, point, select, min_confidence, ignore, prompt)
        if background is None and not text and "background" not in output_of(output or ()):
            raise UsageError("A new background is missing: use --background or --text.")
        words, file, path = (background or "").partition(FILE)
        target = Target.of(photos, out)
        options = options_of(
            "replace",
            prompts,
            engine=engine,
            output=target.output(output or ()),
            edit=edit_of(text, seed, negative_text, change),
            background=f"{words}s3://{FILE_BUCKET}/{path}" if file else background,
            refine=refine,
            review_below=review_below,
        )
        image = read_file(Path(path)) if file else b""
        work, paint = _work(photos, target, options, overwrite=overwrite), None
        if options.edit:
            paint = paint_of(editor, max_usd, region)
            images = len(options.edit.candidates) * len(work.pending)
            print_price(paint, paint.check(text or (), images, options.edit.change))
        process(work, options, folder, workers, (), image, paint, rekognition=rekognition, as_json=as_json)


def print_price(paint: Paint, price: float) -> None:
    """Prints the price of a command before it is paid, to standard error."""
    if price:
        messages.print(f"Price: ${price:.2f} ({paint.model.model}, ${paint.editor.usd_per_image} an image).")


def _prompts(
    labels: list[str] | None,
    boxes: list[str] | None,
    points: list[str] | None,
    select: Any,
    min_confidence: float | None,
    ignore: list[str] | None,
    prompt: str | None,
) -> PromptFlags:
    return PromptFlags(
        labels=labels or (),
        boxes=boxes or (),
        points=points or (),
        select=select,
        min_confidence=min_confidence,
        ignore=ignore or (),
        prompt=prompt,
    )


def _work(
    photos: Sequence[Path], target: Target, options: Options, *, overwrite: bool = False, watch: bool = False
) -> Work:
    """Returns the photos of a command. Raises UsageError."""
    if watch and not (target.folder and all(photo.is_dir() for photo in photos)):
        raise UsageError("--watch needs folders of photos, and a folder as --out.")
    return Work.of(photos, target, options.extension, overwrite=overwrite, empty=watch)


def process(
    work: Work,
    options: Options,
    weights: Path | None,
    workers: int | None,
    arriving: Iterable[Sequence[Photo]] = (),
    background: bytes = b"",
    paint: Paint | None = None,
    *,
    rekognition: bool = False,
    as_json: bool = False,
    ended: Callable[[Record], None] = lambda _: None,
    skipped: str = "their result exists (--overwrite processes them again)",
) -> None:
    """Processes and prints all photos; a photo that fails does not stop the others.

    workers: None for one for each core. arriving: photos of watched folders, processed afterwards. ended: called with
    the record of each photo, in the main thread. skipped: reason of skipped photos. Raises what `Batch.run` raises.
    """
    stdout = work.target.stdout
    if stdout and as_json:
        raise UsageError("--json writes to standard output; write the result to a file.")
    if stdout and options.task != "detect" and sys.stdout.isatty():
        raise UsageError(
            "The result is an image file and is not written to a terminal; use --out FILE, or redirect it."
        )
    count = workers or cores()
    if not arriving:
        count = max(1, min(count, len(work.pending)))
    cv2.setNumThreads(max(1, cores() // count))
    folder = weights_for(options.engine, weights)
    processor = load_processor(options, folder, rekognition=rekognition, paint=paint, workers=count)
    lines = messages if stdout else console

    def show(record: Record) -> None:
        if as_json:
            console.print(json.dumps(record, ensure_ascii=False), markup=False, soft_wrap=True)
        elif record["state"] != "skipped":
            _print(record, options.task, lines)
        ended(record)

    failures = Failures(work.target.folder and work.target.folder / FAILURES_CSV)
    Batch(
        process=lambda photo: _record(photo, options, processor, work, background),
        show=show,
        workers=count,
        failures=failures,
        progress=lines if lines.is_terminal and len(work.photos) > 1 else messages,
        summary=messages if as_json else lines,
        skipped=skipped,
        skip=lambda photo: _skipped(photo, options, work) if work.is_done(photo) else None,
    ).run(work.photos, arriving)


def _skipped(photo: Photo, options: Options, work: Work) -> Record:
    result = {"path": str(work.result(photo))}
    return {"photo": str(photo.path), "state": "skipped", "engine": options.engine, "result": result, "error": None}


def _record(photo: Photo, options: Options, processor: Processor, work: Work, background: bytes) -> Record:
    """Processes a photo, writes its results, and returns the JSON form of the outcome."""
    record: Record = {"photo": str(photo.path), "state": "done", "engine": options.engine}
    try:
        made = processor.process(read_photo(photo), options, background)
        if work.target.stdout:
            write_stdout(made.cutout.data)
        result = work.result(photo)
        paths = write_results(made, result) if result else []
        return {**record, **_outcome(made, paths), "error": None}
    except MaskdropError as error:
        failure = error.info.to_json()
    except Exception as error:  # one photo must not end a run over thousands
        log.exception("%s failed", photo.path)
        failure = Internal(f"{type(error).__name__}: {error}").info.to_json()
    return {**record, "state": "failed", "warnings": [], "error": failure}


def _outcome(made: Made, paths: Sequence[Path]) -> Record:
    cutout = made.cutout
    candidates = made.candidates or [("", None)] * len(cutout.parts)
    detections = {"detections": json.loads(cutout.data)["detections"]} if cutout.format == "json" else {}
    return {
        **({"engine": cutout.engine} if cutout.engine else {}),
        "result": _file(cutout, paths[0]) if paths else None,
        "results": [
            {
                "result": _file(part, path),
                "label": part.label,
                "score": round(part.score, 4),
                "box": part.box,
                "prompt": prompt,
                "seed": seed,
            }
            for part, path, (prompt, seed) in zip(cutout.parts, paths[1:], candidates, strict=bool(paths))
        ],
        **detections,
        "subject": cutout.subject.to_json(),
        "warnings": list(cutout.warnings),
        "timings": cutout.timings,
        "cost_usd": round(cutout.cost_usd, 6),
    }


def _file(image: Cutout | Part, path: Path) -> dict[str, Any]:
    return {"path": str(path), "width": image.width, "height": image.height, "bytes": len(image.data)}


def _print(record: Record, task: Task, lines: Console) -> None:
    """Prints the lines of one photo: its state and results, its warnings, and whether it needs a review."""
    photo, colour = escape(record["photo"]), STATE_COLOURS[record["state"]]
    start = f"[{colour}]{record['state']:7}[/{colour}] {photo}"
    if error := record["error"]:
        lines.print(f"{start}  {escape(error['code'])}: {escape(error['message'])}", soft_wrap=True)
        return
    ms = f"{sum(record['timings'].values()):.0f} ms"
    lines.print(f"{start}  {record['engine']}  {ms}{_described(record['result'])}", soft_wrap=True)
    for part in record["results"]:
        source = f"{part['label']} {part['score']:.2f}" if part["seed"] is None else f"seed {part['seed']}"
        lines.print(f"        {escape(source.strip())}{_described(part['result'])}", soft_wrap=True)
    if task == "detect":
        for one in record["detections"]:
            box = ", ".join(f"{value:g}" for value in one["box"])
            lines.print(f"        {escape(one['label'])} {one['score']:.2f}  box {box}", soft_wrap=True)
        if not record["detections"]:
            lines.print("        nothing found")
    for warning in record["warnings"]:
        lines.print(f"        [yellow]{escape(warning)}[/yellow]", soft_wrap=True)
    subject = record["subject"]
    if subject and subject["needs_review"]:
        lines.print(f"        [yellow]needs review: score {subject['score']:.2f}[/yellow]", soft_wrap=True)


def _described(result: dict[str, Any] | None) -> str:
    return f"  {result['width']} x {result['height']}  {escape(result['path'])}" if result else ""


STATE_COLOURS = {"done": "green", "failed": "red"}

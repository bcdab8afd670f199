"""Segment photos, detect objects and replace backgrounds on this machine, without a stack."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from cli.evaluate import Weights, weights_folder
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
    PromptFlag,
    PromptFlags,
    RefineFlag,
    ReviewFlag,
    SeedFlag,
    SelectFlag,
    TextFlag,
    edit_of,
    options_of,
)
from cli.processing import Made, Paint, Processor, load_processor, paint_of
from cli.terminal import console, messages, print_errors
from local.config import LocalError
from maskdrop.edit import EditorName
from maskdrop.errors import MaskdropError, SourceMissing
from maskdrop.job import item_key
from maskdrop.options import Options
from sagemaker_model.cutout import Cutout, Part

FILE = "file://"
"""Start of the path of a background image on this machine."""

FILE_BUCKET = "file"
"""Bucket in the options of such an image."""

USD_MAX = 1.0
"""Default maximum price of a command in US dollars: 14 images of Stability at $0.07."""

app = typer.Typer(help=__doc__)

Photos = Annotated[list[Path], typer.Argument(metavar="PHOTO", help="Image files.", show_default=False)]
Out = Annotated[Path, typer.Option(file_okay=False, help="Folder for the results.")]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON for each photo instead of a table.")]
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

RESULTS = Path("results")


@app.command()
def cutout(
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
    out: Out = RESULTS,
    rekognition: RekognitionFlag = False,
    folder: Weights = None,
    as_json: Json = False,
) -> None:
    """Cut out the subject of each photo. Exits 1 if a photo fails."""
    with print_errors():
        prompts = _prompts(label, box, point, select, min_confidence, ignore, prompt)
        options = options_of(
            "cutout",
            prompts,
            engine=engine,
            output=output or (),
            instances=instances,
            refine=refine,
            review_below=review_below,
        )
        _process(photos, options, out, folder, rekognition=rekognition, as_json=as_json)


@app.command()
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
    out: Out = RESULTS,
    rekognition: RekognitionFlag = False,
    folder: Weights = None,
    as_json: Json = False,
) -> None:
    """Write the mask of each photo: white on the subject, black elsewhere. Exits 1 if a photo fails."""
    with print_errors():
        prompts = _prompts(label, box, point, select, min_confidence, ignore, prompt)
        options = options_of(
            "mask",
            prompts,
            engine=engine,
            output=output or (),
            instances=instances,
            refine=refine,
            review_below=review_below,
        )
        _process(photos, options, out, folder, rekognition=rekognition, as_json=as_json)


@app.command()
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
        Path | None, typer.Option(file_okay=False, help="Folder for the detections as JSON files (default: none).")
    ] = None,
    rekognition: RekognitionFlag = False,
    folder: Weights = None,
    as_json: Json = False,
) -> None:
    """Detect the objects of labels, by default of all installed detectors. Exits 1 if a photo fails."""
    with print_errors():
        prompts = _prompts(label, None, point, select, min_confidence, ignore, prompt)
        options = options_of("detect", prompts, engine=engine)
        _process(photos, options, out, folder, rekognition=rekognition, as_json=as_json)


@app.command()
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
    out: Out = RESULTS,
    rekognition: RekognitionFlag = False,
    folder: Weights = None,
    as_json: Json = False,
) -> None:
    """Replace the background of each photo. Exits 1 if a photo fails."""
    with print_errors():
        prompts = _prompts(label, box, point, select, min_confidence, ignore, prompt)
        words, file, path = (background or "").partition(FILE)
        options = options_of(
            "replace",
            prompts,
            engine=engine,
            output=output or (),
            edit=edit_of(text, seed, negative_text, change),
            background=f"{words}s3://{FILE_BUCKET}/{path}" if file else background,
            refine=refine,
            review_below=review_below,
        )
        image = read_file(Path(path)) if file else b""
        paint = None
        if options.edit:
            paint = paint_of(editor, max_usd, region)
            print_price(paint, paint.check(text or (), len(options.edit.candidates) * len(photos), options.edit.change))
        _process(photos, options, out, folder, image, paint, rekognition=rekognition, as_json=as_json)


def read_file(path: Path) -> bytes:
    """Raises SourceMissing for a file that cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceMissing(f"{path} cannot be read: {error.strerror}.") from error


def print_price(paint: Paint, price: float) -> None:
    """Prints the price of a command before it is paid, to standard error."""
    if price:
        messages.print(f"Price: ${price:.2f} ({paint.model.model}, ${paint.editor.usd_per_image} an image).")


def write_results(made: Made, result: Path) -> list[Path]:
    """Writes the results of one photo; the numbered ones into a folder, as in S3. Returns their paths, the main one
    first. Raises LocalError."""
    files = {result: made.cutout.data}
    files |= {Path(item_key(str(result), number)): part.data for number, part in enumerate(made.cutout.parts, 1)}
    for path, data in files.items():
        write_file(path, data)
    return list(files)


def write_file(path: Path, data: bytes) -> None:
    """Writes a file and its folders. Raises LocalError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise LocalError(f"{path} cannot be written: {error.strerror}. Use another --out.") from error


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


def check_out(photos: Sequence[Path], out: Path | None) -> None:
    """Raises LocalError for photos whose results would replace each other, or a photo."""
    repeated = [name for name, count in Counter(photo.name for photo in photos).items() if count > 1]
    if repeated:
        raise LocalError(f"Several photos are named {repeated[0]}: their results would replace each other.")
    for photo in photos:
        if out and photo.parent.resolve() == out.resolve():
            raise LocalError(
                f"--out must not be the folder of {photo}: its folder of numbered results has the name of the photo."
            )


def _process(
    photos: Sequence[Path],
    options: Options,
    out: Path | None,
    weights: Path | None,
    background: bytes = b"",
    paint: Paint | None = None,
    *,
    rekognition: bool,
    as_json: bool,
) -> None:
    """Processes and prints all photos; a photo that fails does not stop the others. out: None writes no files."""
    check_out(photos, out)
    processor = load_processor(options, weights_folder(weights), rekognition=rekognition, paint=paint)
    records = []
    for record in _records(photos, options, processor, out, background):
        records.append(record)
        if as_json:
            typer.echo(json.dumps(record, ensure_ascii=False))
    if not as_json:
        console.print(_detections(records) if options.task == "detect" else _table(records))
        for record in records:
            for warning in record["warnings"]:
                console.print(f"[yellow]{escape(record['photo'])}[/yellow] {escape(warning)}", soft_wrap=True)
            if (subject := record.get("subject")) and subject["needs_review"]:
                review = f"needs review: score {subject['score']:.2f}"
                console.print(f"[yellow]{escape(record['photo'])}[/yellow] {review}", soft_wrap=True)
    if any(record["error"] for record in records):
        raise typer.Exit(1)


def _records(
    photos: Sequence[Path], options: Options, processor: Processor, out: Path | None, background: bytes
) -> Iterator[dict[str, Any]]:
    """Yields the JSON form of the outcome of each photo."""
    for photo in photos:
        record: dict[str, Any] = {"photo": str(photo), "state": "done", "engine": options.engine}
        try:
            made = processor.process(read_file(photo), options, background)
            result = out / f"{photo.name}.{options.extension}" if out else None
            paths = write_results(made, result) if result else []
            yield {**record, **_record(made, paths), "error": None}
        except MaskdropError as error:
            yield {**record, "state": "failed", "warnings": [], "error": error.info.to_json()}


def _record(made: Made, paths: Sequence[Path]) -> dict[str, Any]:
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
            for part, path, (prompt, seed) in zip(cutout.parts, paths[1:], candidates, strict=True)
        ],
        **detections,
        "subject": cutout.subject.to_json(),
        "warnings": list(cutout.warnings),
        "timings": cutout.timings,
        "cost_usd": round(cutout.cost_usd, 6),
    }


def _file(image: Cutout | Part, path: Path) -> dict[str, Any]:
    return {"path": str(path), "width": image.width, "height": image.height, "bytes": len(image.data)}


def _table(records: Sequence[dict[str, Any]]) -> Table:
    table = Table(*(Column(name, overflow="fold") for name in ("photo", "state", "engine", "size", "ms", "result")))
    for record in records:
        if record["error"]:
            table.add_row(*_failed(record), record["engine"], "", "", _message(record))
            continue
        ms = f"{sum(record['timings'].values()):.0f}"
        result = record["result"]
        size = f"{result['width']} x {result['height']}"
        table.add_row(escape(record["photo"]), _DONE, record["engine"], size, ms, escape(result["path"]))
        for item in record["results"]:
            part = item["result"]
            source = f"{item['label']} {item['score']:.2f}" if item["seed"] is None else f"seed {item['seed']}"
            size = f"{part['width']} x {part['height']}"
            table.add_row("", "", escape(source.strip()), size, "", escape(part["path"]))
    return table


def _detections(records: Sequence[dict[str, Any]]) -> Table:
    table = Table(*(Column(name, overflow="fold") for name in ("photo", "state", "label", "score", "box")))
    for record in records:
        if record["error"]:
            table.add_row(*_failed(record), "", "", _message(record))
            continue
        found = record["detections"] or [{"label": "nothing found", "score": None, "box": ()}]
        for one in found:
            score = "" if one["score"] is None else f"{one['score']:.2f}"
            box = ", ".join(f"{value:g}" for value in one["box"])
            table.add_row(escape(record["photo"]), _DONE, escape(one["label"]), score, box)
    return table


_DONE = "[green]done[/green]"


def _failed(record: dict[str, Any]) -> tuple[str, str]:
    return escape(record["photo"]), "[red]failed[/red]"


def _message(record: dict[str, Any]) -> str:
    return escape(f"{record['error']['code']}: {record['error']['message']}")

"""Evaluate detectors, compare two detectors, promote new weights."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import cv2
import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.engines import Weights, device_and_threads, weights_folder
from cli.evaluate import RECORD, UNSCORED_SHOWN, print_tables, write_page
from cli.terminal import console, print_errors
from local.config import LocalError
from maskdrop import catalog
from sagemaker_model.data.detection import DetectionSet
from sagemaker_model.detectors.base import Detector
from sagemaker_model.detectors.labels import load_detector, load_detectors
from sagemaker_model.evaluation import detection_report, detection_run
from sagemaker_model.evaluation import promote as promotion
from sagemaker_model.evaluation.detection_run import MATCH_SCORE, DetectionInfo, DetectionRun
from sagemaker_model.weights.store import NotInstalled, import_file

app = typer.Typer(no_args_is_help=True, help=__doc__)

TRAINED = "detector"
"""The engine that loads the weights which users train."""

Data = Annotated[
    Path,
    typer.Option(
        help="Folder with images/ and annotations.json (`maskdrop data prepare-detection`).", show_default=False
    ),
]
Split = Annotated[str, typer.Option(help="Split to evaluate: train, val or test.")]
Classes = Annotated[
    list[str] | None, typer.Option("--class", help="Evaluate only this class; repeatable (default: all of the data).")
]
Score = Annotated[
    float, typer.Option(min=0, max=1, help="Score from which precision, recall and images count a detection.")
]
Out = Annotated[
    Path | None,
    typer.Option(file_okay=False, writable=True, help="Folder for scores, detections and the report (default: none)."),
]
Workers = Annotated[int, typer.Option(min=1, help="Number of worker threads.")]

CORES = os.cpu_count() or 1


@app.command()
def evaluate(
    detector: Annotated[
        str, typer.Argument(help="Detector of the catalogue, or weights file of your detector.", show_default=False)
    ],
    data: Data,
    split: Split = "val",
    class_: Classes = None,
    score: Score = MATCH_SCORE,
    out: Out = None,
    workers: Workers = CORES,
    folder: Weights = None,
) -> None:
    """Evaluate a detector by COCO's mAP, precision and recall. Exits 1 if the detector fails on an image."""
    with print_errors():
        selection = detection_run.read_data(data, split, class_ or ())
        run = _evaluate(detector, data, split, selection, score, workers, folder, out)
        print_tables(detection_run.tables(run))
        if out:
            write_page(out / "report.html", detection_report.run_page(run))
        _print_faults(run)
    if run.unscored:
        raise typer.Exit(1)


@app.command()
def compare(
    a: Annotated[
        str,
        typer.Argument(help="Detector A: of the catalogue, weights file, or folder of a run.", show_default=False),
    ],
    b: Annotated[str, typer.Argument(help="Detector B, in the same way.", show_default=False)],
    data: Annotated[
        Path | None, typer.Option(help="Folder with images/ and annotations.json; required without two runs.")
    ] = None,
    split: Split = "val",
    class_: Classes = None,
    score: Score = MATCH_SCORE,
    out: Out = None,
    workers: Workers = CORES,
    folder: Weights = None,
) -> None:
    """Compare two detectors or runs, with images side by side."""
    with print_errors():
        pair = []
        for side, name in (("a", a), ("b", b)):
            if detection_run.is_run(Path(name)):
                pair.append(detection_run.read_run(Path(name)))
            elif data is None:
                raise LocalError(f"--data is required to evaluate the detector {name}.")
            else:
                selection = detection_run.read_data(data, split, class_ or ())
                pair.append(_evaluate(name, data, split, selection, score, workers, folder, out and out / side))
        for run in pair:
            _print_faults(run)
        comparison = detection_run.compare(*pair)
        print_tables(comparison.tables())
        if out:
            write_page(out / "comparison.html", detection_report.comparison_page(comparison))


@app.command()
def promote(
    new: Annotated[Path, typer.Argument(help="Weights file of your detector.", show_default=False)],
    data: Data,
    split: Split = "val",
    class_: Classes = None,
    record: Annotated[
        Path, typer.Option(help="File that records promotions.", show_default="docs/promotions.jsonl")
    ] = RECORD,
    workers: Workers = CORES,
    folder: Weights = None,
) -> None:
    """Install a detector whose mAP is not lower than the installed one's, and record the promotion. Else exits 1."""
    with print_errors(), tempfile.TemporaryDirectory() as scratch:
        row = catalog.engine(TRAINED)
        device, threads = device_and_threads(workers)
        candidate = promotion.load_detector_candidate(new, row, Path(scratch), device, threads)
        selection = detection_run.read_data(data, split, class_ or ())
        run = _run(candidate, new.name, data, split, selection, workers)
        try:
            current = _run(
                load_detector(row, device, weights_folder(folder), threads), TRAINED, data, split, selection, workers
            )
        except NotInstalled:
            current = None
        print_tables(detection_run.compare(current, run).tables() if current else detection_run.tables(run))

        def install() -> None:
            weights = promotion.weights_for(row, new)  # install the evaluated copy: the file may have changed
            import_file(weights, Path(scratch) / weights.file, weights_folder(folder), own=True)

        promotion.promote_detector(run, current, record, install, datetime.now(UTC))
        replaced = "replaces the installed detector" if current else "is installed"
        console.print(f"{escape(new.name)} {replaced}; recorded in {escape(str(record))}.", soft_wrap=True)


def _evaluate(
    name: str,
    data: Path,
    split: str,
    selection: tuple[DetectionSet, str],
    score: float,
    workers: int,
    folder: Path | None,
    out: Path | None,
) -> DetectionRun:
    """Evaluates a detector of the catalogue or a weights file, and stores the run in `out`, if given."""
    with tempfile.TemporaryDirectory() as scratch:
        run = _run(_detector(name, Path(scratch), workers, folder), name, data, split, selection, workers, score)
    if out:
        detection_run.write_run(run, out)
    return run


def _detector(name: str, scratch: Path, workers: int, folder: Path | None) -> Detector:
    """Loads a detector of the catalogue, or a weights file. Raises InvalidWeights, NotInstalled, LocalError."""
    device, threads = device_and_threads(workers)
    names = [row.name for row in catalog.ENGINES.values() if row.returns == "boxes"]
    if name == catalog.DEFAULT_ENGINE["detect"]:
        return load_detectors(device, weights_folder(folder), threads)[name]  # sends labels to the others
    if name in names:
        return load_detector(catalog.engine(name), device, weights_folder(folder), threads)
    if not Path(name).is_file():
        raise LocalError(f"{name} is neither a detector ({', '.join(names)}) nor a weights file.")
    return promotion.load_detector_candidate(Path(name), catalog.engine(TRAINED), scratch, device, threads)


def _run(
    detector: Detector,
    name: str,
    data: Path,
    split: str,
    selection: tuple[DetectionSet, str],
    workers: int,
    score: float = MATCH_SCORE,
) -> DetectionRun:
    """Evaluates a detector with a progress bar."""
    cv2.setNumThreads(1)  # the workers share the cores, as in the server
    records, sha256 = selection
    info = DetectionInfo(
        detector=Path(name).name,
        weights_sha256=detector.weights_sha256,
        data=str(data.resolve()),
        split=split,
        classes=records.names,
        data_sha256=sha256,
        score=score,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    outcomes = detection_run.evaluate(detector, records, workers=workers)
    with Progress(*columns, console=console, transient=True) as progress:
        finished = list(progress.track(outcomes, total=len(records.records), description=escape(info.detector)))
    return detection_run.run_of(info, records, finished)


def _print_faults(run: DetectionRun) -> None:
    for case in run.unscored[:UNSCORED_SHOWN]:
        console.print(f"[red]failed[/red]  {escape(case.id)}: {escape(case.reason)}", soft_wrap=True)
    if run.unscored:
        console.print(f"{escape(run.info.detector)} failed on {len(run.unscored)} images.")

"""Evaluate engines, compare engines, promote new weights."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import cv2
import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.table import Table as RichTable

from cli.engines import Weights, device_and_threads, load_engine, weights_folder
from cli.terminal import console, print_errors
from cli.train import parse_settings
from local.config import ROOT, LocalError
from maskdrop import catalog
from sagemaker_model.engines.base import Engine
from sagemaker_model.evaluation import calibrate as calibration
from sagemaker_model.evaluation import compare as comparisons
from sagemaker_model.evaluation import promote as promotion
from sagemaker_model.evaluation import report, speed
from sagemaker_model.evaluation import run as runs
from sagemaker_model.evaluation.calibrate import Examined
from sagemaker_model.evaluation.cases import Case, Dataset, read_dataset
from sagemaker_model.evaluation.overview import markdown, overview
from sagemaker_model.evaluation.run import Predictor, Run, RunInfo
from sagemaker_model.evaluation.summary import Result, Table, Unscored, tables
from sagemaker_model.weights.store import NotInstalled, import_file

RECORD = ROOT / "docs" / "promotions.jsonl"

EVERY = "all"
"""Value of --engine for all installed engines that need no prompt."""

UNSCORED_SHOWN = 10
"""Maximum number of unscored images printed. run.json and the report have all of them."""

app = typer.Typer(help=__doc__)


class PromptFrom(StrEnum):
    none = "none"
    truth_box = "truth-box"


Data = Annotated[
    list[str],
    typer.Option(
        help="Folder with images/, masks/ and manifest.csv, or of shards; FOLDER:SPLIT for another split; repeatable.",
        show_default=False,
    ),
]
Split = Annotated[str, typer.Option(help="Split to evaluate (manifest column `split`).")]
Parts = Annotated[list[str] | None, typer.Option("--part", help="Evaluate only this part; repeatable (default: all).")]
By = Annotated[str, typer.Option(help="Manifest column with the parts.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Maximum number of images (default: all).")]
Prompted = Annotated[PromptFrom, typer.Option("--prompt", help="Prompt for the engine: none or the ground-truth box.")]
Out = Annotated[
    Path | None,
    typer.Option(file_okay=False, writable=True, help="Folder for scores, predictions and the report (default: none)."),
]
IouCsv = Annotated[
    Path | None, typer.Option(dir_okay=False, help="Output file with lines `id,iou`, without a header (default: none).")
]
Workers = Annotated[int, typer.Option(min=1, help="Number of worker threads.")]

CORES = os.cpu_count() or 1


@app.command()
def evaluate(
    data: Data,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help='Engine to evaluate, through the production pipeline, or "all" for the installed; repeatable.'
        ),
    ] = None,
    trained: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a training run (`maskdrop train --out`): evaluate its best weights. Or a file of weights."
        ),
    ] = None,
    network: Annotated[
        str,
        typer.Option(
            help="Network of the file of weights, as in `maskdrop train`.", show_default="that of the run in its folder"
        ),
    ] = "",
    setting: Annotated[
        list[str] | None,
        typer.Option(help="With --network: setting NAME=VALUE of its training, such as side=256; repeatable."),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(help="Folder of predictions ID.png: grey mattes, or cut-outs with alpha."),
    ] = None,
    split: Split = "val",
    part: Parts = None,
    by: By = "part",
    limit: Limit = None,
    prompt: Prompted = PromptFrom.none,
    out: Out = None,
    iou_csv: IouCsv = None,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Read runs of the same weights and data from --out, if they are there.")
    ] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Fit the score of the engine to all data, and print its reliability.")
    ] = False,
    workers: Workers = CORES,
    folder: Weights = None,
) -> None:
    """Evaluate an engine, a training run or a folder of predictions against ground truth. Several engines or data sets
    give one table with the time of an image. Exits 1 if scoring fails for an image."""
    with print_errors():
        if [bool(one) for one in (engine, trained, predictions)].count(True) != 1:
            raise LocalError("Exactly one of --engine, --trained and --predictions is required.")
        datasets = [_dataset(one, split, by=by, parts=part or (), limit=limit) for one in data]
        if calibrate:
            _calibrate(engine or [], datasets, workers, out, folder)
            return
        if len(datasets) > 1 or engine == [EVERY] or len(engine or ()) > 1:
            if not engine or prompt is not PromptFrom.none or iou_csv:
                raise LocalError(
                    "The table of several engines or data sets needs --engine, without --prompt or --iou-csv."
                )
            unscored = _overview(engine, datasets, workers, out, folder, reuse=reuse)
            if unscored:
                raise typer.Exit(1)
            return
        (dataset,) = datasets
        if predictions:
            predictor = runs.folder_predictor(predictions)
            run = run_cases(RunInfo.of(str(predictions), "", dataset), dataset.cases, predictor, workers, out)
        elif trained:
            given = parse_settings(setting or [])
            run = _run_trained(trained, network, given, dataset, workers, out)
        else:
            row = catalog.engine(str((engine or [""])[0]))
            run = _run_engine(row.name, installed_engine(row, folder, workers), row, dataset, prompt, workers, out)
        print_tables(tables(run.results))
        if iou_csv:
            runs.write_ious(iou_csv, run.results)
        if out:
            write_page(out / "report.html", report.run_page(run, _by_id(dataset)))
        _print_unscored(run)
    if run.unscored:
        raise typer.Exit(1)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="Engine A, or the folder of a run (`evaluate --out`).", show_default=False)],
    b: Annotated[str, typer.Argument(help="Engine B, or the folder of a run.", show_default=False)],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with images/, masks/ and manifest.csv, or of shards; required for engines."),
    ] = None,
    split: Split = "val",
    prompt: Prompted = PromptFrom.none,
    out: Out = None,
    workers: Workers = CORES,
    folder: Weights = None,
) -> None:
    """Compare two engines or runs, image by image."""
    with print_errors():
        pair = []
        for side, name in (("a", a), ("b", b)):
            if (row := catalog.ENGINES.get(name)) is None:
                pair.append(runs.read_run(Path(name)))
            elif data is None:
                raise LocalError(f"--data is required to evaluate the engine {name}.")
            else:
                dataset = read_dataset(data, split)
                pair.append(
                    _run_engine(
                        name, installed_engine(row, folder, workers), row, dataset, prompt, workers, out and out / side
                    )
                )
        for run in pair:
            _print_unscored(run)
        comparison = comparisons.compare(*pair)
        print_tables(comparison.tables())
        if out:
            info = pair[0].info
            cases = _by_id(read_dataset(Path(info.data), info.split, by=info.by))
            write_page(out / "comparison.html", report.comparison_page(comparison, cases))


@app.command()
def promote(
    new: Annotated[str, typer.Argument(help="Weights file, or engine.", show_default=False)],
    data: Data,
    engine: Annotated[str, typer.Option(help="Engine that the weights file is for.")] = "portrait",
    over: Annotated[
        str | None,
        typer.Option(
            help="Installed engine to compare with.",
            show_default=f"--engine; {catalog.DEFAULT_ENGINE['cutout']} where NEW is an engine",
        ),
    ] = None,
    split: Split = "val",
    record: Annotated[
        Path, typer.Option(help="File that records promotions.", show_default="docs/promotions.jsonl")
    ] = RECORD,
    workers: Workers = CORES,
    folder: Weights = None,
) -> None:
    """Install weights if they are better than the current engine, and record the promotion. Exits 1 if they are not."""
    with print_errors(), tempfile.TemporaryDirectory() as scratch:
        file = None if new in catalog.ENGINES else Path(new)
        over = over or (engine if file else catalog.DEFAULT_ENGINE["cutout"])
        row, current = catalog.engine(engine if file else new), catalog.engine(over)
        name = file.name if file else new
        candidate = (
            promotion.load_candidate(file, row, Path(scratch), *device_and_threads(workers))
            if file
            else installed_engine(row, folder, workers)
        )
        loaded = ((over, installed_engine(current, folder, workers), current), (name, candidate, row))
        pairs = []
        for dataset in [_dataset(one, split) for one in data]:
            old, new_ = [_run_engine(*one, dataset, PromptFrom.none, workers) for one in loaded]
            for run in (old, new_):
                _print_unscored(run)
            print_tables(comparisons.compare(old, new_).tables())
            pairs.append((new_, old))

        def install() -> None:
            if file:
                weights = promotion.weights_for(row, file)  # install the evaluated copy: the file may have changed
                import_file(weights, Path(scratch) / weights.file, weights_folder(folder), own=True)

        promotion.promote(pairs, record, install, datetime.now(UTC))
        console.print(f"{escape(name)} replaces {over}; recorded in {escape(str(record))}.", soft_wrap=True)
        if row.name != catalog.DEFAULT_ENGINE[row.tasks[0]]:
            console.print(f"To make {row.name} the default, set DEFAULT_ENGINE in maskdrop/catalog.py.")


def _dataset(
    data: str, split: str, *, by: str = "part", parts: Sequence[str] = (), limit: int | None = None
) -> Dataset:
    """Reads the data set of FOLDER, or of FOLDER:SPLIT. Raises InvalidData."""
    folder, colon, chosen = data.rpartition(":")
    if colon and not Path(data).is_dir():
        data, split = folder, chosen
    return read_dataset(Path(data), split, by=by, parts=parts, limit=limit)


def _overview(
    engines: Sequence[str],
    datasets: Sequence[Dataset],
    workers: int,
    out: Path | None,
    folder: Path | None,
    *,
    reuse: bool,
) -> bool:
    """Evaluates engines on all data sets, and prints one table. Returns whether an image could not be scored.

    out: folder for the runs, one folder an engine and data set, and for the table as table.md.
    """
    rows = [row for row in catalog.ENGINES.values() if row.returns == "alpha" and row.name != catalog.PROMPTED_ENGINE]
    rows = [row for row in rows if not row.everything]  # it needs a prompt
    if engines != [EVERY]:
        rows = [catalog.engine(name) for name in engines]
    found, times = {}, {}
    for row in rows:
        try:
            engine = installed_engine(row, folder, workers)
        except NotInstalled:
            if engines != [EVERY]:
                raise
            continue
        found[row.name] = [
            _run_or_read(row, engine, dataset, workers, out and out / row.name / _name(dataset), reuse=reuse)
            for dataset in datasets
        ]
        cases = speed.sample([dataset.cases for dataset in datasets])
        times[row.name] = {
            size: speed.milliseconds(engine, row, cases, size, device_and_threads(workers)[0])
            for size in speed.MEGAPIXELS
        }
    table = overview(found, times)
    print_tables([table])
    if out:
        write_page(out / "table.md", markdown(table))
    unscored = [run for of_engine in found.values() for run in of_engine if run.unscored]
    for run in unscored:
        _print_unscored(run)
    return bool(unscored)


def _name(dataset: Dataset) -> str:
    """Returns the name of a data set's folder of runs: that of its folder and its split."""
    return f"{dataset.folder.name}-{dataset.split}"


def _run_or_read(
    row: catalog.Engine, engine: Engine, dataset: Dataset, workers: int, out: Path | None, *, reuse: bool
) -> Run:
    """Returns the stored run of the same weights and data, else a new one."""
    if reuse and out and (out / runs.RUN).exists():
        stored = runs.read_run(out)
        if (stored.info.weights_sha256, stored.info.data_sha256) == (engine.weights_sha256, dataset.sha256):
            return stored
    return _run_engine(row.name, engine, row, dataset, PromptFrom.none, workers, out)


def _calibrate(
    engines: Sequence[str], datasets: Sequence[Dataset], workers: int, out: Path | None, folder: Path | None
) -> None:
    """Fits and prints the calibration of an engine; with `out`, writes its reliability as table and drawing."""
    if len(engines) != 1:
        raise LocalError("--calibrate needs exactly one --engine.")
    row = catalog.engine(engines[0])
    engine = installed_engine(row, folder, workers)
    if not isinstance(engine, Examined):
        raise LocalError(f"The score of the engine {row.name} is not calibrated.")
    cases = [case for dataset in datasets for case in dataset.cases]
    cv2.setNumThreads(1)
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console) as progress:
        seen = list(
            progress.track(calibration.observations(engine, row, cases), total=len(cases), description=row.name)
        )
    fitted = calibration.calibrate(engine, seen)
    print_tables(fitted.tables())
    console.print(fitted.constants(), soft_wrap=True, markup=False, highlight=False)
    if out:
        write_page(out / "reliability.md", "\n".join(markdown(table) for table in fitted.tables()))
        write_page(out / "reliability.svg", fitted.drawing())


def installed_engine(row: catalog.Engine, folder: Path | None, workers: int) -> Engine:
    """Loads an installed engine. Raises InvalidWeights, NotInstalled if weights or packages are missing, and LocalError
    for a detector."""
    if row.returns == "boxes":
        raise LocalError(f"{row.name} is a detector: use `maskdrop detector`.")
    return load_engine(row, weights_folder(folder), workers)


def _run_engine(
    name: str,
    engine: Engine,
    row: catalog.Engine,
    dataset: Dataset,
    prompt: PromptFrom,
    workers: int,
    out: Path | None = None,
) -> Run:
    predictor = runs.engine_predictor(engine, row, truth_box=prompt is PromptFrom.truth_box)
    label = name if prompt is PromptFrom.none else f"{name} ({prompt})"
    return run_cases(RunInfo.of(label, engine.weights_sha256, dataset), dataset.cases, predictor, workers, out)


def _run_trained(
    path: Path, network: str, given: Mapping[str, str], dataset: Dataset, workers: int, out: Path | None
) -> Run:
    try:
        from sagemaker_model.evaluation.trained import TrainedNetwork
    except ModuleNotFoundError as error:
        raise LocalError(f"--trained needs {error.name}: install requirements-models.txt.") from error
    predictor = TrainedNetwork(path, *device_and_threads(workers), network, given)
    return run_cases(RunInfo.of(str(path), predictor.weights_sha256, dataset), dataset.cases, predictor, workers, out)


def run_cases(info: RunInfo, cases: Sequence[Case], predictor: Predictor, workers: int, out: Path | None) -> Run:
    """Evaluates all cases with a progress bar. out: folder to store the run in; None does not store it."""
    cv2.setNumThreads(1)  # the workers share the cores, as in the server
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    outcomes = runs.evaluate(cases, predictor, workers=workers, folder=out)
    with Progress(*columns, console=console, transient=True) as progress:
        finished = list(progress.track(outcomes, total=len(cases), description=escape(info.predictor)))
    results = [one for one in finished if isinstance(one, Result)]
    run = Run(info, results, [one for one in finished if isinstance(one, Unscored)], out)
    if out:
        runs.write_run(run, out)
    return run


def _by_id(dataset: Dataset) -> dict[str, Case]:
    return {case.id: case for case in dataset.cases}


def write_page(path: Path, page: str) -> None:
    """Writes an HTML page, and prints its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    console.print(f"Wrote {escape(str(path))}", soft_wrap=True)


def print_tables(tables_: Sequence[Table]) -> None:
    """Prints tables."""
    for table in tables_:
        grid = RichTable(
            *(Column(name, justify="right" if at else "left", overflow="fold") for at, name in enumerate(table.header)),
            title=escape(table.title),
            title_justify="left",
        )
        for row in table.rows:
            grid.add_row(*map(escape, row))
        console.print(grid)


def _print_unscored(run: Run) -> None:
    for case in run.unscored[:UNSCORED_SHOWN]:
        console.print(f"[red]not scored[/red]  {escape(case.id)}: {escape(case.reason)}", soft_wrap=True)
    if run.unscored:
        console.print(f"{len(run.unscored)} images could not be scored for {escape(run.info.predictor)}.")

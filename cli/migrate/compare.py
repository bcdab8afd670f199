"""Compare an engine with an archive: originals and the cut-outs that another service made of them."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import cv2
import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.engines import Weights, weights_for
from cli.evaluate import CORES, Workers, installed_engine, print_tables, run_cases, write_page
from cli.terminal import console, messages, print_errors
from maskdrop import catalog
from sagemaker_model.evaluation import archive
from sagemaker_model.evaluation.archive import Pair
from sagemaker_model.evaluation.archive_report import agreeing, archive_page, archive_table, verdict
from sagemaker_model.evaluation.cases import Dataset
from sagemaker_model.evaluation.run import Run, RunInfo
from sagemaker_model.evaluation.summary import Unscored, summarise

NOTES_SHOWN = 10
"""Maximum number of files without a partner that are printed. The report has all of them."""


def compare(
    originals: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Folder of the original photos.", show_default=False)
    ],
    cutouts: Annotated[
        Path,
        typer.Argument(
            exists=True, file_okay=False, help="Folder of cut-outs: PNG, WebP or zip files.", show_default=False
        ),
    ],
    engine: Annotated[
        list[str] | None, typer.Option(help="Engine to compare; repeatable.", show_default="auto")
    ] = None,
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for the report, the aligned images and the scores.")
    ] = Path("archive-comparison"),
    workers: Workers = CORES,
    folder: Weights = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Compare engines with cut-outs that another service made, and write a report with the largest disagreements.

    Pairs files by name without endings such as -removebg-preview. Aligns smaller and cropped cut-outs.

    Runs on this machine, without a stack.
    """
    printer = messages if as_json else console
    with print_errors():
        engines = [
            (name, installed_engine(catalog.engine(name), weights_for(name, folder), workers))
            for name in engine or [catalog.DEFAULT_ENGINE["cutout"]]
        ]
        found = archive.find_pairs(originals, cutouts)
        data = out / "data"
        notes = [*found.alone, *_align(found.pairs, data, workers)]
        dataset = archive.read_archive(data)
        runs = []
        for name, loaded in engines:
            row = catalog.engine(name)
            predictor = archive.archive_predictor(loaded, row, found.pairs)
            info = RunInfo.of(name, loaded.weights_sha256, dataset)
            runs.append(run_cases(info, dataset.cases, predictor, workers, out / name))
        notes += [one for run in runs for one in run.unscored]
        page = archive_page(runs, {case.id: case for case in dataset.cases}, data, notes, _places(dataset))
    if as_json:
        (out / "report.html").write_text(page, encoding="utf-8")
        print(json.dumps(_json(runs, notes, out), indent=1))
        return
    print_tables([archive_table(runs)])
    for note in notes[:NOTES_SHOWN]:
        printer.print(f"not compared  {escape(note.id)}: {escape(note.reason)}", soft_wrap=True)
    if len(notes) > NOTES_SHOWN:
        printer.print(f"{len(notes)} files were not compared; the report lists them.")
    write_page(out / "report.html", page)
    for run in runs:
        printer.print(verdict(run), soft_wrap=True, markup=False)


def _align(pairs: list[Pair], data: Path, workers: int) -> list[Unscored]:
    """Writes the aligned pairs as a data set, with a progress bar. Returns those that could not be aligned."""
    cv2.setNumThreads(1)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages, transient=True) as progress:
        outcomes = archive.write_dataset(pairs, data, workers=workers)
        return [
            one
            for one in progress.track(outcomes, total=len(pairs), description="Aligning")
            if isinstance(one, Unscored)
        ]


def _places(dataset: Dataset) -> dict[str, str]:
    """Returns scale and place of each cut-out, from the manifest."""
    with (dataset.folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return {
            row["id"]: f"scale {float(row['scale']):.3f}"
            + (f", cropped at {row['x']}, {row['y']}" if row["cropped"] == "1" else "")
            for row in csv.DictReader(file)
        }


def _json(runs: list[Run], notes: list[Unscored], out: Path) -> dict[str, object]:
    return {
        "report": str(out / "report.html"),
        "engines": [
            {
                "engine": run.info.predictor,
                "pairs": len(run.results),
                "agreeing": agreeing(run.results),
                "verdict": verdict(run),
                "summary": asdict(summarise(run.results)),
            }
            for run in runs
        ],
        "not_compared": [asdict(note) for note in notes],
    }

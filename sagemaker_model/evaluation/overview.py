"""One table of all engines on all data sets: accuracy by part, false positives, and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sagemaker_model.evaluation.run import Run
from sagemaker_model.evaluation.speed import MEGAPIXELS
from sagemaker_model.evaluation.summary import (
    FAILED_IOU,
    FALSE_POSITIVE_SHARE,
    GOOD_IOU,
    Result,
    Table,
    group_by_part,
    summarise,
)

HEADER = (
    *("engine", "data", "part", "images", "mean IoU", "median", f"≥ {GOOD_IOU}", f"< {FAILED_IOU}", "boundary F"),
    f"over {FALSE_POSITIVE_SHARE:.0%} without a subject",
    *(f"ms at {size} MP" for size in MEGAPIXELS),
)


def overview(runs: Mapping[str, Sequence[Run]], times: Mapping[str, Mapping[int, float]]) -> Table:
    """Returns the table, with a row for each engine, data set and part.

    runs: those of each engine, one for each data set. times: milliseconds by engine and megapixels, in its first row;
    a size that was not timed is empty.
    """
    rows = []
    for engine, of_engine in runs.items():
        spent = [f"{times[engine][size]:.0f}" if size in times.get(engine, {}) else "" for size in MEGAPIXELS]
        for run in of_engine:
            for part, results in group_by_part(run.results, lambda result: result.part).items():
                cells = _cells(results)
                rows.append((engine, Path(run.info.data).name, part, str(len(results)), *cells, *spent))
                spent = [""] * len(MEGAPIXELS)
    return Table("Engines", HEADER, rows)


def _cells(results: Sequence[Result]) -> tuple[str, ...]:
    summary = summarise(results)
    one, empties = summary.subjects, summary.empties
    with_subject = sum(bool(result.subject) for result in results)
    masks = ("",) * 5
    if one:
        good = format(one.good / with_subject, ".0%")
        masks = (f"{one.mean.iou:.3f}", f"{one.median_iou:.3f}", good, str(one.failed), f"{one.mean.boundary_f:.3f}")
    return *masks, f"{empties.finds} of {len(results) - with_subject}" if empties else ""


def markdown(table: Table) -> str:
    """Returns a table in GitHub's Markdown, without its title."""
    lines = [table.header, ("---",) * len(table.header), *table.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

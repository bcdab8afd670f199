"""Results of single cases, their summary, and tables.

A mean hides errors that users notice: two networks that differed by 0.09 in mean IoU failed on 17 and on 154 of 1,100
images. So the summary states failures beside the mean. Images without a subject are summarised separately: their IoU is
either 1 or 0, and would distort the mean of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sagemaker_model.evaluation.metrics import Scores

T = TypeVar("T")

GOOD_IOU = 0.9
FAILED_IOU = 0.5
"""An image is good from the first IoU on; below the second, the engine failed."""

FALSE_POSITIVE_SHARE = 0.01
"""Share of an image without a subject above which predicted pixels count as a false positive. Smaller areas can be
removed as specks."""

RESAMPLES = 2000
"""Number of bootstrap resamples: 50 of them lie beyond each 2.5 % quantile."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one scored case. subject, found: share of the image, 0..1, that is subject in the truth and in the
    prediction. A prediction with found = 0 gives the user the warning `no_subject`. edge: of `edges.edge_error`. Names
    are columns of scores.csv."""

    id: str
    part: str
    subject: float
    found: float
    scores: Scores
    edge: float | None = None


@dataclass(frozen=True, slots=True)
class Unscored:
    """A case that could not be scored, with the reason."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class SubjectSummary:
    """Summary of the images with a subject. Names are keys of run.json.

    The first field, good and failed are numbers of images. mean: of each metric. low, high: 95 % confidence interval
    of the mean IoU. edge: mean over the images whose truth has soft edges; None without any.
    """

    pictures: int
    mean: Scores
    low: float
    high: float
    median_iou: float
    good: int
    failed: int
    edge: float | None


@dataclass(frozen=True, slots=True)
class EmptySummary:
    """Summary of the images without a subject. Names are keys of run.json.

    The first field is the number of images. found: mean share predicted as subject, 0..1.
    finds: number of images with a false positive above FALSE_POSITIVE_SHARE.
    no_subject: number of images with an empty prediction.
    """

    pictures: int
    found: float
    finds: int
    no_subject: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Summaries of the images with and without a subject; None if there are no such images."""

    subjects: SubjectSummary | None
    empties: EmptySummary | None


@dataclass(frozen=True, slots=True)
class Table:
    """A table for the terminal or HTML. The first column is text, the others are numbers."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


def summarise(results: Sequence[Result]) -> Summary:
    """Summarises the results of a run."""
    scores = [result.scores for result in results if result.subject]
    edges = [result.edge for result in results if result.edge is not None]
    found = np.array([result.found for result in results if not result.subject])
    subjects = empties = None
    if scores:
        ious = np.array([one.iou for one in scores])
        low, high = bootstrap_interval(ious)
        subjects = SubjectSummary(
            len(scores),
            Scores(*np.mean([astuple(one) for one in scores], axis=0).tolist()),
            low,
            high,
            float(np.median(ious)),
            int((ious >= GOOD_IOU).sum()),
            int((ious < FAILED_IOU).sum()),
            float(np.mean(edges)) if edges else None,
        )
    if found.size:
        finds, no_subject = int((found > FALSE_POSITIVE_SHARE).sum()), int((found == 0).sum())
        empties = EmptySummary(found.size, float(found.mean()), finds, no_subject)
    return Summary(subjects, empties)


def group_by_part(items: Sequence[T], part: Callable[[T], str]) -> dict[str, list[T]]:
    """Groups items: "all", then one group per part if there are several parts."""
    groups = {"all": list(items)}
    if len(names := sorted({part(item) for item in items})) > 1:
        groups |= {name or "(no part)": [item for item in items if part(item) == name] for name in names}
    return groups


def bootstrap_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Returns the 95 % confidence interval of the mean, by the percentile bootstrap with a fixed seed."""
    random = np.random.default_rng(0)
    means = [random.choice(values, values.size).mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def tables(results: Sequence[Result]) -> list[Table]:
    """Returns the tables of a run, with a row for all images and for each part."""
    groups = group_by_part(results, lambda result: result.part)
    return summary_tables({name: summarise(group) for name, group in groups.items()})


def summary_tables(summaries: Mapping[str, Summary]) -> list[Table]:
    """Returns tables with one row per summary, without empty tables."""
    subjects = {name: summary.subjects for name, summary in summaries.items() if summary.subjects}
    empties = {name: summary.empties for name, summary in summaries.items() if summary.empties}
    tables = (_mask_table(subjects), _alpha_table(subjects), _empty_table(empties))
    return [table for table in tables if table.rows]


def _mask_table(summaries: Mapping[str, SubjectSummary]) -> Table:
    return Table(
        "Masks",
        (
            *("part", "images", "mean IoU", "95 % interval", "median"),
            *(f"≥ {GOOD_IOU}", f"< {FAILED_IOU}", "Dice", "boundary F"),
        ),
        [
            (
                name,
                str(one.pictures),
                f"{one.mean.iou:.4f}",
                f"{one.low:.3f} to {one.high:.3f}",
                f"{one.median_iou:.4f}",
                format(one.good / one.pictures, ".0%"),
                str(one.failed),
                f"{one.mean.dice:.4f}",
                f"{one.mean.boundary_f:.4f}",
            )
            for name, one in summaries.items()
        ],
    )


def _alpha_table(summaries: Mapping[str, SubjectSummary]) -> Table:
    return Table(
        "Alpha",
        ("part", "SAD", "MSE", "MAD", "Grad", "Conn", "edge of 255"),
        [
            (
                name,
                f"{one.mean.sad:.2f}",
                f"{one.mean.mse:.5f}",
                f"{one.mean.mad:.5f}",
                f"{one.mean.grad:.2f}",
                f"{one.mean.conn:.2f}",
                "" if one.edge is None else f"{one.edge:.2f}",
            )
            for name, one in summaries.items()
        ],
    )


def _empty_table(summaries: Mapping[str, EmptySummary]) -> Table:
    return Table(
        "Images without a subject",
        ("part", "images", "share of the image", f"over {FALSE_POSITIVE_SHARE:.0%}", "no_subject"),
        [
            (name, str(one.pictures), f"{one.found:.2%}", str(one.finds), str(one.no_subject))
            for name, one in summaries.items()
        ],
    )

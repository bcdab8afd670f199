"""What became of each case, what many come to, and the tables that say it.

A mean hides what users see: of two networks 0.09 apart in mean IoU, one failed on 17 images of 1,100 and the other on
154. So the failures stand beside the mean. Images that show no subject are told apart: their IoU is 1 or 0, and would
only blur that of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sagemaker_model.evaluation.metrics import Scores

T = TypeVar("T")

GOOD = 0.9
FAILED = 0.5
"""IoU: from the first on an image is good, below the second the engine failed."""

FIND = 0.01
"""Of the image: more than this, found where there is no subject, is a find; less can be erased as specks."""

ROUNDS = 2000
"""Of the bootstrap. A quantile of 2.5 % then rests on 50 of them."""


@dataclass(frozen=True, slots=True)
class Result:
    """One case that was scored. subject, found: the shares of the image, 0..1, that the truth and the prediction hold
    for subject. Of an image with nothing found, users are told `no_subject`."""

    id: str
    part: str
    subject: float
    found: float
    scores: Scores


@dataclass(frozen=True, slots=True)
class Fault:
    """One case that could not be scored, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Subjects:
    """Of the images that show a subject.

    mean: of each measure. low, high: where the mean IoU lies with 95 % of other such images. good, failed: images.
    """

    pictures: int
    mean: Scores
    low: float
    high: float
    median_iou: float
    good: int
    failed: int


@dataclass(frozen=True, slots=True)
class Empties:
    """Of the images that show none. found: the mean share that was held for subject, 0..1. finds: images with more
    than FIND. no_subject: images in which nothing was found."""

    pictures: int
    found: float
    finds: int
    no_subject: int


@dataclass(frozen=True, slots=True)
class Summary:
    """None where there are no such images."""

    subjects: Subjects | None
    empties: Empties | None


@dataclass(frozen=True, slots=True)
class Table:
    """For a terminal or a page. The first column is text, the others are figures."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


def summarise(results: Sequence[Result]) -> Summary:
    shown = [one.scores for one in results if one.subject]
    found = np.array([one.found for one in results if not one.subject])
    subjects = empties = None
    if shown:
        ious = np.array([scores.iou for scores in shown])
        low, high = interval(ious)
        subjects = Subjects(
            len(shown),
            Scores(*np.mean([astuple(scores) for scores in shown], axis=0).tolist()),
            low,
            high,
            float(np.median(ious)),
            int((ious >= GOOD).sum()),
            int((ious < FAILED).sum()),
        )
    if found.size:
        empties = Empties(found.size, float(found.mean()), int((found > FIND).sum()), int((found == 0).sum()))
    return Summary(subjects, empties)


def by_part(items: Sequence[T], part: Callable[[T], str]) -> dict[str, list[T]]:
    """All of them, then those of each part where there are several."""
    groups = {"all": list(items)}
    if len(names := sorted({part(item) for item in items})) > 1:
        groups |= {name or "(no part)": [item for item in items if part(item) == name] for name in names}
    return groups


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Between which the mean of 95 % of samples like this one lies: the bootstrap's percentiles, by a fixed seed."""
    random = np.random.default_rng(0)
    means = [random.choice(values, values.size).mean() for _ in range(ROUNDS)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def tables(results: Sequence[Result]) -> list[Table]:
    """Of all and of each part."""
    return named_tables({name: summarise(of) for name, of in by_part(results, lambda one: one.part).items()})


def named_tables(summaries: Mapping[str, Summary]) -> list[Table]:
    """One row for each name; a table without rows is left out."""
    shown = {name: one.subjects for name, one in summaries.items() if one.subjects}
    none = {name: one.empties for name, one in summaries.items() if one.empties}
    masks = Table(
        "Masks",
        ("part", "pictures", "mean IoU", "95 % interval", "median", f"≥ {GOOD}", f"< {FAILED}", "Dice", "boundary F"),
        [
            (
                name,
                str(one.pictures),
                f"{one.mean.iou:.4f}",
                f"{one.low:.3f} to {one.high:.3f}",
                f"{one.median_iou:.4f}",
                f"{one.good / one.pictures:.0%}",
                str(one.failed),
                f"{one.mean.dice:.4f}",
                f"{one.mean.boundary_f:.4f}",
            )
            for name, one in shown.items()
        ],
    )
    alpha = Table(
        "Alpha",
        ("part", "SAD", "MSE", "MAD", "Grad", "Conn"),
        [
            (
                name,
                f"{one.mean.sad:.2f}",
                f"{one.mean.mse:.5f}",
                f"{one.mean.mad:.5f}",
                f"{one.mean.grad:.2f}",
                f"{one.mean.conn:.2f}",
            )
            for name, one in shown.items()
        ],
    )
    empties = Table(
        "Images without a subject",
        ("part", "pictures", "found of the image", f"over {FIND:.0%}", "no_subject"),
        [
            (name, str(one.pictures), f"{one.found:.2%}", str(one.finds), str(one.no_subject))
            for name, one in none.items()
        ],
    )
    return [table for table in (masks, alpha, empties) if table.rows]

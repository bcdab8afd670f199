"""Paired comparison of two runs on the same images.

Differences are computed per image. This removes the variance that both runs share, because some images are hard for
both, and so detects much smaller differences than two means do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sagemaker_model.data.records import InvalidData
from sagemaker_model.evaluation.run import Run
from sagemaker_model.evaluation.summary import (
    FAILED_IOU,
    FALSE_POSITIVE_SHARE,
    Result,
    Table,
    bootstrap_interval,
    group_by_part,
)

Pair = tuple[Result, Result]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs. pairs: the results of A and B for each case that both runs scored."""

    a: Run
    b: Run
    pairs: list[Pair]

    @property
    def names(self) -> tuple[str, str]:
        """The names of both predictors; with the folders of the runs if the names are equal."""
        a, b = self.a.info.predictor, self.b.info.predictor
        return (a, b) if a != b else (f"{a} in {self.a.folder}", f"{b} in {self.b.folder}")

    def tables(self) -> list[Table]:
        """Returns the tables of both runs, with a row for all images and for each part."""
        groups = group_by_part(self.pairs, lambda pair: pair[0].part)
        subjects = {name: [pair for pair in pairs if pair[0].subject] for name, pairs in groups.items()}
        empties = {name: [pair for pair in pairs if not pair[0].subject] for name, pairs in groups.items()}
        ious = Table(
            f"Mean IoU: A is {self.names[0]}, B is {self.names[1]}",
            ("part", "images", "A", "B", "B - A", "95 % interval", f"A < {FAILED_IOU}", f"B < {FAILED_IOU}"),
            [(name, *_row(pairs)) for name, pairs in subjects.items() if pairs],
        )
        false_positives = Table(
            "Images without a subject",
            ("part", "images", f"A over {FALSE_POSITIVE_SHARE:.0%}", f"B over {FALSE_POSITIVE_SHARE:.0%}"),
            [
                (
                    name,
                    str(len(pairs)),
                    *(str(sum(pair[side].found > FALSE_POSITIVE_SHARE for pair in pairs)) for side in (0, 1)),
                )
                for name, pairs in empties.items()
                if pairs
            ],
        )
        return [table for table in (ious, false_positives) if table.rows]

    def improvements(self, count: int) -> list[Pair]:
        """Returns up to `count` pairs with a subject in which B is better, largest difference first."""
        better = (pair for pair in self.pairs if pair[0].subject and _gain(pair) > 0)
        return sorted(better, key=_gain, reverse=True)[:count]

    def regressions(self, count: int) -> list[Pair]:
        """Returns up to `count` pairs with a subject in which A is better, largest difference first."""
        worse = (pair for pair in self.pairs if pair[0].subject and _gain(pair) < 0)
        return sorted(worse, key=_gain)[:count]


def compare(a: Run, b: Run) -> Comparison:
    """Pairs the results of two runs. Raises InvalidData for runs on different images or masks, and for runs without a
    common scored case."""
    if a.info.data_sha256 != b.info.data_sha256:
        raise InvalidData(
            f"{a.info.predictor} and {b.info.predictor} were evaluated on different images or masks: "
            "the SHA-256 of their data differ."
        )
    results_b = {result.id: result for result in b.results}
    pairs = [(result, results_b[result.id]) for result in a.results if result.id in results_b]
    if not pairs:
        raise InvalidData(f"No image was scored for both {a.info.predictor} and {b.info.predictor}.")
    return Comparison(a, b, pairs)


def _gain(pair: Pair) -> float:
    return pair[1].scores.iou - pair[0].scores.iou


def _row(pairs: list[Pair]) -> tuple[str, ...]:
    a, b = np.array([[result.scores.iou for result in pair] for pair in pairs]).T
    low, high = bootstrap_interval(b - a)
    return (
        str(len(pairs)),
        f"{a.mean():.4f}",
        f"{b.mean():.4f}",
        f"{(b - a).mean():+.4f}",
        f"{low:+.4f} to {high:+.4f}",
        str(int((a < FAILED_IOU).sum())),
        str(int((b < FAILED_IOU).sum())),
    )

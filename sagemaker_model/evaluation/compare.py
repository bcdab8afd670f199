"""Two runs on the same images, side by side. Differences are taken image by image: what both find hard or easy
falls out of them, so they tell far smaller differences from chance than two means do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sagemaker_model.evaluation.cases import InvalidData
from sagemaker_model.evaluation.run import Run
from sagemaker_model.evaluation.summary import FAILED, FIND, Result, Table, by_part, interval

Pair = tuple[Result, Result]


@dataclass(frozen=True, slots=True)
class Comparison:
    """pairs: the results of A and B for each case that both scored."""

    a: Run
    b: Run
    pairs: list[Pair]

    @property
    def names(self) -> tuple[str, str]:
        """Of both predictors; where they are one, with the folders of their runs."""
        a, b = self.a.about.predictor, self.b.about.predictor
        return (a, b) if a != b else (f"{a} in {self.a.folder}", f"{b} in {self.b.folder}")

    def tables(self) -> list[Table]:
        """Of all and of each part."""
        groups = by_part(self.pairs, lambda pair: pair[0].part)
        shown = {name: [pair for pair in pairs if pair[0].subject] for name, pairs in groups.items()}
        none = {name: [pair for pair in pairs if not pair[0].subject] for name, pairs in groups.items()}
        found = Table(
            f"Mean IoU: A is {self.names[0]}, B is {self.names[1]}",
            ("part", "pictures", "A", "B", "B - A", "95 % interval", f"A < {FAILED}", f"B < {FAILED}"),
            [(name, *_row(pairs)) for name, pairs in shown.items() if pairs],
        )
        finds = Table(
            "Images without a subject",
            ("part", "pictures", f"A over {FIND:.0%}", f"B over {FIND:.0%}"),
            [
                (name, str(len(pairs)), *(str(sum(pair[side].found > FIND for pair in pairs)) for side in (0, 1)))
                for name, pairs in none.items()
                if pairs
            ],
        )
        return [table for table in (found, finds) if table.rows]

    def gains(self, count: int) -> list[Pair]:
        """The pairs with a subject in which B is better, those that differ most first."""
        better = (pair for pair in self.pairs if pair[0].subject and _gain(pair) > 0)
        return sorted(better, key=_gain, reverse=True)[:count]

    def losses(self, count: int) -> list[Pair]:
        """The pairs with a subject in which A is better, those that differ most first."""
        worse = (pair for pair in self.pairs if pair[0].subject and _gain(pair) < 0)
        return sorted(worse, key=_gain)[:count]


def compare(a: Run, b: Run) -> Comparison:
    """Raises InvalidData for runs on different images or truths, and where no case was scored by both."""
    if a.about.data_sha256 != b.about.data_sha256:
        raise InvalidData(
            f"{a.about.predictor} was evaluated on other images or masks than {b.about.predictor}: "
            "their data have different sums."
        )
    others = {one.id: one for one in b.results}
    pairs = [(one, others[one.id]) for one in a.results if one.id in others]
    if not pairs:
        raise InvalidData(f"No image was scored both for {a.about.predictor} and for {b.about.predictor}.")
    return Comparison(a, b, pairs)


def _gain(pair: Pair) -> float:
    return pair[1].scores.iou - pair[0].scores.iou


def _row(pairs: list[Pair]) -> tuple[str, ...]:
    a, b = np.array([[one.scores.iou for one in pair] for pair in pairs]).T
    low, high = interval(b - a)
    return (
        str(len(pairs)),
        f"{a.mean():.4f}",
        f"{b.mean():.4f}",
        f"{(b - a).mean():+.4f}",
        f"{low:+.4f} to {high:+.4f}",
        str(int((a < FAILED).sum())),
        str(int((b < FAILED).sum())),
    )

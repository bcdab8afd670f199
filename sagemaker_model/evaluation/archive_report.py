"""The report that compares an engine with the cut-outs of another service, image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np

from sagemaker_model.data.records import InvalidData
from sagemaker_model.evaluation.cases import Case
from sagemaker_model.evaluation.report import difference, figure, html_table, page, thumbnail, unscored_list
from sagemaker_model.evaluation.run import Run
from sagemaker_model.evaluation.summary import FAILED_IOU, GOOD_IOU, Result, Table, Unscored
from sagemaker_model.imaging.foreground import estimate_foreground
from sagemaker_model.imaging.pixels import Pixels

SHOWN_MAX = 60
"""Maximum number of images in the report: a page of about 5 MB. scores.csv has all of them."""

SWITCH_SHARE, REVIEW_SHARE = 0.95, 0.8
"""Shares of agreeing cut-outs from which the verdict is "switch", and "switch after a review"."""

SQUARE = 11
"""Side of the squares of the chequered background, in pixels."""

LIGHT, DARK = 235, 200
"""Grey of its squares."""


def agreeing(results: Sequence[Result]) -> int:
    """Returns the number of cut-outs whose masks agree: an IoU of at least GOOD_IOU."""
    return sum(one.scores.iou >= GOOD_IOU for one in results)


def verdict(run: Run) -> str:
    """States in a sentence whether the engine can replace the service.

    A disagreement does not state which of the two cut-outs is better: the report shows both.
    """
    count, good = len(run.results), agreeing(run.results)
    if not count:
        return "No verdict: no pair could be compared."
    share, rest = good / count, count - good
    counted = f"{run.info.predictor} agrees with {good} of {count} cut-outs (IoU of at least {GOOD_IOU})"
    if share >= SWITCH_SHARE:
        return f"Switch: {counted}" + (f"; view the other {rest}." if rest else ".")
    if share >= REVIEW_SHARE:
        return f"Switch after a review: {counted}; view the other {rest}."
    return f"Do not switch yet: {counted}, less than {REVIEW_SHARE:.0%}. Compare another engine."


def archive_table(runs: Sequence[Run]) -> Table:
    """Returns the summary, with a row for each engine."""
    rows = []
    for run in runs:
        scores = [one.scores for one in run.results]
        failed = sum(one.iou < FAILED_IOU for one in scores)
        good = agreeing(run.results)
        means = [
            f"{np.mean([getattr(one, name) for one in scores]):.4f}" if scores else ""
            for name in ("iou", "boundary_f", "mad")
        ]
        rows.append(
            (run.info.predictor, str(len(scores)), str(good), str(len(scores) - good - failed), str(failed), *means)
        )
    header = ("engine", "pairs", f"IoU ≥ {GOOD_IOU}", "between", f"IoU < {FAILED_IOU}")
    return Table("Agreement with the archive", (*header, "mean IoU", "boundary F", "alpha MAE"), rows)


def by_disagreement(run: Run) -> list[Result]:
    """Returns the results, largest disagreement first."""
    return sorted(run.results, key=lambda one: (one.scores.iou, -one.scores.mad))


def archive_page(
    runs: Sequence[Run], cases: Mapping[str, Case], folder: Path, notes: Sequence[Unscored], places: Mapping[str, str]
) -> str:
    """Returns the report as HTML.

    runs: of one or several engines on the same pairs, with their predictions. folder: of the data set, whose cutouts/
    the page shows. notes: files that were not compared. places: scale and crop of each cut-out, by id.
    """
    parts = [
        *(f"<p><b>{escape(verdict(run))}</b></p>" for run in runs),
        html_table(archive_table(runs)),
        '<p class="note">The archive\'s cut-out is the reference; a disagreement does not state which one is better. '
        "IoU and boundary F compare pixels that are at least half opaque; 1 is equal. Alpha MAE is the mean absolute "
        "difference of alpha, 0 to 1.</p>",
        "<p>Original, cut-out of the archive, cut-out of the engine, and their difference: "
        '<span class="missed">orange only in the archive</span>, <span class="extra">blue only in the engine\'s</span>.'
        "</p>",
    ]
    for run in runs:
        results = by_disagreement(run)
        title = f"{run.info.predictor}: largest disagreement first"
        if len(results) > SHOWN_MAX:
            title += f", {SHOWN_MAX} of {len(results)}"
        parts.append(f"<h2>{escape(title)}</h2>")
        parts += [_figure(run, cases[one.id], one, folder, places.get(one.id, "")) for one in results[:SHOWN_MAX]]
    return page("Archive comparison", [*parts, *unscored_list(notes)])


def _figure(run: Run, case: Case, result: Result, folder: Path, place: str) -> str:
    scores = result.scores
    caption = (
        f"{escape(case.id)} · IoU {scores.iou:.3f} · boundary F {scores.boundary_f:.3f} · alpha MAE {scores.mad:.4f}"
        f"{f' · {escape(place)}' if place else ''}"
    )
    image = thumbnail(_read(case.image))
    cutout = _read(folder / "cutouts" / f"{case.id}.png")
    truth, ours = thumbnail(np.ascontiguousarray(cutout[..., 3])), thumbnail(run.alpha(case.id))
    archived = thumbnail(_premultiplied(cutout[..., :3], cutout[..., 3]))
    found = _premultiplied(estimate_foreground(image, ours), ours)
    return figure(
        caption, (image, on_squares(archived, truth), on_squares(found, ours), difference(image, truth, ours))
    )


def on_squares(premultiplied: Pixels, alpha: Pixels) -> Pixels:
    """Composes colours over a chequered background. premultiplied: HxWx3 uint8. alpha: HxW uint8."""
    rows, columns = (np.arange(length) // SQUARE for length in alpha.shape)
    squares = np.where((rows[:, None] + columns) % 2, DARK, LIGHT).astype(np.float32)[..., None]
    mixed = premultiplied + squares * (1 - alpha.astype(np.float32)[..., None] / 255)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _premultiplied(rgb: Pixels, alpha: Pixels) -> Pixels:
    return np.rint(rgb * (alpha.astype(np.float32)[..., None] / 255)).astype(np.uint8)


def _read(path: Path) -> Pixels:
    """Reads a PNG file of the data set, RGB or RGBA."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise InvalidData(f"{path} does not exist, or is damaged.")
    code = cv2.COLOR_BGRA2RGBA if pixels.shape[-1] == 4 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(pixels, code), np.uint8)

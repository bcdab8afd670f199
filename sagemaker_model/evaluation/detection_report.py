"""HTML reports of detectors: tables, and images with boxes coloured by class; two detectors side by side."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import cv2
import numpy as np

from sagemaker_model.data.detection import Floats
from sagemaker_model.evaluation.detection_run import (
    DetectionComparison,
    DetectionRun,
    tables,
)
from sagemaker_model.evaluation.report import figure, html_table, page, thumbnail, unscored_list
from sagemaker_model.imaging.pixels import Pixels

SIDE = 310
"""Pixels of an image's longer side: three fit in a row of the page."""

FIGURES_MAX = 12
"""Number of images of each kind in a report."""

Colour = tuple[int, int, int]

COLOURS: tuple[Colour, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
    (120, 94, 240),
)  # fmt: skip
"""Colours of classes, red, green, blue: those of Okabe and Ito, which colour-blind readers can distinguish, without
black, and a violet."""

CROWD = (150, 150, 150)


def run_page(run: DetectionRun) -> str:
    """Returns the report of one run as HTML. Raises BadRecord for an image that is missing."""
    info = run.info
    worst = sorted(range(len(run.found)), key=run.f1)[:FIGURES_MAX]
    figures = [_figure(number, [run], f"F1 {run.f1(number):.3f}") for number in worst]
    parts = [
        f"<p>{escape(info.detector)} on {escape(info.data)}, split {escape(info.split)}.</p>",
        f'<p class="note">Weights {info.weights_sha256 or "none"}<br>Data {info.data_sha256}</p>',
        *map(html_table, tables(run)),
        *unscored_list(run.unscored),
        f"<h2>Lowest F1</h2><p>True boxes, detections. {_legend()}</p>",
        *figures,
    ]
    return page(f"{info.detector}: evaluation", parts)


def comparison_page(comparison: DetectionComparison) -> str:
    """Returns a comparison of two runs as HTML, with the images that differ most.
    Raises BadRecord for an image that is missing."""
    a, b = comparison.a, comparison.b
    names = [escape(name) for name in comparison.names]
    gains = comparison.gains()
    chosen = {
        "B is better": [pair for pair in gains if pair[0] > 0][:FIGURES_MAX],
        "A is better": [pair for pair in gains[::-1] if pair[0] < 0][:FIGURES_MAX],
        "Equal F1": [pair for pair in gains if pair[0] == 0][:FIGURES_MAX],
    }
    parts = [
        f"<p>A is {names[0]}, B is {names[1]}, on {escape(a.info.data)}, split {escape(a.info.split)}.</p>",
        *map(html_table, comparison.tables()),
        *(part for run in (a, b) for part in unscored_list(run.unscored)),
        f"<p>True boxes, A and B. {_legend()}</p>",
    ]
    for title, pairs in chosen.items():
        figures = [_figure(number, [a, b], f"F1 {a.f1(number):.3f} and {b.f1(number):.3f}") for _, number in pairs]
        parts += [f"<h2>{title}</h2>", *figures] if figures else []
    return page(f"{comparison.names[0]} and {comparison.names[1]}", parts)


def _legend() -> str:
    return "Detections have the score of the second table or more. Grey boxes are crowds, which do not count."


def _figure(number: int, runs: Sequence[DetectionRun], text: str) -> str:
    """Returns a record's image with its true boxes and with those of each run, under a caption with the classes."""
    record, names = runs[0].data.records[number], runs[0].data.names
    found = [run.found[number].from_score(run.info.score) for run in runs]
    image = thumbnail(record.read(), SIDE)
    scale = np.array((image.shape[1] / record.width, image.shape[0] / record.height) * 2)
    labels = np.concatenate([record.labels, *(one.labels for one in found)])
    colours = _colours(np.unique(labels).tolist())
    drawn = [image.copy() for _ in range(1 + len(found))]
    for box, label, crowd in zip(record.boxes, record.labels, record.crowd, strict=True):
        _draw_box(drawn[0], box * scale, CROWD if crowd else colours[label])
    for canvas, one in zip(drawn[1:], found, strict=True):
        for at in np.argsort(one.scores):  # the highest score is drawn last, on top
            _draw_box(canvas, one.boxes[at] * scale, colours[one.labels[at]], f"{one.scores[at]:.2f}")
    classes = " ".join(
        f'<span style="border-bottom:3px solid rgb{colour}">{escape(names[label])}</span>'
        for label, colour in colours.items()
    )
    return figure(f"{escape(record.file.name)} · {text} · {classes}", drawn)


def _colours(labels: Sequence[int]) -> dict[int, Colour]:
    """Returns the colour of each class of one image: colour n modulo 8 for class n, else the next free one."""
    colours: dict[int, Colour] = {}
    for label in labels:
        cycle = [COLOURS[(label + step) % len(COLOURS)] for step in range(len(COLOURS))]
        colours[label] = next((colour for colour in cycle if colour not in colours.values()), cycle[0])
    return colours


def _draw_box(image: Pixels, box: Floats, colour: Colour, text: str = "") -> None:
    """Draws a box, x0, y0, x1, y1 in pixels, on HxWx3 uint8 in place. text: at the top left corner of a box that is
    large enough for it."""
    x0, y0, x1, y1 = (round(float(value)) for value in box)
    cv2.rectangle(image, (x0, y0), (x1 - 1, y1 - 1), colour, 2)
    width, height = 7 * len(text) + 4, 12
    if text and x1 - x0 >= width and y1 - y0 >= 2 * height:
        cv2.rectangle(image, (x0, y0), (x0 + width, y0 + height), colour, cv2.FILLED)
        cv2.putText(image, text, (x0 + 2, y0 + 10), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (0, 0, 0), 1, cv2.LINE_AA)

"""A page that one can mail: tables, the histogram, and the images that say most, all in one HTML file, no script."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import cv2
import numpy as np

from sagemaker_model.evaluation.cases import Case, read_alpha
from sagemaker_model.evaluation.compare import Comparison
from sagemaker_model.evaluation.run import Run
from sagemaker_model.evaluation.summary import FIND, Fault, Result, Table, tables
from sagemaker_model.imaging.pixels import Pixels, decode
from sagemaker_model.imaging.resize import resized
from sagemaker_model.settings import ServerSettings

THUMB_SIDE = 220
"""Pixels of an image's long side: four fit beside one another, and fifty make a page of about 2 MB."""

WORST, OTHERS = 12, 4
"""Cases of each kind. The worst teach most."""

MISSED, EXTRA = (255, 120, 0), (30, 120, 255)
"""Orange and blue, which colour-blind eyes tell apart."""

BINS = 20
"""Of the histogram: 0.05 of IoU each."""

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .5rem 0 1.5rem }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
figure { margin: 0 0 1.4rem } figcaption { margin-bottom: .3rem }
figure img { margin-right: .5rem; vertical-align: top; background: #eee }
.missed { color: #c65a00 } .extra { color: #1e63c8 } .note { color: #666 }
"""


def run_page(run: Run, cases: Mapping[str, Case]) -> str:
    """The report of one run. cases: by id, for the images. Raises MaskdropError for images that went missing."""
    about = run.about
    shown = sorted((one for one in run.results if one.subject), key=_iou)
    middle = max(0, (len(shown) - OTHERS) // 2)
    finds = sorted((one for one in run.results if not one.subject and one.found > FIND), key=lambda one: -one.found)
    chosen = {
        "Worst": shown[:WORST],
        "Median": shown[middle : middle + OTHERS],
        "Best": shown[::-1][:OTHERS],
        "Found where there is nothing": finds[:WORST],
    }
    parts = [
        f"<p>{escape(about.predictor)} on {escape(about.data)}, split {escape(about.split)}.</p>",
        f'<p class="note">Weights {about.weights_sha256 or "none"}<br>Data {about.data_sha256}</p>',
        *map(_table, tables(run.results)),
        "<h2>IoU of the images that show a subject</h2>" + _histogram([_iou(one) for one in shown]),
        *_faults(run.faults),
        "<p>Photo, truth, prediction and their difference: "
        '<span class="missed">orange is missed</span>, <span class="extra">blue is too much</span>.</p>',
    ]
    for title, results in chosen.items():
        figures = [_figure(_caption(one), _run_pictures(cases[one.id], run)) for one in results]
        parts += [f"<h2>{title}</h2>", *figures] if figures else []
    return _page(f"{about.predictor}: evaluation", parts)


def comparison_page(comparison: Comparison, cases: Mapping[str, Case]) -> str:
    """Where two runs differ most, in both directions. Raises MaskdropError for images that went missing."""
    a, b = comparison.a, comparison.b
    names = [escape(name) for name in comparison.names]
    parts = [
        f"<p>A is {names[0]}, B is {names[1]}, on {escape(a.about.data)}, split {escape(a.about.split)}.</p>",
        *map(_table, comparison.tables()),
        "<p>Photo, truth, A and B.</p>",
    ]
    for title, pairs in (("B is better", comparison.gains(WORST)), ("A is better", comparison.losses(WORST))):
        figures = [
            _figure(
                f"{escape(one.id)} · IoU {_iou(one):.3f} and {_iou(other):.3f}",
                (*_photo_and_truth(cases[one.id]), _prediction(a, one.id), _prediction(b, one.id)),
            )
            for one, other in pairs
        ]
        parts += [f"<h2>{title}</h2>", *figures] if figures else []
    return _page(f"{comparison.names[0]} and {comparison.names[1]}", parts)


def _iou(result: Result) -> float:
    return result.scores.iou


def _page(title: str, parts: Iterable[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.header)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in table.rows)
    return f"<h2>{escape(table.title)}</h2>\n<table><tr>{head}</tr>\n{rows}</table>"


def _histogram(ious: Sequence[float]) -> str:
    counts, _ = np.histogram(ious, BINS, (0, 1))
    width, height, top = 30, 140, max(1, int(counts.max()))
    bars = []
    for index, count in enumerate(counts.tolist()):
        tall, x = height * count / top, index * width
        bars.append(
            f'<rect x="{x + 2}" y="{20 + height - tall:.1f}" width="{width - 4}" height="{tall:.1f}" fill="#4a7ab5"/>'
            f'<text x="{x + width / 2}" y="{15 + height - tall:.1f}">{count or ""}</text>'
        )
    marks = [f'<text x="{BINS * width * mark / 10}" y="{height + 36}">{mark / 10}</text>' for mark in range(1, 10)]
    return (
        f'<svg width="{BINS * width}" height="{height + 42}" font-size="12" text-anchor="middle" role="img">'
        f'{"".join(bars)}<path d="M0 {height + 20}h{BINS * width}" stroke="#888"/>{"".join(marks)}</svg>'
    )


def _faults(faults: Sequence[Fault]) -> list[str]:
    items = "".join(f"<li>{escape(fault.id)}: {escape(fault.reason)}</li>" for fault in faults)
    return [f"<h2>Not scored</h2><ul>{items}</ul>"] if items else []


def _caption(result: Result) -> str:
    name = f"{escape(result.id)} · {escape(result.part)}" if result.part else escape(result.id)
    return f"{name} · IoU {_iou(result):.3f} · {result.found:.1%} of the image found, {result.subject:.1%} true"


def _figure(caption: str, pictures: Iterable[Pixels]) -> str:
    images = "".join(f'<img alt="" src="data:image/jpeg;base64,{_jpeg(pixels)}">' for pixels in pictures)
    return f"<figure><figcaption>{caption}</figcaption>{images}</figure>"


def _run_pictures(case: Case, run: Run) -> tuple[Pixels, ...]:
    photo, truth = _photo_and_truth(case)
    prediction = _prediction(run, case.id)
    return photo, truth, prediction, _difference(photo, truth, prediction)


def _photo_and_truth(case: Case) -> tuple[Pixels, Pixels]:
    return _thumb(decode(case.image.read_bytes(), ServerSettings().limits).rgb), _thumb(read_alpha(case.mask))


def _prediction(run: Run, name: str) -> Pixels:
    return _thumb(run.alpha(name))


def _thumb(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    scale = THUMB_SIDE / max(height, width)
    return resized(pixels, (max(1, round(width * scale)), max(1, round(height * scale))))


def _difference(photo: Pixels, truth: Pixels, prediction: Pixels) -> Pixels:
    """The photo in dark grey; over it, in colour, what was missed and what was too much."""
    error = (truth.astype(np.float32) - prediction)[..., None] / 255
    dark = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.float32) * 0.4
    colour = np.where(error > 0, np.float32(MISSED), np.float32(EXTRA))
    return np.clip(dark + np.abs(error) * (colour - dark), 0, 255).astype(np.uint8)


def _jpeg(pixels: Pixels) -> str:
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if pixels.ndim == 3 else cv2.COLOR_GRAY2BGR)
    return base64.b64encode(cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, 80))[1].tobytes()).decode()

"""HTML reports in one file without scripts: tables, a histogram, and images with the best and worst results."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import cv2
import numpy as np
from numpy.typing import NDArray

from sagemaker_model.evaluation.cases import Case, read_alpha
from sagemaker_model.evaluation.compare import Comparison
from sagemaker_model.evaluation.run import Run
from sagemaker_model.evaluation.summary import FALSE_POSITIVE_SHARE, Result, Table, Unscored, tables
from sagemaker_model.imaging.pixels import Pixels, decode
from sagemaker_model.imaging.resize import resized
from sagemaker_model.settings import ServerSettings

THUMB_SIDE = 220
"""Pixels of a thumbnail's longer side: four fit in a row, and fifty rows make a page of about 2 MB."""

WORST_COUNT, OTHER_COUNT = 12, 4
"""Number of cases of each kind. The worst cases show most about errors."""

MISSED, EXTRA = (255, 120, 0), (30, 120, 255)
"""Orange for missed pixels and blue for extra ones, which colour-blind readers can distinguish."""

BINS = 20
"""Bins of the histogram, each 0.05 IoU wide."""

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
    """Returns the report of one run as HTML. cases: by id. Raises MaskdropError for an image that is missing."""
    info = run.info
    by_iou = sorted((result for result in run.results if result.subject), key=_iou)
    middle = max(0, (len(by_iou) - OTHER_COUNT) // 2)
    empties = (result for result in run.results if not result.subject)
    false_positives = sorted(
        (result for result in empties if result.found > FALSE_POSITIVE_SHARE), key=lambda result: -result.found
    )
    chosen = {
        "Worst": by_iou[:WORST_COUNT],
        "Median": by_iou[middle : middle + OTHER_COUNT],
        "Best": by_iou[::-1][:OTHER_COUNT],
        "False positives": false_positives[:WORST_COUNT],
    }
    parts = [
        f"<p>{escape(info.predictor)} on {escape(info.data)}, split {escape(info.split)}.</p>",
        f'<p class="note">Weights {info.weights_sha256 or "none"}<br>Data {info.data_sha256}</p>',
        *map(html_table, tables(run.results)),
        "<h2>IoU of the images with a subject</h2>" + _histogram([_iou(result) for result in by_iou]),
        *unscored_list(run.unscored),
        "<p>Image, true mask, prediction, and their difference: "
        '<span class="missed">missed pixels are orange</span>, <span class="extra">extra pixels are blue</span>.</p>',
    ]
    for title, results in chosen.items():
        figures = [figure(_caption(result), _run_images(cases[result.id], run)) for result in results]
        parts += [f"<h2>{title}</h2>", *figures] if figures else []
    return page(f"{info.predictor}: evaluation", parts)


def comparison_page(comparison: Comparison, cases: Mapping[str, Case]) -> str:
    """Returns a comparison of two runs as HTML, with the images that differ most.
    Raises MaskdropError for an image that is missing."""
    a, b = comparison.a, comparison.b
    names = [escape(name) for name in comparison.names]
    parts = [
        f"<p>A is {names[0]}, B is {names[1]}, on {escape(a.info.data)}, split {escape(a.info.split)}.</p>",
        *map(html_table, comparison.tables()),
        "<p>Image, true mask, A and B.</p>",
    ]
    for title, pairs in (
        ("B is better", comparison.improvements(WORST_COUNT)),
        ("A is better", comparison.regressions(WORST_COUNT)),
    ):
        figures = [
            figure(
                f"{escape(one.id)} · IoU {_iou(one):.3f} and {_iou(other):.3f}",
                (*_image_and_truth(cases[one.id]), _prediction(a, one.id), _prediction(b, one.id)),
            )
            for one, other in pairs
        ]
        parts += [f"<h2>{title}</h2>", *figures] if figures else []
    return page(f"{comparison.names[0]} and {comparison.names[1]}", parts)


def _iou(result: Result) -> float:
    return result.scores.iou


def page(title: str, parts: Iterable[str]) -> str:
    """Returns an HTML page. title: plain text. parts: HTML."""
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def html_table(table: Table) -> str:
    """Returns a table as HTML, with its title as a heading."""
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


def unscored_list(cases: Sequence[Unscored]) -> list[str]:
    """Returns the cases that could not be scored as HTML; [] without any."""
    items = "".join(f"<li>{escape(case.id)}: {escape(case.reason)}</li>" for case in cases)
    return [f"<h2>Not scored</h2><ul>{items}</ul>"] if items else []


def _caption(result: Result) -> str:
    name = f"{escape(result.id)} · {escape(result.part)}" if result.part else escape(result.id)
    return f"{name} · IoU {_iou(result):.3f} · predicted {result.found:.1%} of the image, true {result.subject:.1%}"


def figure(caption: str, columns: Iterable[Pixels]) -> str:
    """Returns images side by side under a caption, as HTML. caption: HTML. columns: HxW or HxWx3 uint8."""
    images = "".join(f'<img alt="" src="data:image/jpeg;base64,{_jpeg(pixels)}">' for pixels in columns)
    return f"<figure><figcaption>{caption}</figcaption>{images}</figure>"


def _run_images(case: Case, run: Run) -> tuple[Pixels, ...]:
    image, truth = _image_and_truth(case)
    prediction = _prediction(run, case.id)
    return image, truth, prediction, difference(image, truth, prediction)


def _image_and_truth(case: Case) -> tuple[Pixels, Pixels]:
    return thumbnail(decode(case.image.read_bytes(), ServerSettings().limits).rgb), thumbnail(read_alpha(case.mask))


def _prediction(run: Run, name: str) -> Pixels:
    return thumbnail(run.alpha(name))


def thumbnail(pixels: Pixels, side: int = THUMB_SIDE) -> Pixels:
    """Resizes an image so that its longer side has `side` pixels."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    return resized(pixels, (max(1, round(width * scale)), max(1, round(height * scale))))


def difference(image: Pixels, truth: Pixels, prediction: Pixels) -> Pixels:
    """Returns the image in dark grey, with missed and extra pixels in colour."""
    error = (truth.astype(np.float32) - prediction)[..., None] / 255
    dark = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.float32) * 0.4
    colour = np.where(error > 0, np.array(MISSED, np.float32), np.array(EXTRA, np.float32))
    mixed: NDArray[np.float32] = dark + np.abs(error) * (colour - dark)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _jpeg(pixels: Pixels) -> str:
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if pixels.ndim == 3 else cv2.COLOR_GRAY2BGR)
    return base64.b64encode(cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, 80))[1].tobytes()).decode()

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sagemaker_model.evaluation.cases import Case, read_dataset
from sagemaker_model.evaluation.compare import compare
from sagemaker_model.evaluation.report import EXTRA, MISSED, comparison_page, run_page
from sagemaker_model.evaluation.summary import Unscored
from sagemaker_model.imaging.pixels import Pixels
from tests.unit.sagemaker_model.evaluation.synthetic import SIDES, DiscEngine, disc, evaluate_run, shifted


class Page(HTMLParser):
    """Parses HTML: tags in order, URLs of images, and tags that are still open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.sources.append(str(dict(attrs)["src"]))
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def images(self) -> list[Pixels]:
        """Returns the decoded images, HxWx3 RGB."""
        images: list[Any] = []
        for source in self.sources:
            head, data = source.split(",")
            assert head == "data:image/jpeg;base64"
            pixels = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR_RGB)
            assert pixels is not None
            images.append(pixels)
        return images


def cases(data: Path) -> dict[str, Case]:
    return {case.id: case for case in read_dataset(data, "val").cases}


def test_the_report_shows_image_truth_prediction_and_difference(data: Path, tmp_path: Path) -> None:
    run = evaluate_run(data, DiscEngine(shifted(6)), folder=tmp_path / "run")
    page = Page(run_page(run, cases(data)))
    assert page.open == []
    assert "script" not in page.tags
    assert len(page.sources) == 4 * (5 + 4 + 4)  # all five are in the worst, four in the median and in the best
    image, truth, prediction, difference = page.images()[:4]
    assert image.shape == (round(220 * SIDES[0] / SIDES[1]), 220, 3)
    # The first row is the worst image, the smallest disc. Its left edge is missed, its right edge is extra.
    middle = image.shape[0] // 2
    step = 220 / SIDES[1]
    left, right = round((SIDES[1] / 2 - 9) * step), round((SIDES[1] / 2 + 15) * step)
    assert truth[middle, left, 0] > 200 > 50 > prediction[middle, left, 0]
    assert truth[middle, right, 0] < 50 < 200 < prediction[middle, right, 0]
    assert np.abs(difference[middle, left].astype(int) - MISSED).max() < 40
    assert np.abs(difference[middle, right].astype(int) - EXTRA).max() < 40


def test_the_report_shows_false_positives_and_unscored_images(data: Path, tmp_path: Path) -> None:
    ghost = DiscEngine(lambda mask: mask if mask.any() else disc(20))
    run = evaluate_run(data, ghost, "<b>", folder=tmp_path / "run")
    run.unscored.append(Unscored("lost", "<file> does not exist."))
    text = run_page(run, cases(data))
    assert "False positives" in text
    assert "lost: &lt;file&gt; does not exist." in text
    assert "<b>" not in text
    assert "<h2>Not scored" not in run_page(evaluate_run(data, DiscEngine(), folder=tmp_path / "other"), cases(data))


def test_the_histogram_counts_every_image_with_a_subject(data: Path, tmp_path: Path) -> None:
    text = run_page(evaluate_run(data, DiscEngine(shifted(6)), folder=tmp_path / "run"), cases(data))
    bars = re.findall(r"<rect[^>]*/><text[^>]*>(\d*)</text>", text)
    assert len(bars) == 20
    assert sum(int(count or 0) for count in bars) == 5


def test_a_comparison_shows_both_predictions(data: Path, tmp_path: Path) -> None:
    a = evaluate_run(data, DiscEngine(shifted(6)), "a", tmp_path / "a")
    b = evaluate_run(data, DiscEngine(), "b", tmp_path / "b")
    page = Page(comparison_page(compare(a, b), cases(data)))
    assert page.open == []
    assert len(page.sources) == 4 * 5
    _, truth, worse, better = (image.astype(int) for image in page.images()[:4])
    assert np.abs(better - truth).mean() < np.abs(worse - truth).mean()
    assert "A is better" not in comparison_page(compare(a, b), cases(data))

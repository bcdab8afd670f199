from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from sagemaker_model.data.records import InvalidData
from sagemaker_model.engines.base import Alpha
from sagemaker_model.engines.two_passes import Floats
from sagemaker_model.evaluation.calibrate import Observation, calibrate, fit, observations, reliable_from
from sagemaker_model.evaluation.cases import read_dataset
from sagemaker_model.imaging.pixels import Pixels
from tests.unit.sagemaker_model.evaluation.synthetic import DiscEngine


class Measuring(DiscEngine):
    """Measures the share of light pixels."""

    measurements: tuple[str, ...] = ("light", "noise")

    def examine(self, rgb: Pixels) -> tuple[Alpha, Floats]:
        return self.predict(rgb, ()), np.array([(rgb > 110).mean(), rgb.std() / 255], np.float32)


def draw(count: int) -> list[Observation | None]:
    """Returns observations whose IoU is good with the probability of a logistic function of the first measurement."""
    random = np.random.default_rng(0)
    measured = random.normal(size=(count, 2)).astype(np.float32)
    good = random.random(count) < 1 / (1 + np.exp(-(1 + 2 * measured[:, 0])))
    return [Observation(one, 0.95 if yes else 0.6) for one, yes in zip(measured, good, strict=True)]


def test_the_fit_finds_the_logistic_function_of_the_data() -> None:
    seen = [one for one in draw(4000) if one]
    calibration = fit(np.array([one.measured for one in seen]), np.array([one.iou > 0.9 for one in seen], np.float32))
    assert calibration.score(np.array([0, 0], np.float32)) == pytest.approx(1 / (1 + np.exp(-1)), abs=0.03)
    assert calibration.score(np.array([1, 0], np.float32)) == pytest.approx(1 / (1 + np.exp(-3)), abs=0.03)
    assert abs(calibration.weights[1]) < 0.1 < calibration.weights[0]


def test_the_scores_are_reliable_on_images_that_the_fit_has_not_seen() -> None:
    fitted = calibrate(Measuring(), draw(3000))
    for _, _, count, mean, share in fitted.bins():
        assert share == pytest.approx(mean, abs=3 * 0.5 / count**0.5)
    sure = fitted.scores >= fitted.threshold
    assert fitted.good[sure].mean() >= 0.98
    assert 0.05 < sure.mean() < 0.6


def test_the_threshold_is_the_lowest_score_from_which_the_share_of_good_images_is_high_enough() -> None:
    scores = np.linspace(1, 0, 101, dtype=np.float32)
    good = (scores > 0.4).astype(np.float32)
    assert reliable_from(scores, good) == pytest.approx(0.4)
    assert reliable_from(scores, np.zeros_like(good)) == 1


def test_the_reliability_is_printed_as_tables_constants_and_a_drawing() -> None:
    fitted = calibrate(Measuring(), draw(300))
    bins, threshold = fitted.tables()
    assert sum(int(row[1]) for row in bins.rows) == 300
    assert threshold.rows[0][0] == f"{fitted.threshold:.3f}"
    assert f"REVIEW_BELOW = {fitted.threshold:.3f}" in fitted.constants()
    drawing = ElementTree.fromstring(fitted.drawing())  # noqa: S314 - our own text
    assert len(drawing.findall("{http://www.w3.org/2000/svg}circle")) == len(bins.rows)


def test_data_without_bad_images_cannot_be_calibrated() -> None:
    with pytest.raises(InvalidData, match="needs at least 10 images"):
        calibrate(Measuring(), [one for one in draw(200) if one and one.iou > 0.9])


def test_an_image_without_a_subject_has_no_observation(data: Path) -> None:
    from maskdrop import catalog

    cases = read_dataset(data, "val").cases
    seen = list(observations(Measuring(), catalog.engine("portrait"), cases))
    assert [one is None for one in seen] == [case.id == "nothing" for case in cases]
    assert all(one.iou > 0.8 for one in seen if one)

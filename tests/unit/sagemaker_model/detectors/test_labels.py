from __future__ import annotations

import numpy as np
import pytest

from maskdrop.errors import UnknownLabel
from sagemaker_model.detectors.labels import Labels, knows, merged
from tests.unit.sagemaker_model.detectors.fake_detector import FakeDetector

IMAGE = np.zeros((100, 200, 3), np.uint8)


def composite() -> tuple[Labels, dict[str, FakeDetector]]:
    detectors = {
        "faces": FakeDetector((("face", 0.5, (1, 2, 3, 4)),), ("face",)),
        "detector": FakeDetector((("Airplane", 0.8, (5, 6, 7, 8)),), ("Airplane", "face")),
    }
    return Labels(detectors), detectors


def test_each_label_goes_to_the_first_detector_that_knows_it() -> None:
    labels, detectors = composite()
    found = labels.detect(IMAGE, ["airplane", "face"], 0.1)
    assert found.labels == ("Airplane", "face")
    assert found.boxes.tolist() == [[5, 6, 7, 8], [1, 2, 3, 4]]
    assert detectors["faces"].calls == [(("face",), 0.1, False)]
    assert detectors["detector"].calls == [(("airplane",), 0.1, False)]


def test_an_unknown_label_is_an_error_that_lists_the_known_ones() -> None:
    labels, detectors = composite()
    with pytest.raises(UnknownLabel, match=r"'zebra'.*face, Airplane"):
        labels.detect(IMAGE, ["face", "zebra"])
    assert detectors["faces"].calls == []


def test_without_labels_a_paid_service_is_not_called() -> None:
    _, detectors = composite()
    service = FakeDetector(labels=None, cost_usd=0.001)
    labels = Labels({**detectors, "rekognition": service})
    assert labels.detect(IMAGE).cost_usd == 0
    assert service.calls == []
    assert labels.detect(IMAGE, ["zebra"]).cost_usd == 0.001
    assert labels.labels is None
    assert knows(labels, "anything")


def test_without_a_detector_nothing_is_found_and_no_label_is_known() -> None:
    assert Labels().detect(IMAGE).labels == ()
    assert not knows(Labels(), "face")
    assert merged([]).boxes.shape == (0, 4)


def test_an_instance_keeps_its_mask_beside_one_without() -> None:
    with_mask = FakeDetector((("person", 0.9, (0, 0, 9, 9)),), ("person",)).detect(IMAGE, masks=True)
    without = FakeDetector((("face", 0.95, (1, 1, 5, 5)),), ("face",)).detect(IMAGE)
    both = merged([with_mask, without])
    assert both.labels == ("face", "person")
    assert both.masks == (None, with_mask.masks[0])


def test_an_error_lists_some_of_many_labels() -> None:
    many = Labels({"detector": FakeDetector(labels=tuple(f"class {number}" for number in range(1203)))})
    with pytest.raises(UnknownLabel, match="and 1173 more") as error:
        many.detect(np.zeros((2, 2, 3), np.uint8), ["unicorn"])
    assert len(str(error.value)) < 600

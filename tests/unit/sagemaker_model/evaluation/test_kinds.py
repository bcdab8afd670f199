from __future__ import annotations

from pathlib import Path

import pytest

from sagemaker_model.evaluation.cases import read_dataset
from sagemaker_model.evaluation.kinds import kind_of
from tests.unit.sagemaker_model.evaluation.synthetic import DISCS, write_manifest


@pytest.mark.parametrize(
    ("subject", "mask_kind", "kind"),
    [
        ("zebra", "polygon_coarse", "animal"),
        ("brown_bear", "alpha_studio_triangulation", "toy"),
        ("bear", "polygon_coarse", "animal"),
        ("doll_blonde", "", "toy"),
        ("dog+frisbee", "", "animal"),
        ("Motorcycle", "", "vehicle"),
        ("potted plant", "", "plant"),
        ("pizza", "", "food"),
        ("tv", "", "product"),
    ],
)
def test_the_kind_of_a_subject_is_that_of_a_word_of_its_name(subject: str, mask_kind: str, kind: str) -> None:
    assert kind_of(subject, mask_kind) == kind


def test_the_parts_of_a_manifest_without_parts_are_the_kinds_of_its_subjects(data: Path) -> None:
    subjects = ["cat", "bus", "tv", "tv", "tulip_flower", "dog"]
    write_manifest(
        data, [{"id": name, "split": "val", "subject": one} for name, one in zip(DISCS, subjects, strict=True)]
    )
    parts = [case.part for case in read_dataset(data, "val").cases]
    assert parts == ["animal", "vehicle", "product", "product", "plant", "animal"]
    assert len(read_dataset(data, "val", parts=["product"]).cases) == 2

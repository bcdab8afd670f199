from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from maskdrop.settings import InvalidSettings
from sagemaker_model.training.settings import SETTINGS, TrainingSettings, settings_of


def test_settings_are_parsed_from_text() -> None:
    given = {"lr": "1e-4", "steps": "5", "clean": "true", "threads": "2", "schedule": "steps"}
    settings = settings_of("portrait", given)
    assert settings == replace(SETTINGS["portrait"], lr=1e-4, steps=5, clean=True, threads=2, schedule="steps")
    assert settings.changed({"threads": "none", "clean": "false"}) == replace(settings, threads=None, clean=False)


def test_an_error_names_all_values_that_cannot_be_parsed() -> None:
    with pytest.raises(
        InvalidSettings, match=r"lr must be a number; got 'much'; clean must .*'colour'.*schedule must be one of"
    ):
        settings_of("portrait", {"lr": "much", "clean": "yes", "colour": "red", "schedule": "linear"})


def test_an_error_names_all_values_out_of_range() -> None:
    with pytest.raises(
        InvalidSettings, match=r"batch .*1 or more.*lr .*finite.*ema .*0 to 1.*clip .*side .*32.*threads"
    ):
        TrainingSettings(batch=0, lr=float("inf"), ema=2, clip=0, side=33, threads=0)


def test_differences_are_the_settings_that_change_the_weights() -> None:
    settings = TrainingSettings()
    other = asdict(replace(settings, workers=7, log_every=3, lr=2.0, seed=5))
    assert settings.differences(other) == ["lr", "seed"]

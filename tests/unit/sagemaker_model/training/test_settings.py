from __future__ import annotations

import re
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from maskdrop.settings import InvalidSettings
from sagemaker_model.training.__main__ import parse_arguments
from sagemaker_model.training.settings import SETTINGS, TrainingSettings, descriptions, settings_of


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


def test_the_help_describes_every_option(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--help"], {"COLUMNS": "100"}, tmp_path)
    text = capsys.readouterr().out
    _, *options = re.split(r"\n  (?:-h, )?--", text)
    described = {option.split()[0]: re.split(r"\s{2,}|\n", option, maxsplit=1)[1:] for option in options}
    assert {item.name for item in fields(TrainingSettings)} < described.keys()
    assert [name for name, description in described.items() if not description] == []


def test_the_description_of_a_setting_has_the_defaults_of_the_networks() -> None:
    found = descriptions()
    assert found["clip"].startswith("maximum norm of the gradients; ")
    assert f"{SETTINGS['attention-unet'].lr} for attention-unet" in found["lr"]
    assert found["log_every"].endswith("(default: 20)")

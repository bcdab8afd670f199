"""The search of settings on this machine, on a data set that one CPU core trains on in seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from cli.app import app
from maskdrop.settings import InvalidSettings
from sagemaker_model.training import search as module
from sagemaker_model.training.ranges import ranges_of
from sagemaker_model.training.search import Trial, rounds, search, trials_of
from sagemaker_model.training.settings import SETTINGS, settings_of
from sagemaker_model.training.train import BEST, LAST, TRAINING, Data, TrainingDiverged, train
from tests.unit.sagemaker_model.detectors.shapes import write_shapes
from tests.unit.sagemaker_model.training.conftest import TINY

FIXED = {
    **{name: str(getattr(TINY, name)) for name in ("side", "batch", "workers", "threads", "filters")},
    "steps": "6",
    "validate_every": "2",
    "warmup": "2",
    "ema": "0.5",
}

RANGES = {"lr": "0.001:0.1", "weight_decay": "0,0.01"}

Search = Callable[..., tuple[Trial, list[Trial]]]


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Search:
    """Returns a function that searches settings of a small Attention U-Net."""

    def call(
        out: str = "out", fixed: dict[str, str] = FIXED, ranges: dict[str, str] = RANGES, runs: int = 3, **more: Any
    ) -> Any:
        folders = Data(train=data, val=data), tmp_path / out
        return search("attention-unet", *folders, fixed, ranges, runs=runs, **more)

    return call


def test_the_search_improves_on_the_defaults(run: Search, data: Path, tmp_path: Path) -> None:
    fixed = {**FIXED, "steps": "54", "validate_every": "6"}
    best, trials = run(fixed=fixed, runs=9)
    defaults = train(
        "attention-unet", Data(train=data, val=data), tmp_path / "defaults", settings_of("attention-unet", fixed)
    )
    assert best.score(54) > defaults["best_iou"] + 0.2
    assert sum("54" in trial.scores for trial in trials) == 1


def test_the_best_weights_are_those_of_a_training_run_with_its_settings(
    run: Search, data: Path, tmp_path: Path
) -> None:
    best, _ = run()
    settings = settings_of("attention-unet", {**FIXED, **best.settings})
    result = train("attention-unet", Data(train=data, val=data), tmp_path / "again", settings)
    assert (tmp_path / "out" / BEST).read_bytes() == (tmp_path / "again" / BEST).read_bytes()
    saved = json.loads((tmp_path / "out" / TRAINING).read_text())
    assert (saved["settings"], saved["best_iou"]) == (result["settings"], best.score(6))


def test_the_search_of_a_detector_maximises_the_map(tmp_path: Path) -> None:
    shapes = write_shapes(tmp_path / "shapes")
    fixed = {**FIXED, "steps": "2", "validate_every": "2"}
    best, _ = search("detector", Data(train=shapes, val=shapes), tmp_path / "out", fixed, {"lr": "0.001,0.01"}, runs=2)
    result = json.loads((tmp_path / "out" / TRAINING).read_text())
    assert best.score(2) == result["best_map"]
    assert result["settings"]["lr"] == float(best.settings["lr"])


def test_an_interrupted_search_resumes_and_ends_with_the_same_trials(
    run: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, uninterrupted = run("one")
    calls = []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train(*arguments, **options)

    monkeypatch.setattr(module, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("two")
    best, trials = run("two", resume=True)
    assert trials == uninterrupted
    assert len(calls) == 3 + 2  # the third trial again, and the second round
    tuning = json.loads((tmp_path / "two" / "tuning.json").read_text())
    assert tuning["best"] == best.number
    assert [trial["scores"] for trial in tuning["trials"]] == [trial.scores for trial in trials]


def test_only_the_best_third_continues_and_keeps_its_weights(
    run: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scored(network: str, data: Data, out: Path, settings: Any, **options: Any) -> Any:
        return {**train(network, data, out, settings, **options), "best_iou": settings.lr}

    monkeypatch.setattr(module, "train", scored)
    best, trials = run(ranges={"lr": "0.001,0.002,0.004,0.003"}, runs=4)
    assert best.settings == {"lr": "0.004"}
    assert best.scores == {"2": 0.004, "6": 0.004}
    assert all(list(trial.scores) == ["2"] for trial in trials if trial is not best)
    kept = [(tmp_path / "out" / "trials" / str(trial.number) / LAST).exists() for trial in trials]
    assert kept == [trial is best for trial in trials]


def test_a_diverged_trial_is_recorded_and_never_chosen(run: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverging(network: str, data: Data, out: Path, settings: Any, **options: Any) -> Any:
        if settings.lr < 0.001:
            raise TrainingDiverged("The loss was nan at step 1.")
        return train(network, data, out, settings, **options)

    monkeypatch.setattr(module, "train", diverging)
    best, trials = run(ranges={"lr": "0.0001,0.01"}, runs=2)
    assert best.settings == {"lr": "0.01"}
    assert [trial.failure for trial in trials if trial is not best] == ["The loss was nan at step 1."]
    with pytest.raises(TrainingDiverged, match="every trial"):
        run("all", ranges={"lr": "0.0001,0.0002"}, runs=2)


def test_a_search_is_not_overwritten_or_mixed_with_another(run: Search) -> None:
    run(ranges={"lr": "0.001,0.01"}, runs=1)
    with pytest.raises(InvalidSettings, match="--resume"):
        run(ranges={"lr": "0.001,0.01"}, runs=1)
    with pytest.raises(InvalidSettings, match="different ranges"):
        run(ranges={"lr": "0.002,0.01"}, runs=1, resume=True)


def test_the_number_of_steps_cannot_be_searched(run: Search) -> None:
    with pytest.raises(InvalidSettings, match="fix steps"):
        run(ranges={"steps": "10:20"})


@pytest.mark.parametrize(
    ("runs", "validate_every", "expected"),
    [
        (1, 50, [(1, 900)]),
        (2, 50, [(2, 900)]),
        (9, 50, [(9, 100), (3, 300), (1, 900)]),
        (20, 50, [(20, 100), (6, 300), (2, 900)]),
        (9, 200, [(9, 200), (3, 400), (1, 900)]),
        (9, 1000, [(9, 900), (3, 900), (1, 900)]),
    ],
)
def test_each_round_has_a_third_of_the_trials_and_ends_at_a_validation(
    runs: int, validate_every: int, expected: list[tuple[int, int]]
) -> None:
    assert rounds(runs, 900, validate_every) == expected


def test_the_first_trial_has_the_defaults_and_all_trials_differ() -> None:
    ranges = ranges_of("attention-unet", {"lr": "0.0001:0.03", "batch": "8,16"})
    settings = [trial.settings for trial in trials_of("attention-unet", {}, ranges, runs=20, seed=1)]
    defaults = SETTINGS["attention-unet"]
    assert replace(defaults).changed(settings[0]) == defaults
    assert len({tuple(each.values()) for each in settings}) == 20
    few = trials_of("attention-unet", {}, ranges_of("attention-unet", {"batch": "16,32"}), runs=20, seed=1)
    assert sorted(trial.settings["batch"] for trial in few) == ["16", "32"]  # the default, 8, is not in the range


def test_a_combination_that_the_network_rejects_is_refused_before_training(run: Search, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="multiple of 32"):
        run(ranges={"side": "32:64"})
    assert not (tmp_path / "out").exists()


def test_the_seed_determines_the_trials() -> None:
    ranges = ranges_of("portrait", RANGES)
    one, same, other = (trials_of("portrait", {}, ranges, runs=5, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_the_command_prints_every_run_and_the_best_settings(data: Path, tmp_path: Path) -> None:
    words = [f"{name}={value}" for name, value in {**FIXED, "steps": "3", "validate_every": "3"}.items()]
    arguments = ["tune", "attention-unet", "lr=0.001,0.01", *words, f"--data={data}", f"--out={tmp_path / 'out'}"]
    result = CliRunner().invoke(app, [*arguments, "--runs=3"])
    assert result.exit_code == 0, result.output
    best = json.loads((tmp_path / "out" / "tuning.json").read_text())["best"]
    assert f"(run {best})" in result.output
    assert (tmp_path / "out" / BEST).exists()
    again = CliRunner().invoke(app, [*arguments, "--runs=3"])
    assert again.exit_code == 1
    assert "--resume" in again.output

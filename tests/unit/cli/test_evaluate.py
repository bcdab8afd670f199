"""The commands `maskdrop evaluate`, `compare` and `promote`, on six synthetic images."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from cli import engines
from cli.app import app
from local.config import ROOT
from sagemaker_model.engines.grabcut import GrabCut
from sagemaker_model.evaluation import speed
from sagemaker_model.weights.store import digest, named, verify
from tests.unit.sagemaker_model.conftest import weights_dir  # noqa: F401 - a fixture
from tests.unit.sagemaker_model.evaluation.conftest import data  # noqa: F401 - a fixture
from tests.unit.sagemaker_model.evaluation.synthetic import DISCS, DiscEngine, evaluate_run, shifted, write_manifest

SELFIE = named("selfie")

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Returns a function that runs `maskdrop` with arguments, on a temporary weights folder."""

    def call(*words: object) -> Result:
        return CliRunner().invoke(app, [*map(str, words), "--folder", str(tmp_path / "weights")])

    return call


@pytest.fixture
def installed_weights(tmp_path: Path, weights_dir: Path) -> Path:  # noqa: F811
    (tmp_path / "weights").mkdir()
    return Path(shutil.copy(weights_dir / SELFIE.file, tmp_path / "weights"))


@pytest.fixture
def candidate(tmp_path: Path, weights_dir: Path) -> Path:  # noqa: F811
    """The same network in a file with another SHA-256."""
    path = tmp_path / "mine.tflite"
    path.write_bytes((weights_dir / SELFIE.file).read_bytes() + b"\0" * 16)
    return path


def table_cells(result: Result, title: str) -> dict[str, list[str]]:
    """Returns the cells of a printed table by the cell of the first column."""
    lines = iter(result.output.splitlines())
    next(line for line in lines if line.startswith(title))
    rows = {}
    for line in lines:
        if line.startswith("│"):
            name, *cells = (cell.strip() for cell in line.strip("│").split("│"))
            rows[name] = cells
        elif line.startswith("└"):
            break
    return rows


def test_an_engine_is_evaluated_and_its_scores_predictions_and_report_are_stored(
    run: Run,
    data: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    out = tmp_path / "out" / "grabcut"
    result = run("evaluate", "--engine", "grabcut", "--prompt", "truth-box", "--data", data, "--out", out)
    assert result.exit_code == 0, result.output
    masks = table_cells(result, "Masks")
    assert list(masks) == ["all", "far", "near"]
    assert masks["all"][0] == "5"
    assert 0.9 < float(masks["all"][1]) <= 1
    assert list(table_cells(result, "Images without a subject")) == ["all", "no_person"]
    with (out / "scores.csv").open(newline="") as file:
        assert [line["id"] for line in csv.DictReader(file)] == list(DISCS)
    assert {path.stem for path in (out / "alphas").iterdir()} == set(DISCS)
    assert (out / "report.html").read_text().count("data:image/jpeg;base64,") >= 4 * 5
    about = json.loads((out / "run.json").read_text())["about"]
    assert (about["predictor"], about["split"], about["data"]) == ("grabcut (truth-box)", "val", str(data))


def test_a_folder_of_predictions_is_evaluated(run: Run, data: Path, tmp_path: Path) -> None:  # noqa: F811
    words = ("--data", data, "--part", "near", "--iou-csv", tmp_path / "iou.csv")
    result = run("evaluate", "--predictions", data / "masks", *words)
    assert result.exit_code == 0, result.output
    assert table_cells(result, "Masks")["all"][:2] == ["3", "1.0000"]
    assert (tmp_path / "iou.csv").read_text().split() == ["near_1,1.0", "near_2,1.0", "near_3,1.0"]


def test_a_missing_prediction_is_reported_and_exits_with_1(
    run: Run,
    data: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    shutil.copytree(data / "masks", tmp_path / "found")
    (tmp_path / "found" / "far_2.png").unlink()
    result = run("evaluate", "--predictions", tmp_path / "found", "--data", data)
    assert result.exit_code == 1
    assert "far_2.png does not exist" in result.output
    assert table_cells(result, "Masks")["all"][0] == "4"


def test_an_error_is_printed_without_a_traceback(run: Run, data: Path, tmp_path: Path) -> None:  # noqa: F811
    for words in (
        ("evaluate", "--data", data),
        ("evaluate", "--data", data, "--engine", "selfie", "--predictions", data / "masks"),
        ("evaluate", "--data", data, "--engine", "nobody"),
        ("evaluate", "--data", data, "--engine", "modnet"),
        ("evaluate", "--data", data, "--engine", "grabcut", "--split", "nothing"),
        ("evaluate", "--data", tmp_path / "nowhere", "--engine", "grabcut"),
        ("compare", "grabcut", tmp_path / "nowhere", "--data", data),
        ("compare", "grabcut", "grabcut"),
        ("promote", tmp_path / "nowhere.tflite", "--engine", "selfie", "--over", "grabcut", "--data", data),
    ):
        result = run(*words)
        assert result.exit_code == (2 if "nobody" in words else 1), words
        assert isinstance(result.exception, SystemExit), words
        assert "Traceback" not in result.output


def test_two_runs_are_compared(run: Run, data: Path, tmp_path: Path) -> None:  # noqa: F811
    for name, engine in (("bad", DiscEngine(shifted(6))), ("good", DiscEngine())):
        evaluate_run(data, engine, name, tmp_path / name)
    result = run("compare", tmp_path / "bad", tmp_path / "good", "--out", tmp_path / "both")
    assert result.exit_code == 0, result.output
    rows = table_cells(result, "Mean IoU: A is bad, B is good")
    assert float(rows["all"][3]) > 0
    page = (tmp_path / "both" / "comparison.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 4 * 5


def test_an_engine_is_compared_with_a_run(run: Run, data: Path, tmp_path: Path) -> None:  # noqa: F811
    evaluate_run(data, DiscEngine(), "synthetic", tmp_path / "synthetic")
    words = ("--prompt", "truth-box", "--data", data, "--out", tmp_path / "both")
    result = run("compare", tmp_path / "synthetic", "grabcut", *words)
    assert result.exit_code == 0, result.output
    assert "A is synthetic, B is grabcut (truth-box)" in result.output
    assert (tmp_path / "both" / "b" / "run.json").exists()


@pytest.fixture
def person(tmp_path: Path) -> Path:
    """A photo of a person. Its true mask is a stored result of `selfie`, resized, so that `selfie` scores highest."""
    folder = tmp_path / "person"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    shutil.copy(ROOT / "samples" / "default" / "astronaut.png", folder / "images")
    with Image.open(ROOT / "tests" / "golden" / "default-astronaut.png") as golden:
        golden.resize((512, 512), Image.Resampling.BILINEAR).save(folder / "masks" / "astronaut.png")
    write_manifest(folder, [{"id": "astronaut", "split": "val"}])
    return folder


def test_better_weights_are_installed_and_recorded(run: Run, person: Path, tmp_path: Path, candidate: Path) -> None:
    record = tmp_path / "promotions.jsonl"
    words = ("--engine", "selfie", "--over", "grabcut", "--data", person, "--record", record)
    result = run("promote", candidate, *words)
    assert result.exit_code == 0, result.output
    assert verify(SELFIE, tmp_path / "weights") == digest(candidate)
    (line,) = record.read_text().splitlines()
    entry = json.loads(line)
    assert (entry["new"]["name"], entry["replaced"]["name"]) == ("mine.tflite", "grabcut")
    assert entry["new"]["weights_sha256"] == digest(candidate)


def test_weights_that_are_not_better_are_rejected_with_their_scores(
    run: Run, person: Path, tmp_path: Path, candidate: Path, installed_weights: Path
) -> None:
    record = tmp_path / "promotions.jsonl"
    result = run("promote", candidate, "--engine", "selfie", "--data", person, "--record", record)
    assert result.exit_code == 1
    assert table_cells(result, "Mean IoU: A is selfie, B is mine.tflite")["all"][3] == "+0.0000"
    assert "does not replace selfie: its mean IoU is" in result.output
    assert digest(installed_weights) == SELFIE.sha256
    assert not record.exists()


def test_an_engine_is_promoted_over_another_or_rejected(
    run: Run, person: Path, tmp_path: Path, installed_weights: Path
) -> None:
    words = ("--data", person, "--record", tmp_path / "promotions.jsonl")
    assert run("promote", "grabcut", "--over", "selfie", *words).exit_code == 1
    result = run("promote", "selfie", "--over", "grabcut", *words)
    assert result.exit_code == 0, result.output
    assert "selfie replaces grabcut" in result.output


def test_the_commands_use_the_device_of_the_servers_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "choose_device", lambda requested, **_: requested)
    monkeypatch.delenv("MODEL_DEVICE", raising=False)
    assert engines.device_and_threads(1)[0] == "auto"
    monkeypatch.setenv("MODEL_DEVICE", "cpu")
    assert engines.device_and_threads(1)[0] == "cpu"


def test_several_data_sets_give_one_table_with_the_time_of_an_image(
    run: Run,
    data: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speed, "milliseconds", lambda *words: 1000.0 * words[3])
    words = ("--engine", "grabcut", "--data", f"{data}:val", "--data", f"{data}:train", "--out", tmp_path / "out")
    result = run("evaluate", *words)
    assert result.exit_code == 0, result.output
    rows = [line.strip("| \n").split(" | ") for line in (tmp_path / "out" / "table.md").read_text().splitlines()[2:]]
    assert [row[:3] for row in rows] == [
        ["grabcut", "data", part] for part in ("all", "far", "near", "no_person", "all")
    ]
    assert rows[0][-2:] == ["1000", "12000"]
    assert (tmp_path / "out" / "grabcut" / "data-train" / "run.json").exists()
    monkeypatch.setattr(GrabCut, "predict", None)
    assert run("evaluate", *words, "--reuse").exit_code == 0


def test_only_an_engine_that_measures_its_mattes_is_calibrated(run: Run, data: Path) -> None:  # noqa: F811
    result = run("evaluate", "--engine", "grabcut", "--data", data, "--calibrate")
    assert result.exit_code == 1
    assert "The score of the engine grabcut is not calibrated." in result.output
    assert run("evaluate", "--predictions", data / "masks", "--data", data, "--calibrate").exit_code == 1

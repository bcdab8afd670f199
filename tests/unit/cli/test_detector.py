"""The commands `maskdrop detector` and `maskdrop data prepare-detection`, on coloured rectangles."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli import detector as commands
from cli.app import app
from maskdrop.catalog import Engine as Row
from sagemaker_model.data.detection import ANNOTATIONS, read_set
from sagemaker_model.detectors.base import Detector
from sagemaker_model.evaluation import promote as promotion
from sagemaker_model.weights.store import NotInstalled, Weights
from tests.unit.sagemaker_model.evaluation.coloured import ColourDetector, write_scenes

Run = Callable[..., Result]


def run(*words: object) -> Result:
    return CliRunner().invoke(app, list(map(str, words)))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_scenes(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def detectors(monkeypatch: pytest.MonkeyPatch) -> dict[str, Detector]:
    """The installed detectors, by name; `mine.onnx` and the installed weights are `candidate` and `detector`."""
    installed: dict[str, Detector] = {"faces": ColourDetector(labels=("car",)), "people": ColourDetector()}

    def load_one(row: Row, device: str, weights_dir: Path, threads: int = 1) -> Detector:
        name = "candidate" if (weights_dir / "mine.onnx").exists() else row.name
        if name not in installed:
            raise NotInstalled(f"The weights of {name} are missing.")
        return installed[name]

    weights = Weights(name="detector", engine="detector", file="mine.onnx", licence="", home="")
    monkeypatch.setattr(commands, "load_detector", load_one)
    monkeypatch.setattr(promotion, "load_detector", load_one)
    monkeypatch.setattr(promotion, "known", lambda: {"detector": weights})
    return installed


def test_a_data_set_is_prepared_and_its_broken_rows_are_printed(data: Path, tmp_path: Path) -> None:
    content = json.loads((data / ANNOTATIONS).read_text())
    content["annotations"][0]["bbox"] = [90, 10, 30, 30]
    content["annotations"][1]["bbox"] = [30, 10, -4, 30]
    (data / ANNOTATIONS).write_text(json.dumps(content))
    result = run("data", "prepare-detection", "coco", data, tmp_path / "out", "--class", "person", "--class", "car")
    assert result.exit_code == 0, result.output
    assert "3 images in" in result.output
    assert "0 train, 3 val, 0 test." in result.output
    assert "Box clipped, box beyond the image: 1" in result.output
    assert "Box skipped, box inside out: 1" in result.output
    assert "Image skipped, no box of the classes: 1" in result.output
    assert read_set(tmp_path / "out", "val").names == ("person", "car")


def test_a_data_set_that_cannot_be_prepared_exits_with_1(tmp_path: Path) -> None:
    result = run("data", "prepare-detection", "voc", tmp_path, tmp_path / "out")
    assert result.exit_code == 1
    assert "is not Pascal VOC" in result.output


def test_a_detector_is_evaluated_and_its_run_is_stored(
    data: Path, tmp_path: Path, detectors: dict[str, Detector]
) -> None:
    result = run("detector", "evaluate", "people", "--data", data, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run" / "run.json").read_text())["scores"]["map"] == 1
    assert (tmp_path / "run" / "report.html").read_text().count("<figure>") == 4


def test_classes_and_the_score_of_precision_and_recall_can_be_chosen(
    data: Path, tmp_path: Path, detectors: dict[str, Detector]
) -> None:
    words = ("detector", "evaluate", "people", "--data", data, "--class", "car", "--out", tmp_path / "run")
    matches = []
    for score in ("0.5", "0.95"):
        assert run(*words, "--score", score).exit_code == 0
        matches.append(json.loads((tmp_path / "run" / "run.json").read_text())["matches"])
    assert matches == [{"correct": 2, "missed": 0, "extra": 0}, {"correct": 0, "missed": 2, "extra": 0}]


def test_an_image_on_which_the_detector_fails_exits_with_1(data: Path, detectors: dict[str, Detector]) -> None:
    detectors["people"] = ColourDetector(fails=True)
    result = run("detector", "evaluate", "people", "--data", data)
    assert result.exit_code == 1
    assert "none.png: The image has no rectangle." in result.output


def test_two_runs_are_compared_without_evaluating_again(
    data: Path, tmp_path: Path, detectors: dict[str, Detector]
) -> None:
    for name in ("faces", "people"):
        run("detector", "evaluate", name, "--data", data, "--out", tmp_path / name)
    result = run("detector", "compare", tmp_path / "faces", tmp_path / "people", "--out", tmp_path / "both")
    assert result.exit_code == 0, result.output
    assert "+1.000" in result.output
    assert "B is better" in (tmp_path / "both" / "comparison.html").read_text()
    assert "--data is required" in run("detector", "compare", "faces", "people").output


def test_a_detector_that_is_not_installed_is_named(data: Path, detectors: dict[str, Detector]) -> None:
    result = run("detector", "evaluate", "detector", "--data", data)
    assert result.exit_code == 1
    assert "The weights of detector are missing." in result.output


def test_an_unknown_detector_is_refused_with_the_known_ones(data: Path) -> None:
    result = run("detector", "evaluate", "nobody", "--data", data)
    assert result.exit_code == 1
    assert "neither a detector (labels, faces, people, detector, rekognition) nor a weights file" in result.output


def test_a_detector_replaces_the_installed_one_only_if_its_map_is_not_lower(
    data: Path, tmp_path: Path, detectors: dict[str, Detector]
) -> None:
    (tmp_path / "mine.onnx").write_bytes(b"weights")
    (tmp_path / "weights").mkdir()
    detectors["candidate"] = ColourDetector(shift=6)
    record = tmp_path / "promotions.jsonl"
    words = ("detector", "promote", tmp_path / "mine.onnx", "--data", data, "--record", record)
    first = run(*words, "--folder", tmp_path / "weights")
    assert first.exit_code == 0, first.output
    assert "mine.onnx is installed" in first.output
    assert (tmp_path / "weights" / "mine.onnx").read_bytes() == b"weights"
    (tmp_path / "weights" / "mine.onnx").unlink()
    detectors["detector"] = ColourDetector()
    second = run(*words, "--folder", tmp_path / "weights")
    assert second.exit_code == 1
    assert "does not replace detector: its mAP is" in second.output
    assert not (tmp_path / "weights" / "mine.onnx").exists()
    assert len(record.read_text().splitlines()) == 1


def test_a_detector_is_refused_by_the_evaluation_of_masks(data: Path) -> None:
    (data / "masks").mkdir()
    (data / "manifest.csv").write_text("id,split\none,val\n")
    for name in ("one",):
        (data / "masks" / f"{name}.png").write_bytes((data / "images" / f"{name}.png").read_bytes())
    result = run("evaluate", "--engine", "faces", "--data", data)
    assert result.exit_code == 1
    assert "faces is a detector: use `maskdrop detector`" in result.output

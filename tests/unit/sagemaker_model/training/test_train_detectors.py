"""The training loop with detectors, on made squares and discs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from maskdrop.settings import InvalidSettings  # noqa: E402 - needs torch
from sagemaker_model.data.detection import ANNOTATIONS  # noqa: E402
from sagemaker_model.data.records import InvalidData  # noqa: E402
from sagemaker_model.training.objectives import objective_of  # noqa: E402
from sagemaker_model.training.samples import NO_OBJECT, open_samples, training_loader, validation_loader  # noqa: E402
from sagemaker_model.training.settings import DETECTORS, SETTINGS, TrainingSettings, metric_of  # noqa: E402
from sagemaker_model.training.train import BEST, HISTORY, LAST, TRAINING, Data, train  # noqa: E402
from sagemaker_model.weights.checkpoints import MismatchedWeights, load_checkpoint, read_metadata  # noqa: E402
from tests.unit.sagemaker_model.detectors.shapes import NAMES, write_shapes  # noqa: E402

SMALL = TrainingSettings(
    side=96, batch=4, steps=60, lr=0.01, warmup=5, ema=0.9, validate_every=30, log_every=10, workers=0, threads=1,
    filters=4, clip=10,
)  # fmt: skip

Train = Callable[..., dict[str, Any]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_shapes(tmp_path / "data")


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Train:
    """Returns a function that trains on the made data, by default the small network."""

    def call(out: str = "out", settings: TrainingSettings = SMALL, network: str = "detector", **more: Any) -> Any:
        return train(network, Data(train=data, val=data), tmp_path / out, settings, **more)

    return call


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """The folder of a small RT-DETR with three classes."""
    pytest.importorskip("scipy", reason="scipy is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    from tests.unit.sagemaker_model.nets.small_rt_detr import save

    return save(tmp_path / "start", "a", "b", "c")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / HISTORY).read_text().splitlines()]


def interrupt_at(step: int) -> Callable[[dict[str, Any]], None]:
    def stop(line: dict[str, Any]) -> None:
        if line["step"] == step and "loss" in line:
            raise KeyboardInterrupt

    return stop


def test_training_finds_the_shapes_and_reports_its_map(run: Train, tmp_path: Path) -> None:
    result = run(settings=replace(SMALL, steps=150, validate_every=50))
    validations = [line for line in lines(tmp_path / "out") if "map" in line]
    assert [line["step"] for line in validations] == [50, 100, 150]
    assert result["best_map"] == max(line["map"] for line in validations) == validations[-1]["best_map"]
    assert validations[-1]["map50"] > validations[0]["map50"] + 0.2
    assert json.loads((tmp_path / "out" / TRAINING).read_text()) == result


def test_the_weights_file_names_classes_and_sizes(run: Train, tmp_path: Path) -> None:
    run(settings=replace(SMALL, steps=1))
    assert read_metadata(tmp_path / "out" / BEST) == {"names": json.dumps(NAMES), "filters": "4", "side": "96"}


def test_an_interrupted_run_is_resumed_to_the_bit(run: Train, tmp_path: Path) -> None:
    settings = replace(SMALL, steps=12, validate_every=4, log_every=1)
    run("uninterrupted", settings)
    with pytest.raises(KeyboardInterrupt):
        run("interrupted", settings, report=interrupt_at(7))
    run("interrupted", settings, resume=True)
    assert (tmp_path / "interrupted" / BEST).read_bytes() == (tmp_path / "uninterrupted" / BEST).read_bytes()
    one, other = (torch.load(tmp_path / name / LAST)["objective"] for name in ("interrupted", "uninterrupted"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_rt_detr_is_trained_from_a_folder_and_resumed_to_the_bit(run: Train, start: Path, tmp_path: Path) -> None:
    settings = replace(SMALL, side=64, steps=6, batch=2, lr=1e-3, validate_every=2, log_every=1)
    losses: list[float] = []
    run("uninterrupted", settings, "rt-detr", start=start, report=lambda line: losses.append(line.get("loss", 0)))
    assert all(np.isfinite(losses))
    with pytest.raises(KeyboardInterrupt):
        run("interrupted", settings, "rt-detr", start=start, report=interrupt_at(3))
    run("interrupted", settings, "rt-detr", start=start, resume=True)
    one, other = (torch.load(tmp_path / name / LAST)["objective"] for name in ("interrupted", "uninterrupted"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    before = load_checkpoint(start / "model.safetensors")["model.encoder_input_proj.0.0.weight"]
    assert not torch.equal(one["net.net.model.encoder_input_proj.0.0.weight"], before)


def test_weights_of_other_classes_are_a_start_without_their_last_layer(run: Train, data: Path, tmp_path: Path) -> None:
    run("first", replace(SMALL, steps=2))
    one_class = objective_of("detector", SMALL, tmp_path / "first" / BEST, names=("square",)).net.state_dict()
    first = load_checkpoint(tmp_path / "first" / BEST)
    assert one_class["class_branch.1.weight"].shape[0] == 1
    assert torch.equal(one_class["box_branch.1.weight"], first["box_branch.1.weight"])
    with pytest.raises(MismatchedWeights):
        objective_of("detector", replace(SMALL, filters=6), tmp_path / "first" / BEST, names=NAMES)


def test_images_with_different_numbers_of_objects_share_a_batch(data: Path) -> None:
    samples, validation, names = open_samples("detector", SMALL, data, data, None)
    assert names == NAMES
    batch = next(iter(training_loader(samples, 0)))
    assert batch.image.shape == (4, 3, 96, 96)
    assert (batch.target[..., 0] == NO_OBJECT).any() or batch.target.shape[1] == 1
    whole = [rows for batch in validation_loader(validation, SMALL) for rows in batch.target]
    assert [int((rows[:, 0] != NO_OBJECT).sum()) for rows in whole] == [1, 1, 2] * 2


def test_a_crowd_is_validated_as_such_and_not_trained(data: Path) -> None:
    content = json.loads((data / ANNOTATIONS).read_text())
    for row in content["annotations"][:-1]:
        row["iscrowd"] = 1
    (data / ANNOTATIONS).write_text(json.dumps(content))
    samples, validation, _ = open_samples("detector", SMALL, data, data, None)
    assert samples[0].target.shape[1] == 0
    assert validation[0].target[0, :, 5].tolist() == [1]


def test_unusable_images_are_reported_in_the_result(run: Train, data: Path) -> None:
    for number in (3, 14):
        cv2.imwrite(str(data / "images" / f"scene{number}.png"), np.zeros((5, 5, 3), np.uint8))
    assert sorted(run(settings=replace(SMALL, steps=6))["skipped"]) == ["scene14.png", "scene3.png"]


def test_a_run_is_not_resumed_with_other_boxes(run: Train, data: Path) -> None:
    run(settings=replace(SMALL, steps=1))
    text = (data / ANNOTATIONS).read_text()
    at = text.index('"iscrowd": 0')
    (data / ANNOTATIONS).write_text(text[:at] + '"iscrowd": 1' + text[at + 12 :])
    with pytest.raises(InvalidSettings, match="different data"):
        run(settings=replace(SMALL, steps=1), resume=True)


def test_invalid_data_is_reported_before_the_first_step(data: Path, tmp_path: Path) -> None:
    other = write_shapes(tmp_path / "other", names=("disc", "square"))
    empty = write_shapes(tmp_path / "empty")
    content = json.loads((empty / ANNOTATIONS).read_text())
    (empty / ANNOTATIONS).write_text(json.dumps({**content, "annotations": []}))
    for val, message in ((other, "other classes"), (empty, "no boxes")):
        with pytest.raises(InvalidData, match=message):
            open_samples("detector", SMALL, data, val, None)
    for settings, backgrounds in ((replace(SMALL, clean=True), None), (SMALL, data)):
        with pytest.raises(InvalidSettings, match="neither backgrounds nor clean"):
            open_samples("detector", settings, data, data, backgrounds)


def test_a_set_without_splits_is_used_for_training_and_validation(data: Path) -> None:
    content = json.loads((data / ANNOTATIONS).read_text())
    for row in content["images"]:
        del row["split"]
    (data / ANNOTATIONS).write_text(json.dumps(content))
    samples, validation, _ = open_samples("detector", SMALL, data, data, None)
    assert len(samples.source) == len(validation) == 18


def test_every_detector_has_settings_and_the_metric_of_its_objective() -> None:
    for network in SETTINGS:
        assert metric_of(network) == ("map" if network in DETECTORS else "iou")
    assert objective_of("detector", SMALL, None, names=("a",)).metric == metric_of("detector")
    assert objective_of("attention-unet", SMALL, None).metric == metric_of("attention-unet")

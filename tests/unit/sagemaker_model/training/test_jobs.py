"""What SageMaker is asked for, and that the container understands it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from maskdrop.settings import InvalidSettings
from sagemaker_model.training.__main__ import arguments, main
from sagemaker_model.training.jobs import METRICS, Place, training_job, tuning_job
from sagemaker_model.training.settings import settings_of
from tests.unit.sagemaker_model.training.conftest import TINY

PLACE = Place(
    image="1.dkr.ecr.eu-west-1.amazonaws.com/maskdrop-dev:1",
    role="arn:aws:iam::1:role/training",
    out="s3://mine/runs/",
    channels={"train": "s3://mine/people/", "start": "s3://mine/selfie/"},
)


def tuning(settings: dict[str, str] | None = None, **ranges: str) -> dict[str, Any]:
    return tuning_job("one", "portrait", settings or {}, ranges, PLACE, runs=6, at_once=2)


def in_container(root: Path, request: dict[str, Any], data: Path) -> None:
    """What SageMaker lays down before it starts the container."""
    (root / "input" / "config").mkdir(parents=True)
    (root / "input" / "config" / "hyperparameters.json").write_text(json.dumps(request["HyperParameters"]))
    (root / "input" / "data").mkdir()
    (root / "output").mkdir()
    for channel in request["InputDataConfig"]:
        (root / "input" / "data" / channel["ChannelName"]).symlink_to(data)


def test_what_is_asked_for_is_what_the_container_trains(tmp_path: Path) -> None:
    given = {"lr": "0.01", "steps": "500"}
    in_container(tmp_path, training_job("one", "portrait", given, PLACE), tmp_path)
    chosen = arguments([], {"TRAINING_JOB_NAME": "one"}, tmp_path)
    assert chosen.network == "portrait"
    assert settings_of("portrait", {name: getattr(chosen, name) for name in given}) == settings_of("portrait", given)
    assert (chosen.data, chosen.start) == (tmp_path / "input/data/train", tmp_path / "input/data/start")
    assert (chosen.out, chosen.resume) == (tmp_path / "checkpoints" / "one", True)
    assert chosen.val is None


def test_a_job_on_spare_instances_goes_on_from_its_checkpoints() -> None:
    request = training_job("one", "portrait", {}, PLACE)
    assert request["CheckpointConfig"] == {"S3Uri": "s3://mine/runs/checkpoints/one/"}
    assert request["EnableManagedSpotTraining"]
    assert request["StoppingCondition"]["MaxWaitTimeInSeconds"] > request["StoppingCondition"]["MaxRuntimeInSeconds"]


def test_a_job_on_its_own_instance_does_not_wait() -> None:
    own = Place(image=PLACE.image, role=PLACE.role, out=PLACE.out, spot=False)
    request = training_job("one", "portrait", {}, own)
    assert not request["EnableManagedSpotTraining"]
    assert "MaxWaitTimeInSeconds" not in request["StoppingCondition"]


def test_sagemaker_reads_every_figure_of_the_history() -> None:
    expressions = training_job("one", "portrait", {}, PLACE)["AlgorithmSpecification"]["MetricDefinitions"]
    line = json.dumps({"step": 20, **{key: 10.0 ** -(5 * at + 1) for at, key in enumerate(METRICS.values())}})
    found = {each["Name"]: float(re.findall(each["Regex"], line)[0]) for each in expressions}
    assert found == {name: json.loads(line)[key] for name, key in METRICS.items()}


def test_tuning_looks_in_ranges_and_among_choices() -> None:
    found = tuning(lr="0.001:0.1", composed="0.2:0.5", batch="8:16", optimiser="sgd,adamw", seed="1,2")
    config = found["HyperParameterTuningJobConfig"]
    assert config["ParameterRanges"] == {
        "ContinuousParameterRanges": [
            {"Name": "lr", "MinValue": "0.001", "MaxValue": "0.1", "ScalingType": "Logarithmic"},
            {"Name": "composed", "MinValue": "0.2", "MaxValue": "0.5", "ScalingType": "Linear"},
        ],
        "IntegerParameterRanges": [{"Name": "batch", "MinValue": "8", "MaxValue": "16", "ScalingType": "Linear"}],
        "CategoricalParameterRanges": [
            {"Name": "optimiser", "Values": ["sgd", "adamw"]},
            {"Name": "seed", "Values": ["1", "2"]},
        ],
    }
    metrics = found["TrainingJobDefinition"]["AlgorithmSpecification"]["MetricDefinitions"]
    assert config["HyperParameterTuningJobObjective"]["MetricName"] in [each["Name"] for each in metrics]


@pytest.mark.parametrize(
    "ranges",
    [
        {},
        {"lr": "0.1:0.001"},
        {"lr": "0.1:"},
        {"lr": "0.1:0.2:0.3"},
        {"optimiser": "adamw:sgd"},
        {"optimiser": "adamw,adam"},
        {"batch": "0:8"},
        {"size": "1,2"},
    ],
)
def test_what_cannot_be_looked_for_is_refused(ranges: dict[str, str]) -> None:
    with pytest.raises(InvalidSettings):
        tuning(**ranges)


def test_settings_that_the_container_would_refuse_are_not_sent() -> None:
    with pytest.raises(InvalidSettings, match="sides"):
        training_job("one", "portrait", {"sides": "320"}, PLACE)
    with pytest.raises(InvalidSettings, match="steps"):
        tuning({"steps": "no"}, lr="0.001:0.1")


@pytest.mark.parametrize("prefix", ["people/", "s3://mine/people"])
def test_data_and_results_are_prefixes_of_s3(prefix: str) -> None:
    with pytest.raises(InvalidSettings, match=re.escape(prefix)):
        Place(image="", role="", out=prefix)
    with pytest.raises(InvalidSettings, match=re.escape(prefix)):
        Place(image="", role="", out="s3://mine/runs/", channels={"train": prefix})


def test_a_job_leaves_its_weights_where_sagemaker_takes_them(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    root = tmp_path / "ml"
    given = {name: str(getattr(TINY, name)) for name in ("side", "batch", "warmup", "workers", "threads", "filters")}
    request = training_job("one", "attention-unet", {**given, "steps": "2"}, PLACE)
    request["InputDataConfig"].pop()  # no start
    in_container(root, request, data)
    assert main([], root) == 0
    left = {path.name for path in (root / "model").iterdir()}
    assert {"best.safetensors", "history.jsonl", "training.json"} <= left
    assert "last.pt" not in left


def test_a_job_that_fails_says_why_where_sagemaker_looks(tmp_path: Path) -> None:
    in_container(tmp_path, {"HyperParameters": {"network": "portrait", "sides": "1"}, "InputDataConfig": []}, tmp_path)
    assert main([], tmp_path) == 1
    assert "sides" in (tmp_path / "output" / "failure").read_text()

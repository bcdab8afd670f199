"""SageMaker requests for training and tuning jobs, and the container that receives them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from maskdrop.settings import InvalidSettings
from sagemaker_model.training.__main__ import main, parse_arguments
from sagemaker_model.training.jobs import JobConfig, metrics, objective_metric, training_job, tuning_job
from sagemaker_model.training.settings import DETECTORS, SETTINGS, settings_of
from tests.unit.sagemaker_model.detectors.shapes import write_shapes
from tests.unit.sagemaker_model.training.conftest import TINY

CONFIG = JobConfig(
    image="1.dkr.ecr.eu-west-1.amazonaws.com/maskdrop-dev:1",
    role="arn:aws:iam::1:role/training",
    out="s3://mine/runs/",
    channels={"train": "s3://mine/people/", "start": "s3://mine/selfie/"},
)


def tuning(settings: dict[str, str] | None = None, **ranges: str) -> dict[str, Any]:
    return tuning_job("one", "portrait", settings or {}, ranges, CONFIG, runs=6, at_once=2)


def create_container_files(root: Path, request: dict[str, Any], data: Path) -> None:
    """Creates the files that SageMaker provides before it starts the container."""
    (root / "input" / "config").mkdir(parents=True)
    (root / "input" / "config" / "hyperparameters.json").write_text(json.dumps(request["HyperParameters"]))
    (root / "input" / "data").mkdir()
    (root / "output").mkdir()
    for channel in request["InputDataConfig"]:
        (root / "input" / "data" / channel["ChannelName"]).symlink_to(data)


def test_the_container_parses_the_settings_of_the_request(tmp_path: Path) -> None:
    given = {"lr": "0.01", "steps": "500"}
    create_container_files(tmp_path, training_job("one", "portrait", given, CONFIG), tmp_path)
    chosen = parse_arguments([], {"TRAINING_JOB_NAME": "one"}, tmp_path)
    assert chosen.network == "portrait"
    assert settings_of("portrait", {name: getattr(chosen, name) for name in given}) == settings_of("portrait", given)
    assert (chosen.data, chosen.start) == (tmp_path / "input/data/train", tmp_path / "input/data/start")
    assert (chosen.out, chosen.resume) == (tmp_path / "checkpoints" / "one", True)
    assert chosen.val is None


def test_a_spot_job_stores_checkpoints_and_waits_for_instances() -> None:
    request = training_job("one", "portrait", {}, CONFIG)
    assert request["CheckpointConfig"]["S3Uri"] == "s3://mine/runs/checkpoints/one/"
    assert request["EnableManagedSpotTraining"]
    assert request["StoppingCondition"]["MaxWaitTimeInSeconds"] > request["StoppingCondition"]["MaxRuntimeInSeconds"]


def test_an_on_demand_job_has_no_wait_time() -> None:
    on_demand = JobConfig(image=CONFIG.image, role=CONFIG.role, out=CONFIG.out, spot=False)
    request = training_job("one", "portrait", {}, on_demand)
    assert not request["EnableManagedSpotTraining"]
    assert "MaxWaitTimeInSeconds" not in request["StoppingCondition"]


def metrics_in(text: str, network: str = "portrait") -> dict[str, list[float]]:
    """Returns the metrics that SageMaker extracts from a job's log, by name."""
    expressions = training_job("one", network, {}, CONFIG)["AlgorithmSpecification"]["MetricDefinitions"]
    return {each["Name"]: [float(value) for value in re.findall(each["Regex"], text)] for each in expressions}


@pytest.mark.parametrize("network", SETTINGS)
def test_sagemaker_metrics_match_numbers_of_every_size(network: str) -> None:
    keys = metrics(network)
    line = json.dumps({"step": 20, **{key: 10.0 ** -(5 * at + 1) for at, key in enumerate(keys.values())}})
    assert metrics_in(line, network) == {name: [json.loads(line)[key]] for name, key in keys.items()}


def test_tuning_searches_ranges_and_choices() -> None:
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


def test_hyperband_counts_validations_and_has_no_early_stopping() -> None:
    fixed = {"steps": "950", "validate_every": "100"}
    request = tuning_job(
        "one", "portrait", fixed, {"lr": "0.1:1"}, CONFIG, runs=6, at_once=2, strategy="Hyperband", seed=7
    )
    config = request["HyperParameterTuningJobConfig"]
    limits = config["StrategyConfig"]["HyperbandStrategyConfig"]
    assert limits == {"MinResource": 1, "MaxResource": 10}  # the last validation is that of step 950
    assert (config["TrainingJobEarlyStoppingType"], config["RandomSeed"]) == ("Off", 7)


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
def test_invalid_ranges_are_rejected(ranges: dict[str, str]) -> None:
    with pytest.raises(InvalidSettings):
        tuning(**ranges)


def test_invalid_settings_are_rejected_before_the_request() -> None:
    with pytest.raises(InvalidSettings, match="sides"):
        training_job("one", "portrait", {"sides": "320"}, CONFIG)
    with pytest.raises(InvalidSettings, match="steps"):
        tuning({"steps": "no"}, lr="0.001:0.1")


@pytest.mark.parametrize("prefix", ["people/", "s3://mine/people"])
def test_data_and_results_must_be_s3_prefixes(prefix: str) -> None:
    with pytest.raises(InvalidSettings, match=re.escape(prefix)):
        JobConfig(image="", role="", out=prefix)
    with pytest.raises(InvalidSettings, match=re.escape(prefix)):
        JobConfig(image="", role="", out="s3://mine/runs/", channels={"train": prefix})


@pytest.mark.parametrize("network", ["attention-unet", "detector"])
def test_a_job_logs_its_metrics_and_copies_its_results_to_the_model_folder_of_sagemaker(
    network: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    root = tmp_path / "ml"
    given = {name: str(getattr(TINY, name)) for name in ("side", "batch", "warmup", "workers", "threads", "filters")}
    request = training_job("one", network, {**given, "steps": "2"}, CONFIG)
    request["InputDataConfig"].pop()  # the channel `start`
    create_container_files(root, request, write_shapes(tmp_path / "shapes") if network in DETECTORS else data)
    assert main([], root) == 0
    history = [json.loads(line) for line in (root / "model" / "history.jsonl").read_text().splitlines()]
    expected = {name: [line[key] for line in history if key in line] for name, key in metrics(network).items()}
    assert metrics_in(capsys.readouterr().out, network) == expected
    assert all(expected.values())
    assert objective_metric(network) in expected
    files = {path.name for path in (root / "model").iterdir()}
    assert {"best.safetensors", "history.jsonl", "training.json"} <= files
    assert "last.pt" not in files


def test_a_failed_job_writes_its_reason_to_the_failure_file_of_sagemaker(tmp_path: Path) -> None:
    create_container_files(
        tmp_path, {"HyperParameters": {"network": "portrait", "sides": "1"}, "InputDataConfig": []}, tmp_path
    )
    assert main([], tmp_path) == 1
    assert "sides" in (tmp_path / "output" / "failure").read_text()

"""SageMaker requests that start a training job or a hyperparameter tuning job.

They are plain dictionaries for boto3, so that tests can check them: the SageMaker SDK calls AWS while it builds a
request. Both start the container of the endpoints, which SageMaker runs with the argument `train`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from maskdrop.settings import InvalidSettings
from sagemaker_model.training.settings import TrainingSettings, settings_of

METRICS = {"train:loss": "loss", "train:samples_s": "samples_s", "val:iou": "iou", "val:best_iou": "best_iou"}
"""Keys of the history by their metric name in SageMaker. A job prints the history as JSON."""

OBJECTIVE_METRIC = "val:best_iou"
"""The metric that tuning maximises: the best validation, because a run keeps those weights, not the last."""

INSTANCE, HOURS = "ml.g6.xlarge", 24
"""Defaults: the instance type of the endpoints, and one day."""

LOG_SCALE_RATIO = 10.0
"""A range whose ends differ by this factor or more is searched on a logarithmic scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """Container, data and resources of a job.

    image: image URI in the registry. role: ARN of the job's execution role.
    out: s3://bucket/prefix/ for weights and checkpoints. channels: S3 prefixes by the names of `__main__.CHANNELS`, at
    least "train". hours: maximum run time.
    spot: use Spot instances, which are cheaper and may be interrupted. The job then resumes from its last checkpoint
    when an instance is available. It waits for instances at most as long as the maximum run time.
    """

    image: str
    role: str
    out: str
    channels: Mapping[str, str] = field(default_factory=dict)
    instance: str = INSTANCE
    disk_gb: int = 100
    hours: int = HOURS
    spot: bool = True

    def __post_init__(self) -> None:
        """Raises InvalidSettings."""
        for prefix in (self.out, *self.channels.values()):
            if not prefix.startswith("s3://") or not prefix.endswith("/"):
                raise InvalidSettings(f"On SageMaker, data and results must be s3://bucket/prefix/; got {prefix!r}.")


def training_job(name: str, network: str, settings: Mapping[str, str], config: JobConfig) -> dict[str, Any]:
    """Returns a CreateTrainingJob request. settings: the network's settings that differ, as text.
    Raises InvalidSettings."""
    settings_of(network, settings)
    return {
        "TrainingJobName": name,
        "HyperParameters": {"network": network, **settings},
        **_job_definition(name, config),
    }


def tuning_job(
    name: str,
    network: str,
    settings: Mapping[str, str],
    ranges: Mapping[str, str],
    config: JobConfig,
    *,
    runs: int,
    at_once: int,
) -> dict[str, Any]:
    """Returns a CreateHyperParameterTuningJob request.

    ranges: settings to tune, "0.001:0.1" for an interval or "8,16" for a choice. runs: maximum number of training jobs.
    at_once: maximum number of parallel jobs. SageMaker stops jobs early that are worse than others. Raises
    InvalidSettings.
    """
    settings_of(network, settings)
    if not ranges:
        raise InvalidSettings("Name at least one setting to tune: lr=0.001:0.1 for a range, batch=8,16 for a choice.")
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": OBJECTIVE_METRIC},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": runs, "MaxParallelTrainingJobs": at_once},
            "ParameterRanges": _parameter_ranges(network, ranges),
            "TrainingJobEarlyStoppingType": "Auto",
        },
        "TrainingJobDefinition": {
            "StaticHyperParameters": {"network": network, **settings},
            **_job_definition(name, config),
        },
    }


def is_range(text: str) -> bool:
    """Returns whether a setting's value is a range or a choice to tune."""
    return ":" in text or "," in text


def _job_definition(name: str, config: JobConfig) -> dict[str, Any]:
    """Returns the fields that both requests share."""
    seconds = config.hours * 3600
    return {
        "AlgorithmSpecification": {
            "TrainingImage": config.image,
            "TrainingInputMode": "File",  # training reads records at random
            "MetricDefinitions": [
                {"Name": metric, "Regex": f'"{key}": ([0-9.e+-]+)'} for metric, key in METRICS.items()
            ],
        },
        "RoleArn": config.role,
        "InputDataConfig": [_channel(channel, prefix) for channel, prefix in config.channels.items()],
        "OutputDataConfig": {"S3OutputPath": config.out},
        "ResourceConfig": {"InstanceType": config.instance, "InstanceCount": 1, "VolumeSizeInGB": config.disk_gb},
        "StoppingCondition": {
            "MaxRuntimeInSeconds": seconds,
            **({"MaxWaitTimeInSeconds": 2 * seconds} if config.spot else {}),
        },
        "EnableManagedSpotTraining": config.spot,
        "CheckpointConfig": {"S3Uri": f"{config.out}checkpoints/{name}/"},
    }


def _channel(name: str, prefix: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": prefix, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def _parameter_ranges(network: str, ranges: Mapping[str, str]) -> dict[str, Any]:
    by_kind: dict[str, list[dict[str, Any]]] = {
        "ContinuousParameterRanges": [],
        "IntegerParameterRanges": [],
        "CategoricalParameterRanges": [],
    }
    for name, text in ranges.items():
        values = text.split(":" if ":" in text else ",")
        for value in values:
            settings_of(network, {name: value})
        if ":" not in text:
            by_kind["CategoricalParameterRanges"].append({"Name": name, "Values": values})
            continue
        type_ = get_type_hints(TrainingSettings)[name]
        numbers = [float(value) for value in values] if type_ in (int, float) else []
        if len(numbers) != 2 or not numbers[0] < numbers[1]:
            raise InvalidSettings(f"A range must be two numbers, the smaller first; got {name}={text}.")
        logarithmic = numbers[0] > 0 and numbers[1] / numbers[0] >= LOG_SCALE_RATIO
        scaling = "Logarithmic" if logarithmic else "Linear"
        kind = "IntegerParameterRanges" if type_ is int else "ContinuousParameterRanges"
        by_kind[kind].append({"Name": name, "MinValue": values[0], "MaxValue": values[1], "ScalingType": scaling})
    return {kind: rows for kind, rows in by_kind.items() if rows}

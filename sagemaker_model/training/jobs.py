"""The requests that start training on SageMaker: one run, or many that look for good settings.

As plain dictionaries for boto3: the SageMaker SDK asks AWS before it has been told anything, so what it would send
could not be tested here. Both start the container of the endpoints, which SageMaker runs with `train`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from maskdrop.settings import InvalidSettings
from sagemaker_model.training.settings import TrainingSettings, settings_of

METRICS = {"train:loss": "loss", "train:samples_s": "samples_s", "val:iou": "iou", "val:best_iou": "best_iou"}
"""By their names in SageMaker, those of the history, which a job prints as JSON."""

AIM = "val:best_iou"
"""What tuning makes large: the weights that stay are those of the best validation, not of the last."""

INSTANCE, HOURS = "ml.g6.xlarge", 24
"""By default: the GPU of the endpoints, and a day."""

LOG_FROM = 10.0
"""A range whose ends differ by this factor is searched by orders of magnitude."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a job runs, and what it reads and writes.

    image: of the registry. role: ARN that the job works as. out: s3://bucket/prefix/ for weights and checkpoints.
    channels: S3 prefixes by the names of `__main__.CHANNELS`, "train" at least. hours: after which a run is stopped.
    spot: spare instances, cheaper, which may be taken away: the run then goes on from its last checkpoint when there is
    another. It waits for them as long again as it may run.
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
                raise InvalidSettings(f"On SageMaker, data and results are s3://bucket/prefix/, not {prefix!r}.")


def training_job(name: str, network: str, settings: Mapping[str, str], place: Place) -> dict[str, Any]:
    """For CreateTrainingJob. settings: as text, what differs from the network's own. Raises InvalidSettings."""
    settings_of(network, settings)
    return {"TrainingJobName": name, "HyperParameters": {"network": network, **settings}, **_run(name, place)}


def tuning_job(
    name: str,
    network: str,
    settings: Mapping[str, str],
    ranges: Mapping[str, str],
    place: Place,
    *,
    runs: int,
    at_once: int,
) -> dict[str, Any]:
    """For CreateHyperParameterTuningJob. ranges: settings to be found, "0.001:0.1" between two ends or "8,16" one of
    some. Runs that are worse than the others half way are stopped. Raises InvalidSettings."""
    settings_of(network, settings)
    if not ranges:
        raise InvalidSettings("Name what to find: lr=0.001:0.1 for a range, batch=8,16 for one of some.")
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": AIM},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": runs, "MaxParallelTrainingJobs": at_once},
            "ParameterRanges": _ranges(network, ranges),
            "TrainingJobEarlyStoppingType": "Auto",
        },
        "TrainingJobDefinition": {"StaticHyperParameters": {"network": network, **settings}, **_run(name, place)},
    }


def is_range(text: str) -> bool:
    return ":" in text or "," in text


def _run(name: str, place: Place) -> dict[str, Any]:
    """What both requests say of a run."""
    seconds = place.hours * 3600
    return {
        "AlgorithmSpecification": {
            "TrainingImage": place.image,
            "TrainingInputMode": "File",  # records are read at random
            "MetricDefinitions": [
                {"Name": metric, "Regex": f'"{key}": ([0-9.e+-]+)'} for metric, key in METRICS.items()
            ],
        },
        "RoleArn": place.role,
        "InputDataConfig": [_channel(channel, prefix) for channel, prefix in place.channels.items()],
        "OutputDataConfig": {"S3OutputPath": place.out},
        "ResourceConfig": {"InstanceType": place.instance, "InstanceCount": 1, "VolumeSizeInGB": place.disk_gb},
        "StoppingCondition": {
            "MaxRuntimeInSeconds": seconds,
            **({"MaxWaitTimeInSeconds": 2 * seconds} if place.spot else {}),
        },
        "EnableManagedSpotTraining": place.spot,
        "CheckpointConfig": {"S3Uri": f"{place.out}checkpoints/{name}/"},
    }


def _channel(name: str, prefix: str) -> dict[str, Any]:
    of_s3 = {"S3DataType": "S3Prefix", "S3Uri": prefix, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": of_s3}}


def _ranges(network: str, ranges: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {
        "ContinuousParameterRanges": [],
        "IntegerParameterRanges": [],
        "CategoricalParameterRanges": [],
    }
    for name, text in ranges.items():
        values = text.split(":" if ":" in text else ",")
        for value in values:
            settings_of(network, {name: value})
        if ":" not in text:
            found["CategoricalParameterRanges"].append({"Name": name, "Values": values})
            continue
        kind = get_type_hints(TrainingSettings)[name]
        numbers = [float(value) for value in values] if kind in (int, float) else []
        if len(numbers) != 2 or not numbers[0] < numbers[1]:
            raise InvalidSettings(f"{name}={text} is no range: two numbers, the smaller first.")
        wide = numbers[0] > 0 and numbers[1] / numbers[0] >= LOG_FROM
        ends = {"MinValue": values[0], "MaxValue": values[1], "ScalingType": "Logarithmic" if wide else "Linear"}
        whole = "IntegerParameterRanges" if kind is int else "ContinuousParameterRanges"
        found[whole].append({"Name": name, **ends})
    return {kind: some for kind, some in found.items() if some}

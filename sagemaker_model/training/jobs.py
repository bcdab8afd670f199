"""SageMaker requests that start a training job or a hyperparameter tuning job.

They are plain dictionaries in the form of boto3. `submit.py` sends them through the SageMaker SDK, in an environment of
its own. Both start the container of the endpoints, which SageMaker runs with the argument `train`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from maskdrop.settings import InvalidSettings
from sagemaker_model.training.ranges import Choice, ranges_of
from sagemaker_model.training.settings import metric_of, settings_of

Strategy = Literal["Bayesian", "Hyperband"]
"""How SageMaker chooses the settings of the next training job. Both names are those of the API."""

INSTANCE, HOURS = "ml.g6.xlarge", 24
"""Defaults: the instance type of the endpoints, and one day."""

RESOURCE_MAX = 20_000
"""Maximum number of results of a run that Hyperband counts (API reference, HyperbandStrategyConfig)."""


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
        if missing := [name for name in ("image", "role") if not getattr(self, name)]:
            raise InvalidSettings(f"On SageMaker, name the {' and the '.join(missing)} of the job.")


def training_job(name: str, network: str, settings: Mapping[str, str], config: JobConfig) -> dict[str, Any]:
    """Returns a CreateTrainingJob request. settings: the network's settings that differ, as text.
    Raises InvalidSettings."""
    settings_of(network, settings)
    return {
        "TrainingJobName": name,
        "HyperParameters": {"network": network, **settings},
        **_job_definition(name, network, config),
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
    strategy: Strategy = "Bayesian",
    seed: int = 1,
) -> dict[str, Any]:
    """Returns a CreateHyperParameterTuningJob request.

    ranges: settings to tune, "0.001:0.1" for an interval or "8,16" for a choice. runs: maximum number of training jobs.
    at_once: maximum number of parallel jobs. seed: of the search, from 1, because the SDK omits 0.
    strategy: Bayesian predicts good settings from the jobs before; SageMaker stops jobs early that are worse than
    others. Hyperband starts many jobs and continues the best after each validation, by rules of its own, so that the
    API requires early stopping to be off. Raises InvalidSettings.
    """
    settings_of(network, settings)
    parameter_ranges = _parameter_ranges(network, ranges)
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": strategy,
            **(_hyperband(network, settings, ranges) if strategy == "Hyperband" else {}),
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": objective_metric(network)},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": runs, "MaxParallelTrainingJobs": at_once},
            "ParameterRanges": parameter_ranges,
            "TrainingJobEarlyStoppingType": "Off" if strategy == "Hyperband" else "Auto",
            "RandomSeed": seed,
        },
        "TrainingJobDefinition": {
            "StaticHyperParameters": {"network": network, **settings},
            **_job_definition(name, network, config),
        },
    }


def _hyperband(network: str, settings: Mapping[str, str], ranges: Mapping[str, str]) -> dict[str, Any]:
    """Returns Hyperband's limits. Its resource is one value of the objective metric: a validation of the run."""
    chosen = settings_of(network, settings)
    validations = -(-chosen.steps // chosen.validate_every)
    if searched := [name for name in ("steps", "validate_every") if name in ranges]:
        raise InvalidSettings(f"Hyperband needs the same number of validations in all runs: fix {', '.join(searched)}.")
    if not 2 <= validations <= RESOURCE_MAX:
        raise InvalidSettings(
            f"Hyperband needs 2 to {RESOURCE_MAX:,} validations (steps / validate_every) a run; got {validations}."
        )
    return {"StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": validations}}}


def metrics(network: str) -> dict[str, str]:
    """Returns the keys of the history by their metric name in SageMaker. A job prints the history as JSON."""
    validation = metric_of(network)
    return {
        "train:loss": "loss",
        "train:samples_s": "samples_s",
        f"val:{validation}": validation,
        f"val:best_{validation}": f"best_{validation}",
    }


def objective_metric(network: str) -> str:
    """Returns the metric that tuning maximises: the best validation, because a run keeps those weights, not the
    last."""
    return f"val:best_{metric_of(network)}"


def _job_definition(name: str, network: str, config: JobConfig) -> dict[str, Any]:
    """Returns the fields that both requests share."""
    seconds = config.hours * 3600
    return {
        "AlgorithmSpecification": {
            "TrainingImage": config.image,
            "TrainingInputMode": "File",  # training reads records at random
            "MetricDefinitions": [
                {"Name": metric, "Regex": f'"{key}": ([0-9.e+-]+)'} for metric, key in metrics(network).items()
            ],
        },
        "RoleArn": config.role,
        "InputDataConfig": [_channel(channel, prefix) for channel, prefix in config.channels.items()],
        "OutputDataConfig": {"S3OutputPath": config.out, "CompressionType": "GZIP"},
        "ResourceConfig": {"InstanceType": config.instance, "InstanceCount": 1, "VolumeSizeInGB": config.disk_gb},
        "StoppingCondition": {
            "MaxRuntimeInSeconds": seconds,
            **({"MaxWaitTimeInSeconds": 2 * seconds} if config.spot else {}),
        },
        "EnableManagedSpotTraining": config.spot,
        "CheckpointConfig": {"S3Uri": f"{config.out}checkpoints/{name}/", "LocalPath": "/opt/ml/checkpoints"},
    }


def _channel(name: str, prefix: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": prefix, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def _parameter_ranges(network: str, texts: Mapping[str, str]) -> dict[str, Any]:
    by_kind: dict[str, list[dict[str, Any]]] = {
        "ContinuousParameterRanges": [],
        "IntegerParameterRanges": [],
        "CategoricalParameterRanges": [],
    }
    for name, range_ in ranges_of(network, texts).items():
        if isinstance(range_, Choice):
            by_kind["CategoricalParameterRanges"].append({"Name": name, "Values": list(range_.values)})
            continue
        scaling = "Logarithmic" if range_.logarithmic else "Linear"
        kind = "IntegerParameterRanges" if range_.integer else "ContinuousParameterRanges"
        by_kind[kind].append({"Name": name, "MinValue": range_.low, "MaxValue": range_.high, "ScalingType": scaling})
    return {kind: rows for kind, rows in by_kind.items() if rows}

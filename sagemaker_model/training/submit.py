"""Submits training and tuning jobs through the SageMaker Python SDK, in the environment of `make sagemaker`.

    .venv-sagemaker/bin/python submit.py < REQUESTS

Standard input has a request of jobs.py as JSON on each line; standard output has the name of a job for each. This
file imports nothing of the project, because the SDK pins older versions of its packages.
"""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from typing import Any

CONFIG = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}
"""Replaces the SDK's files of defaults: a job has the fields of its request, and the SDK sends no telemetry."""


def submit(request: dict[str, Any]) -> str:
    """Creates the training or tuning job of a boto3 request, and returns its name.

    The SDK appends a time stamp to the name of a training job. Raises botocore's errors and ValueError.
    """
    if "TrainingJobName" in request:
        trainer = _trainer(request, request["TrainingJobName"], request["HyperParameters"])
        trainer.train(wait=False, logs=False)
        name: str = trainer._latest_training_job.training_job_name
        return name
    tuner = _tuner(request)
    tuner.tune(job_name=request["HyperParameterTuningJobName"], wait=False)
    return str(tuner.latest_tuning_job.hyper_parameter_tuning_job_name)


def _trainer(job: dict[str, Any], name: str, settings: dict[str, str]) -> Any:
    """Returns a ModelTrainer. job: a training job, or the training job definition of a tuning job."""
    from sagemaker.core.training import configs
    from sagemaker.train import ModelTrainer

    algorithm, resources, limits = job["AlgorithmSpecification"], job["ResourceConfig"], job["StoppingCondition"]
    trainer = ModelTrainer(
        sagemaker_session=_session(),
        base_job_name=name,
        training_image=algorithm["TrainingImage"],
        training_input_mode=algorithm["TrainingInputMode"],
        role=job["RoleArn"],
        hyperparameters=settings,
        input_data_config=[_channel(channel) for channel in job["InputDataConfig"]],
        output_data_config=configs.OutputDataConfig(s3_output_path=job["OutputDataConfig"]["S3OutputPath"]),
        checkpoint_config=configs.CheckpointConfig(s3_uri=job["CheckpointConfig"]["S3Uri"]),
        compute=configs.Compute(
            instance_type=resources["InstanceType"],
            instance_count=resources["InstanceCount"],
            volume_size_in_gb=resources["VolumeSizeInGB"],
            enable_managed_spot_training=job["EnableManagedSpotTraining"],
        ),
        stopping_condition=configs.StoppingCondition(
            max_runtime_in_seconds=limits["MaxRuntimeInSeconds"],
            max_wait_time_in_seconds=limits.get("MaxWaitTimeInSeconds"),
        ),
    )
    return trainer.with_metric_definitions(
        [configs.MetricDefinition(name=each["Name"], regex=each["Regex"]) for each in algorithm["MetricDefinitions"]]
    )


@cache
def _session() -> Any:
    """Returns a session with the user's Region and credentials."""
    from sagemaker.core.helper.session_helper import Session

    return Session(sagemaker_config=CONFIG)


def _channel(channel: dict[str, Any]) -> Any:
    from sagemaker.core.training import configs

    source = channel["DataSource"]["S3DataSource"]
    return configs.Channel(
        channel_name=channel["ChannelName"],
        data_source=configs.DataSource(
            s3_data_source=configs.S3DataSource(
                s3_data_type=source["S3DataType"],
                s3_uri=source["S3Uri"],
                s3_data_distribution_type=source["S3DataDistributionType"],
            )
        ),
    )


def _tuner(request: dict[str, Any]) -> Any:
    """Returns a HyperparameterTuner."""
    from sagemaker.core import shapes
    from sagemaker.train.tuner import HyperparameterTuner

    search, job = request["HyperParameterTuningJobConfig"], request["TrainingJobDefinition"]
    objective, limits = search["HyperParameterTuningJobObjective"], search["ResourceLimits"]
    hyperband = search.get("StrategyConfig", {}).get("HyperbandStrategyConfig")
    return HyperparameterTuner(
        _trainer(job, request["HyperParameterTuningJobName"], job["StaticHyperParameters"]),
        objective["MetricName"],
        _ranges(search["ParameterRanges"]),
        job["AlgorithmSpecification"]["MetricDefinitions"],
        strategy=search["Strategy"],
        strategy_config=hyperband
        and shapes.HyperParameterTuningJobStrategyConfig(
            hyperband_strategy_config=shapes.HyperbandStrategyConfig(
                min_resource=hyperband["MinResource"], max_resource=hyperband["MaxResource"]
            )
        ),
        objective_type=objective["Type"],
        max_jobs=limits["MaxNumberOfTrainingJobs"],
        max_parallel_jobs=limits["MaxParallelTrainingJobs"],
        early_stopping_type=search["TrainingJobEarlyStoppingType"],
        random_seed=search["RandomSeed"],
    )


def _ranges(ranges: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Returns the SDK's parameter ranges by the name of the setting."""
    from sagemaker.core import parameter

    intervals = {
        "ContinuousParameterRanges": parameter.ContinuousParameter,
        "IntegerParameterRanges": parameter.IntegerParameter,
    }
    found: dict[str, Any] = {
        row["Name"]: interval(row["MinValue"], row["MaxValue"], row["ScalingType"])
        for kind, interval in intervals.items()
        for row in ranges.get(kind, [])
    }
    return found | {
        row["Name"]: parameter.CategoricalParameter(row["Values"])
        for row in ranges.get("CategoricalParameterRanges", [])
    }


def main() -> int:
    """Submits the requests of standard input; returns the exit code: 0, or 1 after an error, which is printed."""
    from botocore.exceptions import BotoCoreError, ClientError

    # Otherwise the SDK simulates a broad policy and refuses a role that has only the permissions that our jobs need.
    os.environ.setdefault("SAGEMAKER_VALIDATE_ROLE", "false")
    try:
        for line in sys.stdin:
            print(submit(json.loads(line)), flush=True)  # noqa: T201 - the output of the command
    except (BotoCoreError, ClientError, ValueError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Tests the limits and the role of the local model server, without a process."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from local import model_server as server
from local.config import LocalConfig
from local.model_server import execution_role, kill_when_out_of_memory, memory_limit_mb, model_server


def deployed(path: Path, resources: dict[str, Any]) -> LocalConfig:
    config = LocalConfig(state=path)
    config.account.mkdir(parents=True)
    config.sagemaker_file.write_text(json.dumps(resources))
    return config


def configured(path: Path, **configs: dict[str, Any]) -> LocalConfig:
    return deployed(path, {"AWS::SageMaker::EndpointConfig": configs})


SMALL = {"ProductionVariants": [{"ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 1}}]}
LARGE = {"ProductionVariants": [{"ServerlessConfig": {"MemorySizeInMB": 3072, "MaxConcurrency": 1}}]}
GPU = {"ProductionVariants": [{"InstanceType": "ml.g6.xlarge"}], "AsyncInferenceConfig": {}}


@pytest.mark.parametrize(
    ("configs", "limit_mb"), [([SMALL, LARGE], 2048), ([LARGE], 3072), ([LARGE, GPU], None), ([], None)]
)
def test_the_memory_is_limited_if_all_endpoints_are_serverless(
    tmp_path: Path, configs: list[dict[str, Any]], limit_mb: int | None
) -> None:
    config = configured(tmp_path, **{f"config-{number}": one for number, one in enumerate(configs)})
    assert memory_limit_mb(config) == limit_mb


@pytest.mark.parametrize(("used_mb", "killed"), [(3073.0, ["model"]), (3072.0, [])])
def test_a_model_server_that_exceeds_the_memory_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used_mb: float, killed: list[str]
) -> None:
    stopped: list[str] = []
    config = configured(tmp_path, config=LARGE)
    monkeypatch.setattr("local.processes.memory_mb", lambda *_: used_mb)
    monkeypatch.setattr("local.processes.kill", lambda name, _: stopped.append(name))

    async def check_once() -> None:
        supervisor = asyncio.create_task(kill_when_out_of_memory(model_server(config), config))
        await asyncio.sleep(0)
        supervisor.cancel()

    asyncio.run(check_once())
    assert stopped == killed


@pytest.mark.parametrize("mode", [GPU, LARGE])
def test_the_model_server_has_the_role_of_the_bulk_endpoint_in_every_mode(tmp_path: Path, mode: dict[str, Any]) -> None:
    names = {"interactive": LARGE, "bulk": mode}
    resources: dict[str, dict[str, Any]] = {
        "AWS::SageMaker::Endpoint": {
            f"maskdrop-local-{name}": {"EndpointConfigName": f"{name}-config"} for name in names
        },
        "AWS::SageMaker::EndpointConfig": {
            f"{name}-config": {**one, "ProductionVariants": [{"ModelName": f"{name}-model"}]}
            for name, one in names.items()
        },
        "AWS::SageMaker::Model": {f"{name}-model": {"ExecutionRoleArn": f"role-of-{name}"} for name in names},
    }
    assert execution_role(deployed(tmp_path, resources)) == "role-of-bulk"


def test_the_model_server_calls_rekognition_only_in_a_stage_that_allows_it() -> None:
    settings = {
        stage: model_server(LocalConfig(stage=stage)).env["MODEL_REKOGNITION"] for stage in ("local", "local-cpu")
    }
    assert settings == {"local": "1", "local-cpu": "0"}


def test_the_model_server_runs_non_commercial_weights_only_in_a_stage_that_allows_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "private.toml").write_text("non_commercial = true")
    (tmp_path / "stages" / "shop.toml").write_text("")
    monkeypatch.setattr(server, "ROOT", tmp_path)
    settings = {
        stage: model_server(LocalConfig(stage=stage)).env["MODEL_NON_COMMERCIAL"] for stage in ("private", "shop")
    }
    assert settings == {"private": "1", "shop": "0"}

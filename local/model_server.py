"""The model server of the local stack: the container that the SageMaker emulator runs, with its limits and its role."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import tomllib
from typing import Any

from local import processes
from local.config import HOST, KEY_ID, MODEL_PORT, REGION, ROOT, SECRET, LocalConfig
from local.processes import Program
from maskdrop.errors import MaskdropError

MEMORY_CHECK_S = 0.25
"""Interval between two checks of the model server's memory, in seconds."""

ALLOCATOR = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_TRIM_THRESHOLD_": "67108864",
    "MALLOC_MMAP_THRESHOLD_": "16777216",
}
"""glibc allocator settings of the container; its Dockerfile explains them."""

log = logging.getLogger("sagemaker")


def model_server(config: LocalConfig) -> Program:
    """Returns the model server as a program; the SageMaker emulator starts it."""
    return Program(
        name="model",
        title="the model server",
        argv=(sys.executable, "-m", "sagemaker_model", "serve"),
        port=config.model_port,
        port_setting=MODEL_PORT,
        health="/ping",
        env={
            "MODEL_HOST": HOST,
            "MODEL_PORT": str(config.model_port),
            "MODEL_WEIGHTS_DIR": str(config.weights),
            **ALLOCATOR,
            "MODEL_DRAIN_S": "8",  # within processes.GRACE_S
            "AWS_ENDPOINT_URL": config.endpoint_url,
            **config.ai_endpoints,
            "MODEL_REKOGNITION": str(int(stage_options(config).get("rekognition", False))),
            "MODEL_NON_COMMERCIAL": str(int(stage_options(config).get("non_commercial", False))),
            "AWS_DEFAULT_REGION": REGION,
            **_credentials_env(config),
        },
    )


def stage_options(config: LocalConfig) -> dict[str, Any]:
    """Returns the options of the stage's file, without infra.stages: its validation takes 0.3 s to import."""
    return tomllib.loads((ROOT / "stages" / f"{config.stage}.toml").read_text())


def _credentials_env(config: LocalConfig) -> dict[str, str]:
    """Returns the credential variables of the model server. In strict mode, it fetches credentials of its role."""
    if config.ca_bundle is None:
        return {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    return {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{config.sagemaker_url}/credentials",
        "AWS_CA_BUNDLE": str(config.ca_bundle),
    }


async def restart_when_it_exits(program: Program, config: LocalConfig) -> None:
    """Starts the model server and restarts it whenever it exits."""
    while True:
        # In strict mode, the container starts once the model is deployed, since it needs the role of the model.
        needed = not config.strict or execution_role(config)
        if needed and processes.find(program.name, config.state) is None:
            log.warning("starting the model server")
            try:
                await asyncio.to_thread(processes.start, program, config.state)
            except MaskdropError as error:
                log.error("%s", error)
            await asyncio.sleep(0.5)  # restarts a crashing server at most twice a second
        await asyncio.sleep(0.2)


async def kill_when_out_of_memory(program: Program, config: LocalConfig) -> None:
    """Kills the model server when it exceeds the memory of the serverless endpoints."""
    while True:
        limit_mb = memory_limit_mb(config)
        used_mb = processes.memory_mb(program.name, config.state)
        if limit_mb and used_mb > limit_mb:
            log.warning("the model server uses %.0f of %d MB: out of memory", used_mb, limit_mb)
            processes.kill(program.name, config.state)
        await asyncio.sleep(MEMORY_CHECK_S)


def execution_role(config: LocalConfig) -> str | None:
    """Returns the ARN of the execution role of the model of the endpoint `bulk`; None before it is deployed.

    One model server serves both endpoints. The permissions of the other endpoint's role are a subset of this one's.
    """
    resources = deployed_resources(config)
    for name, endpoint in resources.get("AWS::SageMaker::Endpoint", {}).items():
        if "bulk" in name:
            settings = resources["AWS::SageMaker::EndpointConfig"][resource_name(endpoint["EndpointConfigName"])]
            model = resource_name(settings["ProductionVariants"][0]["ModelName"])
            return str(resources["AWS::SageMaker::Model"][model]["ExecutionRoleArn"])
    return None


def memory_limit_mb(config: LocalConfig) -> int | None:
    """Returns the memory of the smallest serverless endpoint in MB; None if an endpoint runs on instances.

    One model server serves all endpoints: on instances it may use more. In AWS every concurrent request has this
    memory for itself; here all of them share it.
    """
    endpoints = [
        serverless_config(one) for one in deployed_resources(config).get("AWS::SageMaker::EndpointConfig", {}).values()
    ]
    return min(int(one["MemorySizeInMB"]) for one in endpoints) if endpoints and all(endpoints) else None


def serverless_config(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the serverless configuration of an endpoint; empty if it runs on instances."""
    variants = settings.get("ProductionVariants") or [{}]
    serverless: dict[str, Any] = variants[0].get("ServerlessConfig", {})
    return serverless


def resource_name(arn_or_name: str) -> str:
    """Returns the name of a SageMaker resource."""
    return arn_or_name.rpartition("/")[2]


def deployed_resources(config: LocalConfig) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns {resource type: {name: properties}}; empty before the first deployment."""
    try:
        resources: dict[str, dict[str, dict[str, Any]]] = json.loads(config.sagemaker_file.read_text())
    except FileNotFoundError:
        return {}
    return resources

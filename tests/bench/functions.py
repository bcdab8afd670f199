"""Measures the Lambda functions beside minimal ones (tests/bench/minimal.py): CPU time an image, cold import, and the
size of the zip."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from local.config import KEY_ID, REGION, ROOT, SECRET, LocalConfig
from local.deploy import zip_folder
from local.stack import Stack
from maskdrop.settings import Settings

FUNCTIONS = ("ingest", "invoke", "edit", "record", "sweep", "dead_letters", "webhooks", "authorize", "api", "bot")

POWERTOOLS = {"POWERTOOLS_SERVICE_NAME": "maskdrop-bench", "POWERTOOLS_METRICS_NAMESPACE": "Maskdrop"}

IMPORTS = 7
"""New processes per function; the result is their median."""


def bundle(config: LocalConfig) -> Path:
    """The folder that is deployed as the zip of our functions, from the template."""
    template = json.loads((config.cdk_out / f"{config.app_stack}.template.json").read_text())
    assets = json.loads((config.cdk_out / f"{config.app_stack}.assets.json").read_text())["files"]
    keys = {
        resource["Properties"]["Code"]["S3Key"]
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::Lambda::Function" and resource["Properties"]["Handler"].startswith("lambdas.")
    }
    (path,) = {
        file["source"]["path"]
        for file in assets.values()
        for destination in file["destinations"].values()
        if destination["objectKey"] in keys
    }
    return config.cdk_out / path


def zip_mb(folder: Path) -> float:
    return len(zip_folder(folder)) / 1e6


def cold_imports(folder: Path) -> dict[str, tuple[float, float]]:
    """Milliseconds to import each function's module from the bundle in a new process, and their ratio to the import of
    the minimal functions right before it: medians.

    Includes botocore, excludes Python's own start. As in Lambda, the bundle is not compiled in advance; botocore is.
    """
    with tempfile.TemporaryDirectory() as minimal:
        shutil.copy(Path(__file__).with_name("minimal.py"), minimal)

        def cold_ms(module: str) -> float:
            code = f"import time; t = time.perf_counter(); import {module}; print((time.perf_counter() - t) * 1000)"
            completed = subprocess.run(  # noqa: S603
                [sys.executable, "-c", code],
                env={
                    "PYTHONPATH": f"{folder}{os.pathsep}{minimal}",
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "PATH": os.environ["PATH"],
                    **POWERTOOLS,
                },
                cwd=folder,
                capture_output=True,
                text=True,
                check=True,
            )
            return float(completed.stdout)

        medians = {}
        for name in FUNCTIONS:
            pairs = [(cold_ms("minimal"), cold_ms(f"lambdas.{name}")) for _ in range(IMPORTS)]
            medians[name] = (
                statistics.median(ours for _, ours in pairs),
                statistics.median(ours / minimal_ms for minimal_ms, ours in pairs),
            )
        return medians


def cpu_ms(config: LocalConfig, running_stack: Stack) -> dict[str, float]:
    """CPU milliseconds an image of ingest, record, and the minimal functions "minimal ingest" and "minimal record".

    A process of its own calls them with the stack's table, queue, buckets and bus and a fake endpoint,
    which accepts every bundle.
    """
    settings = Settings(
        stage="bench",
        inbox=running_stack.inbox,
        results=running_stack.results,
        table=running_stack.table,
        registry=running_stack.registry,
        jobs_queue_url=running_stack.jobs_queue_url,
        webhooks_queue_url="none",  # none of these jobs has a webhook
        dead_letters_queue_url="none",
        endpoint="bench",
        event_bus=running_stack.event_bus,
    )
    completed = subprocess.run(
        [sys.executable, "-m", "tests.bench.bundles_of_64"],
        env={
            "PATH": os.environ["PATH"],
            "AWS_ENDPOINT_URL": running_stack.endpoint_url,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            **POWERTOOLS,
            **settings.to_env(),
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if completed.returncode != 0:
        raise RuntimeError(f"ingest and record could not be measured:\n{completed.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(completed.stdout.splitlines()[-1])
    return figures

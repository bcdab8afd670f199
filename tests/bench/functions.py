"""What the functions cost: CPU time an image, cold import, size of the zip."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from local.config import APP_STACK, KEY_ID, REGION, ROOT, SECRET, LocalConfig
from local.deploy import zip_folder
from local.stack import Stack
from maskdrop.settings import Settings

FUNCTIONS = ("ingest", "record", "sweep", "dead_letters", "webhooks", "authorize", "api")

IMPORTS = 7
"""Fresh processes per function, of which the median is told."""


def bundle(config: LocalConfig) -> Path:
    """The folder that becomes the zip, as the template names it."""
    template = json.loads((config.cdk_out / f"{APP_STACK}.template.json").read_text())
    assets = json.loads((config.cdk_out / f"{APP_STACK}.assets.json").read_text())["files"]
    keys = {
        resource["Properties"]["Code"]["S3Key"]
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::Lambda::Function" and "S3Key" in resource["Properties"]["Code"]
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


def cold_imports(folder: Path) -> dict[str, float]:
    """Milliseconds to import each function's module from the bundle in a fresh process: botocore included, Python's own
    start not. Nothing of the bundle is compiled beforehand, as in the zip; botocore is, as in the Lambda runtime."""
    code = "import time; t = time.perf_counter(); import lambdas.{}; print((time.perf_counter() - t) * 1000)"
    out = {}
    for name in FUNCTIONS:
        runs = [
            subprocess.run(  # noqa: S603
                [sys.executable, "-c", code.format(name)],
                env={"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]},
                cwd=folder,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for _ in range(IMPORTS)
        ]
        out[name] = statistics.median(map(float, runs))
    return out


def cpu_ms(config: LocalConfig, here: Stack) -> dict[str, float]:
    """CPU milliseconds an image in ingest and in record, in a process of its own against the stack's real table, queue,
    buckets and bus, with an endpoint that takes every bundle and does nothing."""
    settings = Settings(
        stage="bench",
        inbox=here.inbox,
        results=here.results,
        table=here.table,
        registry=here.registry,
        jobs_queue_url=here.jobs_queue_url,
        webhooks_queue_url="none",  # no job of these has a webhook
        endpoint="bench",
        event_bus=here.event_bus,
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.bundles_of_64"],
        env={
            "PATH": os.environ["PATH"],
            "AWS_ENDPOINT_URL": here.endpoint_url,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "POWERTOOLS_SERVICE_NAME": "maskdrop-bench",
            "POWERTOOLS_METRICS_NAMESPACE": "Maskdrop",
            **settings.to_env(),
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"ingest and record could not be measured:\n{done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures

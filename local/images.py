"""Processes images through a running stack as a user does: upload to S3, poll the job, download from S3."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2

from local.config import LocalConfig, LocalError
from local.connect import client, tls_verify
from local.stack import Stack
from maskdrop.job import INBOX_PREFIX, RESULTS_PREFIX, Source, dropped
from maskdrop.presets import DEFAULT_PRESET

ENDED = ("done", "failed")

NOT_READY = (404, 429, 502, 503, 504)
"""Statuses of the API before a job exists, and while its functions start or reach their concurrency limit."""


@dataclass
class ImageClient:
    """A client of one running stack. Not thread-safe."""

    config: LocalConfig
    stack: Stack
    s3: Any = field(init=False)
    http: httpx2.Client = field(init=False)

    def __post_init__(self) -> None:
        self.s3 = client(self.config, "s3")
        self.http = httpx2.Client(
            base_url=self.stack.api_url,
            headers={"x-api-key": self.stack.api_key},
            timeout=30,
            trust_env=False,
            verify=tls_verify(self.config.ca_bundle),
        )

    def upload(self, name: str, body: bytes) -> str:
        """Uploads an image to the inbox and returns the ID of its job.

        name: key below `inbox/`. A name without a folder uses the default preset.
        """
        key = INBOX_PREFIX + (name if "/" in name else f"{DEFAULT_PRESET}/{name}")
        response = self.s3.put_object(Bucket=self.stack.inbox, Key=key, Body=body)
        version = response.get("VersionId") or response["ETag"].strip('"')
        source = Source(bucket=self.stack.inbox, key=key, version_id=version)
        return dropped(source, datetime.now(UTC)).id

    def job(self, job_id: str) -> dict[str, Any] | None:
        """Returns the job from the API; None while the job is not available yet."""
        response = self.http.get(f"/v1/jobs/{job_id}")
        if response.status_code in NOT_READY:
            return None
        if response.status_code != 200:
            raise LocalError(f"The API returned {response.status_code} for job {job_id}: {response.text[:300]}")
        job: dict[str, Any] = response.json()
        return job

    def download(self, job: dict[str, Any], folder: Path) -> Path:
        """Downloads the results of a finished job to `folder`, under their keys without `results/`. Returns the path of
        the main result."""
        for one in job.get("results", ()):
            self._download(one["result"], folder)
        return self._download(job["result"], folder)

    def _download(self, result: dict[str, Any], folder: Path) -> Path:
        path: Path = folder / result["key"].removeprefix(RESULTS_PREFIX)
        if not path.resolve().is_relative_to(folder.resolve()):
            raise LocalError(f"The key of the result must stay inside {folder}; got {result['key']!r}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.s3.get_object(Bucket=result["bucket"], Key=result["key"])["Body"].read())
        return path

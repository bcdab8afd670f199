"""Images into a running stack and back out of it, the way a user does it: S3 in, the API for news, S3 out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2

from local.config import LocalConfig, LocalError
from local.connect import client, trust
from local.stack import Stack
from maskdrop.job import INBOX_PREFIX, RESULTS_PREFIX, Source, dropped
from maskdrop.presets import DEFAULT_PRESET

ENDED = ("done", "failed")

NOT_YET = (404, 429, 502, 503, 504)
"""What the API answers before it has heard of a job, and while its functions are cold or as many run as may."""


@dataclass
class Pictures:
    """One user of a stack. Not for several threads at once."""

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
            verify=trust(self.config.ca_bundle),
        )

    def drop(self, name: str, body: bytes) -> str:
        """Puts an image into the inbox and returns its job's id. `name` is the key below `inbox/`; one without a
        folder goes to the default preset."""
        key = INBOX_PREFIX + (name if "/" in name else f"{DEFAULT_PRESET}/{name}")
        written = self.s3.put_object(Bucket=self.stack.inbox, Key=key, Body=body)
        version = written.get("VersionId") or written["ETag"].strip('"')
        source = Source(bucket=self.stack.inbox, key=key, version_id=version)
        return dropped(source, datetime.now(UTC)).id

    def job(self, job_id: str) -> dict[str, Any] | None:
        """The job as the API tells it; None while it is not there yet."""
        answer = self.http.get(f"/v1/jobs/{job_id}")
        if answer.status_code in NOT_YET:
            return None
        if answer.status_code != 200:
            raise LocalError(f"The API answered {answer.status_code} for job {job_id}: {answer.text[:300]}")
        job: dict[str, Any] = answer.json()
        return job

    def fetch(self, job: dict[str, Any], folder: Path) -> Path:
        """Writes the result of a job that is done below `folder`, under its key without `results/`."""
        found = job["result"]
        path: Path = folder / found["key"].removeprefix(RESULTS_PREFIX)
        if not path.resolve().is_relative_to(folder.resolve()):
            raise LocalError(f"The result's key {found['key']!r} leads out of {folder}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.s3.get_object(Bucket=found["bucket"], Key=found["key"])["Body"].read())
        return path

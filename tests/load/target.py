"""Stack under load, read from a JSON file with the fields of `.local/stack.json`.

MASKDROP_STACK: path of the file. For a stack in an account, write the file from the outputs of `cdk deploy`, without
`endpoint_url`, `sagemaker_url` and the two access keys, so that the default AWS credentials are used. The key needs the
scope `all`: dropped photos have no owner, and the accounting reads their jobs.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.config import Config
from botocore.session import get_session

SETTING = "MASKDROP_STACK"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """usd_per_hour: price of one instance of `bulk`, for the cost of a load test; default: an ml.g6.xlarge."""

    region: str
    inbox: str
    api_url: str
    api_key: str
    stage: str = ""
    endpoint: str = ""
    jobs_queue_url: str = ""
    results_queue_url: str = ""
    usd_per_hour: float = 1.127
    endpoint_url: str | None = None
    sagemaker_url: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    ca_bundle: str | None = None

    @classmethod
    def from_file(cls, path: Path) -> Target:
        data = json.loads(path.read_text())
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})

    def client(self, service: str) -> Any:
        """Returns a client without retries, because a retry would hide a failure."""
        return get_session().create_client(
            service,
            region_name=self.region,
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            verify=self.ca_bundle,
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, max_pool_connections=100),
        )


def target() -> Target:
    return Target.from_file(Path(os.environ[SETTING]))

"""The stages: the settings in which deployments differ."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import get_args

from aws_cdk import RemovalPolicy
from aws_cdk.aws_logs import RetentionDays

from maskdrop.settings import Interactive


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Settings of one deployment of Maskdrop.

    name: part of the names of its stacks and resources.
    batching_window_s: how long photos are collected for a bundle before `ingest` runs, 1 to 300 seconds. A longer
        window fills bundles better and delays a single photo.
    max_instances: maximum number of GPU instances of the bulk endpoint. The quota of a new account is 1 or 2.
    instance_type, usd_per_hour: the GPU instance, and its list price in us-east-1 (AWS Price List, August 2026).
    keep_results_days: retention in S3 of results and of photos that were replaced or deleted, in days.
    keep_logs: retention of every log group.
    requests_per_second, burst, requests_per_month: limits of one API key in API Gateway. The key's own rate limit
        applies after them.
    cors: origins whose pages may call the API, separated by spaces, or "*". "": none.
    waf: whether AWS WAF protects the API.
    budget_usd: monthly budget in US dollars; e-mail is sent at 50 %, 80 % and 100 % of it.
    interactive: mode of the synchronous endpoint (infra/interactive.py). "realtime" always runs at least one GPU
        instance.
    interactive_at_once: maximum concurrency of a serverless endpoint, 1 to 200. All of them share a quota of the
        account.
    interactive_instances: maximum number of GPU instances of a real-time endpoint.
    mail: e-mail address for alarms and budget notifications. None: no e-mail.
    weights: s3://bucket/prefix/ in this account, uploaded by `maskdrop models push`. None: the weights in the image.
    trusted_hosts: your hosts, separated by spaces, that sources and webhooks may name although they are not public.
    source_buckets: buckets of this account and Region, separated by spaces. Any caller may create jobs from their
        images.
    http_sources: whether sources may use http:// URLs.
    removal_policy: whether photos, results and jobs are deleted with the stack.
    """

    name: str
    batching_window_s: int
    max_instances: int
    keep_results_days: int
    keep_logs: RetentionDays
    requests_per_second: int
    burst: int
    requests_per_month: int
    budget_usd: int
    removal_policy: RemovalPolicy
    instance_type: str = "ml.g6.xlarge"
    usd_per_hour: float = 1.127
    interactive: Interactive = "serverless"
    interactive_at_once: int = 10
    interactive_instances: int = 2
    mail: str | None = None
    weights: str | None = None
    cors: str = ""
    waf: bool = False
    trusted_hosts: str = ""
    http_sources: bool = False
    source_buckets: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError for an invalid setting, which would otherwise fail minutes into a deployment."""
        if self.interactive not in get_args(Interactive):
            raise ValueError(
                f"interactive must be one of {', '.join(get_args(Interactive))}; got {self.interactive!r}."
            )
        if self.weights is not None and not re.fullmatch(r"s3://[^/]+/(.+/)+", self.weights):
            raise ValueError(
                f"weights must have the form s3://bucket/prefix/ with a trailing slash; got {self.weights!r}."
            )
        for host in self.trusted_hosts.split():
            if not re.fullmatch(r"[a-z0-9_.-]+", host):
                raise ValueError(f"trusted_hosts must be lower-case host names without a port; got {host!r}.")
        for bucket in self.source_buckets.split():
            if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
                raise ValueError(f"source_buckets must be S3 bucket names; got {bucket!r}.")


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            name="dev",
            batching_window_s=1,
            max_instances=1,
            keep_results_days=30,
            keep_logs=RetentionDays.TWO_WEEKS,
            requests_per_second=50,
            burst=100,
            requests_per_month=1_000_000,
            budget_usd=50,
            removal_policy=RemovalPolicy.DESTROY,
        ),
        Stage(
            name="prod",
            batching_window_s=5,
            max_instances=10,
            keep_results_days=365,
            keep_logs=RetentionDays.THREE_MONTHS,
            requests_per_second=200,
            burst=400,
            requests_per_month=100_000_000,
            budget_usd=500,
            removal_policy=RemovalPolicy.RETAIN,
        ),
    )
}

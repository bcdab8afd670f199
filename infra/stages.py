"""The stages: what differs between one deployment and another, and nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import get_args

from aws_cdk import RemovalPolicy
from aws_cdk.aws_logs import RetentionDays

from maskdrop.settings import Interactive


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One deployment of Maskdrop.

    name: part of the names of its stacks and parts.
    batching_window_s: how long photos are collected for a bundle before `ingest` runs, 1 to 300 seconds. Longer windows
        fill bundles better and make a single photo wait.
    max_instances: GPUs of the bulk endpoint at most. The quota of a new account is 1 or 2.
    instance_type, usd_per_hour: the GPU instance, and its list price in us-east-1 (AWS Price List, August 2026).
    keep_results_days: how long results, and photos that were replaced or deleted, stay in S3.
    keep_logs: of every log group.
    requests_per_second, burst, requests_per_month: of one API key, before its own rate is asked.
    cors: the origins whose pages may call the API, with blanks between them, or "*". "": none.
    waf: AWS WAF before the API.
    budget_usd: a month; mail goes out at 50 %, 80 % and 100 % of it.
    interactive: the mode of the endpoint for one image now (infra/interactive.py). "realtime" is never without a GPU.
    interactive_at_once: calls that a serverless one works at once, 1 to 200. The account has a quota for all of them.
    interactive_instances: GPUs of a real-time one at most.
    mail: who hears of alarms and of the budget. None: nobody.
    weights: s3://bucket/prefix/ in this account, where `maskdrop models push` put weights. None: those of the image.
    trusted_hosts: one's own hosts, with blanks between them, that sources and webhooks may name although they are not
        public.
    source_buckets: buckets of this account and Region, with blanks between them, of whose images any caller may make
        jobs.
    http_sources: whether sources are fetched by plain http too.
    removal_policy: what becomes of photos, results and jobs when the stack is deleted.
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
        """Raises ValueError: SageMaker would find out after minutes, in the middle of a deployment."""
        if self.interactive not in get_args(Interactive):
            raise ValueError(f"interactive is one of {', '.join(get_args(Interactive))}, not {self.interactive!r}.")
        if self.weights is not None and not re.fullmatch(r"s3://[^/]+/(.+/)+", self.weights):
            raise ValueError(f"weights is s3://bucket/prefix/, with the slash at its end, not {self.weights!r}.")
        for host in self.trusted_hosts.split():
            if not re.fullmatch(r"[a-z0-9_.-]+", host):
                raise ValueError(f"trusted_hosts are names in small letters, without a port, not {host!r}.")
        for bucket in self.source_buckets.split():
            if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
                raise ValueError(f"source_buckets are names of buckets, not {bucket!r}.")


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

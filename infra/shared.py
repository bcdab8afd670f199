"""The resources that the functions share."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import aws_events as events
from aws_cdk import aws_lambda as lambda_

from infra.endpoints import EndpointName
from infra.jobs_table import JobsTable
from infra.network import NetworkStack
from infra.notifications import Notifications
from infra.queues import Queues
from infra.registry import Registry
from infra.stages import Stage
from infra.storage import Storage
from maskdrop.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedResources:
    """Resources that every function receives, and the settings that name them."""

    stage: Stage
    code: lambda_.Code
    queues: Queues
    storage: Storage
    jobs: JobsTable
    registry: Registry
    notifications: Notifications
    bus: events.EventBus
    network: NetworkStack | None

    @property
    def bulk(self) -> EndpointName:
        return EndpointName(self.stage.bulk_endpoint)

    @property
    def interactive(self) -> EndpointName | None:
        """None when the stage has no such endpoint."""
        name = self.stage.interactive_endpoint
        return EndpointName(name) if name else None

    @property
    def stage_queues(self) -> list[str]:
        """ARNs of the queues of the stages of a job (`maskdrop.flow.queue_of`)."""
        return [queue.queue_arn for queue in (self.queues.jobs, self.queues.edits) if queue]

    @property
    def settings(self) -> Settings:
        """The settings that the functions read; CloudFormation resolves the names in them."""
        bundles, edits = self.queues.bundles, self.queues.edits
        return Settings(
            stage=self.stage.name,
            inbox=self.storage.inbox.bucket_name,
            results=self.storage.results.bucket_name,
            table=self.jobs.table.table_name,
            registry=self.registry.table.table_name,
            jobs_queue_url=self.queues.jobs.queue_url,
            webhooks_queue_url=self.queues.webhooks.queue_url,
            dead_letters_queue_url=self.queues.dead.queue_url,
            bundles_queue_url=bundles.queue_url if bundles else "",
            results_queue_url=self.queues.results.queue_url if bundles else "",
            edits_queue_url=edits.queue_url if edits else "",
            editor=self.stage.editor,
            edit_usd_per_month=self.stage.edit_usd_per_month,
            endpoint=self.bulk.name,
            event_bus=self.bus.event_bus_name,
            interactive=self.stage.interactive_endpoint,
            interactive_mode=self.stage.interactive,
            bundle_max=self.stage.bundle_max,
            backlog_max=self.stage.backlog_max,
            keep_days=self.stage.keep_jobs_days,
            keep_corrections_days=self.stage.keep_corrections_days,
            trusted_hosts=" ".join(self.stage.trusted_hosts),
            http_sources=int(self.stage.http_sources),
            malware_scan=int(self.stage.malware_scan),
            source_buckets=" ".join(self.stage.source_buckets),
            engines=" ".join(self.stage.installed_engines),
            cors_origins=" ".join(self.stage.cors),
            images_per_month=self.stage.images_per_month,
            bytes_per_day=self.stage.gib_per_day << 30,
            fetches_at_once=self.stage.fetches_at_once,
            calls_at_once=self.stage.calls_at_once,
            webhooks_at_once=self.stage.webhooks_at_once,
        )

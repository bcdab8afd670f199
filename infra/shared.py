"""The resources that the functions share."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import aws_events as events
from aws_cdk import aws_lambda as lambda_

from infra.endpoint import BulkEndpoint
from infra.interactive import InteractiveEndpoint
from infra.jobs_table import JobsTable
from infra.queues import Queues
from infra.registry import Registry
from infra.stages import Stage
from infra.storage import Storage
from maskdrop.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedResources:
    """Resources that every function receives, and the settings that name them.

    interactive: None when the stage has interactive="off".
    """

    stage: Stage
    code: lambda_.Code
    queues: Queues
    storage: Storage
    jobs: JobsTable
    registry: Registry
    bulk: BulkEndpoint
    interactive: InteractiveEndpoint | None
    bus: events.EventBus

    @property
    def settings(self) -> Settings:
        """The settings that the functions read; CloudFormation resolves the names in them."""
        return Settings(
            stage=self.stage.name,
            inbox=self.storage.inbox.bucket_name,
            results=self.storage.results.bucket_name,
            table=self.jobs.table.table_name,
            registry=self.registry.table.table_name,
            jobs_queue_url=self.queues.jobs.queue_url,
            webhooks_queue_url=self.queues.webhooks.queue_url,
            endpoint=self.bulk.name,
            event_bus=self.bus.event_bus_name,
            interactive=self.interactive.name if self.interactive else "",
            interactive_mode=self.stage.interactive,
            trusted_hosts=self.stage.trusted_hosts,
            http_sources=int(self.stage.http_sources),
            source_buckets=self.stage.source_buckets,
            cors_origins=self.stage.cors,
        )

"""`lambdas/sweep.py`: every 5 minutes, retries the jobs that have been queued or submitted for too long."""

from __future__ import annotations

from constructs import Construct

from infra.function import Function
from infra.jobs_table import BY_STATE
from infra.shared import SharedResources
from maskdrop.wire import STARTED_PREFIX


class Sweep(Function):
    def __init__(self, scope: Construct, construct_id: str, *, shared: SharedResources) -> None:
        # 1,024 MB: more than half a vCPU, for about 100 jobs a second.
        super().__init__(scope, construct_id, name="sweep", shared=shared, memory_mb=1024, timeout_s=120, in_vpc=True)
        self.run_every(minutes=5)
        self.allow("dynamodb:Query", on=shared.jobs.index_arn(BY_STATE))
        self.allow("dynamodb:GetItem", "dynamodb:UpdateItem", on=shared.jobs.table.table_arn)
        self.allow_objects("s3:GetObject", on=shared.storage.results.arn_for_objects(f"{STARTED_PREFIX}*"))
        # Without it, S3 returns 403 for a missing object.
        self.allow("s3:ListBucket", on=shared.storage.results.bucket_arn)
        for queue in shared.stage_queues:
            self.allow("sqs:SendMessage", on=queue)
        shared.registry.allow(self.role, "dynamodb:GetItem", kinds=["valve"])
        self.allow("events:PutEvents", on=shared.bus.event_bus_arn)

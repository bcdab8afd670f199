"""Finished jobs on the event bus: source "maskdrop", detail-type "Job Done" or "Job Failed", detail the event
that webhooks carry too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lambdas.adapters.border import as_error
from maskdrop.errors import EventsUnavailable
from maskdrop.job import Job
from maskdrop.webhook import event_of

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

BATCH = 10
"""Entries that EventBridge takes in one call."""

SOURCE = "maskdrop"


class EventBus:
    def __init__(self, client: EventBridgeClient, name: str) -> None:
        self._client, self._name = client, name

    def publish(self, jobs: Sequence[Job]) -> None:
        for start in range(0, len(jobs), BATCH):
            with as_error(EventsUnavailable, "Publishing events"):
                answer = self._client.put_events(
                    Entries=[
                        {
                            "EventBusName": self._name,
                            "Source": SOURCE,
                            "DetailType": f"Job {job.state.title()}",
                            "Detail": json.dumps(event_of(job)),
                        }
                        for job in jobs[start : start + BATCH]
                    ]
                )
            if answer["FailedEntryCount"]:
                raise EventsUnavailable(f"The event bus refused {answer['FailedEntryCount']} events.")

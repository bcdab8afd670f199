"""Publishes finished jobs to the event bus.

Source "maskdrop"; detail type "Job Done" or "Job Failed"; the detail is the event that webhooks send
too, and `delivery` (`maskdrop.webhook.bus_event`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lambdas.adapters.errors import translated_errors
from maskdrop.errors import EventsUnavailable
from maskdrop.job import Job
from maskdrop.webhook import bus_event

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

BATCH = 10
"""Maximum number of entries of one PutEvents call."""

SOURCE = "maskdrop"


class EventBus:
    def __init__(self, client: EventBridgeClient, name: str) -> None:
        self._client, self._name = client, name

    def publish(self, jobs: Sequence[Job]) -> None:
        for start in range(0, len(jobs), BATCH):
            with translated_errors(EventsUnavailable, "Publishing events"):
                response = self._client.put_events(
                    Entries=[
                        {
                            "EventBusName": self._name,
                            "Source": SOURCE,
                            "DetailType": f"Job {job.state.title()}",
                            "Detail": json.dumps(bus_event(job)),
                        }
                        for job in jobs[start : start + BATCH]
                    ]
                )
            if response["FailedEntryCount"]:
                raise EventsUnavailable(f"The event bus rejected {response['FailedEntryCount']} events.")

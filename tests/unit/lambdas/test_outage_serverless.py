"""Outages of a serverless endpoint for 48 hours, with a simulated clock, queues and endpoint: no photo is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import pytest

from lambdas import invoke, record
from lambdas.adapters.endpoint import QueuedEndpoint
from maskdrop.errors import EndpointFailed, EndpointUnavailable, MaskdropError
from maskdrop.wire import Bundle, BundleMessage, BundleResponse, split_s3_uri
from tests.fakes import FakeEndpoint, FakeServerless, a_success
from tests.unit.lambdas.test_outage import BACKLOG_MAX, OUTAGE, Deployment, SimulatedQueue
from tests.unit.lambdas.test_record import sqs


@dataclass
class SimulatedServerless(FakeServerless):
    """error: returns the error of an invocation; None: it succeeds."""

    error: Callable[[], MaskdropError | None] = lambda: None

    def invoke(self, bundle: bytes) -> bytes:
        if error := self.error():
            raise error
        items = Bundle.from_bytes(bundle).items
        outcomes = tuple(a_success(item.id) for item in items)
        return BundleResponse(Bundle.from_bytes(bundle).id, "cpu", 800.0, None, outcomes).to_bytes()


class ServerlessDeployment(Deployment):
    def __init__(self) -> None:
        super().__init__()
        self.bundles, self.results = SimulatedQueue(clock=self.clock), SimulatedQueue(clock=self.clock)
        self.serverless = SimulatedServerless()
        self.world.bundles_queue, self.world.results_queue = self.bundles, self.results
        self.world.serverless = self.serverless
        self.world.endpoint = cast(FakeEndpoint, QueuedEndpoint(self.bundles, lambda: self.clock.now))

    def work(self) -> None:
        """Processes the queues bundles and results. Every outcome deletes the message: no receive is counted."""
        world, now = self.world, self.clock.now
        self.backlog_max = max(self.backlog_max, self.images())
        for message in self.bundles.receive():
            self.bundles.messages.remove(message)
            assert invoke.process(sqs(message.body), world.settings, world.services, now) == {"batchItemFailures": []}
        for message in self.results.receive():
            self.results.messages.remove(message)
            assert record.process(sqs(message.body), world.settings, world.services, now) == {"batchItemFailures": []}

    def images(self) -> int:
        """Returns the number of images in the queue of bundles."""
        uris = [BundleMessage.from_body(message.body).input for message in self.bundles.messages]
        bundles = [Bundle.from_bytes(self.world.storage.read(*split_s3_uri(uri))) for uri in uris]
        return sum(len(bundle.items) for bundle in bundles)


def refused(_: Deployment) -> MaskdropError | None:
    return EndpointUnavailable("Invoking the endpoint failed: ThrottlingException.")


def refused_at_times(deployment: Deployment) -> MaskdropError | None:
    return refused(deployment) if deployment.random.random() < 0.99 else None


def not_starting(_: Deployment) -> MaskdropError | None:
    """The container crashes before it receives a bundle."""
    return EndpointFailed("Received server error (0) from the container.")


@pytest.mark.parametrize("error", [refused, refused_at_times, not_starting])
def test_an_outage_of_48_hours_fails_no_photo(error: Callable[[Deployment], MaskdropError | None]) -> None:
    deployment = ServerlessDeployment()
    deployment.serverless.error = lambda: error(deployment)
    deployment.drop(104)
    deployment.run(OUTAGE, deployment.work, photos_an_hour=2)
    assert deployment.photos == 200
    assert {job.state for job in deployment.world.jobs.records.values()} <= {"queued", "submitted", "done"}
    deployment.serverless.error = lambda: None
    deployment.run(timedelta(hours=2), deployment.work)
    deployment.check_all_done()
    assert deployment.bundles.messages == deployment.results.messages == []
    assert {job.attempts for job in deployment.world.jobs.records.values()} == {1}
    assert 0 < deployment.backlog_max <= BACKLOG_MAX

import pytest

from lambdas.invoke import process
from maskdrop.errors import EndpointFailed, EndpointUnavailable, MaskdropError
from tests.fakes import NOW, World
from tests.unit.lambdas.test_record import sqs
from tests.unit.maskdrop.test_serverless import submitted


@pytest.mark.parametrize(
    ("broken", "notified", "refused"),
    [
        (None, 1, 0),
        (EndpointFailed("The container failed."), 1, 0),
        (EndpointUnavailable("Invoking the endpoint failed: ModelNotReadyException."), 0, 1),
    ],
)
def test_every_outcome_of_a_bundle_deletes_its_message(
    broken: MaskdropError | None, notified: int, refused: int
) -> None:
    world = World()
    message = submitted(world)
    world.serverless.broken = broken
    assert process(sqs(message.to_body()), world.settings, world.services, NOW) == {"batchItemFailures": []}
    assert (len(world.results_queue.sent), len(world.bundles_queue.sent)) == (notified, refused)


def test_a_message_that_is_no_bundle_is_redelivered() -> None:
    world = World()
    response = process(sqs("not json"), world.settings, world.services, NOW)
    assert response == {"batchItemFailures": [{"itemIdentifier": "m0"}]}

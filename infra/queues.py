"""SQS queues, each with a dead-letter queue."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.nag import acknowledge
from infra.stages import Stage
from maskdrop.webhook import RETRY_S

RETENTION = Duration.days(14)
"""Message retention: the maximum of SQS. Jobs wait in SQS, because the endpoint deletes requests after 6 hours."""

MAX_RECEIVES = 100
"""Deliveries of a message before it moves to the dead-letter queue.

Throttled functions cost deliveries: a new account has 10 concurrent executions for all of them. At the visibility
timeouts below, 100 deliveries take 6 hours and 40 minutes (intake, jobs) to 11 hours and 40 minutes (results), so that
throttling, or an outage of a table, of some hours fails no photo. A message that no function can parse costs 100 lines
of a log. Messages of photos that wait for the endpoint cost no deliveries (`maskdrop.valve`)."""

INGEST_S, RECORD_S, DEAD_LETTERS_S, WEBHOOKS_S, INVOKE_S = 30, 60, 60, 30, 120
"""Timeouts of the consuming functions, in seconds. `invoke` waits up to 70 s for a response."""


def visibility(timeout_s: int) -> Duration:
    """Returns the visibility timeout: 6 x the timeout of the consumer, as Lambda recommends, and 60 s for batching."""
    return Duration.seconds(6 * timeout_s + 60)


class Queues(Construct):
    """Queues of the functions, each with a dead-letter queue.

    intake: S3 events. jobs: messages of new and retried jobs. results: notifications of the endpoint. webhooks: events
    to post; the number of deliveries follows RETRY_S. bundles: bundles for a serverless endpoint; None for an
    asynchronous one, which has its own queue.
    """

    def __init__(self, scope: Construct, construct_id: str, *, stage: Stage) -> None:
        super().__init__(scope, construct_id)
        self.dead_letters: list[sqs.Queue] = []
        self.intake = self._queue("Intake", INGEST_S)
        self.jobs = self._queue("Jobs", INGEST_S)
        self.results = self._queue("Results", RECORD_S)
        self.webhooks = self._queue("Webhooks", WEBHOOKS_S, max_receives=len(RETRY_S) + 1)
        self.results_dead, self.webhooks_dead = self.dead_letters[2], self.dead_letters[3]
        self.all = [self.intake, self.jobs, self.results, self.webhooks]
        self.bundles: sqs.Queue | None = None
        if stage.bulk == "serverless":
            self.bundles = self._queue("Bundles", INVOKE_S)
            self.all.append(self.bundles)

    def _queue(self, name: str, timeout_s: int, max_receives: int = MAX_RECEIVES) -> sqs.Queue:
        dead = sqs.Queue(
            self,
            f"{name}Dead",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=RETENTION,
            visibility_timeout=visibility(DEAD_LETTERS_S),
        )
        acknowledge(dead, "Serverless-SQSRedrivePolicy", "This is the dead-letter queue of another queue.")
        self.dead_letters.append(dead)
        return sqs.Queue(
            self,
            name,
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=RETENTION,
            visibility_timeout=visibility(timeout_s),
            dead_letter_queue=sqs.DeadLetterQueue(queue=dead, max_receive_count=max_receives),
        )

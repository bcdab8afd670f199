"""The queues, each with a dead-letter queue beside it."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.nag import acknowledge
from maskdrop.webhook import RETRY_S

KEPT = Duration.days(14)
"""The most that SQS allows. SQS, not the endpoint, is where work waits: the endpoint forgets requests after 6 hours."""

MAX_RECEIVES = 10
"""Deliveries of one message before it is dead. Five would do for faults of ours; throttling needs the rest."""

INGEST_S, RECORD_S, DEAD_LETTERS_S, REPAINT_S, WEBHOOKS_S = 30, 60, 60, 300, 30
"""Timeouts of the functions that consume them, in seconds."""


def visibility(timeout_s: int) -> Duration:
    """Six times the timeout of the consumer, as Lambda asks for, and a minute for the batching window."""
    return Duration.seconds(6 * timeout_s + 60)


class Queues(Construct):
    """intake: what S3 announces. jobs: our own messages. results: what the endpoint announces. repaint: results that
    wait for a new background. webhooks: events that are to be posted, delivered as often as RETRY_S has it."""

    def __init__(self, scope: Construct, construct_id: str) -> None:
        super().__init__(scope, construct_id)
        self.dead_letters: list[sqs.Queue] = []
        self.intake = self._queue("Intake", INGEST_S)
        self.jobs = self._queue("Jobs", INGEST_S)
        self.results = self._queue("Results", RECORD_S)
        self.repaint = self._queue("Repaint", REPAINT_S)
        self.webhooks = self._queue("Webhooks", WEBHOOKS_S, max_receives=len(RETRY_S) + 1)
        self.results_dead, self.webhooks_dead = self.dead_letters[2], self.dead_letters[4]
        self.all = [self.intake, self.jobs, self.results, self.repaint, self.webhooks]

    def _queue(self, name: str, timeout_s: int, max_receives: int = MAX_RECEIVES) -> sqs.Queue:
        dead = sqs.Queue(
            self,
            f"{name}Dead",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=KEPT,
            visibility_timeout=visibility(DEAD_LETTERS_S),
        )
        acknowledge(dead, "Serverless-SQSRedrivePolicy", "This is the dead-letter queue of another queue.")
        self.dead_letters.append(dead)
        return sqs.Queue(
            self,
            name,
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=KEPT,
            visibility_timeout=visibility(timeout_s),
            dead_letter_queue=sqs.DeadLetterQueue(queue=dead, max_receive_count=max_receives),
        )

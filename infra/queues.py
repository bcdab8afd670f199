"""The SQS queues and their dead-letter queue."""

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
timeouts below, 100 deliveries take 6 hours and 40 minutes (jobs) to 11 hours and 40 minutes (results), so that
throttling, or an outage of a table, of some hours fails no photo. A message that no function can parse costs 100 lines
of a log. Messages of photos that wait for the endpoint cost no deliveries (`maskdrop.valve`)."""

INGEST_S, RECORD_S, WEBHOOKS_S, INVOKE_S, EDIT_S, BOT_S = 30, 60, 30, 120, 240, 90
"""Timeouts of the consuming functions, in seconds. `invoke` waits up to 70 s for a response, `edit` up to 60 s for each
image, `bot` up to 40 s for the Bot API."""

DEAD_LETTER_HIDDEN = Duration.minutes(5)
"""Time after which a dead letter that could not be processed is received again."""


def visibility(timeout_s: int) -> Duration:
    """Returns the visibility timeout: 6 x the timeout of the consumer, as Lambda recommends, and 60 s for batching."""
    return Duration.seconds(6 * timeout_s + 60)


class Queues(Construct):
    """Queues of the functions. All have the same dead-letter queue: the form of a message shows which one it is from.

    jobs: S3 events of dropped photos, and messages of new and retried jobs. results: notifications of the endpoint.
    webhooks: events to post; the number of deliveries follows RETRY_S. bundles: bundles for a serverless endpoint; None
    for an asynchronous one, which has its own queue. edits: jobs whose images are generated; None without an editor.
    bot: images and results of the Telegram bot; None without a bot.
    """

    def __init__(self, scope: Construct, construct_id: str, *, stage: Stage) -> None:
        super().__init__(scope, construct_id)
        self.dead = sqs.Queue(
            self,
            "Dead",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=RETENTION,
            visibility_timeout=DEAD_LETTER_HIDDEN,
        )
        acknowledge(self.dead, "Serverless-SQSRedrivePolicy", "This is the dead-letter queue of the other queues.")
        self.jobs = self._queue("Jobs", INGEST_S)
        self.results = self._queue("Results", RECORD_S)
        self.webhooks = self._queue("Webhooks", WEBHOOKS_S, max_receives=len(RETRY_S) + 1)
        self.bundles = self._queue("Bundles", INVOKE_S) if stage.bulk == "serverless" else None
        self.edits = self._queue("Edits", EDIT_S) if stage.editor != "off" else None
        self.bot = self._queue("Bot", BOT_S, max_receives=len(RETRY_S) + 1) if stage.bot else None
        optional = [queue for queue in (self.bundles, self.edits, self.bot) if queue]
        self.all = [self.jobs, self.results, self.webhooks, *optional]

    def _queue(self, name: str, timeout_s: int, max_receives: int = MAX_RECEIVES) -> sqs.Queue:
        return sqs.Queue(
            self,
            name,
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=RETENTION,
            visibility_timeout=visibility(timeout_s),
            dead_letter_queue=sqs.DeadLetterQueue(queue=self.dead, max_receive_count=max_receives),
        )

"""Starts the AWS emulator (local/emulator.py) with faults of calls and messages, and a clock of SQS that can advance.

python tests/chaos/emulator.py SAGEMAKER_JSON SEED
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[2])  # not PYTHONPATH, which the functions would inherit

from local import emulator  # noqa: E402
from tests.chaos.faulty import FaultyApp  # noqa: E402
from tests.chaos.plan import Faults  # noqa: E402

DELAY_S = 2.0
"""Delay of a delayed message, in seconds."""


class Clock:
    """The module `time` of MiniStack's SQS, ahead of the machine's clock by `ahead_s` seconds."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def time(self) -> float:
        return time.time() + self.ahead_s

    def advance(self, seconds: float) -> None:
        self.ahead_s += seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def deliver_with_faults(sqs: Any, faults: Faults, seed: int) -> None:
    """Reorders, duplicates, delays and drops the messages that MiniStack delivers to functions.

    S3 events are not dropped: S3 delivers each at least once, and nothing else names the photo.
    """
    receive, chance = sqs._receive_messages_for_esm, random.Random(f"{seed} order")  # noqa: S311  no secret

    def receive_with_faults(queue_url: str, max_number: int) -> list[dict[str, Any]]:
        if faults.share:
            with sqs._queues_lock:
                chance.shuffle(sqs._get_q(queue_url)["messages"])
        delivered = []
        for message in receive(queue_url, max_number):
            fault = faults.of_message(may_drop='"Records"' not in message["body"])
            if fault == "dropped":
                sqs._delete_messages_for_esm(queue_url, {message["receipt_handle"]})
                continue
            if fault == "delayed":
                message["visible_at"] = sqs.time.time() + DELAY_S
                continue
            if fault == "duplicated":
                message["visible_at"] = sqs.time.time()
                message = dict(message)  # the second delivery has its own receipt handle
            delivered.append(message)
        return delivered

    sqs._receive_messages_for_esm = receive_with_faults


def main() -> None:
    from ministack import app
    from ministack.services import sqs

    seed = int(sys.argv.pop(2))
    faults, clock = Faults(seed), Clock()
    sqs.time = clock
    deliver_with_faults(sqs, faults, seed)
    app.app = FaultyApp(app.app, faults, clock.advance)
    emulator.main()


if __name__ == "__main__":
    main()

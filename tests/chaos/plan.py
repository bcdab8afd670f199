"""The seeded plan of a chaos run: which call of each service has which fault, and which disturbances happen when.

The plan depends on the seed and the number of images only. The order of concurrent calls is not part of it: which image
a fault meets differs between two runs of one seed. Imports only the standard library, because the AWS emulator runs it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

Service = Literal["s3", "dynamodb", "sqs", "sns", "events", "sagemaker", "model"]
"""SageMaker calls the model server, `model`. Functions, SageMaker and the model server call the others."""

SERVICES: tuple[Service, ...] = get_args(Service)

CallFault = Literal["throttle", "error", "response_lost", "sent_twice", "half_response", "timeout", "late"]
CALL_FAULTS: dict[CallFault, int] = {
    "throttle": 20,
    "error": 20,
    "response_lost": 15,
    "sent_twice": 15,
    "half_response": 10,
    "timeout": 1,
    "late": 10,
}
"""Fault of one call -> weight. A timeout takes 10 s of the caller's time, so that it is rare."""

MessageFault = Literal["dropped", "duplicated", "delayed"]
MESSAGE_FAULTS: dict[MessageFault, int] = {"dropped": 1, "duplicated": 4, "delayed": 4}
"""Fault of one received message -> weight. Every batch is reordered."""

Disturbance = Literal[
    "kill_model",
    "suspend_model",
    "fill_disk",
    "kill_functions",
    "suspend_functions",
    "stop_consumers",
    "service_down",
    "refuse_capacity",
    "move_leases",
]
DISTURBANCES: tuple[Disturbance, ...] = get_args(Disturbance)

IMAGES_PER_DISTURBANCE = 100
"""A run of 10,000 images has 100 disturbances."""

SECONDS = (0.2, 2.0)
"""Range of the duration of a disturbance in real time."""


Fault = TypeVar("Fault", bound=str)


@dataclass(frozen=True, slots=True)
class Event:
    """One disturbance. after: number of uploaded images after which it starts. service: of `service_down`."""

    after: int
    kind: Disturbance
    seconds: float
    service: Service | None = None


def disturbances(seed: int, images: int) -> list[Event]:
    """Returns the disturbances of a run in their order: each kind at least once."""
    chance = random.Random(f"{seed} disturbances")  # noqa: S311  no secret
    kinds = list(DISTURBANCES)
    kinds += chance.choices(DISTURBANCES, k=max(0, images // IMAGES_PER_DISTURBANCE - len(kinds)))
    events = [
        Event(
            chance.randrange(images // 10, images),
            kind,
            chance.uniform(*SECONDS),
            chance.choice(SERVICES) if kind == "service_down" else None,
        )
        for kind in kinds
    ]
    return sorted(events, key=lambda event: event.after)


class Faults:
    """The faults of calls and messages. share: probability of a fault; the n-th call of a service has the same fault in
    every run with this seed and share. down: services whose every call fails. counts: injected faults."""

    def __init__(self, seed: int) -> None:
        self.share = 0.0
        self.down: set[str] = set()
        self.counts: Counter[str] = Counter()
        self._calls = {service: _draws(f"{seed} {service}", CALL_FAULTS) for service in SERVICES}
        self._messages = _draws(f"{seed} messages", MESSAGE_FAULTS)

    def of_call(self, service: Service) -> CallFault | None:
        """Returns the fault of the next call of a service."""
        chance, fault = next(self._calls[service])
        if service in self.down:
            fault = "error"
        elif chance >= self.share:
            return None
        self.counts[f"{service} {fault}"] += 1
        return fault

    def of_message(self, *, may_drop: bool) -> MessageFault | None:
        """Returns the fault of the next received message."""
        chance, fault = next(self._messages)
        if chance >= self.share:
            return None
        if fault == "dropped" and not may_drop:
            fault = "delayed"
        self.counts[f"message {fault}"] += 1
        return fault


def _draws(seed: str, weights: dict[Fault, int]) -> Iterator[tuple[float, Fault]]:
    chance = random.Random(seed)  # noqa: S311  no secret
    kinds, shares = list(weights), list(weights.values())
    while True:
        yield chance.random(), chance.choices(kinds, shares)[0]

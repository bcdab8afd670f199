"""SQS in memory, keeping the promises of `sagemaker_model.serving.queue.Queue`. No time passes in it: a received
message is hidden until `show`, and nothing is waited for unless `hold` says so."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from maskdrop.errors import MaskdropError
from sagemaker_model.serving.queue import Message


@dataclass
class FakeQueue:
    """asked: the arguments of every receive. faults: raised by the next calls, one each. hold: keeps a receive that
    finds nothing until it is set; `entered` counts those."""

    dead_letters: bool = True
    messages: dict[str, Message] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    asked: list[tuple[int, int, int]] = field(default_factory=list)
    faults: list[MaskdropError] = field(default_factory=list)
    hold: threading.Event | None = None
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    sent: int = 0

    def send(self, body: str) -> None:
        self.sent += 1
        name = str(self.sent)
        self.messages[name] = Message(name, f"receipt-{name}", body)

    def show(self) -> None:
        """The time is over for which messages were hidden."""
        self.hidden.clear()

    def has_dead_letters(self) -> bool:
        self._fault()
        return self.dead_letters

    def receive(self, count: int, *, wait_s: int, hidden_s: int) -> list[Message]:
        self._fault()
        self.asked.append((count, wait_s, hidden_s))
        found = [message for name, message in self.messages.items() if name not in self.hidden][:count]
        if not found and self.hold:
            self.entered.release()
            assert self.hold.wait(60)
        self.hidden.update(message.id for message in found)
        return found

    def delete(self, message: Message) -> None:
        self._fault()
        del self.messages[message.id]

    def _fault(self) -> None:
        if self.faults:
            raise self.faults.pop(0)

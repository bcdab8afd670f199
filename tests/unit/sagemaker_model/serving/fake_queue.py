"""A fake queue in memory that implements `sagemaker_model.serving.queue.Queue`.

It has no clock: a received message is hidden until `show`, and `receive` waits only if `hold` is given.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from maskdrop.errors import MaskdropError
from sagemaker_model.serving.queue import Message


@dataclass
class FakeQueue:
    """receives: the arguments of every receive. errors: raised by the next calls, one each.

    hold: blocks each receive that finds no message until it is set; `entered` counts those receives.
    timeouts: message and seconds of each `hide`; `extended` is set by the first one.
    """

    dead_letters: bool = True
    messages: dict[str, Message] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    receives: list[tuple[int, int, int]] = field(default_factory=list)
    errors: list[MaskdropError] = field(default_factory=list)
    hold: threading.Event | None = None
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    sent: int = 0
    timeouts: list[tuple[str, int]] = field(default_factory=list)
    extended: threading.Event = field(default_factory=threading.Event)

    def send(self, body: str) -> None:
        self.sent += 1
        name = str(self.sent)
        self.messages[name] = Message(name, f"receipt-{name}", body)

    def show(self) -> None:
        """Makes all hidden messages visible, as after the visibility timeout."""
        self.hidden.clear()

    def has_dead_letters(self) -> bool:
        self._raise_next()
        return self.dead_letters

    def receive(self, count: int, *, wait_s: int, visibility_timeout_s: int) -> list[Message]:
        self._raise_next()
        self.receives.append((count, wait_s, visibility_timeout_s))
        found = [message for name, message in self.messages.items() if name not in self.hidden][:count]
        if not found and self.hold:
            self.entered.release()
            assert self.hold.wait(60)
        self.hidden.update(message.id for message in found)
        return found

    def hide(self, message: Message, seconds: int) -> None:
        self.timeouts.append((message.id, seconds))
        if seconds == 0:
            self.hidden.discard(message.id)
        self.extended.set()

    def delete(self, message: Message) -> None:
        self._raise_next()
        del self.messages[message.id]

    def _raise_next(self) -> None:
        if self.errors:
            raise self.errors.pop(0)

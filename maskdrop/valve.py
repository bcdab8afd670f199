"""The valve of the intake: bounds the images at the endpoint, so that the others are queued in SQS.

The endpoint deletes a bundle after 6 hours, SQS a message after 14 days. So at most `Settings.backlog_max` images are
submitted at a time, and no bundle is submitted while the endpoint refuses them. The registry has these items of kind
"valve":

    <bundle ID>  {"images", "endpoint"}   one bundle at the endpoint, until its notification is recorded; also "owned",
                                          the images of each owner in it, by message group
    pause        {"since", "until"}       submissions pause until `until`, and have done so since `since`; Unix seconds

Each item expires, and deleting it twice has no effect. So duplicate or lost notifications cannot falsify the sum, as
they would a counter. Bundles of an earlier endpoint, which a change of the mode has deleted, take no room. At 72,000
images the sum reads 1,125 items, about 140 kB.

An owner that has SHARE of `backlog_max` at the endpoint waits, while the jobs of others are submitted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from maskdrop.services import Registry
from maskdrop.settings import Settings
from maskdrop.threads import in_threads

PAUSE = "pause"

RESERVED_S = 240
"""Seconds for which room is reserved. `ingest` submits or releases the bundle within its timeout of 30 s."""

PAUSE_S = 60
"""Seconds between two trials while the endpoint is full or refuses bundles. A trial claims the jobs of a few bundles;
meanwhile messages are delayed without an access to their jobs."""

DELAY_MAX_S = 900
"""Maximum delay of an SQS message in seconds."""

MARGIN_S = 300
"""Seconds that the function may need to receive a message after its delay: a visibility timeout of 240 s, and 60 s."""

SHARE = 0.25
"""Part of `backlog_max` at which no more jobs of one owner are submitted: 15 minutes of work. Photos of the drop folder
have no owner and no such limit."""

SHARE_DELAY_S = 120
"""Delay in seconds of the messages of an owner with its share at the endpoint, which has work for longer."""

REMEMBERED_S = 1800
"""Seconds for which a pause is remembered. The messages that it delayed are
received before: the pause of 60 s, the delay of 900 s, MARGIN_S, and as much again."""


@dataclass(frozen=True, slots=True)
class Valve:
    """Every method may raise TableUnavailable. now: time of the current invocation."""

    registry: Registry
    settings: Settings
    now: datetime

    def crowded(self) -> set[str]:
        """The message groups of the owners that have their share of images at the endpoint."""
        sums: Counter[str] = Counter()
        for item in self.registry.list("valve").values():
            if item.get("endpoint") == self.settings.endpoint:
                sums.update(item.get("owned") or {})
        return {group for group, images in sums.items() if images >= SHARE * self.settings.backlog_max}

    def reserve(self, bundles: Mapping[str, int]) -> set[str]:
        """Reserves room for bundles (ID -> images). Returns the IDs of those that may be submitted; none in a pause.

        Writes before it reads, and deletes what was too much: of several concurrent callers, the last one to read has
        the items of all others in its sum, so that together they never exceed the limit. Unused room becomes free
        after RESERVED_S.
        """
        if not bundles or self._paused(self.registry.get("valve", PAUSE)):
            return set()
        in_threads(lambda bundle: self._put(bundle, bundles[bundle], RESERVED_S), bundles)
        items = self.registry.list("valve").values()
        images = sum(item["images"] for item in items if item.get("endpoint") == self.settings.endpoint)
        allowed = list(bundles)
        excess: list[str] = []
        while allowed and images > self.settings.backlog_max:
            excess.append(allowed.pop())
            images -= bundles[excess[-1]]
        in_threads(self.release, excess)
        return set(allowed)

    def hold(self, bundle: str, images: int, owned: Mapping[str, int] = {}) -> None:
        """Keeps the room of a bundle until the endpoint has deleted it or its notification is recorded. owned: the
        images of each owner in it, by message group."""
        self._put(bundle, images, self.settings.overdue_s, owned)

    def release(self, bundle: str) -> None:
        """Frees the room of a bundle that is no longer at the endpoint. Repeatable."""
        self.registry.delete("valve", bundle)

    def pause(self) -> int:
        """Stops submissions for PAUSE_S seconds, unless they have stopped already.

        Returns the delay in seconds of the messages that return to the queue: as long as submissions have been stopped,
        at least PAUSE_S and at most DELAY_MAX_S.
        """
        now, last = int(self.now.timestamp()), self.registry.get("valve", PAUSE)
        # The messages of a pause are delayed by at most its duration; the first trial after them continues it.
        continued = last is not None and now <= 2 * last["until"] - last["since"] + MARGIN_S
        since = int(last["since"]) if last and continued else now
        if not self._paused(last):
            value = {"since": since, "until": now + PAUSE_S}
            self.registry.put("valve", PAUSE, value, expires_at=self.now + timedelta(seconds=REMEMBERED_S))
        return min(max(now - since, PAUSE_S), DELAY_MAX_S)

    def has_delayed_messages(self) -> bool:
        """Whether the queue may contain messages that a pause has delayed."""
        return self.registry.get("valve", PAUSE) is not None

    def _paused(self, last: Mapping[str, int] | None) -> bool:
        return last is not None and self.now.timestamp() < last["until"]

    def _put(self, bundle: str, images: int, seconds: int, owned: Mapping[str, int] = {}) -> None:
        value = {"images": images, "endpoint": self.settings.endpoint} | ({"owned": dict(owned)} if owned else {})
        self.registry.put("valve", bundle, value, expires_at=self.now + timedelta(seconds=seconds))

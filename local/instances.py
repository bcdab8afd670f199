"""The instances of one asynchronous endpoint in simulated time: starting, processing requests, and stopping."""

from __future__ import annotations

from dataclasses import dataclass, field

from local.autoscaling import Activity, Autoscaling, Target, published

MINUTE_S = 60
"""Seconds between two samples of the metrics, and between two evaluations of the policies."""


@dataclass(slots=True)
class Instances:
    """Begins at the minimum of the target at the time 0.

    start_s: seconds from the decision to start instances until they process requests.
    desired, ready: number of instances that the policies require, and that process requests.
    """

    target: Target
    start_s: float
    desired: int = field(init=False)
    ready: int = field(init=False)
    _scaling: Autoscaling = field(init=False)
    _minute: int = 0
    _starts_s: float = 0

    def __post_init__(self) -> None:
        self._scaling = Autoscaling(self.target)
        self.desired = self.ready = self.target.minimum

    def advance(self, now_s: float, backlog: int) -> None:
        """Evaluates the policies at each minute until `now_s`. backlog: requests that are queued or processed."""
        while (self._minute + 1) * MINUTE_S <= now_s:
            self._minute += 1
            at_s = float(self._minute * MINUTE_S)
            self._change(at_s)
            self._scaling.record(at_s, published(backlog, self.ready))
            desired = self._scaling.desired(at_s, self.desired, changing=self.desired != self.ready)
            if desired > self.desired:
                self._starts_s = at_s + self.start_s
            self.desired = desired
        self._change(now_s)

    def _change(self, now_s: float) -> None:
        # Instances that stop finish their requests, but process no further ones.
        if self.desired < self.ready or now_s >= self._starts_s:
            self.ready = self.desired

    @property
    def activities(self) -> list[Activity]:
        """Every change of `desired`, oldest first."""
        return self._scaling.activities

"""Shapes of the load: the number of users over the duration."""

from __future__ import annotations

from collections.abc import Callable

SPIKE_BEGINS, SPIKE_ENDS = 0.1, 0.4
"""Part of the duration in which the spike has all users. The longer rest shows the scale-in."""

STEPS = 5

Shape = Callable[[float, int], int]
"""Fraction of the duration, 0 to 1, and maximum number of users -> number of users."""


def steady(_fraction: float, users: int) -> int:
    return users


def step(fraction: float, users: int) -> int:
    """One more fifth of the users in every fifth of the duration."""
    return max(1, round(users * min(STEPS, int(fraction * STEPS) + 1) / STEPS))


def spike(fraction: float, users: int) -> int:
    """Nobody, then all users at once, then nobody."""
    return users if SPIKE_BEGINS <= fraction < SPIKE_ENDS else 0


SHAPES: dict[str, Shape] = {"steady": steady, "step": step, "spike": spike, "soak": steady}
"""`soak` is `steady` for an hour: its name selects the duration (tests/load/__main__.py)."""

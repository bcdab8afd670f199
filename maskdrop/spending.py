"""Spending caps: the price of a generated image is reserved before the call, in a counter of its owner and month.

Amounts are whole micro-dollars, because counters are whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from maskdrop.access import KEPT, month_of
from maskdrop.errors import SpendingCapReached
from maskdrop.services import Registry

COUNTERS = ("generated", "generated_microusd")
"""Counters of an owner's usage of the month: generated images, and their price."""

CAP = "edit_usd_per_month"
"""Field of a registry item of kind "cap"."""


def microusd(usd: float) -> int:
    return round(usd * 1_000_000)


def set_cap(registry: Registry, owner: str, usd: float | None) -> None:
    """Sets the cap of one owner in US dollars per month. None: that of the stage."""
    if usd is None:
        registry.delete("cap", owner)
    else:
        registry.put("cap", owner, {CAP: microusd(usd)})


def list_caps(registry: Registry) -> dict[str, float]:
    """The owners with a cap of their own, and these caps in US dollars per month."""
    return {owner: float(value[CAP]) / 1_000_000 for owner, value in registry.list("cap").items()}


def cap_of(registry: Registry, owner: str, default_usd: float) -> float:
    """The cap of an owner in US dollars per month: its own, else that of the stage. Photos of the drop folder have the
    owner ""; their cap is that of the stage."""
    own = registry.get("cap", owner) if owner else None
    return default_usd if own is None else float(own[CAP]) / 1_000_000


@dataclass(frozen=True, slots=True)
class Reservation:
    """The reserved price of one image. name: of the usage counters."""

    name: str
    microusd: int

    def give_back(self, registry: Registry) -> None:
        """Returns the price of an image that was not billed."""
        registry.add("usage", self.name, dict(zip(COUNTERS, (-1, -self.microusd), strict=True)))


def reserve(registry: Registry, owner: str, usd: float, *, default_cap_usd: float, now: datetime) -> Reservation:
    """Reserves the price of one image. Raises SpendingCapReached where the cap does not cover it.

    Adds before it compares: of several concurrent callers, each one sees the reservations of those before it, so that
    together they never exceed the cap.
    """
    cap_usd = cap_of(registry, owner, default_cap_usd)
    reservation = Reservation(month_of(owner, now), microusd(usd))
    amounts = dict(zip(COUNTERS, (1, reservation.microusd), strict=True))
    spent = registry.add("usage", reservation.name, amounts, expires_at=now + KEPT).counters[COUNTERS[1]]
    if reservation.microusd and spent > microusd(cap_usd):
        reservation.give_back(registry)
        raise SpendingCapReached(
            f"The spending cap of ${cap_usd:.2f} for generated images is reached: an image costs ${usd:.3f}, "
            f"${(spent - reservation.microusd) / 1_000_000:.2f} are spent this month (UTC). Retry the job next month, "
            "or have the operator raise the cap."
        )
    return reservation

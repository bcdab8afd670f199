"""Limits of one owner: images per month, bytes per day, and a spending cap. The price of a generated image is reserved
before the call, in a counter of its owner and month.

Amounts are whole micro-dollars, because counters are whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from maskdrop.access import KEPT, month_of
from maskdrop.errors import RateLimitExceeded, SpendingCapReached
from maskdrop.job import folder_of
from maskdrop.services import Registry

COUNTERS = ("generated", "generated_microusd")
"""Counters of an owner's usage of the month: generated images, and their price."""

CAP, QUOTA = "edit_usd_per_month", "images_per_month"
"""Fields of a registry item of kind "cap": of an owner with limits of its own."""


def microusd(usd: float) -> int:
    return round(usd * 1_000_000)


def set_cap(registry: Registry, owner: str, usd: float | None) -> None:
    """Sets the cap of one owner in US dollars per month. None: that of the stage."""
    _set(registry, owner, CAP, None if usd is None else microusd(usd))


def set_quota(registry: Registry, owner: str, images: int | None) -> None:
    """Sets the maximum number of images of one owner in a month. None: that of the stage."""
    _set(registry, owner, QUOTA, images)


def _set(registry: Registry, owner: str, field: str, value: int | None) -> None:
    others = {name: kept for name, kept in (registry.get("cap", owner) or {}).items() if name != field}
    limits = others if value is None else {**others, field: value}
    if limits:
        registry.put("cap", owner, limits)
    else:
        registry.delete("cap", owner)


def list_caps(registry: Registry) -> dict[str, float]:
    """The owners with a cap of their own, and these caps in US dollars per month."""
    caps = registry.list("cap").items()
    return {owner: float(value[CAP]) / 1_000_000 for owner, value in caps if CAP in value}


def list_quotas(registry: Registry) -> dict[str, int]:
    """The owners with a quota of their own, and these quotas in images per month."""
    return {owner: int(value[QUOTA]) for owner, value in registry.list("cap").items() if QUOTA in value}


def check_quota(registry: Registry, owner: str, *, default: int, now: datetime) -> None:
    """Raises RateLimitExceeded where the owner has used its images of the month. default: quota of the stage; 0 for
    none. Requests in progress do not count yet: each of them may exceed the quota."""
    quota = (registry.get("cap", owner) or {}).get(QUOTA, default or None)
    if quota is None:
        return
    used = (registry.get("usage", month_of(owner, now)) or {}).get("pictures", 0)
    if used >= quota:
        raise RateLimitExceeded(
            f"The quota of {quota} images per month is used up. Retry next month (UTC), or have the operator raise it."
        )


def count_bytes(registry: Registry, owner: str, size: int, *, maximum: int, now: datetime) -> None:
    """Counts bytes that a request of an owner stores. Raises RateLimitExceeded above `maximum` in a day, which starts
    with the first request."""
    name = f"bytes#{folder_of(owner)}"
    count = registry.add("window", name, {"bytes": size}, expires_at=now + timedelta(days=1))
    if count.counters["bytes"] > maximum:
        raise RateLimitExceeded(
            f"The files of this caller exceed {maximum / 2**30:.0f} GiB in a day. Retry after {count.expires_at}."
        )


def cap_of(registry: Registry, owner: str, default_usd: float) -> float:
    """The cap of an owner in US dollars per month: its own, else that of the stage. Photos of the drop folder have the
    owner ""; their cap is that of the stage."""
    own = (registry.get("cap", owner) or {}) if owner else {}
    return float(own[CAP]) / 1_000_000 if CAP in own else default_usd


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

"""A fake table in memory that implements `sagemaker_model.serving.rows.Rows`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from maskdrop.errors import MaskdropError


@dataclass
class FakeRows:
    """items: rows by id. broken: raised by every write if it is set."""

    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: MaskdropError | None = None

    def check(self) -> None: ...

    def write(self, row: Mapping[str, Any]) -> None:
        if self.broken:
            raise self.broken
        stored = self.items.get(row["id"], {})
        if stored.get("state") != "done" or row["state"] == "done":
            self.items[row["id"]] = stored | dict(row)

"""What the caller points at. One owner of coordinates: pixels of the upright picture, (x0, y0, x1, y1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from maskdrop.errors import InvalidPrompt

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Prompt:
    """Where the subject is.

    box: x0, y0, x1, y1 in pixels of the upright picture, x0 < x1 and y0 < y1.
    """

    box: Box | None = None

    def to_json(self) -> dict[str, Any]:
        return {"box": list(self.box)} if self.box else {}

    @classmethod
    def from_json(cls, data: Any) -> Prompt:
        """Raises InvalidPrompt unless `data` is null or {"box": [x0, y0, x1, y1]}."""
        if data is None:
            return cls()
        if not isinstance(data, dict) or set(data) - {"box"}:
            raise InvalidPrompt('A prompt is an object with the field "box".')
        box = data.get("box")
        if box is None:
            return cls()
        if not isinstance(box, list | tuple) or len(box) != 4 or not all(_is_finite(v) for v in box):
            raise InvalidPrompt("A box is four finite numbers: x0, y0, x1, y1 in pixels.")
        x0, y0, x1, y1 = (float(v) for v in box)
        if x0 >= x1 or y0 >= y1:
            raise InvalidPrompt(f"The box {x0:g}, {y0:g}, {x1:g}, {y1:g} has no area: x0 < x1 and y0 < y1 are needed.")
        return cls(box=(x0, y0, x1, y1))

    def inside(self, width: int, height: int) -> Prompt:
        """The prompt clipped to a picture of width x height pixels. Raises InvalidPrompt when nothing is left."""
        if self.box is None:
            return self
        x0, y0, x1, y1 = self.box
        clipped = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
        if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
            raise InvalidPrompt(
                f"The box {x0:g}, {y0:g}, {x1:g}, {y1:g} lies outside the picture of {width} x {height} pixels."
            )
        return Prompt(box=clipped)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

"""Reader of LabelMe (github.com/wkentaro/labelme): a JSON file per image with shapes.

A rectangle has two opposite corners in any order; the box of a polygon is the smallest around its points. A circle has
its centre and a point of its outline. Shapes with the same label and group_id are parts of one instance. Coordinates
lie between pixels. The image is at imagePath, or inside the JSON in base64.
"""

from __future__ import annotations

import base64
import json
import math
from collections import defaultdict
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

from sagemaker_model.data.boxes.base import Box, BoxedEntry, Listing, read_inside
from sagemaker_model.data.records import BadRecord, InvalidData

Corners = tuple[float, float, float, float]


def listing(source: Path) -> Listing:
    """Lists the JSON files with shapes below a folder. Raises InvalidData."""
    entries = [entry for path in sorted(source.rglob("*.json")) for entry in _entries(source, path)]
    if not entries:
        raise InvalidData(f"{source} is not LabelMe: it must have JSON files with shapes.")
    return Listing(entries)


def _entries(source: Path, file: Path) -> list[BoxedEntry]:
    """Returns the entry of a file; nothing for JSON of another kind."""
    try:
        content = json.loads(file.read_bytes())
        if not isinstance(content, dict) or "shapes" not in content:
            return []
        path = PureWindowsPath(content["imagePath"])  # reads / and \
        size = (int(content["imageWidth"]), int(content["imageHeight"])) if content.get("imageWidth") else None
        name = (file.relative_to(source).parent / f"{file.stem}{path.suffix or '.jpg'}").as_posix()
        load = partial(_load, source, file, path.as_posix(), content.get("imageData"))
        return [BoxedEntry(name=name, load=load, boxes=_boxes(content["shapes"]), size=size)]
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        fault = f"unreadable annotation: {type(error).__name__} {error}"
        return [BoxedEntry(name=file.relative_to(source).as_posix(), load=bytes, fault=fault)]


def _load(source: Path, file: Path, path: str, data: Any) -> bytes:
    """Reads the image at its path, else beside the JSON, else from the JSON. Raises BadRecord."""
    try:
        return read_inside(source, file.parent / path, file.parent / Path(path).name)
    except BadRecord:
        if not data:
            raise
    try:
        return base64.b64decode(data)
    except (ValueError, TypeError) as error:
        raise BadRecord(f"unreadable image: imageData of {file.name} is not base64") from error


def _boxes(shapes: Any) -> list[Box | str]:
    parts: dict[Any, list[Corners]] = defaultdict(list)
    reasons: list[Box | str] = []
    for number, shape in enumerate(shapes):
        try:
            corners = _corners(shape.get("shape_type") or "polygon", shape["points"])
            group = shape.get("group_id")
            parts[str(shape["label"]), number if group is None else f"group {group}"].append(corners)
        except BadRecord as error:
            reasons.append(error.message)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reasons.append(f"bad row: {type(error).__name__} {error}")
    return [Box(label, _around(corners)) for (label, _), corners in parts.items()] + reasons


def _corners(kind: str, points: Any) -> Corners:
    """Returns the box of a shape. Raises BadRecord for a shape without area; ValueError or TypeError for bad points."""
    pairs = [(float(x), float(y)) for x, y in points]
    if kind == "circle" and len(pairs) == 2:
        (x, y), outline = pairs
        radius = math.dist((x, y), outline)
        return x - radius, y - radius, x + radius, y + radius
    if kind in ("rectangle", "polygon") and len(pairs) >= 2:
        return _around([(x, y, x, y) for x, y in pairs])
    raise BadRecord(f"shape without a box: {kind} of {len(pairs)} points")


def _around(corners: list[Corners]) -> Corners:
    x0, y0, x1, y1 = zip(*corners, strict=True)
    return min(x0), min(y0), max(x1), max(y1)

"""Reader of Open Images (storage.googleapis.com/openimages, "Data formats"): boxes in CSV, classes in another CSV.

A row is a box: ImageID, LabelName (such as /m/0cmf2), XMin, XMax, YMin, YMax as shares of the image's sides, and
IsGroupOf (1: a box around more than five instances). class-descriptions-boxable.csv has rows LabelName,DisplayName
without a header.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from sagemaker_model.data.boxes.base import Box, BoxedEntry, Listing, images_by_stem, split_of
from sagemaker_model.data.records import InvalidData, read_file

COLUMNS = {"ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax"}

DESCRIPTIONS = "*class-descriptions*.csv"


def listing(source: Path) -> Listing:
    """Lists the images that the CSV files of a folder, or one CSV file, state. The images are below the same folder,
    as ImageID.jpg. Raises InvalidData."""
    folder = source.parent if source.is_file() else source
    descriptions = sorted(folder.rglob(DESCRIPTIONS))
    names = {row[0]: row[1] for path in descriptions for row in _rows(path) if len(row) > 1}
    candidates = [source] if source.is_file() else sorted(set(folder.rglob("*.csv")) - set(descriptions))
    files = [path for path in candidates if set(next(_rows(path), [])) >= COLUMNS]
    if not files:
        raise InvalidData(f"{source} has no CSV file with the columns {', '.join(sorted(COLUMNS))}.")
    images = images_by_stem(folder)
    return Listing([entry for file in files for entry in _file_entries(file, names, images)])


def _file_entries(file: Path, names: dict[str, str], images: dict[str, list[Path]]) -> list[BoxedEntry]:
    rows = _rows(file)
    header = next(rows)
    boxes: dict[str, list[Box | str]] = defaultdict(list)
    for values in rows:
        row = dict(zip(header, values, strict=False))
        of_image = boxes[row.get("ImageID", "")]
        if row.get("ImageID") in images:  # the published file has 14.6 million rows, of images that few people all have
            of_image.append(_box(row, names))
    return [_entry(id_, rows_of, images.get(id_, []), split_of(file)) for id_, rows_of in boxes.items()]


def _entry(id_: str, boxes: list[Box | str], images: list[Path], split: str) -> BoxedEntry:
    if not images:
        return BoxedEntry(name=f"{id_}.jpg", load=bytes, fault=f"missing file: {id_}.jpg")
    load = partial(read_file, images[0])
    return BoxedEntry(name=images[0].name, load=load, boxes=boxes, unit="shares", split=split)


def _box(row: dict[str, str], names: dict[str, str]) -> Box | str:
    try:
        label = names.get(row["LabelName"]) if names else row["LabelName"]
        if label is None:
            return f"unknown class: {row['LabelName']}"
        x0, y0, x1, y1 = (float(row[column]) for column in ("XMin", "YMin", "XMax", "YMax"))
    except (LookupError, ValueError) as error:
        return f"bad row: {type(error).__name__} {error}"
    return Box(label, (x0, y0, x1, y1), crowd=row.get("IsGroupOf") == "1")


def _rows(path: Path) -> Iterator[list[str]]:
    """Yields the rows of a CSV file that are not empty. Raises InvalidData."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from (row for row in csv.reader(file) if row)
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidData(f"{path} cannot be read: {error}.") from error

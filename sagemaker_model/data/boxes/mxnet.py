"""Readers of the lists (.lst) and RecordIO files (.rec) of Apache MXNet, which SageMaker's built-in algorithms read.

A list has a line per image, separated by tabs: index, labels, path. The labels of object detection are a header of A
numbers, which begins with A and B, and B numbers per box: class, xmin, ymin, xmax, ymax as shares of the image's sides,
in some lists `difficult`. A list for image classification has the class alone, and no boxes.

RecordIO (dmlc-core, include/dmlc/recordio.h) is a sequence of little-endian parts: the magic number, a word with a flag
in its upper 3 bits and the length in the other 29, data, and padding to 4 bytes. Flag 0 is a whole record; 1, 2 and 3
are the first, a middle and the last part of a record that contained the magic number, which is left out between them.
A record of an image (mxnet/src/io/image_recordio.h) begins with uint32 flag, float32 label, uint64 id and uint64 id2;
then `flag` float32 labels, if flag is not 0; then the image file.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from sagemaker_model.data.boxes.base import Box, BoxedEntry, Listing, read_inside, split_of
from sagemaker_model.data.records import BadRecord, InvalidData

MAGIC = 0xCED7230A
PART = struct.Struct("<II")
HEADER = struct.Struct("<IfQQ")

SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png"}
"""File name suffixes by the first bytes of an image; images in RecordIO have no names."""

PADDING = -1
"""Class of rows that fill the labels of a batch to the same length."""


def lst_listing(source: Path, names: Sequence[str] = ()) -> Listing:
    """Lists the images of a .lst file, or of all .lst files of a folder. names: of the classes, by number; the numbers
    themselves if empty. Paths are relative to the file's folder or to images/ in it. Raises InvalidData."""
    entries = []
    for file in _files(source, "lst"):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise InvalidData(f"{file} cannot be read: {error}.") from error
        entries += [_line_entry(file, number, line, names) for number, line in enumerate(lines, 1) if line.strip()]
    return Listing(entries, tuple(names))


def rec_listing(source: Path, names: Sequence[str] = ()) -> Listing:
    """Lists the images of a .rec file, or of all .rec files of a folder. names: see `lst_listing`. Raises InvalidData,
    also for a damaged file."""
    return Listing([entry for file in _files(source, "rec") for entry in _record_entries(file, names)], tuple(names))


def _files(source: Path, suffix: str) -> list[Path]:
    files = [source] if source.is_file() else sorted(source.glob(f"*.{suffix}"))
    if not files:
        raise InvalidData(f"{source} has no *.{suffix} files.")
    return files


def _line_entry(file: Path, number: int, line: str, names: Sequence[str]) -> BoxedEntry:
    _, *columns, path = line.split("\t") if line.count("\t") > 1 else ("", "", line)
    path = path.strip()
    try:
        boxes = _boxes([float(column) for column in columns], names)
    except (BadRecord, ValueError) as error:
        reason = error.message if isinstance(error, BadRecord) else f"bad row: line {number} of {file.name} ({error})"
        return BoxedEntry(name=path, load=bytes, fault=reason)
    load = partial(read_inside, file.parent, file.parent / path, file.parent / "images" / path)
    return BoxedEntry(name=path, load=load, boxes=boxes, unit="shares", split=split_of(file))


def _boxes(labels: Sequence[float], names: Sequence[str]) -> list[Box | str]:
    """Parses the labels of one image. Raises BadRecord for labels without boxes."""
    header, width = (int(labels[0]), int(labels[1])) if len(labels) > 1 else (0, 0)
    if header < 2 or width < 5 or header > len(labels) or (len(labels) - header) % width:
        raise BadRecord(f"no boxes: {len(labels)} labels without the header of object detection")
    rows = np.array(labels[header:], np.float64).reshape(-1, width)
    return [_box(row, names) for row in rows.tolist() if row[0] != PADDING]


def _box(row: Sequence[float], names: Sequence[str]) -> Box | str:
    label, x0, y0, x1, y1, *rest = row
    if not label.is_integer() or label < 0 or (names and label >= len(names)):
        return f"unknown class: {label:g}"
    name = names[int(label)] if names else str(int(label))
    return Box(name, (x0, y0, x1, y1), crowd=bool(rest and rest[0]))


def _record_entries(file: Path, names: Sequence[str]) -> Iterator[BoxedEntry]:
    for number, (offset, record) in enumerate(read_records(file)):
        try:
            labels, image = _parse_record(record)
            suffix = next((suffix for start, suffix in SUFFIXES.items() if image.startswith(start)), ".img")
            yield BoxedEntry(
                name=f"{file.stem}-{number:07}{suffix}",
                load=partial(_load, file, offset),
                boxes=_boxes(labels, names),
                unit="shares",
                split=split_of(file),
            )
        except BadRecord as error:
            yield BoxedEntry(name=f"{file.stem}-{number:07}", load=bytes, fault=error.message)


def _parse_record(record: bytes) -> tuple[list[float], bytes]:
    """Returns the labels and the image file of a record. Raises BadRecord."""
    if len(record) < HEADER.size:
        raise BadRecord(f"bad record: {len(record)} bytes")
    count, label, _, _ = HEADER.unpack_from(record)
    end = HEADER.size + 4 * count
    if end > len(record):
        raise BadRecord(f"bad record: {count} labels in {len(record)} bytes")
    labels = np.frombuffer(record, "<f4", count, HEADER.size).astype(np.float64).tolist() if count else [label]
    return labels, record[end:]


def _load(file: Path, offset: int) -> bytes:
    """Reads the image at an offset. Raises BadRecord."""
    _, record = next(read_records(file, offset))
    return _parse_record(record)[1]


def read_records(file: Path, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yields the offset and the data of each record from an offset on, in bytes. Raises InvalidData."""
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start, parts = offset, list[bytes]()
            while offset < len(data):
                magic, word = PART.unpack_from(data, offset)
                flag, length = word >> 29, word & (1 << 29) - 1
                begin = offset + PART.size
                if magic != MAGIC or flag > 3 or begin + length > len(data) or (flag in (0, 1)) == bool(parts):
                    raise InvalidData(f"{file} is not RecordIO, or it is damaged at byte {offset:,}.")
                parts.append(data[begin : begin + length])
                offset = begin + length + -length % 4
                if flag in (0, 3):
                    yield start, struct.pack("<I", MAGIC).join(parts)
                    start, parts = offset, []
            if parts:
                raise InvalidData(f"{file} ends within a record.")
    except (OSError, ValueError, struct.error) as error:
        raise InvalidData(f"{file} cannot be read: {error}.") from error

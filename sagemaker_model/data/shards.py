"""Shards: records in tar files as WebDataset reads them (github.com/webdataset/webdataset), made of JPEG, PNG and JSON.

Next to the tar files lies manifest.json (`prepare.py`). A tar file is made of its records alone: no date, no owner, the
members in the order of the records. So the same records give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sagemaker_model.data.records import BadRecord, InvalidData, Record
from sagemaker_model.imaging.pixels import Pixels

MANIFEST = "manifest.json"

JPEG_QUALITY = 95
"""With colours at full resolution (4:4:4): at half of it a subject's edge takes on the colours beyond."""

_JPEG = (
    *(cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)

KEY_MAX = 80
"""Characters of an id in a member's name, of which tar holds 100."""

Sample = dict[str, bytes]
"""The members of one record by their full name."""

_PLAIN = re.compile(r"[^A-Za-z0-9_-]+")


def plain(name: str) -> str:
    """`name` as a part of a file's name: letters, digits, - and _ alone. A dot would end WebDataset's key."""
    return _PLAIN.sub("-", name)


def sample(record: Record) -> Sample:
    """KEY.jpg, KEY.png (the mask) and KEY.json (all else)."""
    key = plain(record.id)[:KEY_MAX]
    if key != record.id:  # two ids may not become one key
        key += "-" + hashlib.sha256(record.id.encode()).hexdigest()[:8]
    said = {field.name: getattr(record, field.name) for field in fields(record) if field.name not in ("image", "mask")}
    _, jpg = cv2.imencode(".jpg", cv2.cvtColor(record.image, cv2.COLOR_RGB2BGR), _JPEG)
    _, mask = cv2.imencode(".png", record.mask)
    return {
        f"{key}.jpg": jpg.tobytes(),
        f"{key}.png": mask.tobytes(),
        f"{key}.json": json.dumps(said, sort_keys=True).encode(),
    }


def write(file: io.BufferedIOBase, samples: Iterable[Sample]) -> None:
    """A tar file of these. Raises OSError."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for members in samples:
            for name, data in members.items():
                member = tarfile.TarInfo(name)  # its date is 0, its owner root
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def prepared(folder: Path, split: str) -> list[Path]:
    """The shards of a split, in the order of the manifest, all of them there and of the right size.
    Raises InvalidData."""
    manifest = read_manifest(folder)
    if manifest is None or not manifest["complete"]:
        raise InvalidData(f"{folder} is not prepared, or not to the end: run `maskdrop data prepare` (again).")
    rows = [row for row in manifest["shards"] if row["split"] == split]
    if not rows:
        raise InvalidData(f"{folder} has no shards of the split {split!r}.")
    for row in rows:
        path = folder / row["file"]
        size = path.stat().st_size if path.exists() else 0
        if size != row["bytes"]:
            raise InvalidData(f"{path} has {size:,} bytes, and the manifest says {row['bytes']:,}.")
    return [folder / row["file"] for row in rows]


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """None where there is none. Raises InvalidData."""
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        if {"recipe", "source", "complete", "shards", "skipped"} <= manifest.keys():
            return manifest
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise InvalidData(f"{path} cannot be read: {error}.") from error
    raise InvalidData(f"{path} is no manifest of shards.")


def records(shards: Iterable[Path], skip: int = 0) -> Iterator[Record]:
    """The records of these tar files, one after the other, as a stream: one record is in memory at a time.

    skip: so many are passed over first, without being decoded. Raises InvalidData, naming the shard and the member.
    """
    for shard in shards:
        for members in _samples(shard):
            if skip > 0:
                skip -= 1
            else:
                yield decoded(shard, members)


def _samples(shard: Path) -> Iterator[Sample]:
    """Members that follow one another and have one key. Raises InvalidData."""
    members: Sample = {}
    last = "its beginning"
    try:
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                data = tar.extractfile(member)
                if members and _key(member.name) != _key(last):
                    yield members
                    members = {}
                members[member.name], last = data.read() if data else b"", member.name
            # At a damaged header, tarfile ends as it does at the end, which is a block of zeros.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("no end of the archive")
    except (OSError, tarfile.TarError) as error:
        raise InvalidData(f"{shard} is damaged or cut short after {last}: {error}.") from error
    if members:
        yield members


def _key(name: str) -> str:
    return name.partition(".")[0]


def decoded(shard: Path, members: Sample) -> Record:
    """The record of these members of a shard. Raises InvalidData."""
    key = _key(next(iter(members)))
    try:
        said = json.loads(members[f"{key}.json"])
        known = {field.name for field in fields(Record)}
        image = _decoded(members, f"{key}.jpg", cv2.IMREAD_COLOR_RGB)
        mask = _decoded(members, f"{key}.png", cv2.IMREAD_GRAYSCALE)
        if image.shape[:2] != mask.shape:
            raise BadRecord(f"{key}.png has another size than its image")
        return Record(image=image, mask=mask, **{name: value for name, value in said.items() if name in known})
    except KeyError as error:
        raise InvalidData(f"{shard} has no member {error} beside {', '.join(members)}.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidData(f"{shard}: {key}.json cannot be read: {error}.") from error
    except BadRecord as error:
        raise InvalidData(f"{shard}: {error}.") from error


def _decoded(members: Sample, name: str, flags: int) -> Pixels:
    """Raises KeyError, BadRecord."""
    data = members[name]
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:  # a header that says more pixels than OpenCV takes
        pixels = None
    if pixels is None:
        raise BadRecord(f"{name} cannot be decoded")
    return pixels.astype(np.uint8, copy=False)

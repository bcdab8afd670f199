"""Shards: tar files of records in WebDataset's layout (github.com/webdataset/webdataset), with JPEG, PNG and JSON.

The tar files lie beside manifest.json (`prepare.py`). Tar headers hold no date and no owner, and members are in the
order of the records, so the same records give the same bytes.
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
from typing import IO, Any

import cv2
import numpy as np

from sagemaker_model.data.records import BadRecord, InvalidData, Record
from sagemaker_model.imaging.pixels import Pixels

MANIFEST = "manifest.json"

JPEG_QUALITY = 95
"""JPEGs have full colour resolution (4:4:4): at half resolution, background colours bleed into the subject's edge."""

_JPEG_PARAMETERS = (
    *(cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)

KEY_LENGTH_MAX = 80
"""Maximum characters of an id in a member name; tar allows 100 for the name."""

Sample = dict[str, bytes]
"""The members of one record by full name."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


def safe_name(name: str) -> str:
    """Replaces all characters but letters, digits, - and _ by -. A dot would end WebDataset's key."""
    return _UNSAFE.sub("-", name)


def encode_sample(record: Record) -> Sample:
    """Returns the members of a record: KEY.jpg, KEY.png (the mask) and KEY.json (the other fields)."""
    key = safe_name(record.id)[:KEY_LENGTH_MAX]
    if key != record.id:  # keeps two ids from mapping to one key
        key += "-" + hashlib.sha256(record.id.encode()).hexdigest()[:8]
    values = {item.name: getattr(record, item.name) for item in fields(record) if item.name not in ("image", "mask")}
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(record.image, cv2.COLOR_RGB2BGR), _JPEG_PARAMETERS)
    _, mask = cv2.imencode(".png", record.mask)
    return {
        f"{key}.jpg": jpeg.tobytes(),
        f"{key}.png": mask.tobytes(),
        f"{key}.json": json.dumps(values, sort_keys=True).encode(),
    }


def write(file: IO[bytes], samples: Iterable[Sample]) -> None:
    """Writes samples as a tar file. Raises OSError."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for members in samples:
            for name, data in members.items():
                member = tarfile.TarInfo(name)  # by default the date is 0 and the owner root
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def shard_paths(folder: Path, split: str) -> list[Path]:
    """Returns the shards of a split in the manifest's order, each checked for its size. Raises InvalidData."""
    manifest = read_manifest(folder)
    if manifest is None or not manifest["complete"]:
        raise InvalidData(f"{folder} is not completely prepared: run `maskdrop data prepare` (again).")
    rows = [row for row in manifest["shards"] if row["split"] == split]
    if not rows:
        available = ", ".join(sorted({row["split"] for row in manifest["shards"]}))
        raise InvalidData(f"{folder} has no shards of the split {split!r}; it has: {available or 'none'}.")
    for row in rows:
        path = folder / row["file"]
        size = path.stat().st_size if path.exists() else 0
        if size != row["bytes"]:
            raise InvalidData(f"{path} has {size:,} bytes; the manifest states {row['bytes']:,}.")
    return [folder / row["file"] for row in rows]


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Reads the manifest of a folder of shards; None if the folder has none. Raises InvalidData."""
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        if {"recipe", "source", "complete", "shards", "skipped"} <= manifest.keys():
            return manifest
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise InvalidData(f"{path} cannot be read: {error}.") from error
    raise InvalidData(f"{path} is not a manifest of shards.")


def records(shards: Iterable[Path], skip: int = 0) -> Iterator[Record]:
    """Streams the records of shards in order, with one record in memory at a time.

    skip: number of records to pass over first, without decoding them.
    Raises InvalidData with the names of the shard and the member.
    """
    for shard in shards:
        for members in read_samples(shard):
            if skip > 0:
                skip -= 1
            else:
                yield decode_sample(shard, members)


def read_samples(shard: Path) -> Iterator[Sample]:
    """Yields groups of consecutive members with the same key. Raises InvalidData."""
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
            # tarfile stops silently at a damaged header. A complete archive ends with a block of zeros.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("no end of the archive")
    except (OSError, tarfile.TarError) as error:
        raise InvalidData(f"{shard} is damaged or truncated after {last}: {error}.") from error
    if members:
        yield members


def _key(name: str) -> str:
    return name.partition(".")[0]


def decode_sample(shard: Path, members: Sample) -> Record:
    """Decodes a record from its members. shard: path for error messages. Raises InvalidData."""
    key = _key(next(iter(members)))
    try:
        values = json.loads(members[f"{key}.json"])
        known = {field.name for field in fields(Record)}
        image = _decode_image(members, f"{key}.jpg", cv2.IMREAD_COLOR_RGB)
        mask = _decode_image(members, f"{key}.png", cv2.IMREAD_GRAYSCALE)
        if image.shape[:2] != mask.shape:
            raise BadRecord(f"{key}.png has another size than its image")
        return Record(image=image, mask=mask, **{name: value for name, value in values.items() if name in known})
    except KeyError as error:
        raise InvalidData(f"{shard} has no member {error} beside {', '.join(members)}.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidData(f"{shard}: {key}.json cannot be read: {error}.") from error
    except BadRecord as error:
        raise InvalidData(f"{shard}: {error}.") from error


def _decode_image(members: Sample, name: str, flags: int) -> Pixels:
    """Raises KeyError for a missing member, BadRecord for a damaged one."""
    data = members[name]
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:  # the header states more pixels than OpenCV accepts
        pixels = None
    if pixels is None:
        raise BadRecord(f"{name} cannot be decoded")
    return pixels.astype(np.uint8, copy=False)

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sagemaker_model.data import shards
from sagemaker_model.data.records import InvalidData, Record
from tests.unit.sagemaker_model.data.datasets import disc


def record(id_: str) -> Record:
    mask = disc(size=(90, 80), centre=(40, 40), radius=20)
    image = np.repeat(mask[..., None] // 2 + 60, 3, axis=2)
    return Record(id=id_, image=image, mask=mask, width=900, height=800, part="street", split="val", licence="CC0")


def write_shard(path: Path, ids: list[str]) -> Path:
    with path.open("wb") as file:
        shards.write(file, (shards.encode_sample(record(id_)) for id_ in ids))
    return path


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write_shard(tmp_path / "street-val-000000.tar", ["a", "b", "c"])


def test_records_are_read_as_they_were_stored(shard: Path) -> None:
    for id_, result in zip("abc", shards.records([shard]), strict=True):
        stored = record(id_)
        assert np.array_equal(result.mask, stored.mask)
        assert np.abs(result.image.astype(int) - stored.image).mean() < 1
        names = [name for name in Record.__slots__ if name not in ("image", "mask")]
        assert [getattr(result, name) for name in names] == [getattr(stored, name) for name in names]


def test_members_of_a_record_share_the_key_that_webdataset_groups_by(shard: Path) -> None:
    with tarfile.open(shard) as tar:
        assert tar.getnames() == [f"{key}.{ending}" for key in "abc" for ending in ("jpg", "png", "json")]


def test_ids_that_are_invalid_file_names_are_preserved_and_distinct(tmp_path: Path) -> None:
    ids = ["a.b", "a b", "a/b", "../ü", "", "x" * 300]
    found = list(shards.records([write_shard(tmp_path / "s.tar", ids)]))
    assert [one.id for one in found] == ids


def test_skip_counts_records_across_shards(shard: Path, tmp_path: Path) -> None:
    other = write_shard(tmp_path / "other.tar", ["d", "e"])
    assert [one.id for one in shards.records([shard, other], skip=4)] == ["e"]


def cut_within_a_member(data: bytes) -> bytes:
    return data[: len(data) // 2]


def cut_between_members(data: bytes) -> bytes:
    return data[: data.index(b"c.jpg")]


def damage_a_header(data: bytes) -> bytes:
    at = data.index(b"c.jpg")
    return data[: at + 100] + b"zz" + data[at + 102 :]


@pytest.mark.parametrize("damage", [cut_within_a_member, cut_between_members, damage_a_header])
def test_a_truncated_or_damaged_shard_is_reported_with_its_last_valid_member(
    shard: Path, damage: Callable[[bytes], bytes]
) -> None:
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(InvalidData, match=r"street-val-000000\.tar is damaged or truncated after \w\.\w+"):
        list(shards.records([shard]))


@pytest.mark.parametrize(
    ("member", "data"),
    [
        ("b.jpg", b"no image"),
        ("b.png", b""),
        ("b.png", shards.encode_sample(record("z"))["z.png"][:200]),
        ("b.json", b"{"),
        ("b.json", b'{"id": "b"}'),
        ("b.json", b"[]"),
        ("b.json", None),
        ("b.png", None),
    ],
)
def test_a_damaged_or_missing_member_is_reported_with_its_shard(
    tmp_path: Path, member: str, data: bytes | None
) -> None:
    members = shards.encode_sample(record("a")) | shards.encode_sample(record("b")) | {member: data}
    path = tmp_path / "s.tar"
    with path.open("wb") as file:
        shards.write(file, [{name: bytes_ for name, bytes_ in members.items() if bytes_ is not None}])
    stream = shards.records([path])
    assert next(stream).id == "a"
    with pytest.raises(InvalidData, match=rf"s\.tar.*{member}"):
        next(stream)


def test_a_mask_of_another_size_than_its_image_is_rejected(tmp_path: Path) -> None:
    small = shards.encode_sample(
        Record(id="a", image=record("a").image[:9], mask=disc(size=(90, 9)), width=9, height=9)
    )
    with (tmp_path / "s.tar").open("wb") as file:
        shards.write(file, [shards.encode_sample(record("a")) | {"a.png": small["a.png"]}])
    with pytest.raises(InvalidData, match=r"a\.png has another size"):
        list(shards.records([tmp_path / "s.tar"]))


def test_files_that_are_not_tar_files_are_rejected_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.tar", tmp_path / "empty.tar", tmp_path / "page.tar"):
        if "missing" not in path.name:
            path.write_bytes(b"<html>" * 500 if "page" in path.name else b"")
        with pytest.raises(InvalidData, match=path.name):
            list(shards.records([path]))


def test_shard_paths_rejects_missing_splits_truncated_shards_and_incomplete_runs(shard: Path) -> None:
    row = {"file": shard.name, "split": "val", "bytes": shard.stat().st_size}
    manifest = {"recipe": {}, "source": {}, "complete": True, "shards": [row], "skipped": {}}
    (shard.parent / "manifest.json").write_text(json.dumps(manifest))
    assert shards.shard_paths(shard.parent, "val") == [shard]
    with pytest.raises(InvalidData, match="'test'"):
        shards.shard_paths(shard.parent, "test")
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(InvalidData, match=shard.name):
        shards.shard_paths(shard.parent, "val")
    (shard.parent / "manifest.json").write_text(json.dumps(manifest | {"complete": False}))
    with pytest.raises(InvalidData, match="not completely prepared"):
        shards.shard_paths(shard.parent, "val")


@pytest.mark.parametrize("text", ["", "[]", "{}", "3"])
def test_an_invalid_manifest_is_rejected(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InvalidData, match=r"manifest\.json"):
        shards.read_manifest(tmp_path)


def test_the_same_records_give_the_same_bytes() -> None:
    def write() -> bytes:
        file = io.BytesIO()
        shards.write(file, [shards.encode_sample(record("a"))])
        return file.getvalue()

    assert write() == write()

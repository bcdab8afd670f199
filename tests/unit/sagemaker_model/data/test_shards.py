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


def a_shard(path: Path, ids: list[str]) -> Path:
    with path.open("wb") as file:
        shards.write(file, (shards.sample(record(id_)) for id_ in ids))
    return path


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return a_shard(tmp_path / "street-val-000000.tar", ["a", "b", "c"])


def test_records_come_back_as_they_were_stored(shard: Path) -> None:
    for id_, found in zip("abc", shards.records([shard]), strict=True):
        stored = record(id_)
        assert np.array_equal(found.mask, stored.mask)
        assert np.abs(found.image.astype(int) - stored.image).mean() < 1
        told = [name for name in Record.__slots__ if name not in ("image", "mask")]
        assert [getattr(found, name) for name in told] == [getattr(stored, name) for name in told]


def test_names_are_those_that_webdataset_reads_as_one_sample(shard: Path) -> None:
    with tarfile.open(shard) as tar:
        assert tar.getnames() == [f"{key}.{ending}" for key in "abc" for ending in ("jpg", "png", "json")]


def test_ids_that_no_file_can_have_stay_themselves_and_apart(tmp_path: Path) -> None:
    ids = ["a.b", "a b", "a/b", "../ü", "", "x" * 300]
    found = list(shards.records([a_shard(tmp_path / "s.tar", ids)]))
    assert [one.id for one in found] == ids


def test_skipped_records_are_counted_over_all_shards(shard: Path, tmp_path: Path) -> None:
    other = a_shard(tmp_path / "other.tar", ["d", "e"])
    assert [one.id for one in shards.records([shard, other], skip=4)] == ["e"]


def cut_within_a_member(data: bytes) -> bytes:
    return data[: len(data) // 2]


def cut_between_members(data: bytes) -> bytes:
    return data[: data.index(b"c.jpg")]


def damage_a_header(data: bytes) -> bytes:
    at = data.index(b"c.jpg")
    return data[: at + 100] + b"zz" + data[at + 102 :]


@pytest.mark.parametrize("damage", [cut_within_a_member, cut_between_members, damage_a_header])
def test_a_shard_cut_short_or_damaged_is_named_with_the_last_member(
    shard: Path, damage: Callable[[bytes], bytes]
) -> None:
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(InvalidData, match=r"street-val-000000\.tar is damaged or cut short after \w\.\w+"):
        list(shards.records([shard]))


@pytest.mark.parametrize(
    ("member", "data"),
    [
        ("b.jpg", b"no image"),
        ("b.png", b""),
        ("b.png", shards.sample(record("z"))["z.png"][:200]),
        ("b.json", b"{"),
        ("b.json", b'{"id": "b"}'),
        ("b.json", b"[]"),
        ("b.json", None),
        ("b.png", None),
    ],
)
def test_a_damaged_or_missing_member_is_named_with_its_shard(tmp_path: Path, member: str, data: bytes | None) -> None:
    members = shards.sample(record("a")) | shards.sample(record("b")) | {member: data}
    path = tmp_path / "s.tar"
    with path.open("wb") as file:
        shards.write(file, [{name: bytes_ for name, bytes_ in members.items() if bytes_ is not None}])
    stream = shards.records([path])
    assert next(stream).id == "a"
    with pytest.raises(InvalidData, match=rf"s\.tar.*{member}"):
        next(stream)


def test_a_mask_of_another_size_is_no_record(tmp_path: Path) -> None:
    small = shards.sample(Record(id="a", image=record("a").image[:9], mask=disc(size=(90, 9)), width=9, height=9))
    with (tmp_path / "s.tar").open("wb") as file:
        shards.write(file, [shards.sample(record("a")) | {"a.png": small["a.png"]}])
    with pytest.raises(InvalidData, match=r"a\.png has another size"):
        list(shards.records([tmp_path / "s.tar"]))


def test_what_is_no_tar_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.tar", tmp_path / "empty.tar", tmp_path / "page.tar"):
        if "missing" not in path.name:
            path.write_bytes(b"<html>" * 500 if "page" in path.name else b"")
        with pytest.raises(InvalidData, match=path.name):
            list(shards.records([path]))


def test_the_shards_of_a_split_are_there_whole_or_not_at_all(shard: Path) -> None:
    row = {"file": shard.name, "split": "val", "bytes": shard.stat().st_size}
    manifest = {"recipe": {}, "source": {}, "complete": True, "shards": [row], "skipped": {}}
    (shard.parent / "manifest.json").write_text(json.dumps(manifest))
    assert shards.prepared(shard.parent, "val") == [shard]
    with pytest.raises(InvalidData, match="'test'"):
        shards.prepared(shard.parent, "test")
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(InvalidData, match=shard.name):
        shards.prepared(shard.parent, "val")
    (shard.parent / "manifest.json").write_text(json.dumps(manifest | {"complete": False}))
    with pytest.raises(InvalidData, match="not to the end"):
        shards.prepared(shard.parent, "val")


@pytest.mark.parametrize("text", ["", "[]", "{}", "3"])
def test_a_manifest_that_is_none_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InvalidData, match=r"manifest\.json"):
        shards.read_manifest(tmp_path)


def test_the_same_records_are_the_same_bytes() -> None:
    def once() -> bytes:
        file = io.BytesIO()
        shards.write(file, [shards.sample(record("a"))])
        return file.getvalue()

    assert once() == once()

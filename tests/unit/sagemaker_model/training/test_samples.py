from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from sagemaker_model.data.folders import entries  # noqa: E402 - they need torch
from sagemaker_model.data.prepare import prepare  # noqa: E402
from sagemaker_model.data.recipe import Recipe  # noqa: E402
from sagemaker_model.data.records import BadRecord, InvalidData  # noqa: E402
from sagemaker_model.training import samples  # noqa: E402
from sagemaker_model.training.samples import Batch, Samples, Whole, source, training_loader  # noqa: E402
from tests.unit.sagemaker_model.training.conftest import TINY, blob, list_, write  # noqa: E402


def seen(folder: Path, first: int = 0, *, workers: int = 0, rank: int = 0, processes: int = 1) -> list[Batch]:
    settings = replace(TINY, steps=4, workers=workers)
    made = Samples(source(folder, "train"), settings, folder / "backgrounds")
    return list(training_loader(made, first, rank, processes))


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.picture, other.picture) and torch.equal(one.alpha, other.alpha)


def test_a_batch_is_bytes_of_pictures_and_alphas(data: Path) -> None:
    batch = seen(data)[0]
    assert (batch.picture.shape, batch.alpha.shape) == ((4, 3, 32, 32), (4, 1, 32, 32))
    assert batch.picture.dtype == batch.alpha.dtype == torch.uint8


def test_workers_and_a_later_beginning_change_no_sample(data: Path) -> None:
    whole = seen(data)
    assert all(map(same, seen(data, workers=2), whole))
    assert all(map(same, seen(data, first=2), whole[2:]))
    assert not same(whole[0], whole[1])


def test_processes_share_the_very_batches_of_one(data: Path) -> None:
    whole, parts = seen(data), [seen(data, rank=rank, processes=2) for rank in range(2)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert torch.equal(batch.picture, torch.cat([share.picture for share in shares]))


def test_an_epoch_has_every_record_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Samples(source(data, "train"), replace(TINY, composed=0), None)
    asked: list[int] = []
    record = made.source.record
    monkeypatch.setattr(made.source, "record", lambda number: asked.append(number) or record(number))
    for number in range(48):
        made[number]
    assert sorted(asked[:24]) == sorted(asked[24:]) == list(range(24))
    assert asked[:24] != asked[24:]


def test_shards_have_the_records_of_the_folder_they_were_made_of(data: Path, tmp_path: Path) -> None:
    prepare(entries(data), Recipe.of("folders", side=640, min_side=16, shard_bytes=30_000), tmp_path / "shards")
    for split, count in (("train", 24), ("val", 8)):
        of_shards, of_folder = source(tmp_path / "shards", split), source(data, split)
        assert len(of_shards) == len(of_folder) == count
        found = {record.id: record for record in map(of_shards.record, range(count))}
        for record in map(of_folder.record, range(count)):
            assert np.array_equal(found[record.id].mask, record.mask)
            assert np.abs(found[record.id].image.astype(int) - record.image).mean() < 5  # a JPEG of noise
    assert len(source(tmp_path / "shards", "train", clean=True)) == 24


def test_records_of_an_unclear_licence_can_be_left_out(data: Path) -> None:
    list_(data, dict.fromkeys((f"blob{number}" for number in range(32)), "train"), "unclear")
    assert len(source(data, "train")) == 32
    with pytest.raises(InvalidData, match="no clean records"):
        source(data, "train", clean=True)


def test_a_split_without_records_is_an_error(data: Path) -> None:
    with pytest.raises(InvalidData, match="'test'"):
        source(data, "test")


def test_a_folder_without_splits_is_one_split(data: Path) -> None:
    (data / "manifest.csv").unlink()
    assert len(source(data, "val")) == 32


def test_a_record_that_cannot_be_used_is_counted_and_another_takes_its_place(data: Path) -> None:
    write(data, "blob3", blob(3)[0], blob(3, 26, 26)[1])
    batches = seen(data)
    made = Samples(source(data, "train"), TINY, None)
    skipped = {name: reason for number in range(24) for name, reason in made[number].skipped.items()}
    assert list(skipped) == ["blob3"]
    assert "another size" in skipped["blob3"]
    assert {len(batch.picture) for batch in batches} == {4}
    whole = Whole(source(data, "train"), 32)
    assert sum(len(whole[number].picture) for number in range(24)) == 23


def test_data_of_which_nothing_can_be_used_is_an_error(data: Path) -> None:
    for number in range(24):
        write(data, f"blob{number}", blob(number)[0], blob(number, 26, 26)[1])
    with pytest.raises(InvalidData, match="100 records in a row"):
        Samples(source(data, "train"), TINY, None)[0]


def test_a_background_that_cannot_be_read_is_counted(data: Path) -> None:
    for path in (data / "backgrounds").iterdir():
        path.write_bytes(b"no image")
    made = Samples(source(data, "train"), replace(TINY, composed=0.5), data / "backgrounds")
    assert {name for number in range(24) for name in made[number].skipped} == {"0.png", "1.png"}


def test_a_damaged_shard_is_named(data: Path, tmp_path: Path) -> None:
    prepare(entries(data), Recipe.of("folders", min_side=16), tmp_path / "shards")
    shard = next((tmp_path / "shards").glob("*train*.tar"))
    found = source(tmp_path / "shards", "train")
    content = bytearray(shard.read_bytes())
    content[1024:4096] = bytes(3072)
    shard.write_bytes(content)
    with pytest.raises(InvalidData, match=shard.name) as raised:
        found.record(0)
    assert not isinstance(raised.value, BadRecord)


def test_the_digest_is_of_names_sizes_and_the_manifest(data: Path) -> None:
    before = samples.digest(data)
    assert samples.digest(data) == before
    list_(data, {"blob0": "val"})
    assert samples.digest(data) != before

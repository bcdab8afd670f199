from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from sagemaker_model.data.folders import entries  # noqa: E402 - needs torch
from sagemaker_model.data.prepare import prepare  # noqa: E402
from sagemaker_model.data.recipe import Recipe  # noqa: E402
from sagemaker_model.data.records import BadRecord, InvalidData  # noqa: E402
from sagemaker_model.training import samples  # noqa: E402
from sagemaker_model.training.samples import Batch, TrainingSamples, ValidationSamples, source, training_loader  # noqa: E402
from tests.unit.sagemaker_model.training.conftest import TINY, blob, write, write_manifest  # noqa: E402


def batches(folder: Path, first: int = 0, *, workers: int = 0, rank: int = 0, processes: int = 1) -> list[Batch]:
    settings = replace(TINY, steps=4, workers=workers)
    samples_ = TrainingSamples(source(folder, "train"), settings, folder / "backgrounds")
    return list(training_loader(samples_, first, rank, processes))


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.image, other.image) and torch.equal(one.target, other.target)


def test_a_batch_has_uint8_images_and_alphas(data: Path) -> None:
    batch = batches(data)[0]
    assert (batch.image.shape, batch.target.shape) == ((4, 3, 32, 32), (4, 1, 32, 32))
    assert batch.image.dtype == batch.target.dtype == torch.uint8


def test_samples_are_independent_of_workers_and_of_the_first_step(data: Path) -> None:
    whole = batches(data)
    assert all(map(same, batches(data, workers=2), whole))
    assert all(map(same, batches(data, first=2), whole[2:]))
    assert not same(whole[0], whole[1])


def test_processes_share_the_batches_of_a_single_process(data: Path) -> None:
    whole, parts = batches(data), [batches(data, rank=rank, processes=2) for rank in range(2)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert torch.equal(batch.image, torch.cat([share.image for share in shares]))


def test_an_epoch_has_every_record_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples_ = TrainingSamples(source(data, "train"), replace(TINY, composed=0), None)
    numbers: list[int] = []
    record = samples_.source.record
    monkeypatch.setattr(samples_.source, "record", lambda number: numbers.append(number) or record(number))
    for number in range(48):
        samples_[number]
    assert sorted(numbers[:24]) == sorted(numbers[24:]) == list(range(24))
    assert numbers[:24] != numbers[24:]


def test_shards_have_the_records_of_their_data_folder(data: Path, tmp_path: Path) -> None:
    prepare(entries(data), Recipe.of("folders", side=640, min_side=16, shard_bytes=30_000), tmp_path / "shards")
    for split, count in (("train", 24), ("val", 8)):
        of_shards, of_folder = source(tmp_path / "shards", split), source(data, split)
        assert len(of_shards) == len(of_folder) == count
        found = {record.id: record for record in map(of_shards.record, range(count))}
        for record in map(of_folder.record, range(count)):
            assert np.array_equal(found[record.id].mask, record.mask)
            assert np.abs(found[record.id].image.astype(int) - record.image).mean() < 5  # a JPEG of noise
    assert len(source(tmp_path / "shards", "train", clean=True)) == 24


def test_records_of_an_unclear_licence_can_be_excluded(data: Path) -> None:
    write_manifest(data, dict.fromkeys((f"blob{number}" for number in range(32)), "train"), "unclear")
    assert len(source(data, "train")) == 32
    with pytest.raises(InvalidData, match="no clean records"):
        source(data, "train", clean=True)


def test_a_split_without_records_is_an_error(data: Path) -> None:
    with pytest.raises(InvalidData, match="'test'"):
        source(data, "test")


def test_a_folder_without_splits_provides_all_records_for_any_split(data: Path) -> None:
    (data / "manifest.csv").unlink()
    assert len(source(data, "val")) == 32


def test_an_unusable_record_is_reported_and_replaced_by_another(data: Path) -> None:
    write(data, "blob3", blob(3)[0], blob(3, 26, 26)[1])
    loaded = batches(data)
    samples_ = TrainingSamples(source(data, "train"), TINY, None)
    skipped = {name: reason for number in range(24) for name, reason in samples_[number].skipped.items()}
    assert list(skipped) == ["blob3"]
    assert "another size" in skipped["blob3"]
    assert {len(batch.image) for batch in loaded} == {4}
    validation = ValidationSamples(source(data, "train"), 32)
    assert sum(len(validation[number].image) for number in range(24)) == 23


def test_data_without_a_usable_record_is_an_error(data: Path) -> None:
    for number in range(24):
        write(data, f"blob{number}", blob(number)[0], blob(number, 26, 26)[1])
    with pytest.raises(InvalidData, match="100 records in a row"):
        TrainingSamples(source(data, "train"), TINY, None)[0]


def test_an_unreadable_background_is_reported(data: Path) -> None:
    for path in (data / "backgrounds").iterdir():
        path.write_bytes(b"no image")
    samples_ = TrainingSamples(source(data, "train"), replace(TINY, composed=0.5), data / "backgrounds")
    assert {name for number in range(24) for name in samples_[number].skipped} == {"0.png", "1.png"}


def test_a_damaged_shard_is_reported_by_name(data: Path, tmp_path: Path) -> None:
    prepare(entries(data), Recipe.of("folders", min_side=16), tmp_path / "shards")
    shard = next((tmp_path / "shards").glob("*train*.tar"))
    found = source(tmp_path / "shards", "train")
    content = bytearray(shard.read_bytes())
    content[1024:4096] = bytes(3072)
    shard.write_bytes(content)
    with pytest.raises(InvalidData, match=shard.name) as raised:
        found.record(0)
    assert not isinstance(raised.value, BadRecord)


def test_the_digest_changes_with_the_manifest(data: Path) -> None:
    before = samples.digest(data)
    assert samples.digest(data) == before
    write_manifest(data, {"blob0": "val"})
    assert samples.digest(data) != before

"""The training loop, on a data set that one CPU core trains on in seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from maskdrop.settings import InvalidSettings  # noqa: E402 - needs torch
from sagemaker_model.data.records import InvalidData  # noqa: E402
from sagemaker_model.nets.attention_unet import AttentionUNet  # noqa: E402
from sagemaker_model.nets.portrait import Portrait  # noqa: E402
from sagemaker_model.training.settings import TrainingSettings  # noqa: E402
from sagemaker_model.training.train import (  # noqa: E402
    AVERAGE,
    BEST,
    HISTORY,
    LAST,
    TRAINING,
    Data,
    TrainingDiverged,
    learning_rate,
    train,
)
from sagemaker_model.weights.checkpoints import TruncatedWeights, load_checkpoint, load_into  # noqa: E402
from sagemaker_model.weights.store import named  # noqa: E402
from tests.unit.sagemaker_model.training.conftest import TINY, blob, write  # noqa: E402

ROOT = Path(__file__).parents[4]

Train = Callable[..., dict[str, Any]]


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Train:
    """Returns a function that trains on the small data set, by default the Attention U-Net."""

    def call(out: str = "out", settings: TrainingSettings = TINY, network: str = "attention-unet", **more: Any) -> Any:
        return train(
            network, Data(train=data, val=data, backgrounds=data / "backgrounds"), tmp_path / out, settings, **more
        )

    return call


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / HISTORY).read_text().splitlines()]


def checkpoint(folder: Path) -> dict[str, Any]:
    return torch.load(folder / LAST, weights_only=True)


def command_of(data: Path, out: Path, settings: TrainingSettings, *launcher: str) -> list[str]:
    """Returns the command that trains with these settings in another process."""
    words = [f"--{name}={str(value).lower()}" for name, value in asdict(settings).items()]
    command = [sys.executable, *launcher, "-m", "sagemaker_model.training", "--network=attention-unet"]
    return [*command, f"--data={data}", f"--out={out}", *words]


def same(one: Any, other: Any) -> bool:
    """Returns whether two nested structures of tensors are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_training_improves_the_iou_and_reports_its_history(run: Train, tmp_path: Path) -> None:
    reported: list[dict[str, Any]] = []
    result = run(report=reported.append)
    losses = [line["loss"] for line in reported if "loss" in line]
    ious = [line["iou"] for line in reported if "iou" in line]
    untrained = run("untrained", replace(TINY, steps=1, lr=0, warmup=0))["best_iou"]
    assert losses[-1] < 0.8 * losses[0]
    assert result["best_iou"] == max(ious) > max(0.6, untrained + 0.2)
    assert lines(tmp_path / "out") == reported
    assert [line["step"] for line in reported if "iou" in line] == [20, 40, 60]
    assert all(line["samples_s"] > 0 and line["gradient"] > 0 for line in reported if "loss" in line)


def test_the_learning_rate_warms_up_and_follows_its_schedule() -> None:
    def rates(schedule: str) -> list[float]:
        settings = replace(TINY, steps=44, warmup=4, lr=1.0, schedule=schedule)
        return [learning_rate(settings, step) for step in (0, 3, 4, 14, 24, 43)]

    assert rates("constant") == [0.25, 1, 1, 1, 1, 1]
    assert rates("steps") == pytest.approx([0.25, 1, 1, 0.1, 0.01, 0.001])
    # Half a cosine from 1 to 0.01. After a quarter: 0.01 + 0.99 (1 + sqrt(1/2)) / 2.
    assert rates("cosine")[:5] == pytest.approx([0.25, 1, 1, 0.855018, 0.505], rel=1e-4)
    assert 0.01 < rates("cosine")[5] < 0.02


def test_the_output_folder_has_loadable_weights_and_a_description_of_the_run(run: Train, tmp_path: Path) -> None:
    result = run(settings=replace(TINY, steps=20))
    load_into(AttentionUNet(4), load_checkpoint(tmp_path / "out" / BEST))
    content = json.loads((tmp_path / "out" / TRAINING).read_text())
    assert content == result
    assert content["settings"] == asdict(replace(TINY, steps=20))
    assert (content["network"], content["step"], content["skipped"], len(content["data"])) == (
        "attention-unet",
        20,
        {},
        64,
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {LAST, AVERAGE, BEST, HISTORY, TRAINING}


def test_weights_are_reproducible_by_seed(run: Train, tmp_path: Path) -> None:
    settings = replace(TINY, steps=4)
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        run(name, replace(settings, seed=seed))
    one, two, three = (checkpoint(tmp_path / name)["objective"] for name in ("one", "two", "three"))
    assert same(one, two)
    assert not same(one, three)


def test_a_run_killed_at_any_moment_and_resumed_ends_as_an_uninterrupted_one(
    run: Train, data: Path, tmp_path: Path
) -> None:
    settings = replace(TINY, steps=40, validate_every=10, log_every=1)
    run("uninterrupted", settings)
    out = tmp_path / "killed"
    command = [*command_of(data, out, settings), f"--backgrounds={data}/backgrounds", "--resume"]
    # Two processes are killed some lines after a checkpoint; the third completes.
    for until in (13, 28, None):
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE
        )
        for line in process.stdout or ():
            if until is not None and json.loads(line)["step"] >= until:
                process.send_signal(signal.SIGKILL)
                break
        with process:
            assert process.wait() == (0 if until is None else -signal.SIGKILL)
    for name in ("objective", "average", "optimiser", "progress"):
        assert same(checkpoint(out)[name], checkpoint(tmp_path / "uninterrupted")[name]), name
    assert (out / BEST).read_bytes() == (tmp_path / "uninterrupted" / BEST).read_bytes()
    assert [line["step"] for line in lines(out)] == [line["step"] for line in lines(tmp_path / "uninterrupted")]


@pytest.mark.parametrize("network", ["modnet", "modnet-soc"])
def test_modnet_is_trained_and_resumed_with_equal_weights(run: Train, tmp_path: Path, network: str) -> None:
    from sagemaker_model.nets.modnet import MODNet

    start = tmp_path / "start.pt"
    torch.manual_seed(0)
    torch.save(MODNet().state_dict(), start)
    settings = replace(
        TINY, steps=4, batch=2, lr=1e-4, schedule="steps", optimiser="sgd", ema=0.0, validate_every=2, log_every=1
    )
    run("uninterrupted", settings, network, start=start)

    def stop(line: dict[str, Any]) -> None:
        if line["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("interrupted", settings, network, start=start, report=stop)
    assert checkpoint(tmp_path / "interrupted")["progress"]["step"] == 2
    run("interrupted", settings, network, start=start, resume=True)
    assert same(checkpoint(tmp_path / "interrupted")["objective"], checkpoint(tmp_path / "uninterrupted")["objective"])
    before = torch.load(start, weights_only=True)
    after = load_checkpoint(tmp_path / "interrupted" / BEST)
    norm = "f_branch.conv_f.0.layers.1.bnorm.running_mean"
    assert torch.equal(before[norm], after[norm]) == (network == "modnet-soc")
    assert not torch.equal(before["f_branch.conv_f.1.layers.0.weight"], after["f_branch.conv_f.1.layers.0.weight"])


def test_a_loss_of_nan_ends_the_run_and_overwrites_no_file(
    run: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sagemaker_model.training import losses

    calls, soft_iou_loss, files = [], losses.soft_iou_loss, {}

    def nan_at_27(matte: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        calls.append(len(calls) + 1)
        return soft_iou_loss(matte, alpha) * (float("nan") if calls[-1] == 27 else 1)

    def read_files(line: dict[str, Any]) -> None:
        if line["step"] == 25:
            files.update({name: (tmp_path / "out" / name).read_bytes() for name in (LAST, BEST, TRAINING)})

    monkeypatch.setattr(losses, "soft_iou_loss", nan_at_27)
    with pytest.raises(TrainingDiverged, match="nan at step 27"):
        run(settings=replace(TINY, steps=40, validate_every=20), report=read_files)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files} == files
    assert set(files) == {LAST, BEST, TRAINING}


def test_invalid_gradients_of_a_finite_loss_are_detected(run: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    from sagemaker_model.training import losses

    monkeypatch.setattr(losses, "soft_iou_loss", lambda matte, _: (matte - matte).sum().sqrt())
    with pytest.raises(TrainingDiverged, match="at step 1"):
        run(settings=replace(TINY, steps=5))


def test_unusable_records_are_reported_in_the_result(run: Train, data: Path) -> None:
    for number in (3, 30):
        write(data, f"blob{number}", blob(number)[0], blob(number, 26, 26)[1])
    assert sorted(run(settings=replace(TINY, steps=8, validate_every=8))["skipped"]) == ["blob3", "blob30"]


def test_an_existing_run_is_not_overwritten(run: Train) -> None:
    run(settings=replace(TINY, steps=2))
    with pytest.raises(InvalidSettings, match="--resume"):
        run(settings=replace(TINY, steps=2))


def test_a_run_is_resumed_only_with_the_same_settings_and_data(run: Train, data: Path, tmp_path: Path) -> None:
    settings = replace(TINY, steps=2)
    run(settings=settings)
    with pytest.raises(InvalidSettings, match="different lr, seed"):
        run(settings=replace(settings, lr=1, seed=4, workers=1), resume=True)
    assert run(settings=replace(settings, workers=1), resume=True)["step"] == 2
    torch.save(AttentionUNet(4).state_dict(), tmp_path / "start.pt")
    with pytest.raises(InvalidSettings, match="different start"):
        run(settings=settings, resume=True, start=tmp_path / "start.pt")
    write(data, "blob0", *blob(77, 50, 50))
    with pytest.raises(InvalidSettings, match="different data"):
        run(settings=settings, resume=True)
    (tmp_path / "out" / LAST).write_bytes(b"truncated")
    with pytest.raises(TruncatedWeights):
        run(settings=settings, resume=True)


def test_data_without_a_validation_split_is_rejected_before_the_first_step(
    run: Train, data: Path, tmp_path: Path
) -> None:
    rows = (data / "manifest.csv").read_text().replace(",val,", ",test,")
    (data / "manifest.csv").write_text(rows)
    with pytest.raises(InvalidData, match="'val'"):
        run()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("published", [False, True])
def test_portrait_is_trained_from_random_and_from_published_weights(
    run: Train, tmp_path: Path, weights_dir: Path, published: bool
) -> None:
    pytest.importorskip("tflite", reason="tflite is not installed")
    start = weights_dir / named("selfie").file if published else None
    untrained = run("untrained", replace(TINY, steps=1, lr=0, warmup=0), "portrait", start=start)["best_iou"]
    result = run("trained", replace(TINY, steps=80, lr=0.003), "portrait", start=start)
    assert result["best_iou"] > untrained + 0.1
    assert (result["start"] is not None) == published
    load_into(Portrait(), load_checkpoint(tmp_path / "trained" / BEST))


def test_a_network_that_requires_initial_weights_is_rejected_without_them(run: Train) -> None:
    with pytest.raises(InvalidSettings, match="--start"):
        run(network="modnet-soc")


def test_two_processes_train_one_network(run: Train, data: Path, tmp_path: Path) -> None:
    """Processes share batches and average gradients. Norms and the soft IoU use each process's share, so losses are
    similar, not equal."""
    settings = replace(TINY, steps=40, batch=8)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    command = command_of(data, tmp_path / "two", settings, *launcher)
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    assert completed.returncode == 0, completed.stderr
    two = json.loads((tmp_path / "two" / TRAINING).read_text())
    assert two["step"] == 40
    assert two["best_iou"] > 0.5

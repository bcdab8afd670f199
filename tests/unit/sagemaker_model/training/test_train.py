"""The loop, on a set so small that a core learns it in seconds."""

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

from maskdrop.settings import InvalidSettings  # noqa: E402 - they need torch
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

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Run:
    """Trains the Attention U-Net on the tiny data into a folder of this name."""

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
    """The run of these settings as a process."""
    words = [f"--{name}={str(value).lower()}" for name, value in asdict(settings).items()]
    command = [sys.executable, *launcher, "-m", "sagemaker_model.training", "--network=attention-unet"]
    return [*command, f"--data={data}", f"--out={out}", *words]


def same(one: Any, other: Any) -> bool:
    """To the bit, of tensors in whatever dictionaries and lists."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_it_learns_and_says_how(run: Run, tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    made = run(report=told.append)
    losses = [line["loss"] for line in told if "loss" in line]
    ious = [line["iou"] for line in told if "iou" in line]
    untrained = run("untrained", replace(TINY, steps=1, lr=0, warmup=0))["best_iou"]
    assert losses[-1] < 0.8 * losses[0]
    assert made["best_iou"] == max(ious) > max(0.6, untrained + 0.2)
    assert lines(tmp_path / "out") == told
    assert [line["step"] for line in told if "iou" in line] == [20, 40, 60]
    assert all(line["samples_s"] > 0 and line["gradient"] > 0 for line in told if "loss" in line)


def test_the_rate_rises_and_then_falls_by_its_schedule() -> None:
    def rates(schedule: str) -> list[float]:
        settings = replace(TINY, steps=44, warmup=4, lr=1.0, schedule=schedule)
        return [learning_rate(settings, step) for step in (0, 3, 4, 14, 24, 43)]

    assert rates("constant") == [0.25, 1, 1, 1, 1, 1]
    assert rates("steps") == pytest.approx([0.25, 1, 1, 0.1, 0.01, 0.001])
    # Half a cosine from 1 to 0.01: after a quarter of it 0.01 + 0.99 (1 + sqrt(1/2)) / 2.
    assert rates("cosine")[:5] == pytest.approx([0.25, 1, 1, 0.855018, 0.505], rel=1e-4)
    assert 0.01 < rates("cosine")[5] < 0.02


def test_what_it_leaves_can_be_loaded_and_says_what_it_is(run: Run, tmp_path: Path) -> None:
    made = run(settings=replace(TINY, steps=20))
    load_into(AttentionUNet(4), load_checkpoint(tmp_path / "out" / BEST))
    said = json.loads((tmp_path / "out" / TRAINING).read_text())
    assert said == made
    assert said["settings"] == asdict(replace(TINY, steps=20))
    assert (said["network"], said["step"], said["skipped"], len(said["data"])) == ("attention-unet", 20, {}, 64)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {LAST, AVERAGE, BEST, HISTORY, TRAINING}


def test_another_seed_gives_other_weights_and_the_same_seed_the_same(run: Run, tmp_path: Path) -> None:
    settings = replace(TINY, steps=4)
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        run(name, replace(settings, seed=seed))
    one, two, three = (checkpoint(tmp_path / name)["objective"] for name in ("one", "two", "three"))
    assert same(one, two)
    assert not same(one, three)


def test_a_run_killed_at_any_moment_and_resumed_ends_as_an_unbroken_one(run: Run, data: Path, tmp_path: Path) -> None:
    settings = replace(TINY, steps=40, validate_every=10, log_every=1)
    run("unbroken", settings)
    out = tmp_path / "killed"
    command = [*command_of(data, out, settings), f"--backgrounds={data}/backgrounds", "--resume"]
    # Each try is killed when it has written some lines after a checkpoint; the last is let to its end.
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
        assert same(checkpoint(out)[name], checkpoint(tmp_path / "unbroken")[name]), name
    assert (out / BEST).read_bytes() == (tmp_path / "unbroken" / BEST).read_bytes()
    assert [line["step"] for line in lines(out)] == [line["step"] for line in lines(tmp_path / "unbroken")]


@pytest.mark.parametrize("network", ["modnet", "modnet-soc"])
def test_modnet_is_trained_and_resumed_the_same_way(run: Run, tmp_path: Path, network: str) -> None:
    from sagemaker_model.nets.modnet import MODNet

    start = tmp_path / "start.pt"
    torch.manual_seed(0)
    torch.save(MODNet().state_dict(), start)
    settings = replace(
        TINY, steps=4, batch=2, lr=1e-4, schedule="steps", optimiser="sgd", ema=0.0, validate_every=2, log_every=1
    )
    run("unbroken", settings, network, start=start)

    def stop(line: dict[str, Any]) -> None:
        if line["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("broken", settings, network, start=start, report=stop)
    assert checkpoint(tmp_path / "broken")["progress"]["step"] == 2
    run("broken", settings, network, start=start, resume=True)
    assert same(checkpoint(tmp_path / "broken")["objective"], checkpoint(tmp_path / "unbroken")["objective"])
    before = torch.load(start, weights_only=True)
    after = load_checkpoint(tmp_path / "broken" / BEST)
    norm = "f_branch.conv_f.0.layers.1.bnorm.running_mean"
    assert torch.equal(before[norm], after[norm]) == (network == "modnet-soc")
    assert not torch.equal(before["f_branch.conv_f.1.layers.0.weight"], after["f_branch.conv_f.1.layers.0.weight"])


def test_a_loss_that_is_no_number_ends_the_run_and_overwrites_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sagemaker_model.training import losses

    calls, soft_iou_loss, before = [], losses.soft_iou_loss, {}

    def not_a_number_at_27(matte: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        calls.append(len(calls) + 1)
        return soft_iou_loss(matte, alpha) * (float("nan") if calls[-1] == 27 else 1)

    def look(line: dict[str, Any]) -> None:
        if line["step"] == 25:
            before.update({name: (tmp_path / "out" / name).read_bytes() for name in (LAST, BEST, TRAINING)})

    monkeypatch.setattr(losses, "soft_iou_loss", not_a_number_at_27)
    with pytest.raises(TrainingDiverged, match="nan at step 27"):
        run(settings=replace(TINY, steps=40, validate_every=20), report=look)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in before} == before
    assert set(before) == {LAST, BEST, TRAINING}


def test_infinite_gradients_of_a_finite_loss_are_seen_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from sagemaker_model.training import losses

    monkeypatch.setattr(losses, "soft_iou_loss", lambda matte, _: (matte - matte).sum().sqrt())
    with pytest.raises(TrainingDiverged, match="at step 1"):
        run(settings=replace(TINY, steps=5))


def test_records_that_cannot_be_used_are_named_in_the_end(run: Run, data: Path) -> None:
    for number in (3, 30):
        write(data, f"blob{number}", blob(number)[0], blob(number, 26, 26)[1])
    assert sorted(run(settings=replace(TINY, steps=8, validate_every=8))["skipped"]) == ["blob3", "blob30"]


def test_a_run_is_not_overwritten_by_mistake(run: Run) -> None:
    run(settings=replace(TINY, steps=2))
    with pytest.raises(InvalidSettings, match="--resume"):
        run(settings=replace(TINY, steps=2))


def test_only_the_run_that_was_begun_is_resumed(run: Run, data: Path, tmp_path: Path) -> None:
    settings = replace(TINY, steps=2)
    run(settings=settings)
    with pytest.raises(InvalidSettings, match="another lr, seed"):
        run(settings=replace(settings, lr=1, seed=4, workers=1), resume=True)
    assert run(settings=replace(settings, workers=1), resume=True)["step"] == 2
    torch.save(AttentionUNet(4).state_dict(), tmp_path / "start.pt")
    with pytest.raises(InvalidSettings, match="another start"):
        run(settings=settings, resume=True, start=tmp_path / "start.pt")
    write(data, "blob0", *blob(77, 50, 50))
    with pytest.raises(InvalidSettings, match="another data"):
        run(settings=settings, resume=True)
    (tmp_path / "out" / LAST).write_bytes(b"cut short")
    with pytest.raises(TruncatedWeights):
        run(settings=settings, resume=True)


def test_data_without_a_validation_split_is_refused_before_the_first_step(run: Run, data: Path, tmp_path: Path) -> None:
    rows = (data / "manifest.csv").read_text().replace(",val,", ",test,")
    (data / "manifest.csv").write_text(rows)
    with pytest.raises(InvalidData, match="'val'"):
        run()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("published", [False, True])
def test_portrait_learns_from_nothing_and_from_the_published_weights(
    run: Run, tmp_path: Path, weights_dir: Path, published: bool
) -> None:
    pytest.importorskip("tflite", reason="tflite is not installed")
    start = weights_dir / named("selfie").file if published else None
    untrained = run("untrained", replace(TINY, steps=1, lr=0, warmup=0), "portrait", start=start)["best_iou"]
    made = run("trained", replace(TINY, steps=80, lr=0.003), "portrait", start=start)
    assert made["best_iou"] > untrained + 0.1
    assert (made["start"] is not None) == published
    load_into(Portrait(), load_checkpoint(tmp_path / "trained" / BEST))


def test_what_goes_on_from_weights_needs_them(run: Run) -> None:
    with pytest.raises(InvalidSettings, match="--start"):
        run(network="modnet-soc")


def test_two_processes_learn_what_one_does(run: Run, data: Path, tmp_path: Path) -> None:
    """Batches are shared and gradients averaged; norms and the soft IoU are of each process's own share, so the losses
    are near, not equal."""
    settings = replace(TINY, steps=40, batch=8)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    command = command_of(data, tmp_path / "two", settings, *launcher)
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    assert ended.returncode == 0, ended.stderr
    two = json.loads((tmp_path / "two" / TRAINING).read_text())
    assert two["step"] == 40
    assert two["best_iou"] > 0.5

"""The training loop. What it is told stands in settings.py, what it makes small in losses.py, what it sees in
samples.py.

A run is its settings, its data and nothing else: the random numbers of step n are those of (seed, n). So there is no
state of generators to keep, and a run that was killed and resumed ends with the weights of an unbroken one. To the bit,
on the CPU with the same number of threads; on a GPU up to the order in which its kernels add.

Its folder:
    last.pt              the checkpoint; replaced as a whole, so that a kill at any moment leaves the one before
    average.safetensors  the average of weights as it is in the checkpoint
    best.safetensors     the one with the best IoU on the validation split so far
    history.jsonl        a line every few steps: loss, rate, speed; a line for every validation
    training.json        settings, digests of the data and of the first weights, figures of the best, unusable records
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from maskdrop.errors import MaskdropError
from maskdrop.settings import InvalidSettings
from sagemaker_model.data.records import InvalidData
from sagemaker_model.training.objectives import Objective, objective_of
from sagemaker_model.training.samples import (
    Batch,
    TrainingSamples,
    ValidationSamples,
    digest,
    source,
    training_loader,
    validation_loader,
)
from sagemaker_model.training.settings import TrainingSettings
from sagemaker_model.weights import store as weights
from sagemaker_model.weights.checkpoints import TruncatedWeights

LAST, AVERAGE, BEST = "last.pt", "average.safetensors", "best.safetensors"
HISTORY, TRAINING = "history.jsonl", "training.json"

LEAST = 0.01
"""Of the highest rate: where a cosine ends."""


class TrainingDiverged(MaskdropError):
    """A loss or its gradients were NaN or infinite. What had been saved before stays."""

    code = "training_diverged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Where records lie. val may be the folder of train. backgrounds: images to put subjects on."""

    train: Path
    val: Path
    backgrounds: Path | None = None

    def folders(self) -> list[Path]:
        """Each once."""
        return list(dict.fromkeys(folder for folder in (self.train, self.val, self.backgrounds) if folder))


@dataclass(slots=True)
class Progress:
    """What a checkpoint keeps besides tensors. step: how many are done. best: the highest IoU and its step."""

    step: int = 0
    best_iou: float = -1.0
    best_step: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """Of step 0, 1, …"""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    if settings.schedule == "steps":
        return settings.lr * 0.1 ** min(3, int(4 * done))
    if settings.schedule == "cosine":
        return settings.lr * (LEAST + (1 - LEAST) * (1 + math.cos(math.pi * done)) / 2)
    return settings.lr


def train(
    network: str,
    data: Data,
    out: Path,
    settings: TrainingSettings,
    *,
    start: Path | None = None,
    resume: bool = False,
    report: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Trains, and returns what training.json says.

    resume: go on from the checkpoint in `out`, where there is one. report: called with every line of the history.
    Raises InvalidSettings, InvalidData, InvalidWeights, NotInstalled, TrainingDiverged.
    """
    with _processes() as (rank, processes, device):
        if settings.threads:
            torch.set_num_threads(settings.threads)
        if settings.batch % processes:
            raise InvalidSettings(f"A batch of {settings.batch} cannot be shared by {processes} processes.")
        precision = _precision(settings, device)
        samples = TrainingSamples(source(data.train, "train", clean=settings.clean), settings, data.backgrounds)
        whole = ValidationSamples(source(data.val, "val"), settings.side)

        torch.manual_seed(settings.seed)
        # Channels last: an Attention U-Net takes 0.8, Portrait 0.6 of the CPU time; on a GPU half precision wants it.
        objective = objective_of(network, settings, start, precision).to(device, memory_format=torch.channels_last)
        made = {
            "network": network,
            "settings": asdict(settings),
            "data": digest(*data.folders()),
            "start": weights.digest(start) if start else None,
        }
        average = copy.deepcopy(objective.net).requires_grad_(requires_grad=False)
        optimiser = _optimiser(settings, objective)
        scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
        progress = Progress()
        if resume and (out / LAST).exists():
            progress = _load(out / LAST, made, settings, objective, average, optimiser, scaler, device)
        elif rank == 0:
            _begin(out)
        trained = DistributedDataParallel(objective) if processes > 1 else objective
        loader = training_loader(samples, progress.step, rank, processes)
        history = _History(out / HISTORY, progress.step, report) if rank == 0 else None

        epoch_steps = max(1, len(samples.source) // settings.batch)
        watched: list[Tensor] = []
        began = time.monotonic()
        trained.train()
        for step, batch in enumerate(loader, progress.step):
            if step % epoch_steps == 0:
                objective.begin_epoch()
            torch.manual_seed(int(np.random.SeedSequence((settings.seed, step, rank)).generate_state(1)[0]))
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(settings, step)
            loss = trained(*_floats(batch, device))
            optimiser.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimiser)
            norm = nn.utils.clip_grad_norm_(objective.trainable_parameters(), settings.clip)
            scaler.step(optimiser)
            scaler.update()
            _follow(average, objective.net, min(settings.ema, (step + 1) / (step + 10)))

            progress.step = step + 1
            progress.skipped |= batch.skipped
            # In half precision, gradients may overflow: then the scaler leaves out the step and scales less.
            watched.append(loss.detach() if scaler.is_enabled() else loss.detach() + 0 * norm)
            validates = progress.step % settings.validate_every == 0 or progress.step == settings.steps
            if validates or progress.step % settings.log_every == 0:
                losses = _checked(watched, progress.step)
                seconds, began = time.monotonic() - began, time.monotonic()
                if history:
                    history.add(
                        step=progress.step,
                        loss=sum(losses) / len(losses),
                        lr=learning_rate(settings, step),
                        gradient=float(norm),
                        samples_s=len(losses) * settings.batch / seconds,
                    )
                watched.clear()
            if validates:
                iou, skipped = _validated(
                    objective, average, validation_loader(whole, settings, rank, processes), device
                )
                progress.skipped |= skipped
                if history:
                    if iou > progress.best_iou:
                        progress.best_iou, progress.best_step = iou, progress.step
                        save_weights(average, out / BEST)
                    history.add(step=progress.step, iou=iou, best_iou=progress.best_iou)
                    _save(out / LAST, made, progress, objective, average, optimiser, scaler)
                    save_weights(average, out / AVERAGE)
                    _write(out / TRAINING, json.dumps({**made, **asdict(progress)}, indent=1).encode())
                trained.train()
                began = time.monotonic()
        return {**made, **asdict(progress)}


# Steps of the loop


def _floats(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Image and alpha in 0..1. They travel as bytes."""
    picture, alpha = (pixels.to(device, non_blocking=True) for pixels in (batch.image, batch.alpha))
    return picture.contiguous(memory_format=torch.channels_last).float() / 255, alpha.float() / 255


@torch.no_grad()
def _follow(average: nn.Module, net: nn.Module, stays: float) -> None:
    for kept, new in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - stays)
        else:
            kept.copy_(new)


def _checked(watched: list[Tensor], step: int) -> list[float]:
    """The losses since the last look. Raises TrainingDiverged, naming the step: nothing has been saved since."""
    losses = torch.stack(watched).tolist()
    for number, loss in enumerate(losses, step - len(losses) + 1):
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"The loss or its gradients were {loss} at step {number}. Try a lower lr or clip, or "
                "precision=float32; the checkpoint before and the best weights are as they were."
            )
    return losses


@torch.inference_mode()
def _validated(
    objective: Objective, average: nn.Module, loader: DataLoader[Batch], device: torch.device
) -> tuple[float, dict[str, str]]:
    """The mean IoU at a threshold of a half, over all processes; and the records that could not be used. Nothing found
    where there is nothing counts 1."""
    average.eval()
    total, count, skipped = 0.0, 0, {}
    for batch in loader:
        skipped |= batch.skipped
        if not len(batch.image):
            continue
        picture, alpha = _floats(batch, device)
        with torch.autocast(device.type, objective.precision, enabled=objective.precision != torch.float32):
            found = objective.matte(average, picture) > 0.5
        truth = alpha > 0.5
        shared, joined = (pixels.sum((1, 2, 3)) for pixels in (found & truth, found | truth))
        total += float(torch.where(joined > 0, shared / joined.clamp(min=1), 1.0).sum())
        count += len(picture)
    sums = torch.tensor([total, count], dtype=torch.float64, device=device)
    if distributed.is_initialized():
        distributed.all_reduce(sums)
    if not sums[1]:
        raise InvalidData(f"No record of the validation split can be used: {next(iter(skipped.items()))}.")
    return float(sums[0] / sums[1]), skipped


# Before the first step


def _optimiser(settings: TrainingSettings, objective: Objective) -> torch.optim.Optimizer:
    learned = objective.trainable_parameters()
    if settings.optimiser == "sgd":
        return torch.optim.SGD(learned, settings.lr, momentum=0.9, weight_decay=settings.weight_decay)
    return torch.optim.AdamW(learned, settings.lr, betas=(0.9, 0.99), weight_decay=settings.weight_decay)


def _precision(settings: TrainingSettings, device: torch.device) -> torch.dtype:
    if settings.precision != "auto":
        dtype: torch.dtype = getattr(torch, settings.precision)
        return dtype
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


@contextlib.contextmanager
def _processes() -> Iterator[tuple[int, int, torch.device]]:
    """(rank, number of processes, device) as torchrun set them; alone, (0, 1, the GPU or else the CPU)."""
    processes, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True  # all batches have one shape
    if processes == 1:
        yield 0, 1, device
        return
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield distributed.get_rank(), processes, device
        distributed.barrier()  # gloo aborts a process whose neighbour leaves while it still listens
    finally:
        distributed.destroy_process_group()


def _begin(out: Path) -> None:
    if (out / LAST).exists():
        raise InvalidSettings(f"{out} holds a run already: go on with --resume, or choose another folder.")
    out.mkdir(parents=True, exist_ok=True)


# Files


class _History:
    """history.jsonl, a line for every `add`. What a killed run wrote after its last checkpoint is taken back."""

    def __init__(self, path: Path, step: int, report: Callable[[dict[str, Any]], None]) -> None:
        self.path, self.report = path, report
        before = path.read_text().splitlines() if path.exists() else []
        _write(path, "".join(f"{line}\n" for line in before if _step(line) <= step).encode())

    def add(self, **said: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(said) + "\n")
        self.report(said)


def _step(line: str) -> float:
    """Of a line of history; infinite where it was cut short."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return math.inf


def _save(
    path: Path,
    made: dict[str, Any],
    progress: Progress,
    objective: Objective,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    checkpoint = {
        "made": made,
        "progress": asdict(progress),
        "objective": objective.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "scaler": scaler.state_dict(),
    }
    content = io.BytesIO()
    torch.save(checkpoint, content)
    _write(path, content.getbuffer())


def _load(
    path: Path,
    made: dict[str, Any],
    settings: TrainingSettings,
    objective: Objective,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    device: torch.device,
) -> Progress:
    """Raises TruncatedWeights, and InvalidSettings where another run wrote it."""
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)
        before = checkpoint["made"]
    except Exception as error:  # damaged files make torch raise ten kinds
        raise TruncatedWeights(f"{path} cannot be read: begin anew in another folder.") from error
    changed = settings.differences(before["settings"])
    changed += [name for name in ("network", "data", "start") if made[name] != before[name]]
    if changed:
        raise InvalidSettings(f"{path.parent} was started with different {', '.join(changed)}: choose another folder.")
    objective.load_state_dict(checkpoint["objective"])
    average.load_state_dict(checkpoint["average"])
    optimiser.load_state_dict(checkpoint["optimiser"])
    scaler.load_state_dict(checkpoint["scaler"])
    return Progress(**checkpoint["progress"])


def save_weights(net: nn.Module, path: Path) -> None:
    """As .safetensors, whole or not at all."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    _write(path, safetensors.torch.save(state))


def _write(path: Path, content: bytes | memoryview) -> None:
    """ValidationSamples or not at all, and on the disk when this returns."""
    unfinished = path.with_name(f".{path.name}")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)

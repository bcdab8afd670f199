"""The training loop.

Settings are in settings.py, losses in losses.py, samples in samples.py. A run depends on its settings and data alone:
the random numbers of step n are seeded by (seed, n). So checkpoints need no generator state, and a run that was killed
and resumed ends with the weights of an uninterrupted one: to the bit on the CPU with the same number of threads, and up
to the order of additions in kernels on a GPU.

Files of a run:
    last.pt              the checkpoint, replaced atomically
    average.safetensors  the averaged weights of the checkpoint
    best.safetensors     the averaged weights with the best validation so far: IoU, or mAP of a detector
    history.jsonl        a line every few steps with loss, rate and speed; a line for every validation
    training.json        settings, digests of the data and of the initial weights, best validation, unusable records
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from maskdrop.errors import MaskdropError
from maskdrop.settings import InvalidSettings
from sagemaker_model.data.records import InvalidData
from sagemaker_model.training.objectives import Objective, objective_of, pretrained_file
from sagemaker_model.training.samples import Batch, digest, open_samples, training_loader, validation_loader
from sagemaker_model.training.settings import TrainingSettings
from sagemaker_model.weights import store as weights
from sagemaker_model.weights.checkpoints import METADATA_KEY, TruncatedWeights
from sagemaker_model.weights.files import atomic_write

LAST, AVERAGE, BEST = "last.pt", "average.safetensors", "best.safetensors"
HISTORY, TRAINING = "history.jsonl", "training.json"

COSINE_END = 0.01
"""Learning rate at the end of a cosine schedule, as a share of the maximum."""


class TrainingDiverged(MaskdropError):
    """A loss or gradients were NaN or infinite. Files of the run stay as they were at the last validation."""

    code = "training_diverged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Folders of records: masks, or a detection data set for a detector. val may equal train. backgrounds: folder of
    images to put subjects on."""

    train: Path
    val: Path
    backgrounds: Path | None = None

    def folders(self) -> list[Path]:
        """Returns all folders without duplicates."""
        return list(dict.fromkeys(folder for folder in (self.train, self.val, self.backgrounds) if folder))


@dataclass(slots=True)
class Progress:
    """The part of a checkpoint that is not tensors. Names are keys of training.json.

    step: number of completed steps. best, best_step: the best validation; training.json has it as best_iou or best_map.
    skipped: reasons of unusable records.
    """

    step: int = 0
    best: float = -1.0
    best_step: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


class Process(NamedTuple):
    """This process among those that train together. world_size: number of processes, as in torch.distributed."""

    rank: int
    world_size: int
    device: torch.device


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """Returns the learning rate of a step, counted from 0."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    if settings.schedule == "steps":
        return settings.lr * 0.1 ** min(3, int(4 * done))
    if settings.schedule == "cosine":
        return settings.lr * (COSINE_END + (1 - COSINE_END) * (1 + math.cos(math.pi * done)) / 2)
    return settings.lr


def train(
    network: str,
    data: Data,
    out: Path,
    settings: TrainingSettings,
    *,
    start: Path | None = None,
    resume: bool = False,
    until: int | None = None,
    report: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Trains a network, and returns the content of training.json.

    start: initial weights. resume: resume from the checkpoint in `out`, if it exists. until: step after which training
    validates, writes its checkpoint and stops; the learning rates are those of the whole run. report: called with
    every line of the history. Raises InvalidSettings, InvalidData, InvalidWeights, NotInstalled, TrainingDiverged.
    """
    with _process_group() as process:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        run = Run(network, data, out, settings, process, start)
        run.until = min(until or settings.steps, settings.steps)
        run.open(resume=resume, report=report)
        for batch in run.batches():
            if run.progress.step >= run.until:
                break
            run.step(batch)
            if run.is_due(settings.log_every) or run.is_due(settings.validate_every):
                run.log()
            if run.is_due(settings.validate_every):
                run.validate()
        return run.result()


class Run:
    """A training run in one process: network, averaged weights, optimiser and progress."""

    def __init__(
        self, network: str, data: Data, out: Path, settings: TrainingSettings, process: Process, start: Path | None
    ) -> None:
        """Creates the initial state. Raises InvalidSettings, InvalidData, InvalidWeights, NotInstalled."""
        if settings.batch % process.world_size:
            raise InvalidSettings(
                f"batch must be a multiple of the number of processes, {process.world_size}; got {settings.batch}."
            )
        self.settings, self.out, self.process = settings, out, process
        self.until = settings.steps
        self.samples, self.validation, names = open_samples(network, settings, data.train, data.val, data.backgrounds)

        precision = _precision(settings, process.device)
        torch.manual_seed(settings.seed)
        # Channels last: an Attention U-Net takes 0.8, Portrait 0.6 of the CPU time. GPUs need it for half precision.
        self.objective: Objective = objective_of(network, settings, start, precision, names).to(  # type: ignore[call-overload]
            process.device,
            memory_format=torch.channels_last,  # torch's annotations lack this argument
        )
        self.description = {
            "network": network,
            "settings": asdict(settings),
            "data": digest(*data.folders()),
            "start": weights.digest(pretrained_file(start)) if start else None,
        }
        self.average = copy.deepcopy(self.objective.net).requires_grad_(requires_grad=False)
        self.optimiser = _optimiser(settings, self.objective)
        self.scaler = torch.amp.GradScaler(process.device.type, enabled=precision == torch.float16)
        self.progress = Progress()
        self.history: _History | None = None
        self.losses: list[Tensor] = []
        """Losses of the steps since the last call of `log`."""

    def open(self, *, resume: bool, report: Callable[[dict[str, Any]], None]) -> None:
        """Loads the checkpoint or creates the output folder, and prepares the first step. Raises InvalidSettings for an
        existing run, TruncatedWeights."""
        if resume and (self.out / LAST).exists():
            self._load()
        elif self.process.rank == 0:
            _create_folder(self.out)
        if self.process.rank == 0:
            self.history = _History(self.out / HISTORY, self.progress.step, report)
        self.model = DistributedDataParallel(self.objective) if self.process.world_size > 1 else self.objective
        self.model.train()
        self.log_time = time.monotonic()

    def batches(self) -> DataLoader[Batch]:
        """Returns the batches of the remaining steps."""
        return training_loader(self.samples, self.progress.step, self.process.rank, self.process.world_size)

    def is_due(self, every: int) -> bool:
        """Returns whether the completed steps are a multiple of `every`, or the last of this call."""
        return self.progress.step % every == 0 or self.progress.step == self.until

    def step(self, batch: Batch) -> None:
        """Trains on one batch and updates the averaged weights."""
        step, settings = self.progress.step, self.settings
        if step % max(1, len(self.samples.source) // settings.batch) == 0:
            self.objective.begin_epoch()
        torch.manual_seed(int(np.random.SeedSequence((settings.seed, step, self.process.rank)).generate_state(1)[0]))
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(settings, step)
        loss = self.model(*_to_float(batch, self.process.device))
        self.optimiser.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimiser)
        self.gradient = nn.utils.clip_grad_norm_(self.objective.trainable_parameters(), settings.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        _update_average(self.average, self.objective.net, min(settings.ema, (step + 1) / (step + 10)))
        # Without the scaler, invalid gradients make the loss NaN. In half precision, gradients may overflow: the scaler
        # then skips the step and reduces its scale.
        loss = loss.detach()
        self.losses.append(loss if self.scaler.is_enabled() else loss + 0 * self.gradient)
        self.progress.step = step + 1
        self.progress.skipped |= batch.skipped

    def log(self) -> None:
        """Adds loss, rate and speed since the last call to the history. Raises TrainingDiverged."""
        losses = _finite_losses(self.losses, self.progress.step)
        seconds = self._seconds_since_log()
        if self.history:
            self.history.add(
                step=self.progress.step,
                loss=sum(losses) / len(losses),
                lr=learning_rate(self.settings, self.progress.step - 1),
                gradient=float(self.gradient),
                samples_s=len(losses) * self.settings.batch / seconds,
            )
        self.losses.clear()

    def validate(self) -> None:
        """Measures the averaged weights on the validation records and writes all files of the run.
        Raises InvalidData if no record is usable."""
        loader = validation_loader(self.validation, self.settings, self.process.rank, self.process.world_size)
        self.average.eval()
        with torch.inference_mode():
            measured = self.objective.measure(self.average, self._usable(loader))
        if not measured:
            reason = next(iter(self.progress.skipped.items()))
            raise InvalidData(f"No record of the validation split is usable: {reason}.")
        if self.history:
            metric = self.objective.metric
            if measured[metric] > self.progress.best:
                self.progress.best, self.progress.best_step = measured[metric], self.progress.step
                save_weights(self.average, self.out / BEST, self.objective.metadata)
            self.history.add(step=self.progress.step, **measured, **{f"best_{metric}": self.progress.best})
            self._save()
        self.model.train()
        self._seconds_since_log()  # validation does not count as training time

    def result(self) -> dict[str, Any]:
        """Returns the content of training.json."""
        progress = asdict(self.progress)
        return {**self.description, f"best_{self.objective.metric}": progress.pop("best"), **progress}

    def _usable(self, loader: DataLoader[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields image and target of each batch on the device, and notes the unusable records."""
        for batch in loader:
            self.progress.skipped |= batch.skipped
            if len(batch.image):
                yield _to_float(batch, self.process.device)

    def _seconds_since_log(self) -> float:
        now = time.monotonic()
        seconds, self.log_time = now - self.log_time, now
        return seconds

    def _save(self) -> None:
        checkpoint = {
            "made": self.description,
            "progress": asdict(self.progress),
            "objective": self.objective.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        with atomic_write(self.out / LAST) as temporary:
            torch.save(checkpoint, temporary)
        save_weights(self.average, self.out / AVERAGE, self.objective.metadata)
        with atomic_write(self.out / TRAINING) as temporary:
            temporary.write_text(json.dumps(self.result(), indent=1))

    def _load(self) -> None:
        """Raises TruncatedWeights; InvalidSettings for a checkpoint of other settings, data or initial weights."""
        path = self.out / LAST
        try:
            checkpoint = torch.load(path, map_location=self.process.device, weights_only=True)
            saved = checkpoint["made"]
        except Exception as error:  # torch raises many kinds of errors for damaged files
            raise TruncatedWeights(f"{path} cannot be read: start again in another folder.") from error
        changed = self.settings.differences(saved["settings"])
        changed += [name for name in ("network", "data", "start") if self.description[name] != saved[name]]
        if changed:
            raise InvalidSettings(f"{self.out} was started with different {', '.join(changed)}: choose another folder.")
        self.objective.load_state_dict(checkpoint["objective"])
        self.average.load_state_dict(checkpoint["average"])
        self.optimiser.load_state_dict(checkpoint["optimiser"])
        self.scaler.load_state_dict(checkpoint["scaler"])
        self.progress = Progress(**checkpoint["progress"])


# Computations


def _to_float(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Moves image and target to the device, and converts those in uint8 there to float32 in 0..1."""
    image, target = (values.to(device, non_blocking=True) for values in (batch.image, batch.target))
    image = image.contiguous(memory_format=torch.channels_last).float() / 255
    return image, target.float() / 255 if target.dtype == torch.uint8 else target


@torch.no_grad()
def _update_average(average: nn.Module, net: nn.Module, decay: float) -> None:
    """Updates the exponential moving average of the weights; copies integer entries."""
    for averaged, new in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        if averaged.is_floating_point():
            averaged.lerp_(new, 1 - decay)
        else:
            averaged.copy_(new)


def _finite_losses(losses: list[Tensor], step: int) -> list[float]:
    """Returns the losses of the steps up to `step` as numbers. Raises TrainingDiverged for NaN and infinity."""
    values: list[float] = torch.stack(losses).tolist()
    for number, loss in enumerate(values, step - len(values) + 1):
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"The loss or its gradients were {loss} at step {number}. Try a lower lr or clip, or "
                "precision=float32; the previous checkpoint and the best weights are unchanged."
            )
    return values


# Preparation


def _optimiser(settings: TrainingSettings, objective: Objective) -> torch.optim.Optimizer:
    parameters = objective.trainable_parameters()
    if settings.optimiser == "sgd":
        return torch.optim.SGD(parameters, settings.lr, momentum=0.9, weight_decay=settings.weight_decay)
    return torch.optim.AdamW(parameters, settings.lr, betas=(0.9, 0.99), weight_decay=settings.weight_decay)


def _precision(settings: TrainingSettings, device: torch.device) -> torch.dtype:
    if settings.precision != "auto":
        dtype: torch.dtype = getattr(torch, settings.precision)
        return dtype
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


@contextlib.contextmanager
def _process_group() -> Iterator[Process]:
    """Joins the process group that torchrun started. Without torchrun, yields one process on the GPU or else the
    CPU."""
    world_size, local_rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True  # all batches have one shape
    if world_size == 1:
        yield Process(0, 1, device)
        return
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Process(distributed.get_rank(), world_size, device)
        distributed.barrier()  # gloo aborts a process if another one leaves while it still communicates
    finally:
        distributed.destroy_process_group()


def _create_folder(out: Path) -> None:
    if (out / LAST).exists():
        raise InvalidSettings(f"{out} already has a run: resume it with --resume, or choose another folder.")
    out.mkdir(parents=True, exist_ok=True)


# Files


class _History:
    """history.jsonl. Removes lines after step `step`, which a killed run wrote after its last checkpoint."""

    def __init__(self, path: Path, step: int, report: Callable[[dict[str, Any]], None]) -> None:
        self.path, self.report = path, report
        lines = path.read_text().splitlines() if path.exists() else []
        with atomic_write(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines if _step(line) <= step))

    def add(self, **values: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")
        self.report(values)


def _step(line: str) -> float:
    """Returns the step of a line of the history; infinity for a truncated line."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return math.inf


def save_weights(net: nn.Module, path: Path, metadata: Mapping[str, str] = MappingProxyType({})) -> None:
    """Writes the weights of a network to a .safetensors file, atomically. metadata: texts for the file's header, as
    JSON under METADATA_KEY."""
    # Clones: safetensors refuses tensors that share memory, as layers with tied weights do.
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in net.state_dict().items()}
    # One key: safetensors writes several in random order, so that equal weights would be different files.
    header = {METADATA_KEY: json.dumps(dict(metadata), sort_keys=True)} if metadata else None
    with atomic_write(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(state, header))

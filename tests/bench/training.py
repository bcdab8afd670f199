"""`make bench-train`: compares the training loop with its loader alone and its network alone, on synthetic photos.

The photos have 640 x 480 pixels; the three measurements alternate in one run. On the CPU one core creates samples and
another trains; on a GPU all cores create samples. The loop cannot be faster than the slower of the two. Beyond the
network, its process clips gradients, averages weights and writes the history.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from sagemaker_model.training.objectives import Objective, objective_of
from sagemaker_model.training.samples import Batch, TrainingSamples, source, training_loader
from sagemaker_model.training.settings import SETTINGS, TrainingSettings
from sagemaker_model.training.train import Data, train
from tests.bench.machine import machine
from tests.bench.measure import SECONDS, cores

NETWORKS = ("attention-unet", "portrait")
ON_GPU = ("modnet",)
"""Networks measured on GPUs only: 16 images of 512 x 512 take minutes on two cores."""

RECORDS, BACKGROUNDS = 64, 8
ROUNDS = 3
STEPS_MIN = 4


@dataclass(frozen=True, slots=True)
class Pace:
    """Speed of one part. cpu_ms: CPU milliseconds of the process for a sample."""

    samples_s: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class Round:
    loader: Pace
    network: Pace
    loop: Pace

    @property
    def efficiency(self) -> float:
        """Samples a second of the loop divided by those of the slower of loader and network."""
        return self.loop.samples_s / min(self.loader.samples_s, self.network.samples_s)


class Clock:
    """Measures wall and CPU time since its creation."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def pace(self, samples: int) -> Pace:
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return Pace(samples / wall, cpu / samples * 1000)


def photos(folder: Path) -> Data:
    """Writes records of blurred noise with an elliptic subject, as large as photos in JPEG; one is for validation."""
    random = np.random.default_rng(0)
    for name in ("images", "masks", "backgrounds"):
        (folder / name).mkdir()
    mask = cv2.ellipse(np.zeros((480, 640), np.uint8), (320, 300), (130, 190), 0, 0, 360, 255, cv2.FILLED)
    for number in range(RECORDS + BACKGROUNDS):
        noise = random.integers(0, 255, (60, 80, 3), np.uint8)
        kind = "images" if number < RECORDS else "backgrounds"
        cv2.imwrite(str(folder / kind / f"{number}.jpg"), cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC))
        if number < RECORDS:
            cv2.imwrite(str(folder / "masks" / f"{number}.png"), mask)
    rows = [f"{number},{'train' if number else 'val'}" for number in range(RECORDS)]
    (folder / "manifest.csv").write_text("\n".join(["id,split", *rows]))
    return Data(train=folder, val=folder, backgrounds=folder / "backgrounds")


def of_loader(samples: TrainingSamples) -> Pace:
    """Pace of the loader after its first batch, which starts the workers. Excludes the workers' CPU time."""
    batches = iter(training_loader(samples, 0))
    next(batches)
    clock = Clock()
    return clock.pace(sum(len(batch.image) for batch in batches))


def of_network(objective: Objective, optimiser: torch.optim.Optimizer, batch: Batch, steps: int) -> Pace:
    """Pace of loss, gradients and optimiser step on a batch that is on the device."""
    image, alpha = batch.image.float() / 255, batch.target.float() / 255
    clock = Clock()
    for _ in range(steps):
        optimiser.zero_grad()
        objective(image, alpha).backward()
        optimiser.step()
    if image.is_cuda:
        torch.cuda.synchronize()
    return clock.pace(steps * len(image))


def of_loop(network: str, data: Data, out: Path, settings: TrainingSettings) -> Pace:
    """Pace between the first and the last line of the history: without the start of workers and the validation."""
    clock, paces = Clock(), []

    def report(line: dict[str, Any]) -> None:
        nonlocal clock
        if "loss" not in line:
            return
        if line["step"] == 1:
            clock = Clock()
        else:
            paces.append(clock.pace((line["step"] - 1) * settings.batch))

    train(network, data, out, settings, report=report)
    return paces[-1]


def measured(network: str, device: str, data: Data, scratch: Path) -> Round:
    """The round of ROUNDS with the median efficiency."""
    settings = replace(SETTINGS[network], log_every=1)
    settings = replace(settings, workers=1, threads=1) if device == "cpu" else replace(settings, workers=cores())
    records = source(data.train, "train")
    objective = objective_of(network, settings, None, torch.float32 if device == "cpu" else torch.bfloat16)
    objective.to(device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(objective.trainable_parameters())
    batch = next(iter(training_loader(TrainingSamples(records, settings, data.backgrounds), 0)))
    batch = Batch(batch.image.to(device, memory_format=torch.channels_last), batch.target.to(device), {})
    if settings.threads:
        torch.set_num_threads(settings.threads)
    of_network(objective, optimiser, batch, 1)
    steps = max(STEPS_MIN, int(SECONDS * of_network(objective, optimiser, batch, 2).samples_s / settings.batch))
    settings = replace(settings, steps=steps, validate_every=steps)
    samples = TrainingSamples(records, settings, data.backgrounds)
    rounds = [
        Round(
            of_loader(samples),
            of_network(objective, optimiser, batch, steps),
            of_loop(network, data, scratch / f"{network}-{round_}", settings),
        )
        for round_ in range(ROUNDS)
    ]
    return sorted(rounds, key=lambda round_: round_.efficiency)[ROUNDS // 2]


def main() -> int:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    names = ("loader", "network", "loop", "loop / slower", "network, ms", "loop, ms")
    table = Table("network", "side", *names)
    with tempfile.TemporaryDirectory() as scratch:
        data = photos(Path(scratch))
        for network in (*NETWORKS, *(ON_GPU if device == "cuda" else ())):
            round_ = measured(network, device, data, Path(scratch))
            rates = (f"{pace.samples_s:.1f}" for pace in (round_.loader, round_.network, round_.loop))
            cpu = (f"{pace.cpu_ms:.1f}" for pace in (round_.network, round_.loop))
            table.add_row(network, str(SETTINGS[network].side), *rates, f"{round_.efficiency:.2f}", *cpu)
    console = Console(highlight=False, width=110)
    console.print(table)
    console.print(f"Samples/s of each part, and CPU ms a sample of the training process. {device}, {machine()}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

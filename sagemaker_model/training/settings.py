"""What a training run is told: the same words on the command line, in code and as hyperparameters of SageMaker."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from maskdrop.settings import InvalidSettings, read


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """side: of the squares that the network sees, in pixels.
    batch: samples a step, over all processes. steps: of the optimiser; a resumed run goes on to the same number.
    lr: the highest learning rate, reached after `warmup` steps from nothing. schedule, from there: cosine goes down to
    a hundredth along half a cosine; steps takes a tenth after every quarter of the run, as MODNet was trained.
    optimiser: adamw (betas 0.9 and 0.99) or sgd with a momentum of 0.9.
    clip: the largest norm of the gradients; a step that one bad sample would make too large is shortened to it.
    ema: how much of the kept average of weights stays at each step. What is validated and written is the average: its
    IoU jumps less between two validations. 0 keeps the last weights themselves.
    seed: of the first weights, of order and augmentation, and of dropout.
    precision: of the network's passes. auto: bfloat16 on a GPU that has it, else float16 there, and float32 on the CPU.
    validate_every: steps between two validations, each of which ends with a checkpoint.
    log_every: steps between two lines of history; the loss is looked at then, so a GPU does not wait at every step.
    workers: processes that make samples; 0 makes them in the training process itself.
    threads: of torch on the CPU; None leaves torch's own choice. Weights are the same to the bit for the same number.
    clean: only records whose licence class is clean, as weights that are given away need.
    composed: share of the samples that are subjects on other backgrounds, where there are any.
    empty: share of the samples that are such a background alone.
    filters: of the Attention U-Net.
    """

    side: int = 256
    batch: int = 16
    steps: int = 20_000
    lr: float = 1e-3
    warmup: int = 200
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    optimiser: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    validate_every: int = 500
    log_every: int = 20
    workers: int = 2
    threads: int | None = None
    clean: bool = False
    composed: float = 0.3
    empty: float = 0.05
    filters: int = 16

    def __post_init__(self) -> None:
        """Raises InvalidSettings, naming all faults at once."""
        faults = [f"{name} must be 1 or more" for name in _COUNTS if getattr(self, name) < 1]
        faults += [
            f"{name} must be 0 or more and finite"
            for name in ("lr", "warmup", "weight_decay", "seed", "workers")
            if not 0 <= getattr(self, name) < math.inf
        ]
        shares = ("ema", "composed", "empty")
        faults += [f"{name} must be from 0 to 1" for name in shares if not 0 <= getattr(self, name) <= 1]
        if not self.clip > 0:
            faults.append("clip must be above 0")
        if self.side % 32:
            faults.append("side must be a multiple of 32")
        if self.threads is not None and self.threads < 1:
            faults.append("threads must be 1 or more")
        if faults:
            raise InvalidSettings("; ".join(faults) + ".")

    def changed(self, given: Mapping[str, str]) -> TrainingSettings:
        """With these, written as text. Raises InvalidSettings, naming all faults at once."""
        return replace(self, **read(type(self), given))

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """What of another run's settings would lead to other weights."""
        free = ("workers", "log_every")
        return [
            item.name for item in fields(self) if item.name not in free and other[item.name] != getattr(self, item.name)
        ]


_COUNTS = ("side", "batch", "steps", "validate_every", "log_every", "filters")

SETTINGS: dict[str, TrainingSettings] = {
    # As the older system trained it: side 128, 16 filters, batches of 8. A core makes 3 steps a second of it.
    "attention-unet": TrainingSettings(side=128, batch=8, lr=1e-3),
    # The side at which its engine looks.
    "portrait": TrainingSettings(side=320, batch=16, lr=5e-4),
    # As published but for the clipping: SGD, a tenth after every quarter. 40 epochs of 2,000 images are 5,000 steps
    # of 16.
    "modnet": TrainingSettings(
        side=512, batch=16, steps=5_000, lr=0.01, warmup=0, schedule="steps", optimiser="sgd", weight_decay=0, ema=0
    ),
    # As published: Adam, one image at a time, a small rate that stays.
    "modnet-soc": TrainingSettings(
        side=512,
        batch=1,
        steps=2_000,
        lr=1e-5,
        warmup=0,
        schedule="constant",
        weight_decay=0,
        ema=0,
        composed=0,
        validate_every=200,
    ),
    # torchvision's recipe for fine-tuning; batches of 1, and a tenth three times.
    "mask-rcnn": TrainingSettings(
        side=512, batch=1, steps=20_000, lr=0.005, warmup=0, schedule="steps", optimiser="sgd", weight_decay=5e-4, ema=0
    ),
}
"""What each network starts from. The names are those of `maskdrop train`."""


def settings_of(network: str, given: Mapping[str, str]) -> TrainingSettings:
    """Of a network, with what is given as text in their place. Raises InvalidSettings."""
    if network not in SETTINGS:
        raise InvalidSettings(f"There is no network {network!r} to train; there are {', '.join(SETTINGS)}.")
    return SETTINGS[network].changed(given)

"""Settings of a training run. Names are the same on the command line, in code and as SageMaker hyperparameters."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from maskdrop.settings import InvalidSettings, read


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Hyperparameters and limits of a training run.

    side: side of the network's square input, in pixels; a multiple of 32.
    batch: samples per step, over all processes. steps: optimiser steps; a resumed run continues to the same number.
    lr: maximum learning rate. warmup: steps in which the rate rises linearly to it. schedule: change of the rate
    afterwards. cosine falls to a hundredth along half a cosine; steps divides it by 10 after every quarter of the run,
    as in MODNet's training; constant keeps it.
    optimiser: adamw (betas 0.9 and 0.99) or sgd with a momentum of 0.9. weight_decay: of the optimiser.
    clip: maximum norm of the gradients; larger gradients are scaled down, so that one bad sample cannot dominate.
    ema: decay of the exponential moving average of the weights at each step. The average is validated and written: its
    IoU varies less between validations. 0 uses the last weights.
    seed: of the initial weights, order, augmentation and dropout.
    precision: of the forward and backward passes. auto: bfloat16 on a GPU that supports it, float16 on other GPUs,
    float32 on the CPU.
    validate_every: steps between two validations; each one ends with a checkpoint.
    log_every: steps between two lines of the history; losses are read then, so that a GPU need not wait at every step.
    workers: processes that load samples; 0 loads them in the training process.
    threads: CPU threads of torch; None keeps torch's default. Weights are reproducible to the bit for the same number.
    clean: use only records of the licence class clean, as weights that are published require.
    composed: share of the samples with the subject on another background, if there are backgrounds.
    empty: share of the samples that are a background alone, if there are backgrounds.
    filters: filters of the first level of `attention-unet` and `detector`.
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
        """Raises InvalidSettings with all invalid values."""
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
        """Returns the settings with these values, given as text. Raises InvalidSettings with all invalid values."""
        return replace(self, **read(type(self), given))

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Returns the names of the settings that differ from another run's and change its weights."""
        free = ("workers", "log_every")
        return [
            item.name for item in fields(self) if item.name not in free and other[item.name] != getattr(self, item.name)
        ]


_COUNTS = ("side", "batch", "steps", "validate_every", "log_every", "filters")

SETTINGS: dict[str, TrainingSettings] = {
    # As the previous system trained it: side 128, 16 filters, batches of 8. 3 steps/s on one CPU core.
    "attention-unet": TrainingSettings(side=128, batch=8, lr=1e-3),
    # The side is the input size of its engine.
    "portrait": TrainingSettings(side=320, batch=16, lr=5e-4),
    # As published, plus clipping: SGD, a tenth of the rate after every quarter. 40 epochs of 2,000 images are 5,000
    # steps of 16.
    "modnet": TrainingSettings(
        side=512, batch=16, steps=5_000, lr=0.01, warmup=0, schedule="steps", optimiser="sgd", weight_decay=0, ema=0
    ),
    # As published: Adam, batches of 1, a small constant rate.
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
    # As in torchvision's fine-tuning recipe, with batches of 1, and a tenth of the rate three times. The side is the
    # shorter side in torchvision's training.
    "mask-rcnn": TrainingSettings(
        side=800, batch=1, steps=20_000, lr=0.005, warmup=0, schedule="steps", optimiser="sgd", weight_decay=5e-4, ema=0
    ),
    # 2.0 million parameters. 17 images/s on one CPU core: 2,000 steps take 16 minutes.
    "detector": TrainingSettings(
        side=320, batch=8, steps=2_000, lr=2e-3, warmup=100, clip=10, ema=0.995, weight_decay=0.05, validate_every=250
    ),
    # As published (Zhao et al. 2024, section 5.1): AdamW, 1e-4, clipping at 0.1, an average with 0.9999.
    "rt-detr": TrainingSettings(
        side=640,
        batch=16,
        steps=30_000,
        lr=1e-4,
        warmup=2_000,
        schedule="constant",
        weight_decay=1e-4,
        clip=0.1,
        ema=0.9999,
    ),
}
"""Default settings of each network that can be trained, by its name in `maskdrop train`."""


DETECTORS = ("detector", "rt-detr")
"""Networks that learn boxes from a detection data set. All others learn masks."""


def metric_of(network: str) -> str:
    """Returns the key of the validation in the history of a run, by which the best weights are chosen: mAP or IoU. The
    history and training.json have its best value as best_map or best_iou."""
    return "map" if network in DETECTORS else "iou"


def settings_of(network: str, given: Mapping[str, str]) -> TrainingSettings:
    """Returns the settings of a network with these values, given as text. Raises InvalidSettings."""
    if network not in SETTINGS:
        raise InvalidSettings(f"network must be one of {', '.join(SETTINGS)}; got {network!r}.")
    return SETTINGS[network].changed(given)


def descriptions() -> dict[str, str]:
    """Returns the description of each setting, from the docstring of TrainingSettings, with the default of each
    network, by the setting's name."""
    names = [item.name for item in fields(TrainingSettings)]
    text = " ".join((TrainingSettings.__doc__ or "").split())
    _, *parts = re.split(rf"\b({'|'.join(names)}): ", text)
    found = {}
    for name, description in zip(parts[::2], parts[1::2], strict=True):
        networks: dict[Any, list[str]] = {}
        for network, settings in SETTINGS.items():
            networks.setdefault(getattr(settings, name), []).append(network)
        defaults = "; ".join(f"{value} for {', '.join(each)}" for value, each in networks.items())
        default = f"default: {next(iter(networks))}" if len(networks) == 1 else f"defaults: {defaults}"
        found[name] = f"{description.strip().rstrip('.')} ({default})"
    return found

"""Engines of the weights folder, for the commands that run them in this process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from local.config import LocalConfig
from maskdrop import catalog
from sagemaker_model.device import choose_device
from sagemaker_model.engines.base import Engine, set_up
from sagemaker_model.settings import ServerSettings
from sagemaker_model.weights.store import NotInstalled

Weights = Annotated[Path | None, typer.Option(help="Weights folder (default: the folder of the local stack).")]


def weights_folder(folder: Path | None) -> Path:
    """Returns the weights folder: the given one, else that of the local stack."""
    return folder or LocalConfig.from_env(os.environ).weights


def device_and_threads(workers: int) -> tuple[str, int]:
    """Returns the device and the number of CPU threads per image, as in the server."""
    device = choose_device(ServerSettings.from_env(os.environ).device, require_gpu=False)
    return device, ServerSettings(workers=workers).threads


def load_engine(row: catalog.Engine, folder: Path, workers: int) -> Engine:
    """Sets up an engine as the server does, with its settings MODEL_DEVICE and MODEL_NON_COMMERCIAL.

    Raises InvalidWeights, InvalidSettings, and NotInstalled if weights, packages or consent are missing.
    """
    device, threads = device_and_threads(workers)
    non_commercial = ServerSettings.from_env(os.environ).non_commercial
    try:
        return set_up(row, device, folder, threads, non_commercial=non_commercial)
    except NotInstalled as error:
        raise NotInstalled(f"The engine {row.name} cannot be loaded. {error}") from error

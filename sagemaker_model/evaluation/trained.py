"""Predicts with the weights of a trained network, as the validation of its training does. Needs torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from maskdrop.settings import InvalidSettings
from sagemaker_model.data.records import LIMITS, InvalidData
from sagemaker_model.evaluation.cases import Case
from sagemaker_model.imaging.pixels import Pixels, decode
from sagemaker_model.imaging.resize import resized
from sagemaker_model.training.objectives import objective_of
from sagemaker_model.training.settings import DETECTORS, TrainingSettings, settings_of
from sagemaker_model.training.train import BEST, TRAINING
from sagemaker_model.weights.store import digest


class TrainedNetwork:
    """A predictor: resizes the image to the square of the run's side, and the matte back.

    weights_sha256: of the file of weights.
    """

    def __init__(
        self, path: Path, device: str, threads: int, network: str = "", given: Mapping[str, str] | None = None
    ) -> None:
        """Raises InvalidData for a folder without a validated run, InvalidSettings, InvalidWeights, NotInstalled.

        path: the folder of a run, whose best weights are used, or a file of weights. threads: CPU threads of torch for
        each prediction. network, given: the network of a file, and its settings that differ from the network's
        defaults; by default those of the run in whose folder the file is.
        """
        file = path / BEST if path.is_dir() else path
        if network:
            settings = settings_of(network, given or {})
        else:
            network, settings = _run_of(file, path)
        if network in DETECTORS:
            raise InvalidSettings(f"{network} learns boxes, not masks: use `maskdrop detector evaluate`.")
        torch.set_num_threads(threads)
        self._device, self._side = torch.device(device), settings.side
        self._objective = objective_of(network, settings, file).to(self._device).eval()
        self.weights_sha256 = digest(file)

    @torch.inference_mode()
    def __call__(self, case: Case) -> Pixels:
        """Returns the alpha of a case, HxW uint8 at the image's size. Raises InputError for an unreadable image."""
        rgb = decode(case.image.read_bytes(), LIMITS).rgb
        square = resized(rgb, (self._side, self._side), halve=False)
        image = torch.from_numpy(square).permute(2, 0, 1)[None].to(self._device).float() / 255
        matte = self._objective.matte(self._objective.net, image)[0, 0].cpu().numpy()
        alpha = resized((matte * 255).round().astype(np.uint8), (rgb.shape[1], rgb.shape[0]), halve=False)
        return np.asarray(alpha, np.uint8)


def _run_of(file: Path, path: Path) -> tuple[str, TrainingSettings]:
    """Returns network and settings of the run that wrote a file of weights. Raises InvalidData, InvalidSettings."""
    try:
        content = json.loads((file.parent / TRAINING).read_text())
        return content["network"], TrainingSettings(**content["settings"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        hint = "" if path.is_dir() else " For a file of weights elsewhere, name its network with --network."
        raise InvalidData(
            f"{file.parent} is not the folder of a training run that reached a validation: {error}.{hint}"
        ) from error

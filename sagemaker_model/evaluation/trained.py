"""Predicts with the best weights of a training run, as its validation does. Needs torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from sagemaker_model.data.records import LIMITS, InvalidData
from sagemaker_model.evaluation.cases import Case
from sagemaker_model.imaging.pixels import Pixels, decode
from sagemaker_model.imaging.resize import resized
from sagemaker_model.training.objectives import objective_of
from sagemaker_model.training.settings import TrainingSettings
from sagemaker_model.training.train import BEST, TRAINING
from sagemaker_model.weights.store import digest


class TrainedNetwork:
    """A predictor: resizes the image to the square of the run's side, and the matte back.

    weights_sha256: of the file of weights.
    """

    def __init__(self, folder: Path, device: str, threads: int) -> None:
        """Raises InvalidData for a folder without a validated run, InvalidSettings, InvalidWeights, NotInstalled.

        threads: CPU threads of torch for each prediction.
        """
        try:
            content = json.loads((folder / TRAINING).read_text())
            network, settings = content["network"], TrainingSettings(**content["settings"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InvalidData(
                f"{folder} is not the folder of a training run that reached a validation: {error}."
            ) from error
        torch.set_num_threads(threads)
        self._device, self._side = torch.device(device), settings.side
        self._objective = objective_of(network, settings, folder / BEST).to(self._device).eval()
        self.weights_sha256 = digest(folder / BEST)

    @torch.inference_mode()
    def __call__(self, case: Case) -> Pixels:
        """Returns the alpha of a case, HxW uint8 at the image's size. Raises InputError for an unreadable image."""
        rgb = decode(case.image.read_bytes(), LIMITS).rgb
        square = resized(rgb, (self._side, self._side), halve=False)
        image = torch.from_numpy(square).permute(2, 0, 1)[None].to(self._device).float() / 255
        matte = self._objective.matte(self._objective.net, image)[0, 0].cpu().numpy()
        alpha = resized((matte * 255).round().astype(np.uint8), (rgb.shape[1], rgb.shape[0]), halve=False)
        return np.asarray(alpha, np.uint8)

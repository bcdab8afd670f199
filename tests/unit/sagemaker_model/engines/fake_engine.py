"""A fake engine with a fixed result."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from maskdrop.prompt import Prompts
from sagemaker_model.engines.base import Alpha


@dataclass
class Half:
    """Returns the left half of every image as the subject. `hold` blocks `predict` until it is set; `error` is raised.

    `entered` counts the calls of `predict`.
    """

    weights_sha256: str = "half"
    hold: threading.Event | None = None
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    error: Exception | None = None

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None: ...

    def predict(self, rgb: np.ndarray, prompts: Prompts) -> Alpha:
        self.entered.release()
        if self.hold:
            assert self.hold.wait(60)
        if self.error:
            raise self.error
        values = np.zeros((4, 8), np.float32)
        values[:, :4] = 1
        return Alpha(values)

"""Loads the engines and detectors of a server or worker when it starts."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace

import cv2

from sagemaker_model.detectors.base import Detector
from sagemaker_model.detectors.labels import load_detectors
from sagemaker_model.device import choose_device
from sagemaker_model.engines.base import Engine, load_all
from sagemaker_model.engines.embeddings import CachesEmbeddings, EmbeddingCache
from sagemaker_model.serving import decoding
from sagemaker_model.settings import ServerSettings


def load_engines(settings: ServerSettings) -> tuple[ServerSettings, dict[str, Engine], dict[str, Detector]]:
    """Returns the settings with the chosen device, and the installed engines and detectors by name.

    From here on, SIGTERM ends the process with exit status 0. Raises InvalidWeights, NoGpu.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    cv2.setNumThreads(1)  # each worker has one thread: OpenCV's own threads would make it eight times slower
    decoding.prepare()
    settings = replace(settings, device=choose_device(settings.device, require_gpu=settings.require_gpu))
    engines = load_all(settings.device, settings.weights_dir, settings.threads, non_commercial=settings.non_commercial)
    cache = EmbeddingCache(settings.embeddings_bytes, settings.embeddings_dir, settings.embeddings_dir_bytes)
    for engine in engines.values():
        if isinstance(engine, CachesEmbeddings):
            engine.embeddings = cache  # one cache and budget for all engines
    detectors = load_detectors(settings.device, settings.weights_dir, settings.threads, paid=settings.rekognition)
    return settings, engines, detectors

"""The settings of the model server: read once, typed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from maskdrop.limits import IMAGE_BYTES_MAX
from maskdrop.settings import InvalidSettings, read
from sagemaker_model.imaging.pixels import Limits

PREFIX = "MODEL_"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where images come from, and the limits.

    host: the container sets 0.0.0.0; anywhere else only this machine is served.
    port: TCP port of the HTTP server. SageMaker requires 8080.
    weights_dir: SageMaker unpacks the weights into /opt/ml/model.
    device: cpu, cuda, or auto: cuda where there is one.
    require_gpu: refuse to start without one, rather than be slow unseen.
    batch_max: images that a GPU takes at once. On the CPU each worker runs the network for its own image.
    embeddings_bytes: memory for what engines keep of images for their next prompts; 8.4 MB each at most.
    embeddings_dir: an existing folder to keep them in too, shared by all servers that are given the same; None for no
    such folder. embeddings_dir_bytes: of its files.
    workers: images worked at once; one thread each, as OpenCV and Pillow let go of Python's lock.
    network_threads: cores that a network on the CPU takes for one image; None for a worker's share of them. MODNet's
    exported file on two cores: with one thread 3.7 images a second for one caller and 6.3 for two, with two threads
    6.6 and 5.9. So a server that gets one image at a time does best with one worker.
    queue_max: images admitted at once, waiting or in work: four bundles of 64.
    queue_bytes: bytes of request bodies held at once.
    max_bytes: of one file. A 50 MP camera JPEG has about 25 MB.
    max_pixels: of one image. It bounds memory: 48 MP take 0.77 GB at the peak, 16 bytes a pixel.
    deadline_s: for one image, from the moment that a worker picks it. 48 MP take 2 s on one core.
    drain_s: for what is in work after SIGTERM. SageMaker kills 30 s after it.
    usd_per_hour: the price of the instance; None where nothing is billed.
    queue_url: of the queue in SQS that `worker` receives from. It needs this and the next.
    results_bucket: where `worker` writes.
    delete_messages: 0 is a dry run of `worker`: results are written, and messages come again.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    weights_dir: Path = Path("/opt/ml/model")
    device: Literal["cpu", "cuda", "auto"] = "auto"
    require_gpu: bool = False
    batch_max: int = 16
    embeddings_bytes: int = 512 * 1024 * 1024
    embeddings_dir: Path | None = None
    embeddings_dir_bytes: int = 4 * 1024 * 1024 * 1024
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    network_threads: int | None = None
    queue_max: int = 256
    queue_bytes: int = 512 * 1024 * 1024
    max_bytes: int = IMAGE_BYTES_MAX
    max_pixels: int = 50_000_000
    deadline_s: float = 60.0
    drain_s: int = 25
    usd_per_hour: float | None = None
    queue_url: str = ""
    results_bucket: str = ""
    delete_messages: bool = True

    @property
    def threads(self) -> int:
        return self.network_threads or max(1, (os.cpu_count() or 1) // self.workers)

    @property
    def limits(self) -> Limits:
        return Limits(self.max_bytes, self.max_pixels)

    def require(self, *names: str) -> None:
        """Raises InvalidSettings, naming all of these that are not set."""
        if missing := [PREFIX + name.upper() for name in names if not getattr(self, name)]:
            raise InvalidSettings(f"{' and '.join(missing)} must be set.")

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ServerSettings:
        """Reads MODEL_<FIELD>; a variable that is not set keeps the default. Raises InvalidSettings that names every
        fault."""
        return cls(**read(cls, env, prefix=PREFIX, check=_above_zero))


def _above_zero(_name: str, value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value < math.inf:
        return "above 0"
    return ""

"""The settings of the model server: read once, typed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from maskdrop.limits import IMAGE_BYTES_MAX
from maskdrop.settings import read
from sagemaker_model.imaging.pixels import Limits

PREFIX = "MODEL_"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The settings of the model server and of `worker`.

    host: IP address to listen on. The container sets 0.0.0.0; the default serves this machine only.
    port: TCP port of the HTTP server. SageMaker requires 8080.
    weights_dir: folder of the weights. SageMaker unpacks them into /opt/ml/model.
    device: cpu, cuda, or auto (cuda if available, else cpu).
    require_gpu: do not start without a GPU, instead of running slowly on the CPU.
    batch_max: images in a batch on a GPU. On the CPU each worker runs the network for its own image.
    embeddings_bytes: memory of the embedding cache; an embedding takes at most 8.4 MB.
    embeddings_dir: existing folder in which embeddings are cached too, shared by all servers that use it; None for no
    folder. embeddings_dir_bytes: maximum size of its files.
    workers: images processed at once, one thread each: OpenCV and Pillow release the GIL.
    network_threads: cores that a network on the CPU uses for one image; None divides the cores among the workers.
    MODNet's exported file on two cores: with one thread 3.7 images a second for one caller and 6.3 for two, with two
    threads 6.6 and 5.9. So one worker is best for a server that gets one image at a time.
    queue_max: images admitted at once, waiting or in progress: four bundles of 64.
    queue_bytes: bytes of request bodies in memory at once.
    max_bytes: bytes of one file. A 50 MP camera JPEG has about 25 MB.
    max_pixels: pixels of one image. It bounds the memory: `make bench-bounds` measures it
    by engine, size and format. Decoding has a bound of its own, `decode_bytes`.
    deadline_s: seconds for one image, from the moment that a worker starts it. 48 MP take 2 s on one core.
    decode_s: seconds of CPU time to decode one file; four times as many on the clock.
    decode_bytes: memory to decode one file, in addition to its pixels.
    drain_s: seconds for requests in progress after SIGTERM. SageMaker kills the container 30 s after SIGTERM.
    rekognition: whether labels that no own detector knows are sent to Amazon Rekognition, at $0.001 a call.
    non_commercial: whether engines run whose weights may not be used commercially; every result of them has a warning.
    usd_per_hour: price of the instance in USD; None if nothing is billed.
    user: numeric ID of the user as whom a server continues that is started as root, as in the container; None: as root.
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
    decode_s: float = 8.0
    decode_bytes: int = 1024 * 1024 * 1024
    drain_s: int = 25
    rekognition: bool = False
    non_commercial: bool = False
    usd_per_hour: float | None = None
    user: int | None = None

    @property
    def threads(self) -> int:
        return self.network_threads or max(1, (os.cpu_count() or 1) // self.workers)

    @property
    def limits(self) -> Limits:
        return Limits(self.max_bytes, self.max_pixels)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ServerSettings:
        """Reads MODEL_<FIELD>; a variable that is not set keeps the default. Raises InvalidSettings that names every
        fault."""
        return cls(**read(cls, env, prefix=PREFIX, check=_above_zero))


def _above_zero(_name: str, value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value < math.inf:
        return "above 0"
    return ""

"""People, by MODNet's published checkpoint (Apache-2.0): hair and all, in one pass.

On a GPU torch runs it in half precision; on the CPU ONNX Runtime does, in eight bits where `maskdrop export` has made
that file. At 512x512 on one core: 345 ms by torch, 200 by ONNX Runtime in floats, 104 in eight bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maskdrop.prompt import Prompts
from sagemaker_model.engines.base import Alpha
from sagemaker_model.engines.onnx_session import onnx_session
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized
from sagemaker_model.weights.store import InvalidWeights, NotInstalled, digest, named, verify

if TYPE_CHECKING:  # torch need not be installed
    from sagemaker_model.engines.torch_runner import TorchRunner

Floats = NDArray[np.float32]

Network = Callable[[Sequence[Floats]], Sequence[Floats]]
"""From images 3xhxw in -1..1, of one size, to mattes hxw in 0..1, in float32 or float16."""

CHECKPOINT, ONNX, INT8 = "modnet.ckpt", "modnet.onnx", "modnet.int8.onnx"

SHORT, LONG_MAX = 512, 1024
"""Pixels of the sides at which the network works. 512 is the published rule, which knows no bound for the long side: a
panorama of 10:1 would be worked at 5120."""

SIZES = (
    *((SHORT, long) for long in (512, 576, 640, 672, 768, 896, LONG_MAX)),
    *((short, LONG_MAX) for short in (384, 256, 192, 128)),
)
"""(short, long) in pixels, multiples of 32: few, as images of one size are worked together. 5:4, 4:3, 3:2, 16:9 and
2:1 are there. An image's ratio is off by 8 % at most up to 2:1, by 25 % up to 10:1; by the published rule, which cuts
each side to a multiple of 32, by up to 6 %."""


class MODNet:
    weights_sha256 = ""

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:
        """Raises NotInstalled where there are no weights or the package that runs them is missing, InvalidWeights where
        they are not MODNet's."""
        names = (INT8, ONNX, CHECKPOINT) if device == "cpu" else (CHECKPOINT,)
        path = next((weights_dir / name for name in names if (weights_dir / name).exists()), None)
        if path is None:
            raise NotInstalled(f"MODNet on {device} needs {' or '.join(names)}, and {weights_dir} has none.")
        # An exported file has no published sum: it was made from the checkpoint by whoever put it here.
        self.weights_sha256 = verify(named("modnet"), weights_dir) if path.name == CHECKPOINT else digest(path)
        try:
            self._runner: TorchRunner | None = None
            if path.name == CHECKPOINT:
                self._runner = runner = _by_torch(path, device, threads)
                self._network: Network = lambda pictures: [matte for (matte,) in runner.run(pictures)]
            else:
                self._network = _by_onnx(path, threads)
        except ModuleNotFoundError as error:
            raise NotInstalled(f"MODNet needs {error.name} to run {path}, which is not installed.") from error
        grey = np.zeros((3, SHORT, SHORT), np.float32)
        if not np.isfinite(self.infer([grey])).all():
            raise InvalidWeights(f"{path} makes NaN or infinity of a grey image: export it again.")

    def warm_up(self, batch_max: int) -> None:
        if self._runner:
            turned = {(3, long, short) for short, long in SIZES}
            self._runner.warm_up({(3, *size) for size in SIZES} | turned, batch_max)

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:
        return self.finish(self.infer([self.prepare(rgb, prompts)])[0], rgb, prompts)

    def prepare(self, rgb: Pixels, prompts: Prompts) -> Floats:  # noqa: ARG002 - the catalogue lists no prompts for it
        """3xhxw in -1..1; h and w are one of SIZES."""
        small = resized(rgb, network_size(rgb.shape[1], rgb.shape[0]))
        return np.ascontiguousarray(small.transpose(2, 0, 1), np.float32) / np.float32(127.5) - 1

    def infer(self, batch: Sequence[Floats]) -> Sequence[Floats]:
        """Each hxw in 0..1. Raises torch.OutOfMemoryError."""
        return self._network(batch)

    def finish(self, output: Floats, rgb: Pixels, prompts: Prompts) -> Alpha:  # noqa: ARG002 - one contract for all engines
        return Alpha(np.clip(output.astype(np.float32, copy=False), 0, 1))


def network_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of SIZES with the ratio closest to the image's."""
    ratio = max(width, height) / min(width, height)
    short, long = min(SIZES, key=lambda size: abs(math.log(size[1] / size[0] / ratio)))
    return (long, short) if width > height else (short, long)


def _by_torch(path: Path, device: str, threads: int) -> TorchRunner:
    import torch

    from sagemaker_model.engines.torch_runner import TorchRunner, lowered
    from sagemaker_model.nets import modnet
    from sagemaker_model.weights import checkpoints

    net = modnet.MODNet()
    checkpoints.load_into(net, checkpoints.modnet_state(checkpoints.load_checkpoint(path)))
    net.eval().to(device).to(memory_format=torch.channels_last)
    if device == "cpu":
        torch.set_num_threads(threads)
    else:
        lowered(net, torch.float16)
    # float16, as bfloat16 is off eight times as far: 0.07 at most and 0.0007 in the mean, against 0.008 and 0.0001.
    return TorchRunner(lambda x: (net(x)[:, 0],), device, torch.float16)


def _by_onnx(path: Path, threads: int) -> Network:
    session = onnx_session(path, threads)
    try:
        session.run(["matte"], {"picture": np.zeros((1, 3, 32, 32), np.float32)})
    except Exception as error:  # ONNX Runtime's exceptions have no common root
        raise InvalidWeights(f"{path} is not MODNet: export it again.") from error

    def run(pictures: Sequence[Floats]) -> Sequence[Floats]:
        return list(session.run(["matte"], {"picture": np.stack(pictures)})[0][:, 0])

    return run

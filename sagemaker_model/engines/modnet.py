"""Mattes of people with fine hair by MODNet's published checkpoint (Apache-2.0), in one pass.

On a GPU torch runs it in half precision. On the CPU ONNX Runtime runs it, in 8 bits if `maskdrop export` has made that
file. At 512x512 on one core: 345 ms by torch, 200 ms by ONNX Runtime in float32, 104 ms in 8 bits.
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
from sagemaker_model.engines.onnx_session import onnx_session, run_matting
from sagemaker_model.engines.verification import Comparison
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized
from sagemaker_model.weights.store import InvalidWeights, NotInstalled, digest, named, verify

if TYPE_CHECKING:  # torch need not be installed
    from sagemaker_model.engines.torch_runner import TorchRunner

Floats = NDArray[np.float32]

Network = Callable[[Sequence[Floats]], Sequence[Floats]]
"""Runs the network: from images 3xhxw in -1..1, of one size, to mattes hxw in 0..1, float32 or float16."""

CHECKPOINT, ONNX, INT8 = "modnet.ckpt", "modnet.onnx", "modnet.int8.onnx"

SHORT, LONG_MAX = 512, 1024
"""Pixels of the network's input. The published rule is 512 for the short side without a limit for the long side: a
panorama of 10:1 would have 5120."""

SIZES = (
    *((SHORT, long) for long in (512, 576, 640, 672, 768, 896, LONG_MAX)),
    *((short, LONG_MAX) for short in (384, 256, 192, 128)),
)
"""Input sizes (short, long) in pixels, multiples of 32. They are few, as only images of one size share a batch. They
include 5:4, 4:3, 3:2, 16:9 and 2:1. The aspect ratio changes by at most 8 % up to 2:1 and by at most 25 % up to 10:1;
by the published rule, which rounds each side down to a multiple of 32, by up to 6 %."""


class MODNet:
    """The engine `modnet`."""

    weights_sha256 = ""

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:
        """Loads the 8-bit ONNX file, the float32 ONNX file or the checkpoint, the first that the folder has.

        Raises NotInstalled if there are no weights or the package that runs them is missing, InvalidWeights if they are
        not MODNet's.
        """
        names = (INT8, ONNX, CHECKPOINT) if device == "cpu" else (CHECKPOINT,)
        path = next((weights_dir / name for name in names if (weights_dir / name).exists()), None)
        if path is None:
            raise NotInstalled(f"MODNet on {device} needs {' or '.join(names)}; {weights_dir} has none of them.")
        # Only the checkpoint has a published SHA-256: exported files differ from one machine to the next.
        self.weights_sha256 = verify(named("modnet"), weights_dir) if path.name == CHECKPOINT else digest(path)
        try:
            self._runner: TorchRunner | None = None
            if path.name == CHECKPOINT:
                self._runner = runner = _by_torch(path, device, threads)
                self._network: Network = lambda images: [matte for (matte,) in runner.run(images)]
            else:
                self._network = _by_onnx(path, threads)
        except ModuleNotFoundError as error:
            raise NotInstalled(f"MODNet needs the package {error.name} to run {path}: install it.") from error
        grey = np.zeros((3, SHORT, SHORT), np.float32)
        if not np.isfinite(self.infer([grey])).all():
            raise InvalidWeights(f"{path} gives NaN or infinity for a grey image: export it again.")

    def warm_up(self, batch_max: int) -> tuple[Comparison, ...]:
        if self._runner is None:
            return ()
        portrait = {(3, long, short) for short, long in SIZES}
        return self._runner.warm_up({(3, *size) for size in SIZES} | portrait, batch_max)

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:
        return self.finish(self.infer([self.prepare(rgb, prompts)])[0], rgb, prompts)

    def prepare(self, rgb: Pixels, prompts: Prompts) -> Floats:  # noqa: ARG002 - the catalogue lists no prompts for it
        """Returns 3xhxw float32 in -1..1; h and w are one of SIZES."""
        small = resized(rgb, network_size(rgb.shape[1], rgb.shape[0]))
        return np.ascontiguousarray(small.transpose(2, 0, 1), np.float32) / np.float32(127.5) - 1

    def infer(self, batch: Sequence[Floats]) -> Sequence[Floats]:
        """Returns one matte hxw in 0..1 for each input. Raises torch.OutOfMemoryError."""
        return self._network(batch)

    def finish(self, output: Floats, rgb: Pixels, prompts: Prompts) -> Alpha:  # noqa: ARG002 - one contract for all engines
        return Alpha(np.clip(output.astype(np.float32, copy=False), 0, 1))


def network_size(width: int, height: int) -> tuple[int, int]:
    """Returns the (width, height) of SIZES whose aspect ratio is closest to the image's."""
    ratio = max(width, height) / min(width, height)
    short, long = min(SIZES, key=lambda size: abs(math.log(size[1] / size[0] / ratio)))
    return (long, short) if width > height else (short, long)


def _by_torch(path: Path, device: str, threads: int) -> TorchRunner:
    from sagemaker_model.engines.torch_runner import matting_runner
    from sagemaker_model.nets import modnet
    from sagemaker_model.weights import checkpoints

    net = modnet.MODNet()
    checkpoints.load_into(net, checkpoints.modnet_state(checkpoints.load_checkpoint(path)))
    return matting_runner(net.eval(), device, threads)


def _by_onnx(path: Path, threads: int) -> Network:
    session = onnx_session(path, threads)
    try:
        run_matting(session, np.zeros((1, 3, 32, 32), np.float32))
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise InvalidWeights(f"{path} is not MODNet: export it again.") from error

    return lambda images: list(run_matting(session, np.stack(images))[:, 0])

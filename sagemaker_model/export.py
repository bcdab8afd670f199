"""MODNet for ONNX Runtime: in floats, and in eight bits for the CPU.

    python -m sagemaker_model.export FOLDER PICTURE...

makes modnet.onnx and modnet.int8.onnx in FOLDER from the modnet.ckpt there and says how far each is from the network on
the pictures. They also calibrate the eight bits: fifty photos like those to come are enough.

Eight bits are static: activations u8, weights s8 by channel. One pass at 512x512 then takes 104 ms of one core against
200 in floats, and the file has 7 MB against 26. With s8 activations, or with ranges found anew for each picture, it is
slower than in floats. On processors without VNNI sums of u8s8 can overflow: serve modnet.onnx there.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from maskdrop.errors import MaskdropError
from sagemaker_model.checkpoints import load_checkpoint, load_into, modnet_state
from sagemaker_model.engines import modnet
from sagemaker_model.nets.modnet import MODNet
from sagemaker_model.pixels import decode
from sagemaker_model.settings import ServerSettings

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]

OPSET = 17
"""Of the operators: every ONNX Runtime since 1.12 has them."""


def to_onnx(net: nn.Module, path: Path) -> None:
    """Writes `net` in eval mode, from "picture" Nx3xHxW to "matte" Nx1xHxW; N, H and W are free.

    By the TorchScript exporter: what the newer one (dynamo=True) makes of MODNet cannot be quantised.
    """
    free = {0: "n", 2: "h", 3: "w"}
    with _replaced(path) as new, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's age, and that instance norms use each picture's own means
        torch.onnx.export(
            net.eval(),
            (torch.zeros(1, 3, 64, 64),),
            new,
            dynamo=False,
            opset_version=OPSET,
            input_names=["picture"],
            output_names=["matte"],
            dynamic_axes={"picture": free, "matte": free},
        )


def quantised(path: Path, out: Path, pictures: Sequence[Floats]) -> None:
    """Writes the network of `path` in eight bits. pictures: each 3xhxw in -1..1; they give the activations' ranges."""
    with _replaced(out) as new:
        # Folds batch norms into convolutions first: without, eight bits take half as long again.
        folded = new.with_name("folded.onnx")
        quant_pre_process(path, folded, skip_symbolic_shape=True)
        quantize_static(
            folded,
            new,
            _Calibration(pictures),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )


def difference(net: nn.Module, path: Path, pictures: Sequence[Floats]) -> tuple[float, float]:
    """The largest and the mean difference, in 0..1, between the mattes of `net` and of the exported file."""
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    largest, means = 0.0, []
    for picture in pictures:
        with torch.inference_mode():
            matte = net.eval()(torch.from_numpy(picture[None])).numpy()
        off = np.abs(session.run(["matte"], {"picture": picture[None]})[0] - matte)
        largest = max(largest, float(off.max()))
        means.append(float(off.mean()))
    return largest, sum(means) / len(means)


class _Calibration(CalibrationDataReader):
    def __init__(self, pictures: Sequence[Floats]) -> None:
        self._pictures = iter(pictures)

    def get_next(self) -> dict[str, Floats] | None:
        picture = next(self._pictures, None)
        return None if picture is None else {"picture": picture[None]}


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A file beside `path` to write, which then takes its place: whole or not at all."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        new = Path(scratch) / path.name
        yield new
        new.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m sagemaker_model.export", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="of modnet.ckpt, and of what is made")
    parser.add_argument("pictures", type=Path, nargs="+", metavar="picture")
    given = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, format="%(message)s")  # the quantiser warns of every norm
    log.setLevel(logging.INFO)
    folder: Path = given.folder
    net, engine = MODNet(), modnet.MODNet()
    try:
        load_into(net, modnet_state(load_checkpoint(folder / modnet.CHECKPOINT)))
        limits = ServerSettings().limits
        pictures = [engine.prepare(decode(path.read_bytes(), limits).rgb, ()) for path in given.pictures]
    except (MaskdropError, OSError) as error:
        log.error("%s", error)
        return 1
    to_onnx(net, folder / modnet.ONNX)
    quantised(folder / modnet.ONNX, folder / modnet.INT8, pictures)
    for name in (modnet.ONNX, modnet.INT8):
        largest, mean = difference(net, folder / name, pictures)
        log.info("%s differs from %s by %.1e at most, %.1e in the mean", name, modnet.CHECKPOINT, largest, mean)
    return 0


if __name__ == "__main__":
    sys.exit(main())

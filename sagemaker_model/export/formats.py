"""Trained networks in the forms that run without what trained them, each compared with the network itself.

onnx: floats, any size and batch; for the engines on the CPU.
int8: ONNX in eight bits, static: activations u8, weights s8 by channel, with ranges found on fifty photos or so like
those to come. With s8 activations, or with ranges found anew for each image, MODNet is slower than in floats. On
processors without VNNI sums of u8s8 can overflow: serve the floats there. Portrait has nothing to gain and much to
lose: its floats are as fast (8 ms), and in eight bits its mattes keep an IoU of 0.91 with them.
torchscript: for torch without our code, any size and batch.
tflite: TensorFlow Lite, for telephones; one image of one size, channels last.
"""

from __future__ import annotations

import contextlib
import logging
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from maskdrop.errors import MaskdropError
from sagemaker_model.engines import modnet, portrait
from sagemaker_model.engines.onnx_session import onnx_session
from sagemaker_model.export import litert
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.refine import resized
from sagemaker_model.nets import attention_unet
from sagemaker_model.nets.modnet import MODNet
from sagemaker_model.nets.portrait import Portrait
from sagemaker_model.weights.checkpoints import State, load_checkpoint, load_into, modnet_state
from sagemaker_model.weights.published import portrait_state
from sagemaker_model.weights.store import NotInstalled

Floats = NDArray[np.float32]

Mattes = tuple[list[Floats], list[float]]
"""1xhxw in 0..1 for each image, and the ms that it took on one core."""

OPSET = 17
"""Of the operators: every ONNX Runtime since 1.12 has them."""

ATTENTION_UNET_SIDE = 128
"""Pixels, as `maskdrop train` has it by default; no engine says."""

CALIBRATION_MIN = 8
"""Images. Fewer than that give ranges which the next image leaves."""


class ExportFailed(MaskdropError):
    code = "export_failed"


@dataclass(frozen=True, slots=True)
class Network:
    """make: the network, untrained, as large as these entries say. state: its entries from a file of weights.
    prepared: its input for an image of any size, 3xhxw, as its engine makes it. side: in pixels, where there is one
    size alone."""

    make: Callable[[State], nn.Module]
    state: Callable[[Path], State]
    prepared: Callable[[Pixels], Floats]
    side: int


NETWORKS = {
    "modnet": Network(
        lambda _: MODNet(),
        lambda path: modnet_state(load_checkpoint(path)),
        lambda rgb: modnet.MODNet().prepare(rgb, ()),
        modnet.SHORT,
    ),
    "portrait": Network(
        lambda _: Portrait(),
        lambda path: portrait_state(path) if path.suffix == ".tflite" else load_checkpoint(path),
        portrait.network_input,
        portrait.SIDE,
    ),
    "attention-unet": Network(
        attention_unet.sized_for,
        load_checkpoint,
        lambda rgb: portrait.network_input(rgb, ATTENTION_UNET_SIDE),
        ATTENTION_UNET_SIDE,
    ),
}


@dataclass(frozen=True, slots=True)
class Form:
    """write: the network to a file; the images, as the network takes them, are what it may measure itself on.
    mattes: what the file makes of images. one_size: it takes images of `Network.side` alone."""

    suffix: str
    write: Callable[[nn.Module, Path, Sequence[Floats]], None]
    mattes: Callable[[Path, Sequence[Floats]], Mattes]
    one_size: bool = False


@dataclass(frozen=True, slots=True)
class Exported:
    """A file and how far it is from its network, over the images of the comparison.

    ms, network_ms: medians for an image on one core. largest, mean: difference of the mattes, in 0..1.
    iou: mean, of the mattes from 0.5 on.
    """

    path: Path
    bytes: int
    ms: float
    network_ms: float
    largest: float
    mean: float
    iou: float


def load(name: str, weights: Path) -> nn.Module:
    """The network in eval mode. Raises ExportFailed, InvalidWeights."""
    state = _network(name).state(weights)
    net = _network(name).make(state)
    load_into(net, state)
    return net.eval()


def export(name: str, net: nn.Module, form: Form, folder: Path, pictures: Sequence[Pixels]) -> Exported:
    """Writes `net` in one form into `folder` and compares the two on every second image; the others calibrate.
    Raises ExportFailed, NotInstalled, OSError."""
    network = _network(name)
    if form.one_size:
        pictures = [resized(rgb, (network.side, network.side)) for rgb in pictures]
    taken = [network.prepared(rgb) for rgb in pictures]
    compared, calibrating = taken[::2], taken[1::2] or taken
    if not compared:
        raise ExportFailed("There is no image to compare the export with its network on.")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{form.suffix}"
    with _replaced(path) as new, _one_thread():
        form.write(net, new, calibrating)
        found, ms = form.mattes(new, compared)
        wanted, network_ms = _timed(lambda x: net(torch.from_numpy(x)).numpy(), compared)
    off = [np.abs(a - b) for a, b in zip(found, wanted, strict=True)]
    return Exported(
        path=path,
        bytes=path.stat().st_size,
        ms=statistics.median(ms),
        network_ms=statistics.median(network_ms),
        largest=max(float(each.max()) for each in off),
        mean=statistics.mean(float(each.mean()) for each in off),
        iou=statistics.mean(iou(a, b) for a, b in zip(found, wanted, strict=True)),
    )


def forms(tflite_python: Path) -> dict[str, Form]:
    """By name. tflite_python: of the environment with LiteRT's converter."""
    return {
        "onnx": Form(".onnx", lambda net, path, _: to_onnx(net, path), onnx_mattes),
        "int8": Form(".int8.onnx", to_int8, onnx_mattes),
        "torchscript": Form(".torchscript", lambda net, path, _: to_torchscript(net, path), torchscript_mattes),
        "tflite": Form(
            ".tflite",
            lambda net, path, pictures: to_tflite(net, path, pictures, tflite_python),
            lambda path, pictures: tflite_mattes(path, pictures, tflite_python),
            one_size=True,
        ),
    }


# Each form: how it is written, and what it makes of images


def to_onnx(net: nn.Module, path: Path) -> None:
    """From "image" Nx3xHxW to "matte" Nx1xHxW; N, H and W are free.

    By the TorchScript exporter: what the newer one (dynamo=True) makes of MODNet cannot be quantised.
    """
    free = {0: "n", 2: "h", 3: "w"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's age, and that instance norms use each image's own means
        torch.onnx.export(
            net.eval(),
            (torch.zeros(1, 3, 64, 64),),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=["picture"],
            output_names=["matte"],
            dynamic_axes={"picture": free, "matte": free},
        )


def to_int8(net: nn.Module, path: Path, pictures: Sequence[Floats]) -> None:
    """ONNX in eight bits. images: each 3xhxw, as the network takes them; they give the activations' ranges.
    Raises ExportFailed for fewer than CALIBRATION_MIN of them."""
    if len(pictures) < CALIBRATION_MIN:
        raise ExportFailed(
            f"Eight bits need {2 * CALIBRATION_MIN} images like those to come, half of them to compare; fifty are "
            "enough."
        )
    floats, folded = path.with_name("floats.onnx"), path.with_name("folded.onnx")
    to_onnx(net, floats)
    # Folds batch norms into convolutions first: without, eight bits take half as long again.
    with _unwarned():
        quant_pre_process(floats, folded, skip_symbolic_shape=True)
        quantize_static(
            folded,
            path,
            _Calibration(pictures),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )


def onnx_mattes(path: Path, pictures: Sequence[Floats]) -> Mattes:
    session = onnx_session(path, threads=1)
    return _timed(lambda x: session.run(["matte"], {"picture": x})[0], pictures)


def to_torchscript(net: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript's age
        torch.jit.trace(net.eval(), torch.zeros(1, 3, 64, 64)).save(path)


def torchscript_mattes(path: Path, pictures: Sequence[Floats]) -> Mattes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch.jit.load(path)
    return _timed(lambda x: net(torch.from_numpy(x)).numpy(), pictures)


def to_tflite(net: nn.Module, path: Path, pictures: Sequence[Floats], python: Path) -> None:
    """For one image of the first one's size, channels last: from 1xHxWx3 to 1xHxWx1.
    Raises NotInstalled, ExportFailed."""
    program = path.with_name("program.pt2")
    torch.export.save(torch.export.export(net.eval(), (torch.from_numpy(pictures[0][None]),)), program)
    _litert(python, "convert", program, path)


def tflite_mattes(path: Path, pictures: Sequence[Floats], python: Path) -> Mattes:
    given, made = path.with_name("pictures.npy"), path.with_name("mattes.npz")
    np.save(given, np.stack(pictures))
    _litert(python, "run", path, given, made)
    with np.load(made) as found:
        return list(found["mattes"]), found["ms"].tolist()


def _litert(python: Path, *words: str | Path) -> None:
    """Runs litert.py in its environment."""
    if not python.exists():
        raise NotInstalled(
            f"TensorFlow Lite needs an environment of its own, and {python} is not there: `make tflite`."
        )
    command = [str(python), str(Path(litert.__file__)), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
    if done.returncode != 0:
        raise ExportFailed(f"LiteRT failed: {(done.stderr.strip() or 'it gave no reason').splitlines()[-1]}")


class _Calibration(CalibrationDataReader):
    def __init__(self, pictures: Sequence[Floats]) -> None:
        self._pictures = iter(pictures)

    def get_next(self) -> dict[str, Floats] | None:
        picture = next(self._pictures, None)
        return None if picture is None else {"picture": picture[None]}


def _network(name: str) -> Network:
    try:
        return NETWORKS[name]
    except KeyError:
        raise ExportFailed(f"There is no network named {name!r} to export; there are: {', '.join(NETWORKS)}.") from None


@torch.inference_mode()
def _timed(run: Callable[[Floats], Any], pictures: Sequence[Floats]) -> Mattes:
    """Of each image, the first gone through once before."""
    run(pictures[0][None])
    mattes, ms = [], []
    for picture in pictures:
        start = time.perf_counter()
        mattes.append(run(picture[None])[0])
        ms.append((time.perf_counter() - start) * 1000)
    return mattes, ms


def iou(found: Floats, wanted: Floats) -> float:
    """Of two mattes from 0.5 on; 1 for two empty ones."""
    both, either = ((found >= 0.5) & (wanted >= 0.5)).sum(), ((found >= 0.5) | (wanted >= 0.5)).sum()
    return float(both / either) if either else 1.0


@contextlib.contextmanager
def _unwarned() -> Iterator[None]:
    """The quantiser warns of every norm, by the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A file beside `path` to write, which then takes its place: whole or not at all."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        new = Path(scratch) / path.name
        yield new
        new.replace(path)

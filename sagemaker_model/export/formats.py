"""Exports trained networks to ONNX, TorchScript and TensorFlow Lite and compares each file with its network.

- onnx: float32, any size and batch; for the engines on the CPU.
- int8: ONNX with static quantisation: activations uint8, weights int8 per channel. The activations' ranges are
  calibrated on about fifty images like those to be processed. With int8 activations or dynamic quantisation MODNet is
  slower than in float32. On processors without VNNI, sums of uint8 by int8 can overflow: serve float32 there. For
  Portrait int8 is no faster (8 ms), and its mattes have an IoU of 0.91 with those of float32.
- onnx of BiRefNet: with the operator DeformConv, for sides that are multiples of 32 (export/birefnet.py).
- torchscript: for torch without this project's code, any size and batch.
- tflite: TensorFlow Lite, for phones; one image of one size, channels last.
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
from sagemaker_model.engines import birefnet, modnet, portrait
from sagemaker_model.engines.onnx_session import onnx_session
from sagemaker_model.evaluation.metrics import iou
from sagemaker_model.export import birefnet as deformable
from sagemaker_model.export import litert
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized
from sagemaker_model.nets import attention_unet
from sagemaker_model.nets.birefnet import BiRefNet
from sagemaker_model.nets.modnet import MODNet
from sagemaker_model.nets.portrait import Portrait
from sagemaker_model.training.settings import DETECTORS
from sagemaker_model.weights.checkpoints import State, load_checkpoint, load_into, modnet_state
from sagemaker_model.weights.files import atomic_write
from sagemaker_model.weights.published import portrait_state
from sagemaker_model.weights.store import NotInstalled

Floats = NDArray[np.float32]

Mattes = tuple[list[Floats], list[float]]
"""The matte 1xhxw in 0..1 of each image, and the milliseconds of each on one core."""

OPSET = 17
"""ONNX operator set; every ONNX Runtime since 1.12 supports it."""

INPUT_NAME, OUTPUT_NAME = "picture", "matte"
"""Names of the tensors in the ONNX files. Part of the file format: the engines and existing files use them."""

ATTENTION_UNET_SIDE = 128
"""Side of the input in pixels: the default of `maskdrop train`, since no engine runs this network."""

CALIBRATION_MIN = 8
"""Fewest calibration images. With fewer, other images exceed the calibrated ranges."""


class ExportFailed(MaskdropError):
    """A network cannot be exported to the format."""

    code = "export_failed"


@dataclass(frozen=True, slots=True)
class Network:
    """A network that can be exported.

    build: creates the untrained network with the sizes of a state dict. load_state: reads its state dict from a file.
    prepare: its input 3xhxw for an image of any size, preprocessed as in its engine. side: input size in pixels for
    formats of one size. mark: follows the network's name in the names of exported files.
    """

    build: Callable[[State], nn.Module]
    load_state: Callable[[Path], State]
    prepare: Callable[[Pixels], Floats]
    side: int | None = None
    mark: str = ""


def _mask_rcnn(state: State) -> nn.Module:
    from sagemaker_model.nets.mask_rcnn import sized_for

    return sized_for(state)


def _birefnet(name: str) -> Network:
    return Network(
        lambda _: birefnet.new_network(name),
        lambda path: birefnet.load_state(name, path),
        lambda rgb: birefnet.network_input(rgb, birefnet.VARIANTS[name]),
        mark=birefnet.EXPORTED.removesuffix(".onnx"),
    )


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
    # Its side is part of its weights: it resizes images itself.
    "mask-rcnn": Network(_mask_rcnn, load_checkpoint, portrait.to_planes),
    **{name: _birefnet(name) for name in birefnet.VARIANTS},
}


@dataclass(frozen=True, slots=True)
class Format:
    """An export format.

    write: exports a network to a file; the preprocessed images are for calibration. run: runs a file on images.
    fixed_size: the file accepts only images of `Network.side`.
    """

    suffix: str
    write: Callable[[nn.Module, Path, Sequence[Floats]], None]
    run: Callable[[Path, Sequence[Floats]], Mattes]
    fixed_size: bool = False


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported file and its differences from the network over the compared images.

    bytes: size of the file. ms, network_ms: median milliseconds for an image on one core, of the file and the network.
    max_difference, mean_difference: absolute difference of the mattes, 0..1. iou: mean IoU of the mattes at 0.5.
    """

    path: Path
    bytes: int
    ms: float
    network_ms: float
    max_difference: float
    mean_difference: float
    iou: float


def load(name: str, weights: Path) -> nn.Module:
    """Loads the network in eval mode. Raises ExportFailed, InvalidWeights, NotInstalled."""
    state = _network(name).load_state(weights)
    net = _network(name).build(state)
    load_into(net, state)
    return net.eval()


def export(name: str, net: nn.Module, export_format: Format, folder: Path, images: Sequence[Pixels]) -> Exported:
    """Exports `net` to `folder` and compares the file with it on every second image; the other images calibrate int8.

    Raises ExportFailed, NotInstalled, OSError.
    """
    network = _network(name)
    if (_accepts_one_image(net) or isinstance(net, BiRefNet)) and export_format.suffix != ".onnx":
        raise ExportFailed(f"{name} is exported to ONNX (onnx) only: other formats lack its operators.")
    if export_format.fixed_size and network.side:
        images = [resized(rgb, (network.side, network.side)) for rgb in images]
    inputs = [network.prepare(rgb) for rgb in images]
    compared, calibration = inputs[::2], inputs[1::2] or inputs
    if not compared:
        raise ExportFailed("No images to compare the export with its network; pass at least one image.")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{network.mark}{export_format.suffix}"
    with tempfile.TemporaryDirectory(dir=folder) as scratch, one_thread():
        new = Path(scratch) / path.name  # some formats write intermediate files beside it
        export_format.write(net, new, calibration)
        mattes, ms = export_format.run(new, compared)
        reference, network_ms = timed(lambda x: net(torch.from_numpy(x)).numpy(), compared)
        with atomic_write(path) as temporary:
            new.replace(temporary)
    differences = [np.abs(a - b) for a, b in zip(mattes, reference, strict=True)]
    return Exported(
        path=path,
        bytes=path.stat().st_size,
        ms=statistics.median(ms),
        network_ms=statistics.median(network_ms),
        max_difference=max(float(difference.max()) for difference in differences),
        mean_difference=statistics.mean(float(difference.mean()) for difference in differences),
        iou=statistics.mean(iou(a >= 0.5, b >= 0.5) for a, b in zip(mattes, reference, strict=True)),
    )


def formats(tflite_python: Path) -> dict[str, Format]:
    """The export formats by name. tflite_python: Python of the environment with LiteRT's converter."""
    return {
        "onnx": Format(".onnx", lambda net, path, _: to_onnx(net, path), run_onnx),
        "int8": Format(".int8.onnx", to_int8, run_onnx),
        "torchscript": Format(".torchscript", lambda net, path, _: to_torchscript(net, path), run_torchscript),
        "tflite": Format(
            ".tflite",
            lambda net, path, images: to_tflite(net, path, images, tflite_python),
            lambda path, images: run_tflite(path, images, tflite_python),
            fixed_size=True,
        ),
    }


# Writing and running each format


def to_onnx(net: nn.Module, path: Path) -> None:
    """Exports to ONNX in float32: from INPUT_NAME Nx3xHxW to OUTPUT_NAME Nx1xHxW, with variable N, H and W.

    N is 1 for Mask R-CNN. Uses the TorchScript exporter: MODNet as exported by the newer one (dynamo=True) cannot be
    quantised.
    """
    if isinstance(net, BiRefNet):
        deformable.to_onnx(net, path, INPUT_NAME, OUTPUT_NAME)
        return
    free = {2: "h", 3: "w"} if _accepts_one_image(net) else {0: "n", 2: "h", 3: "w"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the deprecated exporter, and of instance norms in eval mode
        torch.onnx.export(
            net.eval(),
            (torch.zeros(1, 3, 64, 64),),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_axes={INPUT_NAME: free, OUTPUT_NAME: free},
        )


def to_int8(net: nn.Module, path: Path, images: Sequence[Floats]) -> None:
    """Exports to ONNX and quantises to eight bits.

    images: preprocessed, 3xhxw each; they calibrate the activations' ranges. Raises ExportFailed for fewer than
    CALIBRATION_MIN of them.
    """
    if len(images) < CALIBRATION_MIN:
        raise ExportFailed(
            f"int8 needs at least {2 * CALIBRATION_MIN} images like those to be processed, half of them to compare; "
            f"got {len(images)} for calibration. Fifty images are enough."
        )
    floats, folded = path.with_name("floats.onnx"), path.with_name("folded.onnx")
    to_onnx(net, floats)
    # Folds batch norms into convolutions first: otherwise int8 takes half as long again.
    with _warnings_disabled():
        quant_pre_process(floats, folded, skip_symbolic_shape=True)
        quantize_static(
            folded,
            path,
            _Calibration(images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )


def run_onnx(path: Path, images: Sequence[Floats]) -> Mattes:
    session = onnx_session(path, threads=1)
    return timed(lambda x: session.run([OUTPUT_NAME], {INPUT_NAME: x})[0], images)


def to_torchscript(net: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecated TorchScript
        torch.jit.trace(net.eval(), torch.zeros(1, 3, 64, 64)).save(path)  # type: ignore[no-untyped-call]


def run_torchscript(path: Path, images: Sequence[Floats]) -> Mattes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch.jit.load(path)  # type: ignore[no-untyped-call]
    return timed(lambda x: net(torch.from_numpy(x)).numpy(), images)


def to_tflite(net: nn.Module, path: Path, images: Sequence[Floats], python: Path) -> None:
    """Exports to TensorFlow Lite for one image of the first image's size, channels last: from 1xHxWx3 to 1xHxWx1.

    Raises NotInstalled, ExportFailed.
    """
    program = path.with_name("program.pt2")
    torch.export.save(torch.export.export(net.eval(), (torch.from_numpy(images[0][None]),)), program)
    _litert(python, "convert", program, path)


def run_tflite(path: Path, images: Sequence[Floats], python: Path) -> Mattes:
    inputs, outputs = path.with_name("images.npy"), path.with_name("mattes.npz")
    np.save(inputs, np.stack(images))
    _litert(python, "run", path, inputs, outputs)
    with np.load(outputs) as results:
        return list(results["mattes"]), results["ms"].tolist()


def _litert(python: Path, *arguments: str | Path) -> None:
    """Runs litert.py in its environment. Raises NotInstalled, ExportFailed."""
    if not python.exists():
        raise NotInstalled(
            f"TensorFlow Lite needs an environment of its own, and {python} does not exist: run `make tflite`."
        )
    command = [str(python), str(Path(litert.__file__)), *map(str, arguments)]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed command
    if completed.returncode != 0:
        reason = (completed.stderr.strip() or "no error message").splitlines()[-1]
        raise ExportFailed(f"LiteRT failed: {reason}")


class _Calibration(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Feeds calibration images to ONNX Runtime's quantiser."""

    def __init__(self, images: Sequence[Floats]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, Floats] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT_NAME: image[None]}


def _accepts_one_image(net: nn.Module) -> bool:
    return bool(getattr(net, "one_image", False))


def _network(name: str) -> Network:
    try:
        return NETWORKS[name]
    except KeyError:
        raise ExportFailed(f"Unknown network {name!r}; use one of: {', '.join((*NETWORKS, *DETECTORS))}.") from None


@torch.inference_mode()
def timed(run: Callable[[Floats], Any], images: Sequence[Floats]) -> tuple[list[Any], list[float]]:
    """Runs each image and measures its milliseconds, after one warm-up run.

    run: takes a batch of one and returns its output, or a list of outputs.
    """
    run(images[0][None])
    results, ms = [], []
    for image in images:
        start = time.perf_counter()
        output = run(image[None])
        ms.append((time.perf_counter() - start) * 1000)
        results.append([part[0] for part in output] if isinstance(output, list) else output[0])
    return results, ms


@contextlib.contextmanager
def _warnings_disabled() -> Iterator[None]:
    """Disables log warnings: the quantiser logs one for every norm to the root logger."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limits torch to one thread."""
    previous = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(previous)

"""Export a trained network to ONNX (float32 and int8), TorchScript or TensorFlow Lite."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from cli.terminal import console, print_errors
from local.config import ROOT, LocalError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class Format(StrEnum):
    onnx = "onnx"
    int8 = "int8"
    torchscript = "torchscript"
    tflite = "tflite"


def export(
    network: Annotated[
        str,
        typer.Argument(
            help="Network: modnet, portrait, attention-unet, mask-rcnn, detector, rt-detr or an engine of BiRefNet."
        ),
    ],
    weights: Annotated[Path, typer.Argument(help="Checkpoint; for portrait also the published .tflite file.")],
    to: Annotated[list[Format], typer.Option(help="Export format; repeatable.")],
    out: Annotated[Path, typer.Option(help="Output folder.")],
    compare: Annotated[
        Path,
        typer.Option(
            help="Folder of representative images. Every second image is used to compare each export with its network; "
            "the others calibrate int8."
        ),
    ] = ROOT / "samples",
    tflite_python: Annotated[Path, typer.Option(help="Python of the environment that `make tflite` creates.")] = ROOT
    / ".venv-tflite"
    / "bin"
    / "python",
) -> None:
    """Export a trained network and print how far each export differs from it on images."""
    with print_errors():
        try:
            from sagemaker_model.export import detector
            from sagemaker_model.export import formats as exporter
        except ModuleNotFoundError as error:
            raise LocalError(
                f"Exporting needs {error.name}: install requirements-models.txt (the extras gpu, export and train)."
            ) from error
        from sagemaker_model.imaging.pixels import decode
        from sagemaker_model.settings import ServerSettings
        from sagemaker_model.training.settings import DETECTORS

        boxes = network in DETECTORS
        if boxes and set(to) != {Format.onnx}:
            raise LocalError(f"{network} can be exported to onnx only.")
        net = None if boxes else exporter.load(network, weights)
        limits = ServerSettings().limits
        photos = sorted(path for path in compare.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        images = [decode(path.read_bytes(), limits).rgb for path in photos]
        formats = exporter.formats(tflite_python)
        names = ("format", "MB", "ms", "network ms", "max difference", "mean difference", "IoU", "file")
        table = Table(*(Column(name, overflow="fold") for name in names))
        for format_ in dict.fromkeys(to):
            with console.status(f"Exporting to {format_}"):
                if net is None:
                    result = detector.export(network, weights, out, images)
                else:
                    result = exporter.export(network, net, formats[format_], out, images)
            figures = (
                f"{result.ms:.1f}",
                f"{result.network_ms:.1f}",
                f"{result.max_difference:.1e}",
                f"{result.mean_difference:.1e}",
            )
            table.add_row(format_, f"{result.bytes / 1e6:.2f}", *figures, f"{result.iou:.4f}", escape(str(result.path)))
    console.print(table)
    compared = len(images) if boxes else (len(images) + 1) // 2
    console.print(f"Times are for one core. Compared on {compared} images of {escape(str(compare))}.")

"""Exports a trained network to ONNX (float32 and int8), TorchScript or TensorFlow Lite."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from cli.terminal import console, explained
from local.config import ROOT, LocalError

PHOTOS = (".jpg", ".jpeg", ".png", ".webp")


class Form(StrEnum):
    onnx = "onnx"
    int8 = "int8"
    torchscript = "torchscript"
    tflite = "tflite"


def export(
    network: Annotated[str, typer.Argument(help="Network: modnet, portrait or attention-unet.")],
    weights: Annotated[Path, typer.Argument(help="Checkpoint; for portrait also the published .tflite file.")],
    to: Annotated[list[Form], typer.Option(help="Export format; repeatable.")],
    out: Annotated[Path, typer.Option(help="Output folder.")],
    compare: Annotated[
        Path,
        typer.Option(
            help="A folder of images like those to come. Every second one compares each export with its network; "
            "the others give eight bits their ranges."
        ),
    ] = ROOT / "samples",
    tflite_python: Annotated[Path, typer.Option(help="Python of the environment that `make tflite` creates.")] = ROOT
    / ".venv-tflite"
    / "bin"
    / "python",
) -> None:
    """Export a trained network and print how far each export differs from it on images."""
    with explained():
        try:
            from sagemaker_model.export import formats as exporter
        except ModuleNotFoundError as error:
            raise LocalError(
                f"Exporting needs {error.name}: install requirements-models.txt (the extras gpu, export and train)."
            ) from error
        from sagemaker_model.imaging.pixels import decode
        from sagemaker_model.settings import ServerSettings

        net = exporter.load(network, weights)
        limits = ServerSettings().limits
        photos = sorted(path for path in compare.rglob("*") if path.suffix.lower() in PHOTOS)
        pictures = [decode(path.read_bytes(), limits).rgb for path in photos]
        forms = exporter.formats(tflite_python)
        names = ("form", "MB", "ms", "network's ms", "difference: most", "mean", "IoU", "file")
        table = Table(*(Column(name, overflow="fold") for name in names))
        for form in dict.fromkeys(to):
            with console.status(f"Exporting to {form}"):
                made = exporter.export(network, net, forms[form], out, pictures)
            figures = (
                f"{made.ms:.1f}",
                f"{made.network_ms:.1f}",
                f"{made.max_difference:.1e}",
                f"{made.mean_difference:.1e}",
            )
            table.add_row(form, f"{made.bytes / 1e6:.2f}", *figures, f"{made.iou:.4f}", escape(str(made.path)))
    console.print(table)
    console.print(f"ms on one core; compared on {(len(pictures) + 1) // 2} images of {escape(str(compare))}.")

"""Exports SAM as two ONNX files, encoder and decoder, for the CPU and for machines without torch.

The files are written next to the official file in the weights folder, where engines/sam.py loads them.

    python -m sagemaker_model.export.sam sam2-tiny FOLDER

The export uses torch's TorchScript exporter. The newer exporter (dynamo=True) fails on a decoder with a variable number
of prompts and points.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from sagemaker_model.nets.sam import Decoder, Encoder, from_official
from sagemaker_model.weights.checkpoints import load_checkpoint
from sagemaker_model.weights.files import atomic_write
from sagemaker_model.weights.store import known, named, verify

OPSET = 17
"""ONNX operator set; every ONNX Runtime since 1.12 supports it."""


def sam_encoder_to_onnx(network: nn.Module, path: Path) -> None:
    """Exports the encoder: input `pixels` 1x3xSxS, outputs the embedding's feature maps, named map_0, map_1, …"""
    encoder = Encoder(network)
    side = Decoder(network).side
    pixels = torch.zeros(1, 3, side, side)
    _export(encoder, (pixels,), path, ["pixels"], _map_names(network, pixels), {})


def sam_decoder_to_onnx(network: nn.Module, path: Path) -> None:
    """Exports the decoder, for any number of prompts P and points N.

    Inputs: `points` PxNx2, `labels` PxN int64 and the maps. Outputs: `logits` Px4xhxw and `scores` Px4.
    """
    decoder = Decoder(network)
    pixels = torch.zeros(1, 3, decoder.side, decoder.side)
    maps = _maps(network, pixels)
    points, labels = torch.zeros(2, 3, 2), torch.tensor([[1, 0, -1], [2, 3, -1]])
    dynamic = {name: {0: "prompts", 1: "marks"} for name in ("points", "labels")}
    dynamic |= {name: {0: "prompts"} for name in ("logits", "scores")}
    names = ["points", "labels", *_map_names(network, pixels)]
    _export(decoder, (points, labels, *maps), path, names, ["logits", "scores"], dynamic)


def _maps(network: nn.Module, pixels: Tensor) -> tuple[Tensor, ...]:
    """The embedding's feature maps."""
    with torch.inference_mode():
        maps: tuple[Tensor, ...] = Encoder(network)(pixels)
    return maps


def _map_names(network: nn.Module, pixels: Tensor) -> list[str]:
    return [f"map_{i}" for i in range(len(_maps(network, pixels)))]


def _export(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    inputs: list[str],
    outputs: list[str],
    dynamic: dict[str, dict[int, str]],
) -> None:
    """Exports a module to ONNX; the file appears only once it is complete."""
    with atomic_write(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the deprecated exporter, and of shapes that become constants
        torch.onnx.export(
            module,
            example,
            temporary,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=dynamic,
            opset_version=OPSET,
            dynamo=False,
        )


def main() -> None:
    names = [name for name, weights in known().items() if weights.engine in ("sam", "sam2")]
    parser = argparse.ArgumentParser(prog="python -m sagemaker_model.export.sam", description=__doc__)
    parser.add_argument("name", choices=names, help="name of the weights in weights.toml")
    parser.add_argument("folder", type=Path, help="weights folder, which contains the official file")
    arguments = parser.parse_args()
    weights = named(arguments.name)
    verify(weights, arguments.folder)
    network = from_official(weights.variant, load_checkpoint(arguments.folder / weights.file))
    sam_encoder_to_onnx(network, arguments.folder / f"{weights.name}.encoder.onnx")
    sam_decoder_to_onnx(network, arguments.folder / f"{weights.name}.decoder.onnx")


if __name__ == "__main__":
    main()

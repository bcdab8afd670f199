"""SAM as two ONNX files, for the CPU and for machines without torch: made beside the official file in the folder of
weights, where engines/sam.py looks for them.

    python -m sagemaker_model.export.sam sam2-tiny FOLDER

The exporter is torch's older one: the newer fails on a decoder that takes any number of prompts and points.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from sagemaker_model.nets.sam import Decoder, Encoder, from_official
from sagemaker_model.weights.checkpoints import load_checkpoint
from sagemaker_model.weights.store import known, named, verify

OPSET = 17


def sam_encoder_to_onnx(network: nn.Module, path: Path) -> None:
    """From `pixels` 1x3xSxS to the maps of the embedding, named map_0 and so on."""
    encoder = Encoder(network)
    side = Decoder(network).side
    pixels = torch.zeros(1, 3, side, side)
    _export(encoder, (pixels,), path, ["pixels"], _map_names(network, pixels), {})


def sam_decoder_to_onnx(network: nn.Module, path: Path) -> None:
    """From `points` PxNx2, `labels` PxN int64 and the maps to `logits` Px4xhxw and `scores` Px4, any P and N."""
    decoder = Decoder(network)
    pixels = torch.zeros(1, 3, decoder.side, decoder.side)
    maps = _maps(network, pixels)
    points, labels = torch.zeros(2, 3, 2), torch.tensor([[1, 0, -1], [2, 3, -1]])
    dynamic = {name: {0: "prompts", 1: "marks"} for name in ("points", "labels")}
    dynamic |= {name: {0: "prompts"} for name in ("logits", "scores")}
    names = ["points", "labels", *_map_names(network, pixels)]
    _export(decoder, (points, labels, *maps), path, names, ["logits", "scores"], dynamic)


def _maps(network: nn.Module, pixels: Tensor) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        return Encoder(network)(pixels)


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
    """The file is there whole or not at all."""
    part = path.with_suffix(".part")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the exporter is old, and that shapes are kept as numbers
        torch.onnx.export(
            module,
            example,
            part,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=dynamic,
            opset_version=OPSET,
            dynamo=False,
        )
    part.replace(path)


def main() -> None:
    names = [name for name, weights in known().items() if weights.engine in ("sam", "sam2")]
    parser = argparse.ArgumentParser(prog="python -m sagemaker_model.export.sam", description=__doc__)
    parser.add_argument("name", choices=names, help="of the weights, as in weights.toml")
    parser.add_argument("folder", type=Path, help="of the weights; the official file is there")
    given = parser.parse_args()
    weights = named(given.name)
    verify(weights, given.folder)
    network = from_official(weights.variant, load_checkpoint(given.folder / weights.file))
    sam_encoder_to_onnx(network, given.folder / f"{weights.name}.encoder.onnx")
    sam_decoder_to_onnx(network, given.folder / f"{weights.name}.decoder.onnx")


if __name__ == "__main__":
    main()

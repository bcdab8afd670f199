"""SAM as two ONNX files, for prompts on machines without torch: <variant>.encoder.onnx and <variant>.decoder.onnx in
the folder of weights are what engines/sam.py looks for.

    python -m sagemaker_model.export_sam vit_b sam_vit_b_01ec64.pth /opt/ml/model

The exporter is torch's older one: the newer fails on a decoder that takes any number of prompts and points.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from sagemaker_model.engines.sam import read_state
from sagemaker_model.nets.sam import CONFIGS, Decoder, Encoder, from_official

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
    parser = argparse.ArgumentParser(prog="python -m sagemaker_model.export_sam", description=__doc__)
    parser.add_argument("variant", choices=CONFIGS)
    parser.add_argument("checkpoint", type=Path, help="the official file")
    parser.add_argument("folder", type=Path, help="where the two files go")
    said = parser.parse_args()
    network = from_official(said.variant, read_state(said.checkpoint))
    sam_encoder_to_onnx(network, said.folder / f"{said.variant}.encoder.onnx")
    sam_decoder_to_onnx(network, said.folder / f"{said.variant}.decoder.onnx")


if __name__ == "__main__":
    main()

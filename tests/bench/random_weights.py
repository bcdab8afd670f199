"""Fills a weights folder for the benchmarks: installed weights, and random ones (fixed seed) for the other engines.

A network's time does not depend on its weights. The time of the later stages does: a matte of noise has no flat areas
to skip. Needs torch and transformers; for the CPU also onnx and onnxruntime.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sagemaker_model.engines import modnet
from sagemaker_model.engines.sam import Sam, Sam2
from sagemaker_model.settings import ServerSettings
from sagemaker_model.weights.store import import_file, known, named
from tests.bench.photos import jpeg

VARIANTS = {"sam": "vit_b", "sam2": "tiny"}
"""The smallest variant of each engine."""

ON_GPU = {"sam": "vit_h", "sam2": "tiny"}


def complete(installed: Path, folder: Path, device: str) -> list[str]:
    """Links the files of `installed` into `folder` and creates random weights for the other engines.

    Returns the names of the engines with random weights. Raises ModuleNotFoundError.
    """
    for path in installed.iterdir() if installed.is_dir() else ():
        (folder / path.name).symlink_to(path.resolve())
    random = []
    if not any((folder / name).exists() for name in (modnet.CHECKPOINT, modnet.ONNX, modnet.INT8)):
        make_modnet(folder)
        random.append("modnet")
    variants = VARIANTS if device == "cpu" else ON_GPU
    for engine in (Sam, Sam2):
        files = {weights.file for weights in known().values() if weights.engine == engine.name} | set(
            engine.folders.values()
        )
        if not any((folder / name).exists() for name in files):
            make_sam(engine.name, variants[engine.name], folder)
            random.append(engine.name)
    return random


def make_modnet(folder: Path) -> None:
    """Writes modnet.ckpt in the published layout, pinned as the user's own, and the two files for ONNX Runtime."""
    import torch

    from sagemaker_model.export import formats as export
    from sagemaker_model.imaging.pixels import decode
    from sagemaker_model.nets.modnet import MODNet
    from sagemaker_model.weights import checkpoints
    from tests.unit.sagemaker_model.nets import published_modnet

    state = published_modnet.state(seed=0)
    unpinned = folder / "random.ckpt"
    torch.save(state, unpinned)
    import_file(named("modnet"), unpinned, folder, own=True)
    unpinned.unlink()
    net = MODNet()
    checkpoints.load_into(net, checkpoints.modnet_state(state))
    export.to_onnx(net, folder / modnet.ONNX)
    image = modnet.MODNet().prepare(decode(jpeg(512), ServerSettings().limits).rgb, ())
    export.to_int8(net, folder / modnet.INT8, [image] * export.CALIBRATION_MIN)


def make_sam(family: Any, variant: str, folder: Path) -> None:
    """Writes a folder in Hugging Face's layout and, for SAM 2.1, the two files for ONNX Runtime."""
    from safetensors.torch import save_file

    from sagemaker_model.export import sam as export_sam

    engine = {"sam": Sam, "sam2": Sam2}[family]
    network = sam_network(variant)
    saved = folder / engine.hugging_face_folders[variant]
    saved.mkdir()
    save_file({name: tensor.clone() for name, tensor in network.state_dict().items()}, saved / "model.safetensors")
    (saved / "config.json").write_text(json.dumps(network.config.to_dict()))
    if family == "sam2":
        export_sam.sam_encoder_to_onnx(network, folder / f"sam2-{variant}.encoder.onnx")
        export_sam.sam_decoder_to_onnx(network, folder / f"sam2-{variant}.decoder.onnx")


def sam_network(variant: str, device: str = "cpu") -> Any:
    """A transformers network with random weights, in eval mode, float32."""
    import torch
    from transformers import Sam2Config, Sam2Model, SamConfig, SamModel

    from sagemaker_model.nets.sam import CONFIGS

    family, config = CONFIGS[variant]
    torch.manual_seed(0)
    with torch.device(device):
        network = SamModel(SamConfig(**config)) if family == "sam" else Sam2Model(Sam2Config(**config))
    return network.eval().requires_grad_(requires_grad=False)

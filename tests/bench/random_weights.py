"""A folder of weights for the benchmarks: those that are here and, for engines without any, random ones of one seed.

What a network takes does not depend on its weights; what follows it does: a matte of noise has no flat places to skip.
torch and transformers are needed, and for the files of the CPU onnx and onnxruntime.
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
"""The smallest of each."""

ON_GPU = {"sam": "vit_h", "sam2": "tiny"}


def complete(here: Path, folder: Path, device: str) -> list[str]:
    """Fills `folder` with links to the files of `here` and with what is missing; the names of the engines whose weights
    are random. Raises ModuleNotFoundError."""
    for path in here.iterdir() if here.is_dir() else ():
        (folder / path.name).symlink_to(path.resolve())
    made = []
    if not any((folder / name).exists() for name in (modnet.CHECKPOINT, modnet.ONNX, modnet.INT8)):
        make_modnet(folder)
        made.append("modnet")
    variants = VARIANTS if device == "cpu" else ON_GPU
    for engine in (Sam, Sam2):
        files = {one.file for one in known().values() if one.engine == engine.name}
        files |= set(engine.hugging_face_folders.values())
        if not any((folder / name).exists() for name in files):
            make_sam(engine.name, variants[engine.name], folder)
            made.append(engine.name)
    return made


def make_modnet(folder: Path) -> None:
    """Writes modnet.ckpt and its two files for ONNX Runtime."""
    from sagemaker_model.export import formats as export
    from sagemaker_model.imaging.pixels import decode
    from sagemaker_model.nets.modnet import MODNet
    from sagemaker_model.weights import checkpoints

    net = MODNet()
    checkpoints.load_into(net, checkpoints.modnet_state(make_modnet_checkpoint(folder)))
    export.to_onnx(net, folder / modnet.ONNX)
    picture = modnet.MODNet().prepare(decode(jpeg(512), ServerSettings().limits).rgb, ())
    export.to_int8(net, folder / modnet.INT8, [picture] * export.CALIBRATION_MIN)


def make_modnet_checkpoint(folder: Path) -> dict[str, Any]:
    """Writes modnet.ckpt in the published layout, pinned by its own SHA-256, and returns its state dict."""
    import torch

    from tests.unit.sagemaker_model.nets import published_modnet

    state = published_modnet.state(seed=0)
    unpinned = folder / "made.ckpt"
    torch.save(state, unpinned)
    import_file(named("modnet"), unpinned, folder, own=True)
    unpinned.unlink()
    return state


def make_sam(family: Any, variant: str, folder: Path) -> None:
    """A folder as Hugging Face has them and, of SAM 2.1, the two files for ONNX Runtime."""
    from sagemaker_model.export import sam as export_sam

    network = save_sam(family, variant, folder)
    if family == "sam2":
        export_sam.sam_encoder_to_onnx(network, folder / f"sam2-{variant}.encoder.onnx")
        export_sam.sam_decoder_to_onnx(network, folder / f"sam2-{variant}.decoder.onnx")


def save_sam(family: Any, variant: str, folder: Path) -> Any:
    """Writes a folder as Hugging Face has them, and returns the network."""
    from safetensors.torch import save_file

    engine = {"sam": Sam, "sam2": Sam2}[family]
    network = sam_network(variant)
    saved = folder / engine.hugging_face_folders[variant]
    saved.mkdir()
    save_file({name: tensor.clone() for name, tensor in network.state_dict().items()}, saved / "model.safetensors")
    (saved / "config.json").write_text(json.dumps(network.config.to_dict()))
    return network


def sam_network(variant: str, device: str = "cpu") -> Any:
    """A network of transformers in eval mode, float32."""
    import torch
    from transformers import Sam2Config, Sam2Model, SamConfig, SamModel

    from sagemaker_model.nets.sam import CONFIGS

    family, config = CONFIGS[variant]
    torch.manual_seed(0)
    with torch.device(device):
        network = SamModel(SamConfig(**config)) if family == "sam" else Sam2Model(Sam2Config(**config))
    return network.eval().requires_grad_(requires_grad=False)

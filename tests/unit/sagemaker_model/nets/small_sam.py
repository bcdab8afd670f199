"""Small SAM 1 and SAM 2.1 networks of transformers, with an input of 64x64 pixels and random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import Sam2Config, Sam2Model, SamConfig, SamModel

DECODER = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32}


def randomised(network: Any) -> Any:
    """Sets large random weights from a fixed seed, so that no output is close to 0."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, value in network.state_dict().items():
            std = 0.3 if value.ndim > 1 else 0.05
            mean = 1.0 if "norm" in key and key.endswith("weight") else 0.0
            value.copy_(mean + std * torch.randn(value.shape, generator=generator))
        if isinstance(network, SamModel):  # one matrix under two names
            network.prompt_encoder.shared_embedding.positional_embedding = (
                network.shared_image_embedding.positional_embedding
            )
        else:
            network.prompt_encoder.shared_embedding.positional_embedding.copy_(
                network.shared_image_embedding.positional_embedding
            )
    return network.eval()


def small_sam() -> Any:
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "global_attn_indexes": [1],
        "image_size": 64,
        "output_channels": 32,
        "num_pos_feats": 16,
        "window_size": 2,
    }
    prompts = {"hidden_size": 32, "image_size": 64}
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=DECODER)
    return randomised(SamModel(config))


def small_sam2() -> Any:
    sizes = [8, 16, 32, 64]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "embed_dim_per_stage": sizes,
        "blocks_per_stage": [1, 1, 2, 1],
        "global_attention_blocks": [3],
        "image_size": [64, 64],
        "window_size_per_stage": [8, 4, 4, 2],
        "window_positional_embedding_background_size": [4, 4],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": sizes[::-1],
        "fpn_hidden_size": 32,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    }
    prompts = {"hidden_size": 32, "image_size": 64}
    config = Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=DECODER)
    return randomised(Sam2Model(config))


NETWORKS: dict[str, Callable[[], Any]] = {"sam": small_sam, "sam2": small_sam2}
"""Functions that make a network, by the name of its engine."""


def save_folder(network: Any, folder: Path, extra: dict[str, torch.Tensor] | None = None) -> None:
    """Writes a network as a Hugging Face folder, with the `extra` tensors."""
    folder.mkdir()
    state = {key: value.clone() for key, value in network.state_dict().items()} | (extra or {})
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(network.config.to_dict()))

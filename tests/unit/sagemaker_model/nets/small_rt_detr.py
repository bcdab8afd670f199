"""A small configuration of RT-DETR: 41 thousand parameters."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import RTDetrConfig

from sagemaker_model.nets.rt_detr import RtDetr


def small_config() -> RTDetrConfig:
    backbone = {
        "model_type": "rt_detr_resnet",
        "embedding_size": 8,
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [8, 8, 16, 16],
        "layer_type": "basic",
        "out_indices": [2, 3, 4],
    }
    return RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[8, 16, 16],
        decoder_in_channels=[16, 16, 16],
        encoder_hidden_dim=16,
        d_model=16,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        decoder_layers=2,
        num_queries=20,
        num_denoising=10,
        hidden_expansion=0.5,
        freeze_backbone_batch_norms=False,
    )


def small_rt_detr(*names: str) -> RtDetr:
    """Returns an untrained network, always the same."""
    torch.manual_seed(0)
    return RtDetr(names, config=small_config())


def save(folder: Path, *names: str) -> Path:
    """Writes an untrained network as a folder of transformers' `save_pretrained`."""
    small_rt_detr(*names).net.save_pretrained(folder)
    return folder

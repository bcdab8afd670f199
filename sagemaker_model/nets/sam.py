"""Segment Anything 1 (Kirillov et al. 2023) and 2.1 (Ravi et al. 2024), for images: the layers of transformers,
loaded from the official files or from Hugging Face folders, cut in two where the work can be: a dear encoder that sees
the image alone, and a cheap decoder that sees its embedding and the prompts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import Sam2Config, Sam2Model, SamConfig, SamModel

from sagemaker_model.weights.checkpoints import MismatchedWeights

Family = Literal["sam", "sam2"]
State = Mapping[str, Tensor]


def _vit(size: int, depth: int, heads: int, global_attention: list[int]) -> dict[str, Any]:
    vision = {
        "hidden_size": size,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "global_attn_indexes": global_attention,
    }
    return {"vision_config": vision, "mask_decoder_config": {"layer_norm_eps": 1e-5}}  # transformers has 1e-6


def _hiera(
    size: int, heads: int, blocks: list[int], global_attention: list[int], background: int, windows: list[int]
) -> dict[str, Any]:
    sizes = [size, 2 * size, 4 * size, 8 * size]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": size,
        "num_attention_heads": heads,
        "blocks_per_stage": blocks,
        "embed_dim_per_stage": sizes,
        "num_attention_heads_per_stage": [heads, 2 * heads, 4 * heads, 8 * heads],
        "window_size_per_stage": windows,
        "global_attention_blocks": global_attention,
        "window_positional_embedding_background_size": [background, background],
    }
    return {"vision_config": {"backbone_config": backbone, "backbone_channel_list": sizes[::-1]}}


CONFIGS: dict[str, tuple[Family, dict[str, Any]]] = {
    "vit_h": ("sam", _vit(1280, 32, 16, [7, 15, 23, 31])),
    "vit_l": ("sam", _vit(1024, 24, 16, [5, 11, 17, 23])),
    "vit_b": ("sam", _vit(768, 12, 12, [2, 5, 8, 11])),
    "large": ("sam2", _hiera(144, 2, [2, 6, 36, 4], [23, 33, 43], 7, [8, 4, 16, 8])),
    "base_plus": ("sam2", _hiera(112, 2, [2, 3, 16, 3], [12, 16, 20], 14, [8, 4, 14, 7])),
    "small": ("sam2", _hiera(96, 1, [1, 2, 11, 2], [7, 10, 13], 7, [8, 4, 14, 7])),
    "tiny": ("sam2", _hiera(96, 1, [1, 2, 7, 2], [5, 7, 9], 7, [8, 4, 14, 7])),
}
"""Every published variant, named as in weights.toml: its family, and what its configuration says besides transformers'
defaults."""

_SHARED_RULES = (
    (r"\.norm(\w*)\.", r".layer_norm\1."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"(_mlps\.\d+|_head)\.layers\.0\.", r"\1.proj_in."),  # heads of three layers
    (r"(_mlps\.\d+|_head)\.layers\.1\.", r"\1.layers.0."),
    (r"(_mlps\.\d+|_head)\.layers\.2\.", r"\1.proj_out."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"point_embeddings\.", "point_embed."),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
)

RULES: dict[Family, tuple[tuple[str, str], ...]] = {
    "sam": (
        (r"^image_encoder\.blocks\.", "vision_encoder.layers."),
        (r"^image_encoder\.", "vision_encoder."),
        (r"neck\.0\.", "neck.conv1."),
        (r"neck\.1\.", "neck.layer_norm1."),
        (r"neck\.2\.", "neck.conv2."),
        (r"neck\.3\.", "neck.layer_norm2."),
        *_SHARED_RULES,
    ),
    "sam2": (
        (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
        (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
        (r"^sam_(prompt_encoder|mask_decoder)\.", r"\1."),
        (r"^no_mem_embed$", "no_memory_embedding"),
        (r"(blocks|transformer\.layers)\.(\d+)\.mlp\.layers\.0\.", r"\1.\2.mlp.proj_in."),
        (r"(blocks|transformer\.layers)\.(\d+)\.mlp\.layers\.1\.", r"\1.\2.mlp.proj_out."),
        (r"\.out_proj\.", ".o_proj."),
        *_SHARED_RULES,
    ),
}
"""From the keys of the official files to those of transformers, each rule applied in turn."""

VIDEO = re.compile(
    r"memory_|maskmem_|no_mem_pos_enc$|no_obj_|obj_ptr_|mask_downsample\."  # the official files
    r"|no_memory_positional_encoding$|no_object_pointer$|occlusion_|object_pointer_|temporal_"  # Hugging Face's
)
"""Starts of keys of SAM 2's memory from image to image of a video: not for us."""

_IMAGE_PLACES = "shared_image_embedding.positional_embedding"
_PROMPT_PLACES = "prompt_encoder.shared_embedding.positional_embedding"


def from_official(name: str, state: State) -> nn.Module:
    """One of CONFIGS with the content of its official file, `{"model": …}` already opened. Raises MismatchedWeights."""
    family, config = CONFIGS[name]
    return load(family, config, renamed(family, state), name)


def from_hugging_face(family: Family, config: dict[str, Any], state: State) -> nn.Module:
    """What a Hugging Face folder holds: `config` of config.json, `state` of model.safetensors. A folder of SAM 2.1 is
    that of the video model, of which the parts for images are taken. Raises MismatchedWeights."""
    parts = {part: config[part] for part in config if part in PARTS}
    return load(family, parts, {key: value for key, value in state.items() if not VIDEO.match(key)}, "the config.json")


PARTS = ("vision_config", "prompt_encoder_config", "mask_decoder_config")


def renamed(family: Family, state: State) -> dict[str, Tensor]:
    """The official state with the keys of transformers, without the parts for video."""
    ours: dict[str, Tensor] = {}
    for key, value in state.items():
        if family == "sam2" and VIDEO.match(key):
            continue
        for pattern, to in RULES[family]:
            key = re.sub(pattern, to, key)
        ours[key] = value
    points = [f"prompt_encoder.point_embed.{i}.weight" for i in range(4)]
    if family == "sam2" and all(key in ours for key in points):
        ours["prompt_encoder.point_embed.weight"] = torch.cat([ours.pop(key) for key in points])
    return ours


def load(family: Family, config: dict[str, Any], state: State, name: str) -> nn.Module:
    """The network in eval mode, float32, on the CPU, with every weight from `state` and no weight left over. Raises
    MismatchedWeights."""
    state = dict(state)
    for key, same in ((_IMAGE_PLACES, _PROMPT_PLACES), (_PROMPT_PLACES, _IMAGE_PLACES)):
        if key not in state and same in state:
            state[key] = state[same]  # one matrix, which files hold once or twice
    with torch.device("meta"):  # no time spent on random numbers that are then thrown away
        network = SamModel(SamConfig(**config)) if family == "sam" else Sam2Model(Sam2Config(**config))
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    faults = [
        *(f"{key} is missing" for key in shapes if key not in state),
        *(f"{key} is unknown" for key in state if key not in shapes),
        *(
            f"{key} has the shape {tuple(state[key].shape)}, not {tuple(shape)}"
            for key, shape in shapes.items()
            if key in state and state[key].shape != shape
        ),
    ]
    if faults:
        raise MismatchedWeights(f"The weights are not those of {name}: {'; '.join(faults[:3])} ({len(faults)} faults).")
    network.load_state_dict({key: value.float() for key, value in state.items()}, strict=True, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


class Encoder(nn.Module):
    """The dear half."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The embedding of Bx3xSxS normalised pixels: of SAM 1 one map, Bx256x64x64 where S is 1024; of SAM 2.1 three,
        Bx32x256x256, Bx64x128x128 and Bx256x64x64."""
        maps = self.network.get_image_embeddings(pixels)
        return (maps,) if isinstance(maps, Tensor) else tuple(maps)


class Decoder(nn.Module):
    """The cheap half: transformers' own layers in transformers' own order, but a box is two points, and all four masks
    come back; so one graph, in torch as in ONNX, serves every kind and number of prompts."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.side: int = network.config.prompt_encoder_config.image_size

    def forward(self, points: Tensor, labels: Tensor, *maps: Tensor) -> tuple[Tensor, Tensor]:
        """Masks of P prompts on one image.

        points: PxNx2 float32, x and y in pixels of the network's input. labels: PxN int64: 0 background, 1 subject,
        2 and 3 a box's upper left and lower right corner, -1 nothing: see `marks` in engines/sam.py.
        maps: the embedding of the image, each of batch size 1.
        Returns logits Px4xhxw, above 0 is subject, h a quarter of S: first the mask for a clear prompt, then three for
        an ambiguous one (whole, part, part of the part); and the IoU that the network expects of each, Px4.
        """
        net, prompt_encoder = self.network.mask_decoder, self.network.prompt_encoder
        count = points.shape[0]

        known = [net.iou_token.weight, net.mask_tokens.weight]
        if hasattr(net, "obj_score_token"):
            known.insert(0, net.obj_score_token.weight)
        learned = torch.cat(known)
        tokens = torch.cat([learned.expand(count, -1, -1), self._embedded(points, labels)], 1)

        image = maps[-1] + prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        places = self.network.get_image_wide_positional_embeddings()
        tokens, image = net.transformer(
            point_embeddings=tokens[:, None],
            image_embeddings=image.expand(count, -1, -1, -1),
            image_positional_embeddings=places.expand(count, -1, -1, -1),
            attention_similarity=None,
        )
        first = len(known) - 1
        iou, masks = tokens[:, 0, first - 1], tokens[:, 0, first : first + net.num_mask_tokens]

        image = net.upscale_conv1(image[:, 0].transpose(1, 2).unflatten(2, maps[-1].shape[-2:]))
        if len(maps) == 3:
            image = image + maps[1]
        image = net.upscale_conv2(net.activation(net.upscale_layer_norm(image)))
        if len(maps) == 3:
            image = image + maps[0]
        image = net.activation(image)

        weights = torch.stack([mlp(masks[:, i]) for i, mlp in enumerate(net.output_hypernetworks_mlps)], 1)
        logits = (weights @ image.flatten(2)).unflatten(2, image.shape[-2:])
        return logits, net.iou_prediction_head(iou)

    def _embedded(self, points: Tensor, labels: Tensor) -> Tensor:
        """PxNxC: where a point is, and what it says; 0.5 because a pixel's centre is meant."""
        encoder = self.network.prompt_encoder
        kinds = encoder.point_embed
        kinds = torch.cat([kind.weight for kind in kinds]) if isinstance(kinds, nn.ModuleList) else kinds.weight
        at = encoder.shared_embedding((points + 0.5)[None], (self.side, self.side))[0]
        return torch.where(labels[..., None] < 0, encoder.not_a_point_embed.weight, at + kinds[labels.clamp(min=0)])

"""Segment Anything 1 (Kirillov et al. 2023) and 2.1 (Ravi et al. 2024) for images, with the layers of transformers.

The weights come from the official files or from Hugging Face folders. The network is split in two: an expensive encoder
of the image, and a cheap decoder of the embedding and the prompts.
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
    return {"vision_config": vision, "mask_decoder_config": {"layer_norm_eps": 1e-5}}  # transformers' default is 1e-6


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
"""Every published variant, named as in weights.toml: its family, and the configuration that differs from transformers'
defaults."""

_SHARED_RULES = (
    (r"\.norm(\w*)\.", r".layer_norm\1."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"(_mlps\.\d+|_head)\.layers\.0\.", r"\1.proj_in."),  # heads with three layers
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

KEY_RULES: dict[Family, tuple[tuple[str, str], ...]] = {
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
"""Regular expressions and replacements from the official keys to those of transformers, applied in this order."""

VIDEO = re.compile(
    r"memory_|maskmem_|no_mem_pos_enc$|no_obj_|obj_ptr_|mask_downsample\."  # the official files
    r"|no_memory_positional_encoding$|no_object_pointer$|occlusion_|object_pointer_|temporal_"  # Hugging Face's
)
"""Matches the start of the keys of SAM 2's memory between the frames of a video, which is not used here."""

_IMAGE_POSITIONS = "shared_image_embedding.positional_embedding"
_PROMPT_POSITIONS = "prompt_encoder.shared_embedding.positional_embedding"


def from_official(name: str, state: State) -> nn.Module:
    """Returns the variant `name` of CONFIGS with the weights of its official file, the value of its key "model".

    Raises MismatchedWeights.
    """
    family, config = CONFIGS[name]
    return load(family, config, renamed(family, state), name)


def from_hugging_face(family: Family, config: dict[str, Any], state: State) -> nn.Module:
    """Returns the network of a Hugging Face folder: `config` from config.json, `state` from model.safetensors.

    A folder of SAM 2.1 holds the video model; its parts for images are used. Raises MismatchedWeights.
    """
    parts = {part: config[part] for part in config if part in PARTS}
    return load(family, parts, {key: value for key, value in state.items() if not VIDEO.match(key)}, "the config.json")


PARTS = ("vision_config", "prompt_encoder_config", "mask_decoder_config")


def renamed(family: Family, state: State) -> dict[str, Tensor]:
    """Returns the official state dict with the keys of transformers, without the parts for video."""
    renamed_state: dict[str, Tensor] = {}
    for key, value in state.items():
        if family == "sam2" and VIDEO.match(key):
            continue
        for pattern, to in KEY_RULES[family]:
            key = re.sub(pattern, to, key)
        renamed_state[key] = value
    points = [f"prompt_encoder.point_embed.{i}.weight" for i in range(4)]
    if family == "sam2" and all(key in renamed_state for key in points):
        renamed_state["prompt_encoder.point_embed.weight"] = torch.cat([renamed_state.pop(key) for key in points])
    return renamed_state


def load(family: Family, config: dict[str, Any], state: State, name: str) -> nn.Module:
    """Returns the network in eval mode, float32, on the CPU, with the weights of `state`.

    Raises MismatchedWeights, naming weights that are missing, unknown or of another shape.
    """
    state = dict(state)
    for key, same in ((_IMAGE_POSITIONS, _PROMPT_POSITIONS), (_PROMPT_POSITIONS, _IMAGE_POSITIONS)):
        if key not in state and same in state:
            state[key] = state[same]  # one matrix, which the files hold once or twice
    with torch.device("meta"):  # skips the random initialisation
        network: nn.Module = SamModel(SamConfig(**config)) if family == "sam" else Sam2Model(Sam2Config(**config))
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    mismatches = [
        *(f"{key} is missing" for key in shapes if key not in state),
        *(f"{key} is unknown" for key in state if key not in shapes),
        *(
            f"{key} has the shape {tuple(state[key].shape)}, not {tuple(shape)}"
            for key, shape in shapes.items()
            if key in state and state[key].shape != shape
        ),
    ]
    if mismatches:
        raise MismatchedWeights(
            f"The weights are not those of {name}: {'; '.join(mismatches[:3])} ({len(mismatches)} mismatches)."
        )
    network.load_state_dict({key: value.float() for key, value in state.items()}, strict=True, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


class Encoder(nn.Module):
    """The expensive half of the network: from an image to its embedding."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Returns the embedding of Bx3xSxS normalised pixels.

        SAM 1: one map, Bx256x64x64 if S is 1024. SAM 2.1: three, Bx32x256x256, Bx64x128x128 and Bx256x64x64.
        """
        maps = self.network.get_image_embeddings(pixels)
        return (maps,) if isinstance(maps, Tensor) else tuple(maps)


class Decoder(nn.Module):
    """The cheap half of the network: from an embedding and prompts to masks.

    It runs transformers' layers in transformers' order, except that a box is two points and all four masks are
    returned. So one graph, in torch and in ONNX, serves every kind and number of prompts.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.side: int = network.config.prompt_encoder_config.image_size

    def forward(self, points: Tensor, labels: Tensor, *maps: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the masks of P prompts on one image: logits Px4xhxw and scores Px4.

        points: PxNx2 float32, x and y in pixels of the network's input. labels: PxN int64: 0 background, 1 subject,
        2 and 3 a box's upper left and lower right corner, -1 padding; see `Sam._labelled_points` in engines/sam.py.
        maps: the embedding of the image, each of batch size 1.
        logits: above 0 is subject, h is a quarter of S. The first mask is for an unambiguous prompt, the other three
        for an ambiguous one (whole, part, part of the part). scores: the IoU that the network expects of each mask.
        """
        net, prompt_encoder = self.network.mask_decoder, self.network.prompt_encoder
        count = points.shape[0]

        token_weights = [net.iou_token.weight, net.mask_tokens.weight]
        if hasattr(net, "obj_score_token"):
            token_weights.insert(0, net.obj_score_token.weight)
        learned = torch.cat(token_weights)
        tokens = torch.cat([learned.expand(count, -1, -1), self._embed_points(points, labels)], 1)

        image = maps[-1] + prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        positions = self.network.get_image_wide_positional_embeddings()
        tokens, image = net.transformer(
            point_embeddings=tokens[:, None],
            image_embeddings=image.expand(count, -1, -1, -1),
            image_positional_embeddings=positions.expand(count, -1, -1, -1),
            attention_similarity=None,
        )
        first = len(token_weights) - 1
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

    def _embed_points(self, points: Tensor, labels: Tensor) -> Tensor:
        """Returns the embeddings of points, PxNxC: position plus label. 0.5 is added for the centre of the pixel."""
        encoder = self.network.prompt_encoder
        embed: Any = encoder.point_embed  # of SAM 1 a list of one embedding for each label, of SAM 2.1 one embedding
        by_label = embed.weight if hasattr(embed, "weight") else torch.cat([one.weight for one in embed])
        positions = encoder.shared_embedding((points + 0.5)[None], (self.side, self.side))[0]
        return torch.where(
            labels[..., None] < 0, encoder.not_a_point_embed.weight, positions + by_label[labels.clamp(min=0)]
        )

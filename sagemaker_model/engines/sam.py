"""Masks of any object from points and boxes, by Segment Anything 1 and 2.1. The subject is the union of all prompts.

The encoder runs once for an image (hiera_tiny: 3 s on two cores). Its embedding is cached by the hash of the encoder's
input, so that the next prompt on the same image runs the decoder only (0.05 s).

Edges: the network outputs logits at a quarter of its 1024 pixels; logit 0 is the published edge of the mask. The logits
are upsampled before the sigmoid, which leaves the edge where it is. The sigmoid then gives an uncertain band some
pixels wide, which `refine` fits to the image. A mask cut at 0 has no such band, and upsampled probabilities show the
steps of the small mask.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from maskdrop.errors import InvalidPrompt
from maskdrop.prompt import Prompt, Prompts
from sagemaker_model.engines.base import Alpha
from sagemaker_model.engines.embeddings import Embedding, EmbeddingCache
from sagemaker_model.engines.onnx_session import onnx_session
from sagemaker_model.engines.verification import (
    FLOAT32_TOLERANCE,
    INFINITE,
    NOT_CONCLUSIVE,
    Comparison,
    difference,
    is_conclusive,
    network_inputs,
)
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized
from sagemaker_model.weights.store import InvalidWeights, NotInstalled, Weights, digest, known, verify

if TYPE_CHECKING:  # torch need not be installed
    from sagemaker_model.nets.sam import Family

Floats = NDArray[np.float32]

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
"""Mean and standard deviation of ImageNet's red, green and blue, 0 to 255: both networks were trained with them."""

ENCODER_BATCH_MAX = 4
"""Images that a GPU encodes together. One image of 1024x1024 keeps it busy, so larger batches gain little. vit_h's
attention takes more than 0.5 GB for each image: 16 heads of 4096x4096 numbers."""

GPU_PROMPTS_AT_ONCE, CPU_PROMPTS_AT_ONCE = 64, 4
"""Prompts that are decoded together. On two cores four take 28 ms each; sixteen take 44 ms each, as they exceed the
CPU's cache."""

GPU_POINTS_PER_SIDE, CPU_POINTS_PER_SIDE = 32, 16
"""Points along each side of the grid of the everything mode. 32 is the published value. On two cores 16 take 7 to 12 s
by the figures of `maskdrop.prompt.MARKS_MAX`; 32 would take up to 50 s of the deadline of 60 s."""

EMBEDDING_BYTES = 512 * 1024 * 1024
"""Default size of the embedding cache in memory: 60 images of SAM 2.1, 240 of SAM 1."""

EXPECTED_IOU_MIN, STABILITY_MIN, STABILITY_OFFSET, OVERLAP_MAX = 0.88, 0.95, 1.0, 0.7
"""Thresholds of the everything mode, as published with SAM. Masks with a low expected IoU, masks that change with the
threshold, and duplicates are removed."""

UNAMBIGUOUS_STABILITY_OFFSET = 0.05
"""Offset for the stability of an unambiguous prompt's mask, as published with SAM 2."""

_PADDING, _UPPER_LEFT, _LOWER_RIGHT = -1, 2, 3  # labels of points, besides 0 background and 1 subject


@dataclass(frozen=True, slots=True)
class Masks:
    """Masks of one image.

    masks: NxHxW bool. scores: N float32, the IoU that the network expects. boxes: Nx4 int64, x0, y0, x1, y1 in pixels
    around each mask, all 0 for an empty mask.
    """

    masks: NDArray[np.bool_]
    scores: Floats
    boxes: NDArray[np.int64]


class Network(Protocol):
    """The encoder and decoder of nets/sam.py, by torch or ONNX Runtime.

    side: pixels of the square input. prompts_at_once: prompts that the decoder takes together, 30 to 60 MB each.
    """

    side: int
    prompts_at_once: int

    def warm_up(self, batch_max: int) -> tuple[Comparison, ...]:
        """See `BatchedEngine.warm_up`."""

    def encode(self, images: Sequence[Floats]) -> list[Embedding]:
        """Returns one embedding for each image, 3xSxS."""

    def decode(self, embedding: Embedding, points: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Returns logits Px4xhxw and scores Px4; see `Decoder.forward` of nets/sam.py."""


@dataclass(frozen=True, slots=True, eq=False)
class EncoderInput:
    """An image as the encoder takes it.

    pixels: 3xSxS float32, normalised. key: the hash of the pixels and the weights, so that one image has one key in
    every file format.
    """

    pixels: Floats
    key: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels.shape


class Sam:
    """The engine `sam` (SAM 1): the image keeps its aspect ratio, its long side fills the input."""

    name: ClassVar[Family] = "sam"
    hugging_face_folders: ClassVar[dict[str, str]] = {
        "vit_h": "sam-vit-huge",
        "vit_l": "sam-vit-large",
        "vit_b": "sam-vit-base",
    }
    """From the variants of weights.toml, the largest first, to the names of their Hugging Face folders."""

    pads_boxes: ClassVar[bool] = False
    """Whether a padding point follows the corners of a box too. It always follows points without a box."""

    stability_min: ClassVar[float] = 0.0
    """An unambiguous prompt takes its own mask if that is at least this stable, else the best of the other three."""

    weights_sha256 = ""

    def __init__(self) -> None:
        self.embeddings = EmbeddingCache(EMBEDDING_BYTES)

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:
        """Loads the largest variant whose weights `weights_dir` holds; `_load` lists the accepted files.

        Raises NotInstalled if the folder holds no variant or the package that runs it is missing, and InvalidWeights.
        """
        published = {weights.variant: weights for weights in known().values() if weights.engine == self.name}
        for variant in self.hugging_face_folders:
            loaded = self._load(published[variant], device, weights_dir, threads)
            if loaded is not None:
                self._network, self.weights_sha256 = loaded
                return
        files = ", ".join(weights.file for weights in published.values())
        raise NotInstalled(f"{weights_dir} holds none of {files}, nor their Hugging Face folders or ONNX files.")

    def _load(self, weights: Weights, device: str, weights_dir: Path, threads: int) -> tuple[Network, str] | None:
        """Returns the network of one variant and the SHA-256 of its file; None if the folder has no file of it.

        Takes the two files of export/sam.py (CPU only), else the official file, else the Hugging Face folder.
        """
        encoder, decoder = (weights_dir / f"{weights.name}.{half}.onnx" for half in ("encoder", "decoder"))
        official = weights_dir / weights.file
        saved = weights_dir / self.hugging_face_folders[weights.variant] / "model.safetensors"
        try:
            if device == "cpu" and encoder.exists() and decoder.exists():
                return OnnxNetwork(encoder, decoder, threads), digest(encoder)
            if official.exists():
                sha256 = verify(weights, weights_dir)
                return TorchNetwork.from_official(weights.variant, official, device, threads), sha256
            if saved.exists():
                return TorchNetwork.from_hugging_face(self.name, saved, device, threads), digest(saved)
        except ModuleNotFoundError as error:
            raise NotInstalled(f"{weights.name} needs the package {error.name}: install it.") from error
        return None

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:
        return self.finish(self.infer([self.prepare(rgb, prompts)])[0], rgb, prompts)

    def warm_up(self, batch_max: int) -> tuple[Comparison, ...]:
        return self._network.warm_up(batch_max)

    def prepare(self, rgb: Pixels, prompts: Prompts) -> EncoderInput:
        """Raises InvalidPrompt if there is no prompt."""
        if not prompts:
            raise InvalidPrompt(f"The engine {self.name!r} needs a box or points: give at least one for the subject.")
        return self.encoder_input(rgb)

    def embed(self, rgb: Pixels) -> Embedding:
        """Returns the embedding of an image, for `masks` and `everything`."""
        return self.infer([self.encoder_input(rgb)])[0]

    def infer(self, batch: Sequence[EncoderInput]) -> list[Embedding]:
        """Returns one embedding for each input. Encodes each image once, and only those that are not cached."""
        pixels = {one.key: one.pixels for one in batch}
        embeddings = self.embeddings.get_or_compute(
            pixels, lambda keys: self._network.encode([pixels[key] for key in keys])
        )
        return [embeddings[one.key] for one in batch]

    def finish(self, output: Embedding, rgb: Pixels, prompts: Prompts) -> Alpha:
        size = (rgb.shape[1], rgb.shape[0])
        step = self._network.prompts_at_once
        chunks = (prompts[start : start + step] for start in range(0, len(prompts), step))
        unions = (self._best_masks(*self._decode(output, size, chunk), chunk)[0].max(axis=0) for chunk in chunks)
        logits = self._upsample(reduce(np.maximum, unions), size)
        alpha = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
        return Alpha(alpha.astype(np.float32, copy=False))

    def masks(self, output: Embedding, size: tuple[int, int], prompts: Prompts, *, multimask: bool = False) -> Masks:
        """Returns one mask for each prompt, in order, at `size`.

        size: width and height of the image to which the prompts refer. multimask: return three masks for each prompt,
        from whole to part, for prompts that can mean either.
        """
        logits, scores = self._decode(output, size, prompts)
        if multimask:
            return self._threshold(logits[:, 1:].reshape(-1, *logits.shape[2:]), scores[:, 1:].ravel(), size)
        return self._threshold(*self._best_masks(logits, scores, prompts), size)

    def everything(self, output: Embedding, size: tuple[int, int], points_per_side: int | None = None) -> Masks:
        """Returns the masks of the objects under a grid of points, the best first, at `size` (width, height).

        points_per_side: None for GPU_POINTS_PER_SIDE or CPU_POINTS_PER_SIDE.
        The result takes N bytes for each pixel of `size`: for a large image, give a smaller size of its aspect ratio.
        The working memory is bounded: one chunk of prompts, and the masks kept so far.
        """
        on_gpu = self._network.prompts_at_once == GPU_PROMPTS_AT_ONCE
        default = GPU_POINTS_PER_SIDE if on_gpu else CPU_POINTS_PER_SIDE
        prompts = grid_prompts(size, points_per_side or default)
        masks, scores = np.zeros((0, 0, 0), np.float16), np.zeros(0, np.float32)
        step = self._network.prompts_at_once
        for start in range(0, len(prompts), step):
            new_masks, new_scores = self._confident_masks(output, size, prompts[start : start + step])
            masks = np.concatenate([masks, new_masks]) if masks.size else new_masks
            scores = np.concatenate([scores, new_scores])
            best = non_maximum_suppression(boxes_around(masks > 0), scores, OVERLAP_MAX)
            masks, scores = masks[best], scores[best]
        return self._threshold(masks.astype(np.float32), scores, size)

    def _confident_masks(
        self, output: Embedding, size: tuple[int, int], prompts: Prompts
    ) -> tuple[NDArray[np.float16], Floats]:
        """Returns the logits Nxhxw and scores N of those masks that pass the thresholds of the everything mode."""
        logits, expected = self._decode(output, size, prompts)
        masks, scores = logits[:, 1:].reshape(-1, *logits.shape[2:]), expected[:, 1:].ravel()
        height, width = self._covered(size)
        covered = masks[:, : int(np.ceil(height * masks.shape[1])), : int(np.ceil(width * masks.shape[2]))]
        confident = (scores >= EXPECTED_IOU_MIN) & (covered > 0).any(axis=(1, 2))
        confident &= _stability(covered, STABILITY_OFFSET) >= STABILITY_MIN
        return masks[confident].astype(np.float16), scores[confident]

    def encoder_input(self, rgb: Pixels) -> EncoderInput:
        """Returns an image as `infer` takes it, for `everything`; `prepare` also checks the prompts."""
        pixels = self._normalised(rgb)
        sha256 = hashlib.sha256(self.weights_sha256.encode())
        sha256.update(pixels.data)
        return EncoderInput(pixels, sha256.hexdigest())

    def _normalised(self, rgb: Pixels) -> Floats:
        """Returns the resized and normalised image, 3xSxS float32, padded with 0."""
        side, (width, height) = self._network.side, self._input_size((rgb.shape[1], rgb.shape[0]))
        pixels = np.zeros((3, side, side), np.float32)
        inside = pixels[:, :height, :width]
        inside[:] = resized(rgb, (width, height)).transpose(2, 0, 1)
        inside -= MEAN[:, None, None]
        inside /= STD[:, None, None]
        return pixels

    def _input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns width and height of the image in the network's input, where it starts at the upper left corner."""
        scale = self._network.side / max(size)
        return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))

    def _covered(self, size: tuple[int, int]) -> tuple[float, float]:
        """Returns the shares of the input's height and width that the image covers."""
        width, height = self._input_size(size)
        return height / self._network.side, width / self._network.side

    def _decode(self, output: Embedding, size: tuple[int, int], prompts: Prompts) -> tuple[Floats, Floats]:
        """Returns logits Px4xhxw and scores Px4 in the order of the prompts.

        Prompts with the same number of points are decoded together: padding points would change the mask.
        """
        scale = np.array(self._input_size(size)) / size
        points = [self._labelled_points(prompt) for prompt in prompts]
        step = self._network.prompts_at_once
        logits: list[Floats] = [np.empty(0, np.float32)] * len(prompts)
        scores = list(logits)
        for count in sorted({len(one) for one in points}):
            same_count = [i for i, one in enumerate(points) if len(one) == count]
            for start in range(0, len(same_count), step):
                chunk = same_count[start : start + step]
                values = np.array([points[i] for i in chunk], np.float64)
                positions, labels = (values[..., :2] * scale).astype(np.float32), values[..., 2].astype(np.int64)
                decoded = self._network.decode(output, positions, labels)
                for i, mask, score in zip(chunk, *decoded, strict=True):
                    logits[i], scores[i] = mask, score
        return np.stack(logits), np.stack(scores)

    def _labelled_points(self, prompt: Prompt) -> list[tuple[float, float, int]]:
        """Returns the points of a prompt as x, y and label, in the form in which the networks were trained."""
        points = list(prompt.points)
        if prompt.box is not None:
            x0, y0, x1, y1 = prompt.box
            points += [(x0, y0, _UPPER_LEFT), (x1, y1, _LOWER_RIGHT)]
        if prompt.box is None or self.pads_boxes:
            points.append((0.0, 0.0, _PADDING))
        return points

    def _best_masks(self, logits: Floats, scores: Floats, prompts: Prompts) -> tuple[Floats, Floats]:
        """Returns one of the four masks of each prompt, Pxhxw, and its score.

        A single point is ambiguous (a shirt, or the person who wears it): it takes the best of masks 1 to 3. All other
        prompts take mask 0, which is made for unambiguous prompts, unless its stability is below `stability_min`.
        """
        ambiguous = np.array([prompt.box is None and len(prompt.points) == 1 for prompt in prompts])
        unstable = _stability(logits[:, 0], UNAMBIGUOUS_STABILITY_OFFSET) < self.stability_min
        best_of_three = scores[:, 1:].argmax(axis=1) + 1
        selected = np.where(ambiguous | unstable, best_of_three, 0)
        rows = np.arange(len(prompts))
        return logits[rows, selected], scores[rows, selected]

    def _upsample(self, logits: Floats, size: tuple[int, int]) -> Floats:
        """Converts hxw of the input square to HxW of the image without the padding, at the input's resolution."""
        side, (width, height) = self._network.side, self._input_size(size)
        enlarged = cv2.resize(logits, (side, side), interpolation=cv2.INTER_LINEAR)
        return np.asarray(enlarged[:height, :width], np.float32)

    def _threshold(self, logits: Floats, scores: Floats, size: tuple[int, int]) -> Masks:
        """Converts logits Nxhxw to masks at `size` (width, height)."""
        masks = np.zeros((len(logits), size[1], size[0]), np.bool_)
        for mask, small in zip(masks, logits, strict=True):
            full = cv2.resize(self._upsample(small, size), size, interpolation=cv2.INTER_LINEAR)
            mask[:] = full.reshape(mask.shape) > 0
        return Masks(masks, scores.astype(np.float32), boxes_around(masks))


class Sam2(Sam):
    """The engine `sam2` (SAM 2.1): the image is resized to the input square without regard to its aspect ratio."""

    name = "sam2"
    hugging_face_folders: ClassVar[dict[str, str]] = {
        "large": "sam2.1-hiera-large",
        "base_plus": "sam2.1-hiera-base-plus",
        "small": "sam2.1-hiera-small",
        "tiny": "sam2.1-hiera-tiny",
    }
    pads_boxes = True
    stability_min = 0.98

    def _input_size(self, size: tuple[int, int]) -> tuple[int, int]:  # noqa: ARG002 - the square, for every size
        return self._network.side, self._network.side


class TorchNetwork:
    """Runs the network by torch.

    On a GPU the encoder runs in bfloat16 and the decoder, which draws the edges, in float32. bfloat16 changes the
    embedding by 0.9 % of its standard deviation in the mean, float16 by 0.1 % (hiera_tiny, random weights); but
    bfloat16 cannot overflow with any checkpoint.
    """

    def __init__(self, network: Any, device: str, threads: int = 1) -> None:
        import torch

        from sagemaker_model.engines.torch_runner import Forward, Half, TorchRunner, cast_weights
        from sagemaker_model.nets.sam import Decoder, Encoder

        def embedding_by(encoder: torch.nn.Module) -> Forward:
            return lambda x: [part.half() for part in encoder(x)]

        self._device = device
        encoder, self._decoder = Encoder(network).to(device), Decoder(network).to(device)
        self.side = self._decoder.side
        if device == "cpu":
            torch.set_num_threads(threads)
            self.prompts_at_once = CPU_PROMPTS_AT_ONCE
            self._encoder = TorchRunner(embedding_by(encoder), device)
        else:
            self.prompts_at_once = GPU_PROMPTS_AT_ONCE
            exact = copy.deepcopy(encoder)
            cast_weights(network.vision_encoder, torch.bfloat16)
            half = Half(embedding_by(encoder), torch.bfloat16)
            self._encoder = TorchRunner(embedding_by(exact), device, half)

    @classmethod
    def from_official(cls, variant: str, path: Path, device: str, threads: int = 1) -> TorchNetwork:
        """Loads an official file. Raises InvalidWeights."""
        from sagemaker_model.nets import sam
        from sagemaker_model.weights.checkpoints import load_checkpoint

        return cls(sam.from_official(variant, load_checkpoint(path)), device, threads)

    @classmethod
    def from_hugging_face(cls, family: Family, path: Path, device: str, threads: int = 1) -> TorchNetwork:
        """Loads the model.safetensors at `path` and the config.json beside it. Raises InvalidWeights."""
        from sagemaker_model.nets import sam
        from sagemaker_model.weights.checkpoints import load_checkpoint

        try:
            config = json.loads((path.parent / "config.json").read_bytes())
        except (OSError, ValueError) as error:
            raise InvalidWeights(
                f"{path.parent} has no config.json that can be read: copy the whole folder."
            ) from error
        return cls(sam.from_hugging_face(family, config, load_checkpoint(path)), device, threads)

    def warm_up(self, batch_max: int) -> tuple[Comparison, ...]:
        encoder = self._encoder.warm_up([(3, self.side, self.side)], min(batch_max, ENCODER_BATCH_MAX))
        prompts = self._compare_prompts()
        if not prompts.passed:
            self.prompts_at_once = 1
        return (*encoder, prompts)

    def _compare_prompts(self) -> Comparison:
        """Compares prompts that are decoded together with the same prompts alone, one point each."""
        import torch

        count = self.prompts_at_once
        (embedding,) = self.encode(network_inputs((3, self.side, self.side), 1))
        points = np.random.default_rng(0).uniform(0, self.side, (count, 2, 2)).astype(np.float32)
        labels = np.tile(np.array([1, _PADDING]), (count, 1))
        alone = [self.decode(embedding, points[[i]], labels[[i]]) for i in range(count)]
        if not is_conclusive(alone, FLOAT32_TOLERANCE):
            return Comparison("prompts", INFINITE, FLOAT32_TOLERANCE, NOT_CONCLUSIVE)
        try:
            logits, scores = self.decode(embedding, points, labels)
        except torch.OutOfMemoryError:
            return Comparison("prompts", INFINITE, FLOAT32_TOLERANCE, f"{count} prompts do not fit into the memory")
        together = [(logits[[i]], scores[[i]]) for i in range(count)]
        return Comparison("prompts", difference(together, alone), FLOAT32_TOLERANCE)

    def encode(self, images: Sequence[Floats]) -> list[Embedding]:
        # Copies: a cached view would keep its whole batch in memory.
        return [tuple(part[None].copy() for part in maps) for maps in self._encoder.run(images)]

    def decode(self, embedding: Embedding, points: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats]:
        import torch

        with torch.inference_mode():
            maps = (torch.from_numpy(part).to(self._device).float() for part in embedding)
            prompts = (torch.from_numpy(values).to(self._device) for values in (points, labels))
            logits, scores = self._decoder(*prompts, *maps)
        return logits.cpu().numpy(), scores.cpu().numpy()


class OnnxNetwork:
    """Runs the files of export/sam.py by ONNX Runtime on the CPU, without torch."""

    prompts_at_once = CPU_PROMPTS_AT_ONCE

    def __init__(self, encoder: Path, decoder: Path, threads: int = 1) -> None:
        self._encoder, self._decoder = onnx_session(encoder, threads), onnx_session(decoder, threads)
        self.side: int = self._encoder.get_inputs()[0].shape[-1]
        self._inputs = [node.name for node in self._decoder.get_inputs()]

    def warm_up(self, batch_max: int) -> tuple[Comparison, ...]:  # noqa: ARG002 - one contract for all networks
        """Does nothing: the first run takes no longer than the others."""
        return ()

    def encode(self, images: Sequence[Floats]) -> list[Embedding]:
        embeddings = []
        for image in images:  # batches gain nothing on a CPU
            maps = self._encoder.run(None, {"pixels": image[None]})
            embeddings.append(tuple(part.astype(np.float16) for part in maps))
        return embeddings

    def decode(self, embedding: Embedding, points: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats]:
        maps = [part.astype(np.float32) for part in embedding]
        logits, scores = self._decoder.run(None, dict(zip(self._inputs, (points, labels, *maps), strict=True)))
        return logits, scores


def grid_prompts(size: tuple[int, int], points_per_side: int) -> Prompts:
    """Returns one prompt of one point for each cell of a grid over an image of `size` (width, height), row by row."""
    centres = (np.arange(points_per_side) + 0.5) / points_per_side
    return tuple(Prompt(points=((float(x), float(y), 1),)) for y in centres * size[1] for x in centres * size[0])


def boxes_around(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Returns the bounding box of each mask: Nx4 (x0, y0, x1, y1) for NxHxW, all 0 for an empty mask."""
    boxes = np.zeros((len(masks), 4), np.int64)
    for box, mask in zip(boxes, masks, strict=True):
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        box[:] = x, y, x + width, y + height
    return boxes


def non_maximum_suppression(boxes: NDArray[np.int64], scores: Floats, overlap_max: float) -> NDArray[np.intp]:
    """Returns the indices, best score first, of boxes of which no two have an IoU above `overlap_max`."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    remaining = np.argsort(-scores, kind="stable")
    selected = []
    while remaining.size:
        best, remaining = remaining[0], remaining[1:]
        selected.append(best)
        start = np.maximum(boxes[best, :2], boxes[remaining, :2])
        sides = np.clip(np.minimum(boxes[best, 2:], boxes[remaining, 2:]) - start, 0, None)
        shared = sides[:, 0] * sides[:, 1]
        remaining = remaining[shared <= overlap_max * (area[best] + area[remaining] - shared)]
    return np.array(selected, np.intp)


def _stability(logits: Floats, offset: float) -> Floats:
    """Returns the stability of each mask: N in 0..1 for Nxhxw; 1 for an empty mask.

    It is the IoU of the masks cut at `offset` and at -`offset`.
    """
    inner = np.count_nonzero(logits > offset, axis=(1, 2))
    outer = np.count_nonzero(logits > -offset, axis=(1, 2))
    return np.where(outer > 0, inner / np.maximum(outer, 1), 1).astype(np.float32)

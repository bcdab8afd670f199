"""Anything, by points and boxes, by Segment Anything 1 and 2.1: one prompt for each part of the subject, which is their
union.

The encoder sees the image once (hiera_tiny: 3 s on two cores); its embedding is kept by the hash of what it saw, so
that the next prompt on the same image takes the decoder alone (0.05 s).

Edges: the network draws its masks at a quarter of its 1024 pixels, as logits whose zero is the published edge. They are
enlarged as logits, which moves that zero nowhere, and only then turned into alpha by the sigmoid: the network's own
doubt, some pixels wide, is what `refine` then lets follow the image. A mask cut at zero would leave it nothing to do,
and enlarged probabilities show the steps of the small mask.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from maskdrop.errors import InvalidPrompt
from maskdrop.prompt import Prompt, Prompts
from sagemaker_model.engines.base import Alpha
from sagemaker_model.engines.embeddings import Embedding, EmbeddingCache
from sagemaker_model.engines.onnx_session import onnx_session
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized
from sagemaker_model.weights.store import InvalidWeights, NotInstalled, digest, known, verify

Floats = NDArray[np.float32]

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
SPREAD = np.array([58.395, 57.12, 57.375], np.float32)
"""Of ImageNet's red, green and blue, 0 to 255: what both networks were trained with."""

ENCODED_AT_ONCE_MAX = 4
"""Images that a GPU encodes together. One of 1024x1024 keeps it busy, so that more would gain little; and of each,
vit_h's attention works in more than 0.5 GB: 16 heads times 4096x4096 numbers."""

CPU_PROMPTS_AT_ONCE = 4
"""Four take 28 ms each on two cores, sixteen 44: they no longer fit into the cache."""

EMBEDDING_BYTES = 512 * 1024 * 1024
"""Kept in memory unless a server says otherwise: 60 images of SAM 2.1, 240 of SAM 1."""

EXPECTED_IOU_MIN, STABILITY_MIN, STABILITY_OFFSET, OVERLAP_MAX = 0.88, 0.95, 1.0, 0.7
"""Of everything mode, as published with SAM: what is doubtful, moves with the threshold or is there already goes."""

STEADY_OFFSET = 0.05
"""Of a clear prompt's mask, as published with SAM 2."""

_NOTHING, _UPPER_LEFT, _LOWER_RIGHT = -1, 2, 3  # what a mark says, beside 0 background and 1 subject


@dataclass(frozen=True, slots=True)
class Masks:
    """masks: NxHxW bool. scores: N float32, the IoU that the network expects. boxes: Nx4 int64, x0, y0, x1, y1 in
    pixels around each mask, all 0 for an empty one."""

    masks: NDArray[np.bool_]
    scores: Floats
    boxes: NDArray[np.int64]


class Network(Protocol):
    """The two halves of nets/sam.py, wherever they run.

    side: pixels of the square input. prompts_at_once: through the decoder, 30 to 60 MB each.
    """

    side: int
    prompts_at_once: int

    def warm_up(self, batch_max: int) -> None:
        """As `BatchedEngine.warm_up`."""

    def encode(self, pictures: Sequence[Floats]) -> list[Embedding]:
        """One embedding for each of the images, 3xSxS."""

    def decode(self, embedding: Embedding, points: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Logits Px4xhxw and scores Px4, as nets/sam.py says."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """An image as the encoder sees it. pixels: 3xSxS float32, normalised. key: the hash of them and of the weights, so
    the same image in another format is the same."""

    pixels: Floats
    key: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels.shape


class Sam:
    """SAM 1: the image keeps its shape, its long side fills the input."""

    name: ClassVar[str] = "sam"
    folders: ClassVar[dict[str, str]] = {"vit_h": "sam-vit-huge", "vit_l": "sam-vit-large", "vit_b": "sam-vit-base"}
    """What Hugging Face calls the variants of weights.toml, the largest first."""

    ends_boxes: ClassVar[bool] = False
    """Whether a box, too, is followed by a mark that says nothing. Points alone always are."""

    steady: ClassVar[float] = 0.0
    """A clear prompt's mask must be as stable as this to be taken, else the best of the three others is."""

    weights_sha256 = ""

    def __init__(self) -> None:
        self.embeddings = EmbeddingCache(EMBEDDING_BYTES)

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:
        """Takes the largest variant of which the folder holds the official file, the folder of Hugging Face or, for the
        CPU and then before the others, the two files of export/sam.py. Raises NotInstalled, also where the package that
        runs them is missing, and InvalidWeights."""
        published = {one.variant: one for one in known().values() if one.engine == self.name}
        for variant, folder in self.folders.items():
            name, official = published[variant].name, weights_dir / published[variant].file
            encoder, decoder = (weights_dir / f"{name}.{half}.onnx" for half in ("encoder", "decoder"))
            try:
                if device == "cpu" and encoder.exists() and decoder.exists():
                    self._network: Network = OnnxNetwork(encoder, decoder, threads)
                    self.weights_sha256 = digest(encoder)
                elif official.exists():
                    self.weights_sha256 = verify(published[variant], weights_dir)
                    self._network = TorchNetwork.from_official(variant, official, device, threads)
                elif (saved := weights_dir / folder / "model.safetensors").exists():
                    self.weights_sha256 = digest(saved)
                    self._network = TorchNetwork.from_hugging_face(self.name, saved, device, threads)
                else:
                    continue
            except ModuleNotFoundError as error:
                raise NotInstalled(f"{name} needs {error.name}, which is not installed.") from error
            return
        names = ", ".join(one.file for one in published.values())
        raise NotInstalled(f"{weights_dir} holds none of {names}, nor their Hugging Face folders or ONNX files.")

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:
        return self.finish(self.infer([self.prepare(rgb, prompts)])[0], rgb, prompts)

    def warm_up(self, batch_max: int) -> None:
        self._network.warm_up(batch_max)

    def prepare(self, rgb: Pixels, prompts: Prompts) -> Seen:
        """Raises InvalidPrompt where there is none."""
        if not prompts:
            raise InvalidPrompt(f"The engine {self.name!r} needs a box or points: say where the subject is.")
        return self._seen(rgb)

    def embed(self, rgb: Pixels) -> Embedding:
        """For `masks` and `everything`."""
        return self.infer([self._seen(rgb)])[0]

    def infer(self, batch: Sequence[Seen]) -> list[Embedding]:
        """Through the encoder goes only what is not kept, and no image twice."""
        pixels = {seen.key: seen.pixels for seen in batch}
        found = self.embeddings.get_or_make(pixels, lambda keys: self._network.encode([pixels[key] for key in keys]))
        return [found[seen.key] for seen in batch]

    def finish(self, output: Embedding, rgb: Pixels, prompts: Prompts) -> Alpha:
        size = (rgb.shape[1], rgb.shape[0])
        union = np.float32(-np.inf)
        step = self._network.prompts_at_once
        for start in range(0, len(prompts), step):
            some = prompts[start : start + step]
            best, _ = self._best(*self._decode(output, size, some), some)
            union = np.maximum(union, best.max(axis=0))
        logits = self._enlarged(union, size)
        return Alpha(1 / (1 + np.exp(-np.clip(logits, -30, 30))))

    def masks(self, output: Embedding, size: tuple[int, int], prompts: Prompts, *, multimask: bool = False) -> Masks:
        """The masks of prompts, in their order, at `size`: width, height of the image to which they refer. One a
        prompt; with `multimask` three, from whole to part, for a prompt that can mean either."""
        logits, scores = self._decode(output, size, prompts)
        if multimask:
            return self._cut(logits[:, 1:].reshape(-1, *logits.shape[2:]), scores[:, 1:].ravel(), size)
        return self._cut(*self._best(logits, scores, prompts), size)

    def everything(self, output: Embedding, size: tuple[int, int], points_per_side: int = 32) -> Masks:
        """What lies under a grid of points, the best first, at `size`: N bytes for each of its pixels, so for a large
        image take a smaller size of its shape. Works in bounded memory besides: one chunk, and what is kept."""
        ticks = (np.arange(points_per_side) + 0.5) / points_per_side
        places = [(float(x), float(y)) for y in ticks * size[1] for x in ticks * size[0]]
        rows, columns = self._valid(size)
        kept, scores = np.zeros((0, 0, 0), np.float16), np.zeros(0, np.float32)
        step = self._network.prompts_at_once
        for start in range(0, len(places), step):
            prompts = tuple(Prompt(points=((x, y, 1),)) for x, y in places[start : start + step])
            logits, expected = self._decode(output, size, prompts)
            few = logits[:, 1:].reshape(-1, *logits.shape[2:])
            seen = few[:, : int(np.ceil(rows * few.shape[1])), : int(np.ceil(columns * few.shape[2]))]
            good = (expected[:, 1:].ravel() >= EXPECTED_IOU_MIN) & (seen > 0).any(axis=(1, 2))
            good &= _stability(seen, STABILITY_OFFSET) >= STABILITY_MIN
            found = few[good].astype(np.float16)
            kept = np.concatenate([kept, found]) if kept.size else found
            scores = np.concatenate([scores, expected[:, 1:].ravel()[good]])
            best = apart(boxes_around(kept > 0), scores, OVERLAP_MAX)
            kept, scores = kept[best], scores[best]
        return self._cut(kept.astype(np.float32), scores, size)

    def _seen(self, rgb: Pixels) -> Seen:
        pixels = self._pixels(rgb)
        sha256 = hashlib.sha256(self.weights_sha256.encode())
        sha256.update(pixels.data)
        return Seen(pixels, sha256.hexdigest())

    def _pixels(self, rgb: Pixels) -> Floats:
        """0 where the image is not."""
        side, (width, height) = self._network.side, self._fit((rgb.shape[1], rgb.shape[0]))
        pixels = np.zeros((3, side, side), np.float32)
        inside = pixels[:, :height, :width]
        inside[:] = resized(rgb, (width, height)).transpose(2, 0, 1)
        inside -= MEAN[:, None, None]
        inside /= SPREAD[:, None, None]
        return pixels

    def _fit(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the image in the network's input, from its upper left corner on."""
        scale = self._network.side / max(size)
        return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))

    def _valid(self, size: tuple[int, int]) -> tuple[float, float]:
        """The shares of the input's height and width that the image takes."""
        width, height = self._fit(size)
        return height / self._network.side, width / self._network.side

    def _decode(self, output: Embedding, size: tuple[int, int], prompts: Prompts) -> tuple[Floats, Floats]:
        """Logits Px4xhxw and scores Px4 in the order of the prompts. Those with as many marks go together: a mark that
        only fills up would change the mask."""
        fit = np.array(self._fit(size)) / size
        marks = [self._marks(prompt) for prompt in prompts]
        step = self._network.prompts_at_once
        logits: list[Floats] = [np.empty(0, np.float32)] * len(prompts)
        scores = list(logits)
        for count in sorted({len(mark) for mark in marks}):
            alike = [i for i, mark in enumerate(marks) if len(mark) == count]
            for start in range(0, len(alike), step):
                some = alike[start : start + step]
                values = np.array([marks[i] for i in some], np.float64)
                points, labels = (values[..., :2] * fit).astype(np.float32), values[..., 2].astype(np.int64)
                found = self._network.decode(output, points, labels)
                for i, mask, score in zip(some, *found, strict=True):
                    logits[i], scores[i] = mask, score
        return np.stack(logits), np.stack(scores)

    def _marks(self, prompt: Prompt) -> list[tuple[float, float, int]]:
        """x, y and what is there, as the networks were trained."""
        marks = list(prompt.points)
        if prompt.box is not None:
            x0, y0, x1, y1 = prompt.box
            marks += [(x0, y0, _UPPER_LEFT), (x1, y1, _LOWER_RIGHT)]
        if prompt.box is None or self.ends_boxes:
            marks.append((0.0, 0.0, _NOTHING))
        return marks

    def _best(self, logits: Floats, scores: Floats, prompts: Prompts) -> tuple[Floats, Floats]:
        """One of the four masks of each prompt, Pxhxw, and its score: the best of the three for one click, which can
        mean a shirt or who wears it; the mask made for clear prompts for all others, unless it is unsteady."""
        three = scores[:, 1:].argmax(axis=1) + 1
        one_click = np.array([prompt.box is None and len(prompt.points) == 1 for prompt in prompts])
        unsteady = _stability(logits[:, 0], STEADY_OFFSET) < self.steady
        picked = np.where(one_click | unsteady, three, 0)
        rows = np.arange(len(prompts))
        return logits[rows, picked], scores[rows, picked]

    def _enlarged(self, logits: Floats, size: tuple[int, int]) -> Floats:
        """hxw of the input square as HxW of the image alone, at the network's resolution."""
        side, (width, height) = self._network.side, self._fit(size)
        return cv2.resize(logits, (side, side), interpolation=cv2.INTER_LINEAR)[:height, :width]

    def _cut(self, logits: Floats, scores: Floats, size: tuple[int, int]) -> Masks:
        masks = np.zeros((len(logits), size[1], size[0]), np.bool_)
        for mask, drawn in zip(masks, logits, strict=True):
            full = cv2.resize(self._enlarged(drawn, size), size, interpolation=cv2.INTER_LINEAR)
            mask[:] = full.reshape(mask.shape) > 0
        return Masks(masks, scores.astype(np.float32), boxes_around(masks))


class Sam2(Sam):
    """SAM 2.1: the image is squashed into the input square."""

    name = "sam2"
    folders: ClassVar[dict[str, str]] = {
        "large": "sam2.1-hiera-large",
        "base_plus": "sam2.1-hiera-base-plus",
        "small": "sam2.1-hiera-small",
        "tiny": "sam2.1-hiera-tiny",
    }
    ends_boxes = True
    steady = 0.98

    def _fit(self, size: tuple[int, int]) -> tuple[int, int]:  # noqa: ARG002 - whatever its size
        return self._network.side, self._network.side


class TorchNetwork:
    """By torch. On a GPU the encoder works in bfloat16, the decoder, which draws the edges, in float32. bfloat16 puts
    the embedding off by 0.9 % of its spread in the mean, float16 by 0.1 % (hiera_tiny, random weights); but it cannot
    overflow, whatever the checkpoint."""

    def __init__(self, network: Any, device: str, threads: int = 1) -> None:
        import torch

        from sagemaker_model.engines.torch_runner import TorchRunner, lowered
        from sagemaker_model.nets.sam import Decoder, Encoder

        self._device = device
        encoder, self._decoder = Encoder(network).to(device), Decoder(network).to(device)
        self.side = self._decoder.side
        if device == "cpu":
            torch.set_num_threads(threads)
            self.prompts_at_once = CPU_PROMPTS_AT_ONCE
        else:
            lowered(network.vision_encoder, torch.bfloat16)
            self.prompts_at_once = 64
        self._encoder = TorchRunner(lambda x: [part.half() for part in encoder(x)], device, torch.bfloat16)

    @classmethod
    def from_official(cls, variant: str, path: Path, device: str, threads: int = 1) -> TorchNetwork:
        from sagemaker_model.nets import sam
        from sagemaker_model.weights.checkpoints import load_checkpoint

        return cls(sam.from_official(variant, load_checkpoint(path)), device, threads)

    @classmethod
    def from_hugging_face(cls, family: Any, path: Path, device: str, threads: int = 1) -> TorchNetwork:
        from sagemaker_model.nets import sam
        from sagemaker_model.weights.checkpoints import load_checkpoint

        try:
            config = json.loads((path.parent / "config.json").read_bytes())
        except (OSError, ValueError) as error:
            raise InvalidWeights(f"{path.parent} has no config.json that can be read.") from error
        return cls(sam.from_hugging_face(family, config, load_checkpoint(path)), device, threads)

    def warm_up(self, batch_max: int) -> None:
        self._encoder.warm_up([(3, self.side, self.side)], min(batch_max, ENCODED_AT_ONCE_MAX))

    def encode(self, pictures: Sequence[Floats]) -> list[Embedding]:
        # Copies: a view that is kept would keep its whole batch.
        return [tuple(part[None].copy() for part in maps) for maps in self._encoder.run(pictures)]

    def decode(self, embedding: Embedding, points: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats]:
        import torch

        with torch.inference_mode():
            maps = (torch.from_numpy(part).to(self._device).float() for part in embedding)
            marks = (torch.from_numpy(values).to(self._device) for values in (points, labels))
            logits, scores = self._decoder(*marks, *maps)
        return logits.cpu().numpy(), scores.cpu().numpy()


class OnnxNetwork:
    """By ONNX Runtime on the CPU, without torch: the files of export/sam.py."""

    prompts_at_once = CPU_PROMPTS_AT_ONCE

    def __init__(self, encoder: Path, decoder: Path, threads: int = 1) -> None:
        self._encoder, self._decoder = onnx_session(encoder, threads), onnx_session(decoder, threads)
        self.side: int = self._encoder.get_inputs()[0].shape[-1]
        self._inputs = [node.name for node in self._decoder.get_inputs()]

    def warm_up(self, batch_max: int) -> None:
        """Nothing takes longer the first time."""

    def encode(self, pictures: Sequence[Floats]) -> list[Embedding]:
        embeddings = []
        for one in pictures:  # batches gain nothing on a CPU
            maps = self._encoder.run(None, {"pixels": one[None]})
            embeddings.append(tuple(part.astype(np.float16) for part in maps))
        return embeddings

    def decode(self, embedding: Embedding, points: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats]:
        maps = [part.astype(np.float32) for part in embedding]
        logits, scores = self._decoder.run(None, dict(zip(self._inputs, (points, labels, *maps), strict=True)))
        return logits, scores


def boxes_around(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Nx4 for NxHxW."""
    boxes = np.zeros((len(masks), 4), np.int64)
    for box, mask in zip(boxes, masks, strict=True):
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        box[:] = x, y, x + width, y + height
    return boxes


def apart(boxes: NDArray[np.int64], scores: Floats, overlap_max: float) -> NDArray[np.intp]:
    """The indices, best score first, of boxes of which no two overlap (IoU) more than that: non-maximum suppression."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.argsort(-scores, kind="stable")
    kept = []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(best)
        start = np.maximum(boxes[best, :2], boxes[left, :2])
        sides = np.clip(np.minimum(boxes[best, 2:], boxes[left, 2:]) - start, 0, None)
        shared = sides[:, 0] * sides[:, 1]
        left = left[shared <= overlap_max * (area[best] + area[left] - shared)]
    return np.array(kept, np.intp)


def _stability(logits: Floats, offset: float) -> Floats:
    """N in 0..1 for Nxhxw: the IoU of the masks cut a little above and a little below zero; 1 for an empty one."""
    inner = np.count_nonzero(logits > offset, axis=(1, 2))
    outer = np.count_nonzero(logits > -offset, axis=(1, 2))
    return np.where(outer > 0, inner / np.maximum(outer, 1), 1).astype(np.float32)

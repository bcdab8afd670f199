"""Edits: images generated from text behind or in place of the subject, by an editor such as Amazon Bedrock's models.

An edit is two more stages of a job. The container segments the image and stores alpha, a scaled image and its mask
under `folder_of` in the results bucket; the function `edit` calls the editor once for each candidate and stores the
generated images beside them; the container then composes each candidate with the source at full resolution.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from maskdrop.errors import InvalidOptions, OptionsConflict
from maskdrop.grammar import is_unicode
from maskdrop.record import Decimals, Record

Change = Literal["background", "subject"]
"""The part of the image that the editor generates; the other part keeps its pixels."""

Stage = Literal["segment", "edit", "compose"]
"""The stages of a job with an edit; every other job has the first one only."""

PREVIOUS_STAGE: dict[Stage, Stage] = {"edit": "segment", "compose": "edit"}

EditorName = Literal["local", "stability", "titan", "nova", "off"]

FIELDS = ("prompts", "negative_prompt", "seeds", "change")

EDITS_PREFIX = "edits/"
"""Key prefix of the files of edits in the results bucket."""

CANDIDATES_MAX = 12
"""Maximum candidates of one job, one for each prompt and seed: $0.84 at $0.07 each, 4 minutes at 20 s each."""

PROMPT_MAX, SEED_MAX = 10_000, 4_294_967_294
"""Maximum characters of a prompt, and the largest seed, of Stability's models on Amazon Bedrock."""

TEXTS_MAX = 60_000
"""Maximum bytes of the prompts of all candidates and the negative prompt as JSON. A finished job has each prompt up to
three times; an event on EventBridge has at most 256 KB, and an item in DynamoDB 400 KB."""

ROUNDING = 1e-6
"""Pixels below a whole number that are only the rounding error of a scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditorModel:
    """The model of an editor, and the limits of its requests.

    model: ID of the foundation model on Amazon Bedrock; "" for an editor that is not a model.
    profile: ID of the inference profile that requests must name instead of the model; "" where they name the model.
    regions: Regions from which the model can be called; () where the Region does not matter.
    pixels_max, side_max, side_min: limits of the image and its mask, in pixels. aspect_max: maximum of the longer side
        divided by the shorter one.
    prompt_max: maximum characters of a prompt. seed_max: largest seed.
    usd_per_image: list price of one generated image in US dollars.
    """

    model: str = ""
    profile: str = ""
    regions: tuple[str, ...] = ()
    pixels_max: int
    side_max: int
    side_min: int
    aspect_max: float = math.inf
    prompt_max: int
    seed_max: int
    usd_per_image: float

    @property
    def ratio_max(self) -> float:
        """Maximum of the longer side of an image divided by the shorter one."""
        return min(self.aspect_max, self.side_max / self.side_min, self.pixels_max / self.side_min**2)

    def fit(self, width: int, height: int) -> tuple[int, int] | None:
        """Width and height of an image within the limits, of the same aspect ratio; None where no size has it."""
        short, long = sorted((width, height))
        if long > self.ratio_max * short:
            return None
        scale = min(1.0, self.side_max / long, math.sqrt(self.pixels_max / (width * height)))
        scale = max(scale, self.side_min / short)
        # Rounded down: two sides that are rounded up may have more pixels than the limit.
        short = max(self.side_min, math.floor(short * scale + ROUNDING))
        long = min(math.floor(long * scale + ROUNDING), math.floor(short * self.ratio_max), self.pixels_max // short)
        return (short, long) if width <= height else (long, short)


EDITORS: dict[EditorName, EditorModel] = {
    # 1 MP: a backdrop is smooth, and the standard library writes its PNG in less than a second.
    "local": EditorModel(
        pixels_max=1_048_576, side_max=8192, side_min=1, prompt_max=PROMPT_MAX, seed_max=SEED_MAX, usd_per_image=0.0
    ),
    "stability": EditorModel(
        model="stability.stable-image-inpaint-v1:0",
        profile="us.stability.stable-image-inpaint-v1:0",
        regions=("us-east-1", "us-east-2", "us-west-2"),
        pixels_max=9_437_184,
        side_max=9_437_184 // 64,
        side_min=64,
        aspect_max=2.5,
        prompt_max=PROMPT_MAX,
        seed_max=SEED_MAX,
        usd_per_image=0.07,
    ),
    "titan": EditorModel(
        model="amazon.titan-image-generator-v2:0",
        regions=("us-east-1", "us-west-2"),
        pixels_max=1408 * 1408,
        side_max=1408,
        side_min=256,
        prompt_max=512,
        seed_max=2_147_483_646,
        usd_per_image=0.012,
    ),
    "nova": EditorModel(
        model="amazon.nova-canvas-v1:0",
        regions=("us-east-1", "eu-west-1", "ap-northeast-1"),
        pixels_max=4_194_304,
        side_max=4096,
        side_min=320,
        aspect_max=4.0,
        prompt_max=1024,
        seed_max=858_993_459,
        usd_per_image=0.08,
    ),
    "off": EditorModel(pixels_max=1_048_576, side_max=8192, side_min=1, prompt_max=0, seed_max=0, usd_per_image=0.0),
}
"""The editors by the setting `editor`. Titan and Nova Canvas have passed their end of life for new accounts."""


@dataclass(frozen=True, slots=True)
class Edit:
    """The images to generate: one candidate for each prompt and seed, in the order of the prompts.

    negative_prompt: what the images must not show; "" for nothing.
    """

    prompts: tuple[str, ...]
    negative_prompt: str = ""
    seeds: tuple[int, ...] = (0,)
    change: Change = "background"

    @property
    def candidates(self) -> tuple[tuple[str, int], ...]:
        """Prompt and seed of each candidate."""
        return tuple((prompt, seed) for prompt in self.prompts for seed in self.seeds)

    def to_json(self) -> dict[str, Any]:
        """The canonical form, without defaults."""
        data: dict[str, Any] = {"prompts": list(self.prompts)}
        if self.negative_prompt:
            data["negative_prompt"] = self.negative_prompt
        if self.seeds != (0,):
            data["seeds"] = list(self.seeds)
        if self.change != "background":
            data["change"] = self.change
        return data

    @classmethod
    def from_json(cls, data: Any) -> Edit:
        """`data` is a text, or an object with FIELDS; "prompts" and "seeds" may be a single value. Raises
        InvalidOptions, and OptionsConflict for more than CANDIDATES_MAX candidates or TEXTS_MAX bytes
        of prompts."""
        data = {"prompts": data} if isinstance(data, str) else data
        if not isinstance(data, dict) or set(data) - set(FIELDS):
            raise InvalidOptions(f'"edit" must be a text, or an object with the fields {", ".join(FIELDS)}.', "edit")
        prompts, seeds = _listed(data.get("prompts")), _listed(data.get("seeds", 0))
        negative: Any = data.get("negative_prompt") or ""
        change: Any = data.get("change") or "background"
        if not prompts or not all(map(_is_text, prompts)) or not _is_text(negative, characters_min=0):
            raise InvalidOptions(
                f'"edit.prompts" and "edit.negative_prompt" must be texts of 1 to {PROMPT_MAX:,} Unicode characters.',
                "edit",
            )
        if not seeds or not all(map(_is_seed, seeds)):
            raise InvalidOptions(f'"edit.seeds" must be integers from 0 to {SEED_MAX}; got {seeds!r:.80}.', "edit")
        if change not in get_args(Change):
            raise InvalidOptions(f'"edit.change" must be background or subject; got {change!r:.80}.', "edit")
        edit = cls(
            tuple(dict.fromkeys(text.strip() for text in prompts)),
            negative.strip(),
            tuple(dict.fromkeys(map(int, seeds))),
            change,
        )
        if len(edit.candidates) > CANDIDATES_MAX:
            raise OptionsConflict(
                f'"edit" must have at most {CANDIDATES_MAX} candidates (prompts times seeds); got '
                f"{len(edit.candidates)}.",
                "edit",
            )
        texts = [edit.negative_prompt, *(prompt for prompt, _ in edit.candidates)]
        if (size := len(json.dumps(texts))) > TEXTS_MAX:
            raise OptionsConflict(
                f'"edit" must have at most {TEXTS_MAX:,} bytes of prompts for all candidates, as JSON; got {size:,}. '
                "Use shorter prompts, or several jobs.",
                "edit",
            )
        return edit


@dataclass(frozen=True, slots=True)
class Candidate(Record):
    """One generated image of a job. number: from 1, in the order of `Edit.candidates`. model: that generated it."""

    number: int
    prompt: str
    seed: int
    model: str
    cost_usd: Annotated[float, Decimals(6)]


def alpha_key(job_id: str) -> str:
    """Key of the alpha of the source, HxW grey PNG."""
    return f"{EDITS_PREFIX}{job_id}/alpha.png"


def image_key(job_id: str) -> str:
    """Key of the source within the editor's limits, JPEG."""
    return f"{EDITS_PREFIX}{job_id}/image.jpg"


def mask_key(job_id: str) -> str:
    """Key of the mask of that image: grey PNG of its size, 255 on the subject, 0 elsewhere."""
    return f"{EDITS_PREFIX}{job_id}/mask.png"


def candidate_key(job_id: str, number: int) -> str:
    """Key of a generated image, in the size of that image."""
    return f"{EDITS_PREFIX}{job_id}/candidate-{number}"


def edit_keys(job_id: str, edit: Edit) -> list[str]:
    """Keys of all files of a job's edit, which may exist."""
    numbers = range(1, len(edit.candidates) + 1)
    return [alpha_key(job_id), image_key(job_id), mask_key(job_id), *(candidate_key(job_id, one) for one in numbers)]


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _is_text(value: Any, characters_min: int = 1) -> bool:
    return isinstance(value, str) and characters_min <= len(value.strip()) <= PROMPT_MAX and is_unicode(value)


def _is_seed(value: Any) -> bool:
    """Whether a JSON number is a seed. In JSON Schema, 1.0 is an integer."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= SEED_MAX and int(value) == value

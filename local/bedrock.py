"""Amazon Bedrock for images, as the local stack emulates it: models, their request bodies and generated images.

A generated image depends on prompt and seed only. An edit changes the pixels that the mask selects, and no others.
Request bodies, limits and error messages: Amazon Bedrock user guide, "Stability AI Image Services", "Amazon Titan Image
Generator" and "Amazon Nova Canvas", November 2026.
"""

from __future__ import annotations

import base64
import json
import secrets
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from local.deploy import ACCOUNT
from local.service_model import ServiceError

Image = NDArray[np.uint8]

US = ("us-east-1", "us-east-2", "us-west-2")
"""Regions of the Stability models, and of the inference profile `us.` that their calls need."""

SIDE_MIN, PIXELS_MAX = 64, 9_437_184
"""Limits of the Stability models for an image: shortest side and pixels."""

ASPECT_MAX = 2.5
"""Longest side divided by shortest side, at most, of an image for the Stability models."""

PROMPT_MAX = 10_000
"""Characters of a prompt for the Stability models."""

SEED_MAX = 4_294_967_294
FINISH_REASONS = (
    "Filter reason: prompt",
    "Filter reason: output image",
    "Filter reason: input image",
    "Inference error",
)
"""Values of `finish_reasons` in a response without images."""

FILTERED = (
    "This request has been blocked by our content filters. Please adjust your text prompt to submit a new request."
)
END_OF_LIFE = (
    "This model version has reached the end of its life. Please refer to the AWS documentation for more details."
)
INACTIVE = (
    "Access denied. This Model is marked by provider as Legacy and you have not been actively using the model in the "
    "last 15 days. Please upgrade to an active model on Amazon Bedrock"
)

ACTIVE, LEGACY, EOL, UNUSED, ELSEWHERE = "ACTIVE", "LEGACY", "EOL", "UNUSED", "ELSEWHERE"
LIFECYCLES = (ACTIVE, LEGACY, EOL, UNUSED, ELSEWHERE)
"""States of a model. LEGACY: calls succeed until the end of life. EOL: they fail. UNUSED: a legacy model that this
account has not called for too long, so that its calls fail. ELSEWHERE: the Region does not have the model."""


@dataclass(frozen=True, slots=True)
class Field:
    """A member of a request body. kind: its JSON type. low, high: limits of a number, or of the length of a text."""

    kind: type | tuple[type, ...] = str
    low: float = 0
    high: float = float("inf")
    required: bool = False


SEED = Field(int, 0, SEED_MAX)
PROMPT = Field(str, 1, PROMPT_MAX, required=True)
NEGATIVE = Field(str, 0, PROMPT_MAX)
GROW = Field(int, 0, 20)
IMAGE = Field(str, 1, required=True)
EDGE = Field(int, 0, 2000)
STYLE = Field(str)
OUTPUT: Mapping[str, Field] = {"output_format": Field(str)}
OUTPUT_FORMATS = ("png", "jpeg", "webp")


@dataclass(frozen=True, slots=True)
class Result:
    """images: files. seeds: the seed of each. prompt: the text of the request, "" for a task without text."""

    images: list[bytes]
    seeds: list[int]
    prompt: str = ""


Edit = Callable[[Image, dict[str, Any], int], Image]
"""Edits an image, HxWx3 uint8, with the parsed body and a seed. Returns HxWx3 or, with transparency, HxWx4."""


@dataclass(frozen=True, slots=True)
class Model:
    """One model. edit, fields: of a Stability model. prompt_max, seed_max, side_max: limits of an Amazon model."""

    name: str
    regions: tuple[str, ...]
    lifecycle: str = ACTIVE
    edit: Edit | None = None
    fields: Mapping[str, Field] = field(default_factory=dict)
    prompt_max: int = 0
    seed_max: int = 0
    side_max: int = 0

    @property
    def provider(self) -> str:
        return "Stability AI" if self.edit else "Amazon"


def generated(shape: tuple[int, ...], prompt: str, seed: int) -> Image:
    """Returns a colour gradient with noise, HxWx3 uint8, which depends on prompt and seed only. shape: H, W."""
    height, width = shape[:2]
    random = np.random.default_rng([seed, zlib.crc32(prompt.encode())])
    colours = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    smooth = cv2.resize(colours, (width, height), interpolation=cv2.INTER_LINEAR)
    noise = random.integers(0, 17, (height, width, 1), dtype=np.uint8)
    return np.asarray(cv2.add(smooth, np.repeat(noise, 3, axis=2)), np.uint8)


def _inpaint(image: Image, body: dict[str, Any], seed: int) -> Image:
    """Fills the white part of the mask, which `grow_mask` widens by up to 20 pixels. Grey is a partial change."""
    mask = _decoded(body["mask"], "mask", cv2.IMREAD_GRAYSCALE) if "mask" in body else _transparent(body["image"])
    if mask.shape != image.shape[:2]:
        raise _malformed(f"mask has {_size(mask)} pixels and image {_size(image)}; they must be equal")
    if grow := body.get("grow_mask", 5):
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * grow + 1, 2 * grow + 1))
        mask = np.asarray(cv2.dilate(mask, kernel), np.uint8)
    return _filled(image, mask, generated(image.shape, body.get("prompt", ""), seed))


def _search(image: Image, body: dict[str, Any], seed: int) -> Image:
    """Fills an ellipse in the centre: here every object that a text names is there."""
    return _filled(image, _centre(image), generated(image.shape, body["prompt"], seed))


def _without_background(image: Image, _body: dict[str, Any], _seed: int) -> Image:
    return np.dstack([image, _centre(image)])


def _outpaint(image: Image, body: dict[str, Any], seed: int) -> Image:
    left, right, up, down = (body.get(side, 0) for side in ("left", "right", "up", "down"))
    if not left + right + up + down:
        raise _malformed("one of left, right, up and down must be greater than 0")
    height, width = image.shape[:2]
    canvas = generated((height + up + down, width + left + right), body.get("prompt", ""), seed)
    canvas[up : up + height, left : left + width] = image
    return canvas


def _filled(image: Image, mask: Image, content: Image) -> Image:
    """Returns `content` where the mask is 255 and `image` where it is 0."""
    x, y, width, height = cv2.boundingRect(mask)
    part = np.s_[y : y + height, x : x + width]  # most masks are small
    share = mask[part][..., None].astype(np.uint16)
    filled = image.copy()
    filled[part] = (content[part] * share + image[part] * (255 - share) + 127) // 255
    return filled


def _centre(image: Image) -> Image:
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (width // 2, height // 2), (width // 4, height // 4), 0, 0, 360, 255, -1)
    return mask


STABILITY: dict[str, tuple[str, Edit, dict[str, Field]]] = {
    "stable-image-inpaint-v1:0": (
        "Stable Image Inpaint",
        _inpaint,
        {
            "prompt": PROMPT,
            "mask": Field(str, 1),
            "negative_prompt": NEGATIVE,
            "grow_mask": GROW,
            "style_preset": STYLE,
        },
    ),
    "stable-image-erase-object-v1:0": ("Stable Image Erase", _inpaint, {"mask": Field(str, 1), "grow_mask": GROW}),
    "stable-image-search-replace-v1:0": (
        "Stable Image Replace",
        _search,
        {
            "prompt": PROMPT,
            "search_prompt": PROMPT,
            "negative_prompt": NEGATIVE,
            "grow_mask": GROW,
            "style_preset": STYLE,
        },
    ),
    "stable-image-remove-background-v1:0": ("Stable Image Remove", _without_background, {}),
    "stable-outpaint-v1:0": (
        "Stable Outpaint",
        _outpaint,
        {
            "prompt": Field(str, 0, PROMPT_MAX),
            "creativity": Field((int, float), 0.1, 1),
            "style_preset": STYLE,
            **dict.fromkeys(("left", "right", "up", "down"), EDGE),
        },
    ),
}

MODELS: dict[str, Model] = {
    f"stability.{name}": Model(title, US, edit=edit, fields={"image": IMAGE, "seed": SEED, **OUTPUT, **fields})
    for name, (title, edit, fields) in STABILITY.items()
} | {
    "amazon.titan-image-generator-v2:0": Model(
        "Titan Image G1 v2", ("us-east-1", "us-west-2"), LEGACY, prompt_max=512, seed_max=2_147_483_646, side_max=1408
    ),
    "amazon.nova-canvas-v1:0": Model(
        "Nova Canvas",
        ("us-east-1", "eu-west-1", "ap-northeast-1"),
        LEGACY,
        prompt_max=1024,
        seed_max=858_993_459,
        side_max=4096,
    ),
}
"""The models by ID, with the Regions that have them and the state in which the emulator starts."""

Lifecycle = Mapping[str, str]
"""States that replace those of MODELS, by model ID."""


def invoke(
    model_id: str, body: bytes, region: str, lifecycle: Lifecycle, finish_reason: str = ""
) -> tuple[bytes, Result]:
    """InvokeModel: returns the response body, and the images that are billed.

    finish_reason: a member of FINISH_REASONS to return instead of images. Raises ServiceError as Bedrock does.
    """
    name, by_profile = _resolved(model_id)
    model = _known(name, region, lifecycle)
    if by_profile and not model.edit:
        raise ServiceError("ValidationException", "The provided model identifier is invalid.")
    if model.edit and not by_profile:
        raise ServiceError(
            "ValidationException",
            f"Invocation of model ID {name} with on-demand throughput isn't supported. Retry your request with the ID "
            "or ARN of an inference profile that contains this model.",
        )
    state = lifecycle.get(name, model.lifecycle)
    if state in (EOL, UNUSED):
        raise ServiceError("ResourceNotFoundException", END_OF_LIFE if state == EOL else INACTIVE)
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise _malformed("the body must be a JSON object")
    if model.edit:
        return _stability(model, model.edit, parsed, finish_reason)
    return _amazon(model, parsed, finish_reason)


def _stability(model: Model, edit: Edit, body: dict[str, Any], finish_reason: str) -> tuple[bytes, Result]:
    _check(body, model.fields)
    image = _decoded(body["image"], "image")
    height, width = image.shape[:2]
    if min(height, width) < SIDE_MIN:
        raise _malformed(f"every side of image must have at least {SIDE_MIN} pixels, got {_size(image)}")
    if height * width > PIXELS_MAX:
        raise _malformed(f"image must have at most {PIXELS_MAX} pixels, got {height * width}")
    if max(height, width) > ASPECT_MAX * min(height, width):
        raise _malformed(f"the aspect ratio of image must be between 1:{ASPECT_MAX} and {ASPECT_MAX}:1")
    output = body.get("output_format", "png")
    if output not in OUTPUT_FORMATS:
        raise _malformed(f"output_format must be one of {', '.join(OUTPUT_FORMATS)}, got {output!r}")
    if finish_reason:
        return json.dumps({"finish_reasons": [finish_reason]}).encode(), Result([], [])
    seed = body.get("seed") or 1 + secrets.randbelow(SEED_MAX)  # 0: a random seed
    result = Result([_encoded(edit(image, body, seed), output)], [seed], body.get("prompt", ""))
    response = {"seeds": result.seeds, "finish_reasons": [None], "images": _base64(result.images)}
    return json.dumps(response).encode(), result


CONFIG = {
    "numberOfImages": Field(int, 1, 5),
    "quality": Field(str),
    "cfgScale": Field((int, float), 1.1, 10),
    "height": Field(int, 320, 4096),
    "width": Field(int, 320, 4096),
    "seed": Field(int, 0),
}
TASKS = {
    "INPAINTING": ("inPaintingParams", ("text", "negativeText", "image", "maskImage", "maskPrompt", "returnMask")),
    "OUTPAINTING": (
        "outPaintingParams",
        ("text", "negativeText", "image", "maskImage", "maskPrompt", "outPaintingMode", "returnMask"),
    ),
    "BACKGROUND_REMOVAL": ("backgroundRemovalParams", ("image",)),
}
"""Tasks of the Amazon models that edit an image: name of their parameters, and the members."""


def _amazon(model: Model, body: dict[str, Any], finish_reason: str) -> tuple[bytes, Result]:
    task = body.get("taskType")
    if task not in TASKS:
        raise _malformed(f"taskType must be one of {', '.join(TASKS)}, got {task!r}")
    name, members = TASKS[task]
    settings = {"taskType", name} | (set() if task == "BACKGROUND_REMOVAL" else {"imageGenerationConfig"})
    _check(body, {key: Field(str if key == "taskType" else dict, required=key == name) for key in settings})
    values, config = body[name], body.get("imageGenerationConfig", {})
    kinds = {key: Field(bool if key == "returnMask" else str) for key in members}
    texts = dict.fromkeys({"text", "negativeText", "maskPrompt"} & kinds.keys(), Field(str, 1, model.prompt_max))
    _check(values, kinds | texts | {"image": IMAGE})
    _check(config, CONFIG | {"seed": Field(int, 0, model.seed_max)})
    image = _decoded(values["image"], "image")
    if max(image.shape) > model.side_max:
        raise _malformed(f"the longest side of image must have at most {model.side_max} pixels, got {_size(image)}")
    if finish_reason and finish_reason != "Filter reason: output image":
        raise ServiceError("ValidationException", FILTERED)
    if finish_reason:
        return json.dumps({"images": [], "error": FILTERED}).encode(), Result([], [])
    if task == "BACKGROUND_REMOVAL":
        result = Result([_encoded(_without_background(image, {}, 0), "png")], [0])
    else:
        inside = _inside(values, image)
        changed = inside if task == "INPAINTING" else 255 - inside
        first, text = config.get("seed", 12), values.get("text", "")
        seeds = [first + number for number in range(config.get("numberOfImages", 1))]
        images = [_filled(image, changed, generated(image.shape, text, seed)) for seed in seeds]
        result = Result([_encoded(one, "png") for one in images], seeds, text)
    return json.dumps({"images": _base64(result.images), "error": None}).encode(), result


def _inside(values: dict[str, Any], image: Image) -> Image:
    """Returns the inside of the mask as 255: the black pixels of `maskImage`, or the centre for a `maskPrompt`."""
    if ("maskImage" in values) == ("maskPrompt" in values):
        raise _malformed("one of maskImage and maskPrompt is required")
    if "maskPrompt" in values:
        return _centre(image)
    mask = _decoded(values["maskImage"], "maskImage", cv2.IMREAD_GRAYSCALE)
    if mask.shape != image.shape[:2]:
        raise _malformed(f"maskImage has {_size(mask)} pixels and image {_size(image)}; they must be equal")
    if ((mask > 0) & (mask < 255)).any():
        raise _malformed("maskImage must have only black and white pixels")
    return np.asarray(255 - mask, np.uint8)


def foundation_model(identifier: str, region: str, lifecycle: Lifecycle) -> dict[str, Any]:
    """GetFoundationModel: returns `modelDetails`. Raises ServiceError as Bedrock does."""
    name = identifier.rpartition("/")[2]
    model = _known(name, region, lifecycle)
    if lifecycle.get(name, model.lifecycle) == EOL:
        raise ServiceError("ResourceNotFoundException", END_OF_LIFE)
    return _details(name, region, lifecycle)


def foundation_models(
    region: str, lifecycle: Lifecycle, *, provider: str = "", modality: str = ""
) -> list[dict[str, Any]]:
    """ListFoundationModels: returns `modelSummaries` of the models that the Region has."""
    return [
        _details(name, region, lifecycle)
        for name, model in MODELS.items()
        if region in model.regions
        and lifecycle.get(name, model.lifecycle) not in (EOL, ELSEWHERE)
        and provider.lower() in ("", model.provider.lower())
        and modality in ("", "IMAGE")
    ]


def inference_profile(identifier: str, region: str) -> dict[str, Any]:
    """GetInferenceProfile: returns the profile. Raises ServiceError as Bedrock does."""
    name, by_profile = _resolved(identifier)
    model = MODELS.get(name)
    if not (by_profile and model and model.edit and region in US):
        raise ServiceError("ResourceNotFoundException", "The specified inference profile was not found.")
    created = datetime(2025, 9, 18, tzinfo=UTC)
    return {
        "inferenceProfileName": f"US {model.name}",
        "description": f"Routes requests to {model.name} in {', '.join(US)}."[:200].replace(",", ""),
        "createdAt": created,
        "updatedAt": created,
        "inferenceProfileArn": profile_arn(name, region),
        "models": [{"modelArn": model_arn(name, each)} for each in US],
        "inferenceProfileId": f"us.{name}",
        "status": "ACTIVE",
        "type": "SYSTEM_DEFINED",
    }


def resources(model_id: str, region: str) -> list[str]:
    """Returns the ARNs that the role of a caller of InvokeModel must be allowed: profile and models, or the model."""
    name, by_profile = _resolved(model_id)
    if not by_profile:
        return [model_arn(name, region)]
    return [profile_arn(name, region), *(model_arn(name, each) for each in US)]


def model_arn(name: str, region: str) -> str:
    return f"arn:aws:bedrock:{region}::foundation-model/{name}"


def profile_arn(name: str, region: str) -> str:
    return f"arn:aws:bedrock:{region}:{ACCOUNT}:inference-profile/us.{name}"


def _resolved(model_id: str) -> tuple[str, bool]:
    """Returns the ID of the model, and whether `model_id` is an inference profile, as an ID or ARN."""
    name = model_id.rpartition("/")[2]
    return name.removeprefix("us."), name.startswith("us.")


def _known(name: str, region: str, lifecycle: Lifecycle) -> Model:
    model = MODELS.get(name)
    if model is None or region not in model.regions or lifecycle.get(name) == ELSEWHERE:
        raise ServiceError("ValidationException", "The provided model identifier is invalid.")
    return model


def _details(name: str, region: str, lifecycle: Lifecycle) -> dict[str, Any]:
    model = MODELS[name]
    state = lifecycle.get(name, model.lifecycle)
    details: dict[str, Any] = {"status": ACTIVE, "startOfLifeTime": datetime(2025, 9, 18, tzinfo=UTC)}
    if state != ACTIVE:
        now = datetime.now(UTC).replace(microsecond=0)
        details |= {
            "status": LEGACY,
            "legacyTime": now - timedelta(days=60),
            "publicExtendedAccessTime": now + timedelta(days=30),
            "endOfLifeTime": now + timedelta(days=120),
        }
    return {
        "modelArn": model_arn(name, region),
        "modelId": name,
        "modelName": model.name,
        "providerName": model.provider,
        "inputModalities": ["TEXT", "IMAGE"],
        "outputModalities": ["IMAGE"],
        "responseStreamingSupported": False,
        "customizationsSupported": [],
        "inferenceTypesSupported": [] if model.edit else ["ON_DEMAND"],
        "modelLifecycle": details,
    }


def _check(body: Mapping[str, Any], fields: Mapping[str, Field]) -> None:
    """Raises ServiceError for the first member that is unknown, missing, of another type or out of range."""
    for name in body:
        if name not in fields:
            raise _malformed(f"#: extraneous key [{name}] is not permitted")
    for name, one in fields.items():
        if name not in body:
            if one.required:
                raise _malformed(f"#: required key [{name}] not found")
            continue
        value = body[name]
        if not isinstance(value, one.kind) or (isinstance(value, bool) and one.kind is not bool):
            raise _malformed(f"#/{name}: a value of the type {type(value).__name__} is not accepted")
        size = len(value) if isinstance(value, str) else value if isinstance(value, int | float) else one.low
        if not one.low <= size <= one.high:
            raise _malformed(f"#/{name}: {size} is not between {one.low:g} and {one.high:.10g}")


def _malformed(message: str) -> ServiceError:
    return ServiceError(
        "ValidationException", f"Malformed input request: {message}, please reformat your input and try again."
    )


def _decoded(text: str, name: str, mode: int = cv2.IMREAD_COLOR) -> Image:
    """Returns an image of a request, HxWx3 BGR or HxW. Raises ServiceError unless it is a JPEG, PNG or WebP file."""
    try:
        image = cv2.imdecode(np.frombuffer(base64.b64decode(text, validate=True), np.uint8), mode)
    except (ValueError, cv2.error):
        image = None
    if image is None:
        raise _malformed(f"{name} must be a JPEG, PNG or WebP file in base64")
    return np.asarray(image, np.uint8)


def _transparent(text: str) -> Image:
    """Returns the transparency of an image as a mask: Stability takes it when a request has no mask."""
    image = _decoded(text, "image", cv2.IMREAD_UNCHANGED)
    if image.ndim < 3 or image.shape[2] != 4:
        raise _malformed("mask is required for an image without an alpha channel")
    return np.asarray(255 - image[..., 3], np.uint8)


def _encoded(image: Image, output: str) -> bytes:
    return bytes(cv2.imencode(f".{output}", image)[1])


def _base64(images: list[bytes]) -> list[str]:
    return [base64.b64encode(one).decode() for one in images]


def _size(image: Image) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"

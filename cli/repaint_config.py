"""Reads the configuration file of the predecessor of `maskdrop repaint`: its keys, and what replaces each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from local.config import LocalError
from maskdrop.edit import PROMPT_MAX, SEED_MAX, EditorName

SIDE_STEP = 64
"""Pixels to whose multiples `height` and `width` are rounded, as the predecessor did for Titan."""

SIDE_LIMIT = 4096
"""Maximum of `height` and `width` in pixels: the largest side of an image of Nova Canvas."""

EDITOR_OF_MODEL: dict[str, EditorName] = {
    "amazon.titan-image-generator-v2": "titan",
    "amazon.nova-canvas": "nova",
    "stability.": "stability",
    "us.stability.": "stability",
}
"""The editor by the start of a model ID. Stability's replaces any other model, such as Titan v1, which has ended."""

DEFAULT_EDITOR: EditorName = "stability"

SEEDS_MAX = 1000
"""Maximum number of seeds: $70 a prompt at $0.07 an image, and 5 hours at 20 s."""


@dataclass(frozen=True, slots=True)
class RepaintConfig:
    """Settings of a grid: one image for each prompt and seed.

    size: width and height in pixels to which the photo is resized first; None keeps its size.
    editor, region: of `modelId` and `region`; None where the file has neither.
    warnings: keys without an effect, or with another effect than before.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    size: tuple[int, int] | None = None
    editor: EditorName | None = None
    region: str | None = None
    warnings: tuple[str, ...] = ()


def read_config(path: Path) -> RepaintConfig:
    """Reads a YAML file. Raises LocalError that names the file, the key and the accepted values."""
    try:
        data = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise LocalError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise LocalError(f"{path} is not a YAML file: {error}") from error
    if not isinstance(data, dict):
        raise LocalError(f"{path} must be a mapping of keys, such as candidate_prompts; got {data!r:.80}.")
    try:
        return parse(data)
    except LocalError as error:
        raise LocalError(f"{path}: {error}") from error


def parse(data: Mapping[Any, Any]) -> RepaintConfig:
    """Parses the keys of a configuration. A key without a value counts as absent. Raises LocalError."""
    present = {str(key): value for key, value in data.items() if value is not None}
    known = {name: present.pop(name) for name in KEYS if name in present}
    config = RepaintConfig(())
    for name, value in known.items():
        config = KEYS[name](config, value)
    if not config.prompts:
        raise LocalError("candidate_prompts must have at least one text.")
    warnings = [*config.warnings, *_size_warnings(known)]
    if present:
        accepted = ", ".join(KEYS)
        warnings.append(f"Unknown keys have no effect: {', '.join(present)}. Known keys: {accepted}.")
    return replace(config, size=_size(known), warnings=tuple(warnings))


def _prompts(config: RepaintConfig, value: Any) -> RepaintConfig:
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) and 1 <= len(text.strip()) <= PROMPT_MAX for text in texts):
        raise LocalError(f"candidate_prompts must be texts of 1 to {PROMPT_MAX:,} characters; got {value!r:.80}.")
    return replace(config, prompts=tuple(dict.fromkeys(text.strip() for text in texts)))


def _seeds(config: RepaintConfig, value: Any) -> RepaintConfig:
    """From "34,46", a range without its end; from a list of seeds, or one seed."""
    try:
        if isinstance(value, str) and "," in value:
            first, end = (int(part) for part in value.split(","))
            if end - first > SEEDS_MAX:
                raise ValueError
            seeds = tuple(range(first, end))
        else:
            listed = value if isinstance(value, list) else [value]
            seeds = tuple(dict.fromkeys(int(one) for one in listed if not isinstance(one, bool)))
    except (TypeError, ValueError):
        seeds = ()
    if not 1 <= len(seeds) <= SEEDS_MAX or not all(0 <= seed <= SEED_MAX for seed in seeds):
        raise LocalError(
            f'seed_range must be "FIRST,END" (without END) or a list of 1 to {SEEDS_MAX} seeds, each 0 to {SEED_MAX}; '
            f"got {value!r:.80}."
        )
    return replace(config, seeds=seeds)


def _model(config: RepaintConfig, value: Any) -> RepaintConfig:
    found = next((name for start, name in EDITOR_OF_MODEL.items() if str(value).startswith(start)), None)
    if found:
        return replace(config, editor=found)
    warning = (
        f"modelId {value}: Amazon Bedrock no longer offers this model, or Maskdrop has no editor for it; without "
        f"--editor, {DEFAULT_EDITOR} is used."
    )
    return replace(config, editor=DEFAULT_EDITOR, warnings=(*config.warnings, warning))


def _region(config: RepaintConfig, value: Any) -> RepaintConfig:
    return replace(config, region=str(value))


def _checked_by_size(config: RepaintConfig, _: Any) -> RepaintConfig:
    """`_size` reads `resize`, `height` and `width` together."""
    return config


def _without_effect(warning: str) -> Callable[[RepaintConfig, Any], RepaintConfig]:
    return lambda config, _: replace(config, warnings=(*config.warnings, warning))


KEYS: dict[str, Callable[[RepaintConfig, Any], RepaintConfig]] = {
    "candidate_prompts": _prompts,
    "seed_range": _seeds,
    "cfgScale": _without_effect(
        "cfgScale has no effect: Stability's model has no such parameter, and Titan and Nova use their default, 8."
    ),
    "height": _checked_by_size,
    "width": _checked_by_size,
    "resize": _checked_by_size,
    "use_cuda": _without_effect("use_cuda has no effect: a GPU is used where there is one."),
    "modelId": _model,
    "region": _region,
    "region_name": _region,
    "checkpoint": _without_effect(
        "checkpoint has no effect: install the weights of SAM with `maskdrop models pull` or `maskdrop models import`."
    ),
}
"""The parser of each key."""


def _size(known: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height with `resize`, rounded to SIDE_STEP. Raises LocalError."""
    resize = known.get("resize", False)
    if not isinstance(resize, bool):
        raise LocalError(f"resize must be true or false; got {resize!r:.80}.")
    sides = {name: known.get(name) for name in ("width", "height")}
    for name, value in sides.items():
        if value is None and not resize:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= SIDE_LIMIT:
            raise LocalError(f"{name} must be an integer from 1 to {SIDE_LIMIT}, in pixels; got {value!r:.80}.")
    return (_rounded(sides["width"]), _rounded(sides["height"])) if resize else None


def _size_warnings(known: Mapping[str, Any]) -> list[str]:
    resize = known.get("resize", False)
    warnings = []
    for name in ("height", "width"):
        value = known.get(name)
        if value is not None and not resize:
            warnings.append(f"{name} has no effect without resize: the result has the size of the photo.")
        elif isinstance(value, int) and _rounded(value) != value:
            warnings.append(f"{name} {value} is rounded to {_rounded(value)}, a multiple of {SIDE_STEP}.")
    return warnings


def _rounded(value: Any) -> int:
    return int(max(SIDE_STEP, (value + SIDE_STEP // 2) // SIDE_STEP * SIDE_STEP))

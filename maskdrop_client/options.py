"""Options of a request: those of the API, as keyword arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from maskdrop_client.errors import InvalidUsage

Prompt = Mapping[str, Any]
"""A box, points or a label, such as {"label": "face"} or {"box": [10, 20, 200, 300]}."""


class Options(TypedDict, total=False):
    """The options of an image, as in the OpenAPI document. Those after `strokes` are the form of the result.

    output: more fields of the form of the result, which this release of the client does not know.
    """

    preset: str
    engine: str
    prompt: Prompt | Sequence[Prompt]
    instances: Literal["union", "each"]
    refine: Literal["guided", "vitmatte"]
    review_below: float
    strokes: Sequence[Mapping[str, Any]]
    format: Literal["png", "webp", "avif", "jpg", "zip"]
    channels: Literal["rgba", "alpha"]
    size: str
    roi: str
    crop: str | bool
    scale: str
    position: str
    shadow: str
    canvas: str
    padding: str
    outline: str
    background: str
    metadata: Literal["strip", "keep", "keep_gps"]
    output: Mapping[str, Any]


class JobOptions(Options, total=False):
    """The options of a job. edit: a text, or an object with `prompts`; only for the task `replace`."""

    task: Literal["cutout", "mask", "detect", "replace"]
    edit: str | Mapping[str, Any]


TOP_LEVEL = ("preset", "task", "engine", "prompt", "instances", "edit", "refine", "review_below", "strokes")
"""Options that are not fields of `output` in a request."""


def payload_of(options: Mapping[str, Any], kind: type = Options) -> dict[str, Any]:
    """Returns the options in the JSON form of a request; None means absent.

    kind: the TypedDict with the accepted names. Raises InvalidUsage for an unknown name.
    """
    known = kind.__annotations__
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InvalidUsage(f"Unknown option {unknown[0]!r}; the options are {', '.join(known)}.")
    given = {name: value for name, value in options.items() if value is not None}
    output = dict(given.pop("output", {}))
    output |= {name: given.pop(name) for name in list(given) if name not in TOP_LEVEL}
    return {**given, "output": output} if output else given

"""The request of an older system: a SageMaker endpoint that segmented the object in one box by SAM.

    {"encode_image": "<base64>", "input_box": [x0, y0, x1, y1]}  ->  {"mask_image": "<base64 of a PNG>"}

The mask has the size of the upright image, in RGB: the object is black, the background white. The API checks a request
and forwards it (lambdas/http/dialects/sam.py); the container writes the mask (sagemaker_model/serving/predecessor.py).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from maskdrop.catalog import PROMPTED_ENGINE
from maskdrop.errors import InvalidOptions
from maskdrop.options import Options
from maskdrop.output import Output
from maskdrop.prompt import prompts_from_json

IMAGE, BOX, MASK = "encode_image", "input_box", "mask_image"

MISSPELT_IMAGE = "encode_face_image"
"""The name of the image in the older system's load test, which its endpoint did not read."""


def is_request(data: Mapping[str, Any]) -> bool:
    """Whether a JSON object is such a request, which may be invalid."""
    return not data.keys().isdisjoint({IMAGE, BOX, MISSPELT_IMAGE})


def parse(data: Mapping[str, Any]) -> tuple[bytes, Options]:
    """Returns the image file and its options. Raises InvalidOptions for other fields and InvalidPrompt for the box."""
    if unknown := sorted(set(data) - {IMAGE, BOX}):
        hint = f' Send the image as "{IMAGE}".' if MISSPELT_IMAGE in unknown else ""
        raise InvalidOptions(
            f'The body must have only "{IMAGE}" and "{BOX}"; got {", ".join(map(repr, unknown))[:200]}.{hint}'
        )
    text, box = data.get(IMAGE), data.get(BOX)
    if not isinstance(text, str):
        raise InvalidOptions(f'"{IMAGE}" must be an image file in base64 (a string).')
    if box is None:
        raise InvalidOptions(f'"{BOX}" must be four numbers: x0, y0, x1, y1 in pixels.')
    try:
        image = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidOptions(f'"{IMAGE}" must be valid base64.') from error
    prompts = prompts_from_json({"box": box})
    return image, Options(task="mask", engine=PROMPTED_ENGINE, prompts=prompts, output=Output(channels="alpha"))

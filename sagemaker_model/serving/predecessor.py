"""The request of an older system: a SageMaker endpoint that segmented the object in one box by SAM.

    {"encode_image": "<base64>", "input_box": [x0, y0, x1, y1]}  ->  {"mask_image": "<base64 of a PNG>"}

The mask has the size of the upright image, in RGB: the object is black, the background white.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from maskdrop.errors import InvalidOptions
from maskdrop.options import Options
from maskdrop.output import Output
from maskdrop.prompt import prompts_from_json
from sagemaker_model.imaging.pixels import Pixels, encode

IMAGE, BOX, MASK = "encode_image", "input_box", "mask_image"


def parse(data: Mapping[str, Any]) -> tuple[bytes, Options]:
    """Returns the image file and its options. Raises InvalidOptions for other fields and InvalidPrompt for the box."""
    if unknown := sorted(set(data) - {IMAGE, BOX}):
        hint = f' The image belongs into "{IMAGE}".' if "encode_face_image" in unknown else ""
        raise InvalidOptions(
            f'A body with "{IMAGE}" or "{BOX}" has no field {", ".join(map(repr, unknown))[:200]}.{hint}'
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
    return image, Options(task="mask", engine="prompted", prompts=prompts_from_json({"box": box}), output=MASK_OUTPUT)


MASK_OUTPUT = Output(channels="alpha")


def write_mask(  # its signature is that of an ImageWriter
    rgb: Pixels,  # noqa: ARG001
    alpha: Pixels,
    output: Output,  # noqa: ARG001
    dpi: tuple[float, float] | None,
    provenance: Mapping[str, str],
) -> bytes:
    """Encodes a mask as RGB PNG, black on the object: an `ImageWriter`."""
    inverted = np.repeat((255 - alpha)[..., None], 3, axis=2)
    return encode(inverted, np.full_like(alpha, 255), Output(format="png"), dpi, provenance)


def response(mask: bytes) -> bytes:
    """Returns the body of the response."""
    return json.dumps({MASK: base64.b64encode(mask).decode()}).encode()

"""The response to the request of an older system (maskdrop/predecessor.py): a mask, black on the object."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

import numpy as np

from maskdrop.output import Output
from maskdrop.predecessor import MASK
from sagemaker_model.imaging.pixels import Pixels, encode


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

"""The response to the request of an older system (maskdrop/predecessor.py): a mask, black on the object."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

import cv2
import numpy as np

from maskdrop.output import Output
from maskdrop.predecessor import MASK
from sagemaker_model.imaging.metadata import NO_METADATA, SourceMetadata
from sagemaker_model.imaging.pixels import Pixels


def write_mask(  # its signature is that of an ImageWriter
    rgb: Pixels,  # noqa: ARG001
    alpha: Pixels,
    output: Output,  # noqa: ARG001
    dpi: tuple[float, float] | None,  # noqa: ARG001
    provenance: Mapping[str, str],  # noqa: ARG001
    metadata: SourceMetadata = NO_METADATA,  # noqa: ARG001
) -> bytes:
    """Encodes a mask as RGB PNG, black on the object: an `ImageWriter`. The file has no metadata."""
    rgb_mask = np.repeat((255 - alpha)[..., None], 3, axis=2)
    return cv2.imencode(".png", rgb_mask)[1].tobytes()


def response(mask: bytes) -> bytes:
    """Returns the body of the response."""
    return json.dumps({MASK: base64.b64encode(mask).decode()}).encode()

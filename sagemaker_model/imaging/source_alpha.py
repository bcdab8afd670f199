"""Combines the predicted alpha with the alpha that the source already has.

The alpha of the source is final: where its edges are, the engine's are not needed, and its half-transparent pixels hold
the subject's own colours, without background.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

HIDDEN_MIN = 0.05
"""Share of fully transparent pixels from which a source can be a cut-out. Rounded corners have 2 % at most."""

KEPT_MIN = 0.85
"""Share of the source's alpha that the engine selects in a cut-out: nothing is left to remove. In a round portrait
it is 0.4 to 0.7."""

EDGE = 1 / 150
"""Width of the source's edges, in its longer side, to which the engine's alpha is extended; at least 4 pixels."""


def combined_alpha(alpha: Pixels, source: Pixels | None) -> Pixels:
    """Returns the alpha of a result, HxW uint8.

    alpha: predicted from the colours, HxW uint8. source: of the file, HxW uint8; None: opaque. A source that is already
    the cut-out of what the engine selects keeps its alpha. Else the product: at the source's edges its own alpha alone.
    """
    if source is None:
        return alpha
    reach = 2 * max(4, round(EDGE * max(source.shape))) + 1
    kernel = np.ones((reach, reach), np.uint8)
    near_edge = cv2.dilate(cv2.inRange(source, 0, 0), kernel)
    extended = cv2.copyTo(cv2.dilate(alpha, kernel), near_edge, alpha.copy())
    combined = np.asarray(cv2.multiply(extended, source, scale=1 / 255), np.uint8).reshape(alpha.shape)
    hidden = source.size - cv2.countNonZero(source)
    if hidden >= HIDDEN_MIN * source.size and cv2.sumElems(combined)[0] >= KEPT_MIN * cv2.sumElems(source)[0]:
        return source.copy()
    return combined


def own_alpha(alpha: Pixels, source: Pixels | None) -> Pixels:
    """Returns the part of a combined alpha that is not the source's: HxW uint8, 255 where it hides nothing more.

    Its half-transparent pixels show background that must be removed from their colours; those of the source do not.
    """
    if source is None:
        return alpha
    return np.asarray(cv2.divide(alpha, source, scale=255), np.uint8).reshape(alpha.shape)

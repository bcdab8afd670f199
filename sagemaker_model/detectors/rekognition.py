"""The detector `rekognition`: faces and labels by Amazon Rekognition. Each call costs money and sends the image to AWS.

API and limits: Amazon Rekognition developer guide, "Guidelines and quotas" and "Detecting labels in an image",
November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import cv2
import numpy as np
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError

from maskdrop.errors import (
    DetectorThrottled,
    DetectorTimedOut,
    DetectorUnavailable,
    Internal,
    MaskdropError,
    NotAllowed,
)
from sagemaker_model.detectors.base import Detections
from sagemaker_model.detectors.labels import merged
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized
from sagemaker_model.weights.store import NotInstalled

USD_PER_IMAGE = 0.001
"""List price of one call in us-east-1, for the first million images a month (Amazon Rekognition pricing, group 2)."""

BYTES_MAX = 5_242_880
"""Maximum size of the image file in a request."""

SIDE_MAX = 1920
"""Long side of the sent image in pixels. Rekognition finds no smaller faces in a larger image: their minimum is 40 of
1920 pixels, and grows with the image."""

SIDE_MIN = 80
"""Minimum of both sides of the sent image in pixels; a smaller image is padded by its edges."""

QUALITIES = (95, 85, 70, 50)
"""JPEG qualities, tried until the file has at most BYTES_MAX. At 50, noise of 1920x1920 pixels has 3 MB."""

FACE = "face"
"""The label that DetectFaces finds; DetectLabels finds all others."""

FILTERS_MAX = 100
"""Labels in the filter of one request."""

FILTER = re.compile(r"[A-Za-z0-9àâèçñó'-_(). ]{1,50}")
"""Labels that the filter accepts, from the model of the service. Rekognition has no others."""

THROTTLED = frozenset({"ThrottlingException", "ProvisionedThroughputExceededException"})
DENIED = frozenset({"AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException"})
INVALID = frozenset(
    {"ImageTooLargeException", "InvalidImageFormatException", "InvalidParameterException", "ValidationException"}
)
"""Errors of a request that this module built."""


class Rekognition:
    """DetectFaces for the label "face", DetectLabels with a filter for all others; without labels DetectLabels alone.

    A label that Rekognition does not have, or that has no boxes, such as "Beach", gives no instances.
    """

    weights_sha256 = ""
    labels: tuple[str, ...] | None = None

    def __init__(self) -> None:
        self._client: Any = None

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:  # noqa: ARG002  of the protocol
        """Creates the client. Raises NotInstalled without a Region. The arguments are not used."""
        try:
            self._client = boto3.client(
                "rekognition",
                config=Config(
                    connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2}
                ),
            )
        except BotoCoreError as error:
            raise NotInstalled(f"Amazon Rekognition needs AWS_DEFAULT_REGION: {error}") from error

    def detect(
        self,
        rgb: Pixels,
        labels: Collection[str] = (),
        min_confidence: float = 0.0,
        *,
        masks: bool = False,  # noqa: ARG002  of the protocol
    ) -> Detections:
        """Returns boxes and no masks. Raises DetectorUnavailable, NotAllowed."""
        others = [label for label in labels if label.casefold() != FACE and FILTER.fullmatch(label)]
        image = _Image(rgb)
        found = []
        if any(label.casefold() == FACE for label in labels):
            found.append(self._faces(image, min_confidence))
        batches = _batches(others) if labels else [[]]
        found += [self._labels(image, batch, min_confidence) for batch in batches]
        return merged(found)

    def _faces(self, image: _Image, min_confidence: float) -> Detections:
        with _translated("DetectFaces"):
            faces = self._client.detect_faces(Image={"Bytes": image.file})["FaceDetails"]
            return image.detections([(FACE, face) for face in faces], min_confidence)

    def _labels(self, image: _Image, labels: list[str], min_confidence: float) -> Detections:
        """labels: at most FILTERS_MAX with the spellings; empty for every label of the image."""
        parameters: dict[str, Any] = {"MinConfidence": 100 * min_confidence} if min_confidence else {}
        if labels:
            parameters["Settings"] = {"GeneralLabels": {"LabelInclusionFilters": list(_spellings(labels))}}
        with _translated("DetectLabels"):
            response = self._client.detect_labels(Image={"Bytes": image.file}, **parameters)["Labels"]
            named = [(_requested(one, labels), one.get("Instances", [])) for one in response]
            instances = [(name, instance) for name, each in named for instance in each]
            warnings = tuple(
                f"label_without_boxes: Amazon Rekognition recognises {name!r} and returns no boxes for it."
                for name, each in named
                if labels and not each
            )
            return image.detections(instances, min_confidence, warnings)


class _Image:
    """An image as it is sent, which may be smaller than the original and padded. file: JPEG of at most BYTES_MAX."""

    def __init__(self, rgb: Pixels) -> None:
        self._size = rgb.shape[1], rgb.shape[0]
        scale = min(1.0, SIDE_MAX / max(self._size))
        self._sent = width, height = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
        self._canvas = max(SIDE_MIN, width), max(SIDE_MIN, height)
        small = resized(rgb, self._sent) if self._sent != self._size else rgb
        right, bottom = self._canvas[0] - width, self._canvas[1] - height
        padded = np.asarray(cv2.copyMakeBorder(small, 0, bottom, 0, right, cv2.BORDER_REPLICATE), np.uint8)
        self.file = _encoded(padded)

    def detections(
        self, instances: Iterable[tuple[str, dict[str, Any]]], min_confidence: float, warnings: tuple[str, ...] = ()
    ) -> Detections:
        """Returns the instances, pairs of label and response, as the result of one call, in pixels of the original.

        Ratios that exceed the image are clamped. An instance outside the image is omitted.
        """
        boxes, scores, labels = [], [], []
        for label, instance in instances:
            box, score = self._box(instance["BoundingBox"]), instance["Confidence"] / 100
            if score >= min_confidence and box[0] < box[2] and box[1] < box[3]:
                boxes.append(box)
                scores.append(score)
                labels.append(label)
        order = np.argsort(-np.asarray(scores, np.float32), kind="stable")
        return Detections(
            np.asarray(boxes, np.float32).reshape(-1, 4)[order],
            np.asarray(scores, np.float32)[order],
            tuple(labels[index] for index in order),
            cost_usd=USD_PER_IMAGE,
            warnings=warnings,
        )

    def _box(self, ratios: dict[str, float]) -> list[float]:
        """Converts ratios of the sent image to x0, y0, x1, y1 in pixels of the original."""
        left, top = ratios["Left"], ratios["Top"]
        corners = (left, top, left + ratios["Width"], top + ratios["Height"])
        return [
            min(max(ratio * self._canvas[axis] / self._sent[axis], 0.0), 1.0) * self._size[axis]
            for ratio, axis in zip(corners, (0, 1, 0, 1), strict=True)
        ]


def _encoded(rgb: Pixels) -> bytes:
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    for quality in QUALITIES:
        file = bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])
        if len(file) <= BYTES_MAX:
            break
    return file


def _batches(labels: list[str]) -> Iterator[list[str]]:
    size = FILTERS_MAX // 2  # two spellings of each
    for start in range(0, len(labels), size):
        yield labels[start : start + size]


def _spellings(labels: Iterable[str]) -> Iterable[str]:
    """Returns each label as it is given and as Rekognition spells its own ("Mobile Phone"), without repetitions."""
    return dict.fromkeys(spelling for label in labels for spelling in (label, label.title()))


def _requested(label: dict[str, Any], labels: Iterable[str]) -> str:
    """Returns the requested label that a label of the response, or its alias, stands for; its own name for none."""
    names = {label["Name"].casefold(), *(alias["Name"].casefold() for alias in label.get("Aliases", []))}
    return next((one for one in labels if one.casefold() in names), str(label["Name"]))


@contextmanager
def _translated(operation: str) -> Iterator[None]:
    """Converts errors of botocore, and a response that lacks its members because the connection broke."""
    try:
        yield
    except MaskdropError:
        raise
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in DENIED:
            raise NotAllowed(
                f"The model server has no permission for rekognition:{operation}: set the option rekognition of the "
                "stage, or add the action to its role."
            ) from error
        if code in INVALID:
            raise Internal(f"Amazon Rekognition rejected the image with {code}.") from error
        if code in THROTTLED:
            raise DetectorThrottled(f"Amazon Rekognition throttles the requests: {code}; retry later.") from error
        raise DetectorUnavailable(f"Amazon Rekognition returned the error {code}; retry later.") from error
    except (ReadTimeoutError, ConnectTimeoutError) as error:
        raise DetectorTimedOut("Amazon Rekognition did not respond in time; retry later.") from error
    except BotoCoreError as error:
        raise DetectorUnavailable(f"Amazon Rekognition cannot be reached ({type(error).__name__}).") from error
    except KeyError as error:
        raise DetectorUnavailable(f"The response of Amazon Rekognition lacks {error}: it was incomplete.") from error

"""Amazon Rekognition, as the local stack emulates it: DetectFaces and DetectLabels.

Faces and people are found by the classical detectors of OpenCV, which need no weights; any other result is set by a
test. Limits: Amazon Rekognition developer guide, "Guidelines and quotas", November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from local.service_model import ServiceError

SIDE_MIN, SIDE_MAX = 80, 10_000
"""Shortest and longest side of an image in pixels."""

FACES_MAX = 100
"""Faces that DetectFaces returns at most: the largest."""

CONFIDENCE, LABELS_MAX = 55.0, 1000
"""Defaults of DetectLabels: MinConfidence in percent, and MaxLabels."""

SEARCH_PIXELS = 800
"""Longest side in pixels at which OpenCV searches."""

Box = tuple[float, float, float, float, float]
"""left, top, width and height as ratios of the image, which may exceed it, and the confidence in percent."""

Labels = Mapping[str, tuple[Box, ...]]
"""The instances that a test sets, by label; a label without instances has no boxes."""


def detect_faces(parameters: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
    """DetectFaces. labels: results to return instead of a detection, with the label "Face"."""
    image = _decoded(parameters["Image"])
    faces = labels.get("Face", ()) if labels else _found(image)["Face"]
    largest = sorted(faces, key=lambda face: face[2] * face[3], reverse=True)[:FACES_MAX]
    return {"FaceDetails": [_face(face) for face in largest]}


def detect_labels(parameters: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
    """DetectLabels. labels: results to return instead of a detection."""
    image = _decoded(parameters["Image"])
    least = parameters.get("MinConfidence", CONFIDENCE)
    filters = parameters.get("Settings", {}).get("GeneralLabels", {})
    included = {name.lower() for name in filters.get("LabelInclusionFilters", ())}
    excluded = {name.lower() for name in filters.get("LabelExclusionFilters", ())}
    found = []
    for name, boxes in (labels or _found(image)).items():
        wanted = (not included or name.lower() in included) and name.lower() not in excluded
        instances = [box for box in boxes if box[4] >= least]
        if wanted and (instances or not boxes) and (labels or boxes):
            found.append(_label(name, instances))
    found.sort(key=lambda label: label["Confidence"], reverse=True)
    return {"Labels": found[: parameters.get("MaxLabels") or LABELS_MAX], "LabelModelVersion": "3.0"}


def _decoded(image: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Returns an image of a request in grey. Raises ServiceError unless it is a JPEG or PNG file within the limits."""
    content = image.get("Bytes")
    if content is None:
        raise ServiceError("InvalidS3ObjectException", "The local stack reads no S3 objects; send the image as Bytes.")
    pixels = None
    if content.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise ServiceError("InvalidImageFormatException", "Request has invalid image format")
    if min(pixels.shape) < SIDE_MIN:
        raise ServiceError("InvalidParameterException", "Request has invalid parameters")
    if max(pixels.shape) > SIDE_MAX:
        raise ServiceError("ImageTooLargeException", "Image dimensions exceed the maximum")
    return np.asarray(pixels, np.uint8)


def _found(image: NDArray[np.uint8]) -> dict[str, list[Box]]:
    height, width = image.shape
    scale = min(1.0, SEARCH_PIXELS / max(height, width))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    faces, _, weights = _face_detector().detectMultiScale3(small, 1.1, 6, outputRejectLevels=True)
    people, shares = _person_detector().detectMultiScale(small) if min(small.shape) >= 128 else ((), ())
    return {"Face": _boxes(faces, weights, small), "Person": _boxes(people, shares, small)}


def _boxes(rectangles: Any, weights: Any, image: NDArray[Any]) -> list[Box]:
    height, width = image.shape
    return [
        (x / width, y / height, w / width, h / height, min(max(90 + 2 * weight, 50.0), 99.9))
        for (x, y, w, h), weight in zip(
            np.reshape(rectangles, (-1, 4)).tolist(), np.reshape(weights, -1).tolist(), strict=True
        )
    ]


@cache
def _face_detector() -> cv2.CascadeClassifier:
    folder = Path(cv2.__file__).parent / "data"
    return cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))


@cache
def _person_detector() -> cv2.HOGDescriptor:
    detector = cv2.HOGDescriptor()
    detector.setSVMDetector(np.asarray(cv2.HOGDescriptor.getDefaultPeopleDetector(), np.float32))
    return detector


LANDMARKS = {
    "eyeLeft": (0.3, 0.4),
    "eyeRight": (0.7, 0.4),
    "mouthLeft": (0.35, 0.8),
    "mouthRight": (0.65, 0.8),
    "nose": (0.5, 0.6),
}
"""Landmarks of DetectFaces, as ratios of the face's box."""


def _face(face: Box) -> dict[str, Any]:
    left, top, width, height, confidence = face
    return {
        "BoundingBox": _bounding_box(face),
        "Confidence": confidence,
        "Landmarks": [
            {"Type": name, "X": left + x * width, "Y": top + y * height} for name, (x, y) in LANDMARKS.items()
        ],
        "Pose": {"Roll": 0.0, "Yaw": 0.0, "Pitch": 0.0},
        "Quality": {"Brightness": 80.0, "Sharpness": 80.0},
    }


def _label(name: str, instances: list[Box]) -> dict[str, Any]:
    return {
        "Name": name,
        "Confidence": max((box[4] for box in instances), default=90.0),
        "Instances": [{"BoundingBox": _bounding_box(box), "Confidence": box[4]} for box in instances],
        "Parents": [],
        "Aliases": [],
        "Categories": [],
    }


def _bounding_box(box: Box) -> dict[str, float]:
    return dict(zip(("Left", "Top", "Width", "Height"), box[:4], strict=True))

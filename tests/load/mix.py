"""The load mix of synchronous requests: one for each task of the catalogue, and one of an older system."""

from __future__ import annotations

import base64
from typing import Any

from maskdrop.catalog import Task
from maskdrop.predecessor import BOX, IMAGE

SUBJECT = [150, 20, 450, 500]
"""Box of the subject of samples/default/astronaut.png, in pixels."""

REQUESTS: dict[Task, tuple[str, dict[str, Any]]] = {
    "cutout": ("/v1/cutouts", {}),
    "mask": ("/v1/masks", {"prompt": {"box": SUBJECT}}),
    "detect": ("/v1/detections", {}),
    "replace": ("/v1/edits", {"output": {"background": "white", "format": "jpg"}}),
}
"""Path and options of the request of each task, without its image."""

INVOCATIONS = "/invocations"


def request_of(task: Task, photo: bytes) -> tuple[str, dict[str, Any]]:
    """Returns the path and the JSON of a task's request."""
    path, options = REQUESTS[task]
    return path, {"image_base64": base64.b64encode(photo).decode(), **options}


def box_request(photo: bytes) -> dict[str, Any]:
    """Returns the JSON of the older system's request. Its load test misspelt the name of the image."""
    return {IMAGE: base64.b64encode(photo).decode(), BOX: SUBJECT}


REMBG, REMOVEBG, WITHOUTBG = "/api/remove", "/v1.0/removebg", "/v1.0/alpha-channel-base64"


def vendor_requests(photo: bytes) -> dict[str, dict[str, Any]]:
    """Returns the requests that clients of other services send: path -> arguments of `requests.post`."""
    encoded = base64.b64encode(photo).decode()
    file = ("photo.png", photo, "image/png")
    return {
        REMOVEBG: {"files": {"image_file": file}, "data": {"size": "auto"}},
        REMBG: {"files": {"file": file}},
        WITHOUTBG: {"json": {"image_base64": encoded}},
        INVOCATIONS: {"json": box_request(photo)},
    }

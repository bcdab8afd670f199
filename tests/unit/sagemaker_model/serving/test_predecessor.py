"""The request of the older system: an image and a box in JSON."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from httpx2 import Response
from PIL import Image
from starlette.testclient import TestClient

from maskdrop.prompt import Prompts
from sagemaker_model.engines.base import Alpha
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.serving.server import create_app
from sagemaker_model.settings import ServerSettings
from tests.unit.sagemaker_model.serving.fake_storage import FakeStorage
from tests.unit.sagemaker_model.test_instances import Boxes

PHOTO = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)


class Masks(Boxes):
    """The engine `prompted`, which needs a box."""

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:
        assert prompts
        return super().predict(rgb, prompts)


def send(body: object) -> Response:
    settings = ServerSettings(device="cpu", workers=1)
    with TestClient(create_app(settings, {"prompted": Masks()}, FakeStorage)) as client:
        return client.post("/invocations", json=body)


def encoded(mode: str, file_format: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).convert(mode).save(buffer, file_format)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(("mode", "file_format"), [("RGB", "PNG"), ("RGBA", "PNG"), ("CMYK", "JPEG"), ("L", "JPEG")])
def test_the_object_is_black_on_white_in_the_size_of_the_image(mode: str, file_format: str) -> None:
    response = send({"encode_image": encoded(mode, file_format), "input_box": [10, 5, 30, 25]})
    assert response.status_code == 200, response.text
    assert response.json().keys() == {"mask_image"}
    mask = Image.open(io.BytesIO(base64.b64decode(response.json()["mask_image"])))
    assert (mask.format, mask.mode, mask.size) == ("PNG", "RGB", (40, 30))
    colours = np.asarray(mask)
    assert {tuple(colour) for colour in colours.reshape(-1, 3).tolist()} == {(0, 0, 0), (255, 255, 255)}
    assert (colours[15, 20] == 0).all()
    assert (colours[2, 2] == 255).all()


IMAGE = encoded("RGB", "PNG")


@pytest.mark.parametrize(
    ("body", "status", "names"),
    [
        ({"encode_face_image": IMAGE, "input_box": [1, 2, 3, 4]}, 400, "encode_image"),
        ({"encode_face_image": IMAGE}, 400, "encode_image"),
        ({"encode_image": IMAGE}, 400, "input_box"),
        ({"input_box": [1, 2, 3, 4]}, 400, "encode_image"),
        ({"encode_image": IMAGE, "input_box": [1, 2, 3]}, 422, "four numbers"),
        ({"encode_image": IMAGE, "input_box": [5, 2, 3, 4]}, 422, "no area"),
        ({"encode_image": IMAGE, "input_box": [100, 100, 120, 120]}, 422, "outside"),
        ({"encode_image": "not base64!", "input_box": [1, 2, 3, 4]}, 400, "base64"),
        ({"encode_image": base64.b64encode(b"text").decode(), "input_box": [1, 2, 3, 4]}, 415, "image"),
        ({"encode_image": 7, "input_box": [1, 2, 3, 4]}, 400, "string"),
        ([], 400, "object"),
        ({}, 400, "bundle"),
    ],
)
def test_another_body_is_a_clear_error(body: object, status: int, names: str) -> None:
    response = send(body)
    assert response.status_code == status, response.text
    assert names in response.json()["error"]["message"]
    assert json.dumps(response.json())

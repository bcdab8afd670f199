"""The editors: their request bodies, the polarity of the mask, their responses and errors."""

import base64
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import botocore.session
import cv2
import numpy as np
import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
)
from botocore.response import StreamingBody
from botocore.validate import ParamValidator
from PIL import Image

from lambdas.adapters.editors import NoEditor
from lambdas.adapters.editors.bedrock import BEDROCK_EDITORS, BODY_MAX, NovaEditor, StabilityEditor, TitanEditor
from lambdas.adapters.editors.local import LocalEditor
from maskdrop.edit import EDITORS
from maskdrop.errors import (
    EditFiltered,
    EditorThrottled,
    EditorTimedOut,
    EditorUnavailable,
    EditRefused,
    MaskdropError,
    ModelNotInRegion,
    ModelRetired,
    NotAllowed,
    TextNotSupported,
)
from maskdrop.services import EditRequest

REGION = "us-east-1"
SUBJECT = np.zeros((64, 96), np.uint8)
SUBJECT[16:48, 24:72] = 255
URL = "https://bedrock-runtime.us-east-1.amazonaws.com"


def encoded(pixels: np.ndarray, extension: str = ".png") -> bytes:
    return bytes(cv2.imencode(extension, pixels)[1])


REQUEST = EditRequest(
    image=encoded(np.full((64, 96, 3), 200, np.uint8), ".jpg"),
    mask=encoded(SUBJECT),
    width=96,
    height=64,
    change="background",
    prompt="a beach",
    negative_prompt="people",
    seed=7,
)
IMAGE = encoded(np.full((64, 96, 3), 9, np.uint8))
SUCCESS = {"seeds": [7], "finish_reasons": [None], "images": [base64.b64encode(IMAGE).decode()]}


@dataclass
class Client:
    """A client of bedrock-runtime that validates each request by the service's model."""

    response: Any = field(default_factory=lambda: SUCCESS)
    error: Exception | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    models: list[str] = field(default_factory=list)

    def invoke_model(self, **values: Any) -> dict[str, Any]:
        shape = botocore.session.get_session().get_service_model("bedrock-runtime").operation_model("InvokeModel")
        assert shape.input_shape
        report = ParamValidator().validate(values, shape.input_shape)
        assert not report.has_errors(), report.generate_report()
        self.bodies.append(json.loads(values["body"]))
        self.models.append(values["modelId"])
        if self.error:
            raise self.error
        payload = self.response if isinstance(self.response, bytes) else json.dumps(self.response).encode()
        return {"body": StreamingBody(io.BytesIO(payload), len(payload))}


def mask_of(body: Mapping[str, Any], name: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body[name]))))


@pytest.mark.parametrize(("change", "white"), [("background", 255 - SUBJECT), ("subject", SUBJECT)])
def test_stability_fills_the_white_part_of_the_mask(change: Any, white: np.ndarray) -> None:
    client = Client()
    image = StabilityEditor(lambda: client, REGION).edit(replace(REQUEST, change=change))
    assert client.models == ["us.stability.stable-image-inpaint-v1:0"]
    (body,) = client.bodies
    assert (mask_of(body, "mask") == white).all()
    assert base64.b64decode(body.pop("image")) == REQUEST.image
    del body["mask"]
    assert body == {"prompt": "a beach", "negative_prompt": "people", "seed": 7, "output_format": "png"}
    assert (image.data, image.content_type, image.cost_usd) == (IMAGE, "image/png", 0.07)


@pytest.mark.parametrize("kind", [TitanEditor, NovaEditor])
@pytest.mark.parametrize(
    ("change", "task", "parameters"),
    [("background", "OUTPAINTING", "outPaintingParams"), ("subject", "INPAINTING", "inPaintingParams")],
)
def test_the_subject_is_the_black_inside_of_the_mask_of_titan_and_nova(
    kind: type[TitanEditor | NovaEditor], change: Any, task: str, parameters: str
) -> None:
    client = Client({"images": SUCCESS["images"], "error": None})
    image = kind(lambda: client, REGION).edit(replace(REQUEST, change=change))
    (body,) = client.bodies
    assert body["taskType"] == task
    assert (mask_of(body[parameters], "maskImage") == 255 - SUBJECT).all()
    assert (body[parameters]["text"], body[parameters]["negativeText"]) == ("a beach", "people")
    assert body["imageGenerationConfig"]["seed"] == 7
    assert image.model == EDITORS[kind.name].model


def test_a_large_image_is_returned_as_jpeg() -> None:
    client = Client()
    StabilityEditor(lambda: client, REGION).edit(replace(REQUEST, width=3000, height=2000))
    assert client.bodies[0]["output_format"] == "jpeg"


@pytest.mark.parametrize(
    "reason", ["Filter reason: prompt", "Filter reason: input image", "Filter reason: output image"]
)
def test_a_finish_reason_of_the_filter_is_its_own_error(reason: str) -> None:
    client = Client({"finish_reasons": [reason]})
    with pytest.raises(EditFiltered, match=reason):
        StabilityEditor(lambda: client, REGION).edit(REQUEST)


def test_an_inference_error_is_retried_and_not_billed() -> None:
    client = Client({"finish_reasons": ["Inference error"]})
    with pytest.raises(EditorUnavailable) as caught:
        StabilityEditor(lambda: client, REGION).edit(REQUEST)
    assert not caught.value.maybe_billed


@pytest.mark.parametrize(
    ("message", "kind"),
    [("This request has been blocked by our content filters.", EditFiltered), ("The image is broken.", EditRefused)],
)
def test_an_error_in_the_response_of_titan_is_read(message: str, kind: type[MaskdropError]) -> None:
    client = Client({"images": [], "error": message})
    with pytest.raises(kind, match=message):
        TitanEditor(lambda: client, REGION).edit(REQUEST)


@pytest.mark.parametrize(
    "response",
    [b"", b'{"images": ["iVBOR', {}, {"images": []}, [], {"images": ["###"]}, {"images": [None]},
     '{"images": ["é"]}'.encode(), b"[" * 100_000,
     {"images": [base64.b64encode(b"no image").decode()]}],
)  # fmt: skip
def test_an_incomplete_response_is_retried_and_counts_as_billed(response: Any) -> None:
    client = Client(response)
    with pytest.raises(EditorUnavailable) as caught:
        StabilityEditor(lambda: client, REGION).edit(REQUEST)
    assert caught.value.maybe_billed


def a_client_error(code: str, message: str = "", status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "InvokeModel",
    )


END_OF_LIFE = "This model version has reached the end of its life. Please refer to the AWS documentation."
LEGACY = "Access denied. This Model is marked by provider as Legacy and you have not been actively using the model."


@pytest.mark.parametrize(
    ("error", "kind", "billed"),
    [
        (a_client_error("ThrottlingException", status=429), EditorThrottled, False),
        (a_client_error("ModelTimeoutException", status=408), EditorTimedOut, False),
        (a_client_error("ModelNotReadyException", status=429), EditorUnavailable, False),
        (a_client_error("InternalServerException", status=500), EditorUnavailable, False),
        (a_client_error("Unknown", status=503), EditorUnavailable, False),
        (ConnectTimeoutError(endpoint_url=URL), EditorUnavailable, False),
        (EndpointConnectionError(endpoint_url=URL), EditorUnavailable, False),
        (ReadTimeoutError(endpoint_url=URL), EditorTimedOut, True),
        (ConnectionClosedError(endpoint_url=URL), EditorUnavailable, True),
        (IncompleteReadError(actual_bytes=1, expected_bytes=2), EditorUnavailable, True),
        (NoCredentialsError(), EditorUnavailable, False),
        (a_client_error("AccessDeniedException", "not authorized to perform bedrock:InvokeModel"), NotAllowed, False),
        (a_client_error("AccessDeniedException", LEGACY), ModelRetired, False),
        (a_client_error("ResourceNotFoundException", END_OF_LIFE, 404), ModelRetired, False),
        (a_client_error("ResourceNotFoundException", LEGACY, 404), ModelRetired, False),
        (a_client_error("ValidationException", "The provided model identifier is invalid."), ModelNotInRegion, False),
        (a_client_error("ValidationException", "This request has been blocked by our content filters."), EditFiltered,
         False),
        (a_client_error("ValidationException", "Malformed input request: image"), EditRefused, False),
    ],
)  # fmt: skip
def test_every_error_of_bedrock_has_its_own_code(error: Exception, kind: type[MaskdropError], billed: bool) -> None:
    client = Client(error=error)
    with pytest.raises(MaskdropError) as caught:
        StabilityEditor(lambda: client, REGION).edit(REQUEST)
    assert type(caught.value) is kind
    assert getattr(caught.value, "maybe_billed", False) == billed


def test_a_missing_permission_names_iam_and_model_access() -> None:
    client = Client(error=a_client_error("AccessDeniedException", "denied"))
    with pytest.raises(NotAllowed, match=r"bedrock:InvokeModel.*[Mm]odel access"):
        StabilityEditor(lambda: client, REGION).edit(REQUEST)


@pytest.mark.parametrize("name", BEDROCK_EDITORS)
def test_requests_beyond_the_limits_of_a_model_are_refused_before_the_call(name: Any) -> None:
    client, limits = Client(), EDITORS[name]
    editor = BEDROCK_EDITORS[name](lambda: client, REGION)
    with pytest.raises(TextNotSupported):
        editor.check("x" * (limits.prompt_max + 1))
    editor.check("x" * limits.prompt_max)
    with pytest.raises(EditRefused, match="seed"):
        editor.edit(replace(REQUEST, seed=limits.seed_max + 1))
    with pytest.raises(EditRefused, match="25,000,000 bytes"):
        editor.edit(replace(REQUEST, image=bytes(BODY_MAX * 3 // 4)))
    with pytest.raises(ModelNotInRegion, match="eu-central-1"):
        BEDROCK_EDITORS[name](lambda: client, "eu-central-1").edit(REQUEST)
    assert client.bodies == []


def test_the_local_editor_draws_the_background_that_a_text_names() -> None:
    image = LocalEditor().edit(replace(REQUEST, prompt="a plain red background"))
    pixels = np.asarray(Image.open(io.BytesIO(image.data)))
    assert pixels.shape == (64, 96, 3)
    assert (pixels == (255, 0, 0)).all()
    assert (image.cost_usd, image.content_type) == (0, "image/png")


def test_the_local_editor_refuses_other_texts() -> None:
    with pytest.raises(TextNotSupported, match="This stage draws"):
        LocalEditor().check("a beach at sunset")


def test_the_local_editor_generates_no_subjects() -> None:
    with pytest.raises(TextNotSupported, match="must be background"):
        LocalEditor().edit(replace(REQUEST, prompt="white", change="subject"))
    with pytest.raises(TextNotSupported, match="must be background"):
        LocalEditor().check("white", "subject")


def test_a_stage_without_an_editor_refuses_every_text() -> None:
    for call in (lambda: NoEditor().check("white"), lambda: NoEditor().edit(REQUEST)):
        assert_refused(call)


def assert_refused(call: Callable[[], object]) -> None:
    with pytest.raises(TextNotSupported, match="generates no images"):
        call()

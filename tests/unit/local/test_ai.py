"""The emulator of Rekognition and Bedrock, called by boto3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError, ResponseStreamingError

from local import bedrock, service_model
from local.config import ROOT
from local.service_model import InvalidResult
from tests.ai import RunningAi, image_of, png, png_base64, running_ai

NAME = "stability.stable-image-inpaint-v1:0"
INPAINT = f"us.{NAME}"
TITAN = "amazon.titan-image-generator-v2:0"
PHOTO = np.random.default_rng(1).integers(0, 256, (96, 160, 3), dtype=np.uint8)
MASK = np.zeros((96, 160), np.uint8)
MASK[:40] = 255
BODY = {"image": png_base64(PHOTO), "mask": png_base64(MASK), "prompt": "a beach", "seed": 7, "grow_mask": 0}


@pytest.fixture(scope="module")
def started() -> Iterator[RunningAi]:
    with running_ai() as running:
        yield running


@pytest.fixture
def ai(started: RunningAi) -> Iterator[RunningAi]:
    yield started
    started.reset()


def invoke(ai: RunningAi, body: dict[str, Any], model: str = INPAINT, region: str = "us-east-1") -> dict[str, Any]:
    client = ai.client("bedrock-runtime", region)
    response: dict[str, Any] = json.loads(client.invoke_model(modelId=model, body=json.dumps(body))["body"].read())
    return response


def code_of(ai: RunningAi, body: dict[str, Any], model: str = INPAINT, region: str = "us-east-1") -> str:
    with pytest.raises(ClientError) as raised:
        invoke(ai, body, model, region)
    return str(raised.value.response["Error"]["Code"])


# ---- Bedrock: images


def test_inpaint_changes_the_white_part_of_the_mask_only(ai: RunningAi) -> None:
    response = invoke(ai, BODY)
    edited = image_of(response["images"][0])
    assert edited.shape == PHOTO.shape
    assert (edited[40:] == PHOTO[40:]).all()
    assert (edited[:40] != PHOTO[:40]).mean() > 0.9
    assert (response["seeds"], response["finish_reasons"]) == ([7], [None])


def test_grow_mask_widens_the_white_part(ai: RunningAi) -> None:
    edited = image_of(invoke(ai, {**BODY, "grow_mask": 4})["images"][0])
    changed = (edited != PHOTO).any(axis=(1, 2))
    assert changed[:44].all()
    assert not changed[44:].any()


def test_an_image_depends_on_prompt_and_seed_only(ai: RunningAi) -> None:
    first, second = invoke(ai, BODY)["images"], invoke(ai, BODY)["images"]
    others = [invoke(ai, {**BODY, **change})["images"] for change in ({"seed": 8}, {"prompt": "a forest"})]
    assert first == second
    assert first not in others
    assert others[0] != others[1]


def test_a_request_without_seed_gets_a_random_one(ai: RunningAi) -> None:
    seeds = {invoke(ai, {**BODY, "seed": 0})["seeds"][0] for _ in range(2)}
    assert len(seeds) == 2
    assert all(0 < seed <= bedrock.SEED_MAX for seed in seeds)


def test_the_alpha_channel_is_the_mask_of_a_request_without_one(ai: RunningAi) -> None:
    body = {key: value for key, value in BODY.items() if key != "mask"}
    assert code_of(ai, body) == "ValidationException"
    edited = image_of(invoke(ai, {**body, "image": png_base64(np.dstack([PHOTO, 255 - MASK]))})["images"][0])
    assert (edited[40:] == PHOTO[40:]).all()


@pytest.mark.parametrize(
    ("name", "body", "shape"),
    [
        ("stable-image-erase-object-v1:0", {"mask": BODY["mask"]}, (96, 160, 3)),
        ("stable-image-search-replace-v1:0", {"prompt": "a cat", "search_prompt": "dog"}, (96, 160, 3)),
        ("stable-image-remove-background-v1:0", {}, (96, 160, 4)),
        ("stable-outpaint-v1:0", {"left": 10, "down": 20, "creativity": 0.5}, (116, 170, 3)),
    ],
)
def test_the_other_models_of_stability_respond(
    ai: RunningAi, name: str, body: dict[str, Any], shape: tuple[int, ...]
) -> None:
    response = invoke(ai, {"image": BODY["image"], **body}, f"us.stability.{name}")
    assert image_of(response["images"][0]).shape == shape


@pytest.mark.parametrize(("task", "changed"), [("INPAINTING", slice(40, None)), ("OUTPAINTING", slice(0, 40))])
@pytest.mark.parametrize("model", [TITAN, "amazon.nova-canvas-v1:0"])
def test_black_is_the_inside_of_an_amazon_mask(ai: RunningAi, model: str, task: str, changed: slice) -> None:
    name = "inPaintingParams" if task == "INPAINTING" else "outPaintingParams"
    values = {"text": "a beach", "image": BODY["image"], "maskImage": BODY["mask"]}
    response = invoke(ai, {"taskType": task, name: values, "imageGenerationConfig": {"numberOfImages": 2}}, model)
    first, second = map(image_of, response["images"])
    rows = np.zeros(96, bool)
    rows[changed] = True
    assert (first[~rows] == PHOTO[~rows]).all()
    assert (first[rows] != PHOTO[rows]).mean() > 0.9
    assert (first != second).any()


# ---- Bedrock: limits


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "x" * 10_001},
        {"prompt": ""},
        {"prompt": 3},
        {"seed": -1},
        {"seed": bedrock.SEED_MAX + 1},
        {"seed": True},
        {"grow_mask": 21},
        {"output_format": "gif"},
        {"cfg_scale": 7},
        {"image": "not base64"},
        {"image": png_base64(np.zeros((63, 100), np.uint8))},
        {"image": png_base64(np.zeros((64, 161), np.uint8))},
        {"mask": png_base64(MASK[:-1])},
    ],
)
def test_a_body_beyond_the_limits_is_rejected_and_not_billed(ai: RunningAi, change: dict[str, Any]) -> None:
    before = len(ai.billed("InvokeModel"))
    assert code_of(ai, {**BODY, **change}) == "ValidationException"
    assert len(ai.billed("InvokeModel")) == before


def test_more_than_9_4_megapixels_are_rejected(ai: RunningAi) -> None:
    side = 3072
    largest, larger = (png_base64(np.zeros((side, side + one), np.uint8)) for one in (0, 1))
    assert code_of(ai, {**BODY, "image": larger, "mask": larger}) == "ValidationException"
    assert invoke(ai, {**BODY, "image": largest, "mask": largest, "output_format": "jpeg"})["finish_reasons"] == [None]


def test_more_than_25_000_000_bytes_are_rejected(ai: RunningAi) -> None:
    url = f"{ai.config.ai_url}/model/{INPAINT}/invoke"
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20261129/us-east-1/bedrock/aws4_request, Signature=0"}
    response = httpx2.post(url, content=b" " * 25_000_001, headers=signed, trust_env=False)
    assert response.status_code == 400
    assert response.headers["x-amzn-errortype"] == "ValidationException"


def test_a_stability_model_needs_its_inference_profile(ai: RunningAi) -> None:
    with pytest.raises(ClientError, match="inference profile"):
        invoke(ai, BODY, NAME)
    arn = bedrock.profile_arn(NAME, "us-east-1")
    assert invoke(ai, BODY, arn)["seeds"] == [7]


def test_a_region_without_the_model_rejects_it(ai: RunningAi) -> None:
    assert code_of(ai, BODY, region="eu-central-1") == "ValidationException"
    assert invoke(ai, BODY, region="us-west-2")["seeds"] == [7]
    summaries = ai.client("bedrock", "eu-central-1").list_foundation_models()["modelSummaries"]
    assert summaries == []


# ---- Bedrock: models


def test_the_lifecycle_of_a_model_is_returned_and_enforced(ai: RunningAi) -> None:
    control = ai.client("bedrock")

    def status() -> str:
        details = control.get_foundation_model(modelIdentifier=NAME)["modelDetails"]
        return str(details["modelLifecycle"]["status"])

    assert status() == "ACTIVE"
    ai.control(lifecycle={NAME: "LEGACY"})
    assert status() == "LEGACY"
    assert invoke(ai, BODY)["seeds"] == [7]
    ai.control(lifecycle={NAME: "UNUSED"})
    assert status() == "LEGACY"
    assert code_of(ai, BODY) == "ResourceNotFoundException"
    ai.control(lifecycle={NAME: "EOL"})
    assert code_of(ai, BODY) == "ResourceNotFoundException"
    with pytest.raises(ClientError, match="end of its life"):
        status()


def test_an_inference_profile_names_its_models(ai: RunningAi) -> None:
    control = ai.client("bedrock")
    profile = control.get_inference_profile(inferenceProfileIdentifier=INPAINT)
    assert [one["modelArn"] for one in profile["models"]] == [bedrock.model_arn(NAME, region) for region in bedrock.US]
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        control.get_inference_profile(inferenceProfileIdentifier=TITAN)


def test_the_models_of_a_provider_are_listed(ai: RunningAi) -> None:
    control = ai.client("bedrock")
    summaries = control.list_foundation_models(byProvider="Amazon", byOutputModality="IMAGE")["modelSummaries"]
    assert [one["modelId"] for one in summaries] == [TITAN, "amazon.nova-canvas-v1:0"]
    assert control.list_foundation_models(byOutputModality="TEXT")["modelSummaries"] == []


# ---- failures on demand


def test_a_throttled_call_is_not_billed_and_its_retry_is_billed_once(ai: RunningAi) -> None:
    before = len(ai.billed("InvokeModel"))
    ai.control(script={"InvokeModel": ["ThrottlingException", "ThrottlingException"]})
    with pytest.raises(ClientError) as raised:
        invoke(ai, BODY)
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert code_of(ai, BODY) == "ThrottlingException"
    assert invoke(ai, BODY)["seeds"] == [7]
    assert ai.billed("InvokeModel")[before:] == [
        {"operation": "InvokeModel", "model": INPAINT, "prompt": "a beach", "seed": 7}
    ]


@pytest.mark.parametrize(
    ("code", "status"),
    [("AccessDeniedException", 403), ("InternalServerException", 500), ("ServiceUnavailableException", 503)],
)
def test_an_error_has_the_status_of_the_service(ai: RunningAi, code: str, status: int) -> None:
    ai.control(script={"InvokeModel": [code]})
    with pytest.raises(ClientError, match=code) as raised:
        invoke(ai, BODY)
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


@pytest.mark.parametrize("reason", bedrock.FINISH_REASONS)
def test_the_content_filter_returns_a_reason_and_no_image(ai: RunningAi, reason: str) -> None:
    ai.control(script={"InvokeModel": [reason]})
    assert invoke(ai, BODY) == {"finish_reasons": [reason]}


def test_a_cut_response_breaks_in_the_middle_and_is_billed(ai: RunningAi) -> None:
    before = len(ai.billed("InvokeModel"))
    ai.control(script={"InvokeModel": ["cut"]})
    with pytest.raises(ResponseStreamingError):
        invoke(ai, BODY)
    assert len(ai.billed("InvokeModel")) == before + 1


def test_a_call_that_hangs_times_out_and_is_billed(ai: RunningAi) -> None:
    before = len(ai.billed("InvokeModel"))
    ai.control(script={"InvokeModel": ["hang"]})
    with pytest.raises(ReadTimeoutError):
        ai.client("bedrock-runtime", read_timeout=0.5).invoke_model(modelId=INPAINT, body=json.dumps(BODY))
    assert len(ai.billed("InvokeModel")) == before + 1


@pytest.mark.parametrize(
    "changes",
    [
        {"outage": True},
        {"script": {"InvokeAgent": ["cut"]}},
        {"script": {"DetectFaces": ["Filter reason: prompt"]}},
        {"lifecycle": {NAME: "OLD"}},
        {"lifecycle": {"unknown": "EOL"}},
        {"labels": {"Face": [[0, 0, 1]]}},
    ],
)
def test_an_unknown_condition_is_rejected(ai: RunningAi, changes: dict[str, Any]) -> None:
    assert ai.control(**changes).status_code == 400


# ---- Rekognition


def test_labels_of_a_test_are_filtered_as_rekognition_does(ai: RunningAi) -> None:
    ai.control(
        labels={"Car": [[-0.1, 0.2, 0.5, 0.9, 80], [0.5, 0.5, 0.1, 0.1, 56]], "Beach": [], "Cat": [[0, 0, 1, 1, 40]]}
    )
    client = ai.client("rekognition")

    def labels(**parameters: Any) -> list[tuple[str, int]]:
        found = client.detect_labels(Image={"Bytes": png(PHOTO)}, **parameters)["Labels"]
        return [(one["Name"], len(one["Instances"])) for one in found]

    assert labels() == [("Beach", 0), ("Car", 2)]  # MinConfidence is 55 by default
    assert labels(MinConfidence=60, MaxLabels=2) == [("Beach", 0), ("Car", 1)]
    assert labels(MinConfidence=0, Settings={"GeneralLabels": {"LabelInclusionFilters": ["cat"]}}) == [("Cat", 1)]
    assert labels(Settings={"GeneralLabels": {"LabelExclusionFilters": ["Beach"]}}) == [("Car", 2)]
    assert labels(MaxLabels=1) == [("Beach", 0)]


def test_a_box_may_exceed_the_image(ai: RunningAi) -> None:
    ai.control(labels={"Face": [[-0.1, 0.2, 0.5, 0.9, 99.5]]})
    [face] = ai.client("rekognition").detect_faces(Image={"Bytes": png(PHOTO)})["FaceDetails"]
    assert face["BoundingBox"] == {"Left": -0.1, "Top": 0.2, "Width": 0.5, "Height": 0.9}


def test_the_face_and_the_person_of_a_photo_are_found(ai: RunningAi) -> None:
    photo = (ROOT / "samples" / "default" / "astronaut.png").read_bytes()
    client = ai.client("rekognition")
    [face] = client.detect_faces(Image={"Bytes": photo})["FaceDetails"]
    box = face["BoundingBox"]
    assert box["Left"] < 0.44 < box["Left"] + box["Width"]  # the nose, in the sample of scikit-image
    assert box["Top"] < 0.23 < box["Top"] + box["Height"]
    assert "Person" in {one["Name"] for one in client.detect_labels(Image={"Bytes": photo})["Labels"]}


def test_an_image_without_faces_has_none(ai: RunningAi) -> None:
    flat = np.full((200, 200, 3), 128, np.uint8)
    assert ai.client("rekognition").detect_faces(Image={"Bytes": png(flat)})["FaceDetails"] == []


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"GIF89a", "InvalidImageFormatException"),
        (png(PHOTO[:79]), "InvalidParameterException"),
        (png(np.zeros((80, 10_001), np.uint8)), "ImageTooLargeException"),
        (b"x" * 5_242_881, "ValidationException"),
    ],
)
def test_an_image_that_rekognition_does_not_accept_is_rejected(ai: RunningAi, content: bytes, code: str) -> None:
    with pytest.raises(ClientError) as raised:
        ai.client("rekognition").detect_faces(Image={"Bytes": content})
    assert raised.value.response["Error"]["Code"] == code


@pytest.mark.parametrize(
    "body",
    [
        b'{"Image": {"Bytes": ""}, "Labels": []}',
        b'{"Image": {"Bytes": "====="}}',
        b'{"Image": []}',
        b"[]",
        b"{}",
        b"{",
        b'{"Image": {"Bytes": "AAAA"}, "MinConfidence": 101}',
        b'{"Image": {"Bytes": "AAAA"}, "MinConfidence": "5"}',
        b'{"Image": {"Bytes": "AAAA"}, "Features": ["ALL"]}',
        b'{"Image": {"Bytes": "AAAA"}, "Settings": {"GeneralLabels": {"LabelInclusionFilters": ["~"]}}}',
    ],
)
def test_a_request_that_the_service_model_does_not_allow_is_rejected(ai: RunningAi, body: bytes) -> None:
    authorization = "AWS4-HMAC-SHA256 Credential=test/20261129/us-east-1/rekognition/aws4_request, Signature=0"
    response = httpx2.post(
        f"{ai.config.ai_url}/rekognition",
        content=body,
        headers={"Authorization": authorization, "X-Amz-Target": "RekognitionService.DetectLabels"},
        trust_env=False,
    )
    assert (response.status_code, response.json()["__type"]) == (400, "ValidationException")


def test_a_result_that_the_service_model_does_not_allow_is_an_error_of_the_emulator() -> None:
    model = service_model.operation("rekognition", "DetectFaces")
    results: tuple[dict[str, Any], ...] = (
        {"Faces": []},
        {"FaceDetails": [{"Confidence": "high"}]},
        {"FaceDetails": [{"Confidence": 101.0}]},
    )
    for result in results:
        with pytest.raises(InvalidResult):
            service_model.response(model, result)


def test_an_unsigned_request_is_rejected(ai: RunningAi) -> None:
    response = httpx2.get(f"{ai.config.ai_url}/foundation-models", trust_env=False)
    assert response.headers["x-amzn-errortype"] == "UnrecognizedClientException"

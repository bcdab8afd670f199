"""The editors on Bedrock against the local emulator of Bedrock, which validates requests and fails on demand."""

import io
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import pytest
from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from PIL import Image

from lambdas.adapters.editors.bedrock import BEDROCK_EDITORS, BedrockEditor, StabilityEditor
from local import bedrock
from local.service_model import ServiceError
from maskdrop.edit import EDITORS
from maskdrop.errors import EditFiltered, EditorUnavailable, EditRefused, ModelNotInRegion, ModelRetired
from tests.unit.lambdas.adapters.test_editors import REGION, REQUEST, encoded

SUBJECT = np.zeros((400, 600), np.uint8)
SUBJECT[100:300, 150:450] = 255
SOURCE = np.full((400, 600, 3), 200, np.uint8)
LARGE = replace(REQUEST, image=encoded(SOURCE, ".png"), mask=encoded(SUBJECT), width=600, height=400)


@dataclass
class Client:
    """A client of the emulator. lifecycle, finish_reason: its conditions."""

    region: str = REGION
    lifecycle: dict[str, str] = field(default_factory=dict)
    finish_reason: str = ""

    def invoke_model(self, *, modelId: str, body: str, **_: Any) -> dict[str, Any]:  # noqa: N803  as botocore
        try:
            payload, _result = bedrock.invoke(modelId, body.encode(), self.region, self.lifecycle, self.finish_reason)
        except ServiceError as error:
            response = {"Error": {"Code": error.code, "Message": error.message}, "ResponseMetadata": {}}
            raise ClientError(response, "InvokeModel") from error  # type: ignore[arg-type]
        return {"body": StreamingBody(io.BytesIO(payload), len(payload))}


def alive(name: Any) -> dict[str, str]:
    return {EDITORS[name].model: bedrock.ACTIVE}


def editor(name: Any, client: Client) -> BedrockEditor:
    return BEDROCK_EDITORS[name](lambda: client, client.region)


@pytest.mark.parametrize("name", BEDROCK_EDITORS)
@pytest.mark.parametrize("change", ["background", "subject"])
def test_an_editor_changes_the_wanted_part_and_no_other(name: Any, change: Any) -> None:
    image = editor(name, Client(lifecycle=alive(name))).edit(replace(LARGE, change=change))
    pixels = np.asarray(Image.open(io.BytesIO(image.data)).convert("RGB")).astype(int)
    changed = (np.abs(pixels - 200).max(axis=2) > 0).astype(np.uint8)
    wanted = (255 - SUBJECT if change == "background" else SUBJECT) > 0
    grown = cv2.dilate(wanted.astype(np.uint8), np.ones((13, 13), np.uint8)) > 0  # Stability widens the mask by 5
    assert changed[wanted].mean() > 0.9
    assert not changed[~grown].any()


@pytest.mark.parametrize("name", BEDROCK_EDITORS)
def test_every_model_reports_the_content_filter(name: Any) -> None:
    for reason in bedrock.FINISH_REASONS[:3]:
        with pytest.raises(EditFiltered):
            editor(name, Client(lifecycle=alive(name), finish_reason=reason)).edit(LARGE)


def test_an_inference_error_of_stability_can_be_retried() -> None:
    with pytest.raises(EditorUnavailable):
        editor("stability", Client(finish_reason="Inference error")).edit(LARGE)


@pytest.mark.parametrize("state", [bedrock.EOL, bedrock.UNUSED])
@pytest.mark.parametrize("name", BEDROCK_EDITORS)
def test_a_model_that_the_account_can_no_longer_use_is_retired(name: Any, state: str) -> None:
    with pytest.raises(ModelRetired):
        editor(name, Client(lifecycle={EDITORS[name].model: state})).edit(LARGE)


def test_a_model_that_bedrock_does_not_know_in_a_region_is_its_own_error() -> None:
    client = Client(region="eu-central-1")
    with pytest.raises(ModelNotInRegion, match="model identifier is invalid"):
        StabilityEditor(lambda: client, REGION).edit(LARGE)


@pytest.mark.parametrize("shape", [(32, 600), (64, 600)])
def test_an_image_that_the_model_does_not_accept_is_refused(shape: tuple[int, int]) -> None:
    request = replace(LARGE, image=encoded(SOURCE[: shape[0]], ".png"), mask=encoded(SUBJECT[: shape[0]]))
    with pytest.raises(EditRefused, match="Malformed input request"):
        editor("stability", Client()).edit(request)


def test_an_empty_and_a_full_mask_are_accepted() -> None:
    for mask in (np.zeros_like(SUBJECT), np.full_like(SUBJECT, 255)):
        assert editor("stability", Client()).edit(replace(LARGE, mask=encoded(mask))).data


def test_the_limits_of_the_table_are_those_of_the_emulator() -> None:
    table = EDITORS["stability"]
    assert (table.side_min, table.pixels_max, table.aspect_max) == (
        bedrock.SIDE_MIN, bedrock.PIXELS_MAX, bedrock.ASPECT_MAX,
    )  # fmt: skip
    assert (table.prompt_max, table.seed_max, table.regions) == (bedrock.PROMPT_MAX, bedrock.SEED_MAX, bedrock.US)
    for name in ("titan", "nova"):
        row, model = EDITORS[name], bedrock.MODELS[EDITORS[name].model]
        assert (row.prompt_max, row.seed_max, row.side_max) == (model.prompt_max, model.seed_max, model.side_max)
        assert set(row.regions) == set(model.regions)

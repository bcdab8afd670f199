"""The editors on Amazon Bedrock: Stability AI Image Services, and Titan Image Generator and Nova Canvas for accounts
that still have them.

Request bodies: Amazon Bedrock user guide, "Stability AI Image Services" and "Amazon Titan Image Generator"; Amazon Nova
user guide, "Image generation". The polarity of the mask differs: Stability fills the white part, Titan and Nova treat
the black part as the inside of the mask.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ParamValidationError,
    ReadTimeoutError,
)

from lambdas.adapters.errors import code_of
from maskdrop.edit import EDITORS, Change, EditorName
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
from maskdrop.png import inverted
from maskdrop.services import EditedImage, EditRequest
from maskdrop.sniff import HEAD, image_type

BODY_MAX = 25_000_000
"""Maximum bytes of a request body of InvokeModel (botocore, InvokeModelRequest)."""

PNG_PIXELS_MAX = 4_000_000
"""Pixels up to which Stability returns PNG. A response has about 16 MB at most; a larger image is returned as JPEG."""

CFG_SCALE = 8.0
"""How closely Titan and Nova follow the text, 1.1 to 10: their default."""

RETRYABLE = frozenset(
    {
        "InternalServerException",
        "ModelErrorException",
        "ModelNotReadyException",
        "ServiceUnavailableException",
    }
)
THROTTLED = frozenset({"ThrottlingException", "ServiceQuotaExceededException", "TooManyRequestsException"})
TIMED_OUT = frozenset({"ModelTimeoutException"})
"""Error codes of InvokeModel after which a later call can succeed. Such a call is not billed."""

RETIRED = ("end of its life", "end of life", "legacy", "no longer")
NOT_HERE = ("model identifier is invalid", "not supported in this region")
FILTERED = ("content filter", "responsible ai", "blocked")
"""Parts of error messages by which Bedrock distinguishes causes that share an error code."""


class BedrockEditor:
    """Base of the editors. client: returns the client of bedrock-runtime, at the first call. region: that of the
    client."""

    name: EditorName

    def __init__(self, client: Callable[[], Any], region: str) -> None:
        self._client, self._region, self._model = client, region, EDITORS[self.name]
        self.usd_per_image = self._model.usd_per_image

    @property
    def model_id(self) -> str:
        """The ID that requests name: of the inference profile, else of the model."""
        return self._model.profile or self._model.model

    def check(self, prompt: str, change: Change = "background") -> None:  # noqa: ARG002 - it generates both
        if len(prompt) > self._model.prompt_max:
            raise TextNotSupported(
                f"A prompt for {self._model.model} has at most {self._model.prompt_max:,} characters; got "
                f"{len(prompt):,}. Shorten it."
            )

    def edit(self, request: EditRequest) -> EditedImage:
        self.check(request.prompt)
        if self._region not in self._model.regions:
            raise ModelNotInRegion(
                f"The model {self._model.model} is not offered in {self._region}; deploy the stage in one of "
                f"{', '.join(self._model.regions)}."
            )
        if request.seed > self._model.seed_max:
            raise EditRefused(
                f"A seed for {self._model.model} is at most {self._model.seed_max}; got {request.seed}. Use a smaller "
                '"edit.seeds".'
            )
        body = json.dumps(self._body(request))
        if len(body) > BODY_MAX:
            raise EditRefused(
                f"A request to {self._model.model} has at most {BODY_MAX:,} bytes; got {len(body):,}. Use a "
                "smaller image."
            )
        return self._image(self._invoke(body))

    def _body(self, request: EditRequest) -> dict[str, Any]:
        """The JSON body of InvokeModel."""
        raise NotImplementedError

    def _images(self, response: dict[str, Any]) -> Any:
        """The list of images in a response, in Base64. Raises EditFiltered, EditRefused and EditorUnavailable."""
        raise NotImplementedError

    def _invoke(self, body: str) -> Any:
        """The parsed response."""
        with self._translated_errors():
            response = self._client().invoke_model(
                modelId=self.model_id, body=body, contentType="application/json", accept="application/json"
            )
            payload = response["body"].read()
        try:
            return json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise EditorUnavailable("Bedrock returned an incomplete response.", maybe_billed=True) from error

    def _image(self, response: Any) -> EditedImage:
        try:
            images = self._images(response)
            data = base64.b64decode(images[0], validate=True)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise EditorUnavailable("Bedrock returned a response without an image.", maybe_billed=True) from error
        content_type = image_type(data[:HEAD])
        if content_type is None:
            raise EditorUnavailable("Bedrock returned a file that is not an image.", maybe_billed=True)
        return EditedImage(data, content_type, self.model_id, self.usd_per_image)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            self._raise(error)
        except ReadTimeoutError as error:
            raise EditorTimedOut("Bedrock did not respond in time.", maybe_billed=True) from error
        except (ConnectTimeoutError, EndpointConnectionError) as error:
            raise EditorUnavailable(f"Connecting to Bedrock failed: {type(error).__name__}.") from error
        except ParamValidationError as error:
            raise EditRefused(f"The request to Bedrock is invalid: {error}") from error
        except BotoCoreError as error:
            # A response was lost: the connection ended early.
            billed = isinstance(error, HTTPClientError | IncompleteReadError)
            raise EditorUnavailable(f"Calling Bedrock failed: {type(error).__name__}.", maybe_billed=billed) from error

    def _raise(self, error: ClientError) -> NoReturn:
        code, message = code_of(error), str(error.response["Error"].get("Message", ""))
        raise _error(code, message, error.response["ResponseMetadata"].get("HTTPStatusCode", 0), self) from error

    @property
    def region(self) -> str:
        return self._region


class StabilityEditor(BedrockEditor):
    """Stable Image Inpaint. One image a call."""

    name = "stability"

    def _body(self, request: EditRequest) -> dict[str, Any]:
        white = inverted(request.mask) if request.change == "background" else request.mask  # white is filled
        form = "png" if request.width * request.height <= PNG_PIXELS_MAX else "jpeg"
        return {
            "image": _text(request.image),
            "mask": _text(white),
            "prompt": request.prompt,
            **({"negative_prompt": request.negative_prompt} if request.negative_prompt else {}),
            "seed": request.seed,
            "output_format": form,
        }

    def _images(self, response: dict[str, Any]) -> Any:
        reasons = response.get("finish_reasons") or [None]
        if reasons[0] == "Inference error":
            raise EditorUnavailable("The model failed to generate the image (Inference error).")
        if reasons[0]:
            raise EditFiltered(f"The content filter refused it: {reasons[0]}. Change the text or the image.")
        return response["images"]


class AmazonEditor(BedrockEditor):
    """Titan Image Generator and Nova Canvas, which have the same form. One image a call."""

    def _body(self, request: EditRequest) -> dict[str, Any]:
        texts = {"text": request.prompt}
        if request.negative_prompt:
            texts["negativeText"] = request.negative_prompt
        # Black is the inside of the mask, here the subject: outpainting keeps it, inpainting fills it.
        images = {"image": _text(request.image), "maskImage": _text(inverted(request.mask))}
        if request.change == "background":
            task = {"taskType": "OUTPAINTING", "outPaintingParams": {**texts, **images, "outPaintingMode": "PRECISE"}}
        else:
            task = {"taskType": "INPAINTING", "inPaintingParams": {**texts, **images}}
        config = {"numberOfImages": 1, "quality": "premium", "cfgScale": CFG_SCALE, "seed": request.seed}
        return {**task, "imageGenerationConfig": config}

    def _images(self, response: dict[str, Any]) -> Any:
        if error := response.get("error"):
            kind = EditFiltered if _has(str(error), FILTERED) else EditRefused
            raise kind(f"The model refused it: {error}")
        return response["images"]


class TitanEditor(AmazonEditor):
    name = "titan"


class NovaEditor(AmazonEditor):
    name = "nova"


BEDROCK_EDITORS: dict[EditorName, type[BedrockEditor]] = {
    "stability": StabilityEditor,
    "titan": TitanEditor,
    "nova": NovaEditor,
}


def _error(code: str, message: str, status: int, editor: BedrockEditor) -> MaskdropError:
    """The error for an error response of InvokeModel."""
    model = editor.model_id
    retired = code in ("AccessDeniedException", "ValidationException") and _has(message, RETIRED)
    if retired or code == "ResourceNotFoundException":
        return ModelRetired(f"Bedrock no longer offers {model} to this account: {message} Choose another editor.")
    if code == "AccessDeniedException":
        return NotAllowed(
            f"Bedrock denies access to {model}: {message} The role of the function edit needs bedrock:InvokeModel, and "
            "the account access to the model (Bedrock console, Model access)."
        )
    if code == "ValidationException" and _has(message, NOT_HERE):
        return ModelNotInRegion(f"Bedrock does not offer {model} in {editor.region}: {message}")
    if code == "ValidationException":
        kind = EditFiltered if _has(message, FILTERED) else EditRefused
        return kind(f"Bedrock does not accept the request: {message}")
    if code in TIMED_OUT:
        return EditorTimedOut(f"{model} did not generate the image in time: {code}.")
    if code in RETRYABLE or status >= 500:
        return EditorUnavailable(f"Calling Bedrock failed: {code}.")
    if code in THROTTLED or status == 429:
        return EditorThrottled(f"Bedrock throttles the requests for {model}: {code}.")
    return EditRefused(f"Calling Bedrock failed: {code}: {message}")


def _has(message: str, parts: tuple[str, ...]) -> bool:
    return any(part in message.lower() for part in parts)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()

"""A local emulator of Amazon Rekognition and Amazon Bedrock, mounted in the SageMaker emulator at /ai.

    POST /rekognition                       Rekognition: DetectFaces, DetectLabels
    POST /model/{id}/invoke                 Bedrock Runtime: InvokeModel
    GET  /foundation-models[/{id}]          Bedrock: GetFoundationModel, ListFoundationModels
    GET  /inference-profiles/{id}           Bedrock: GetInferenceProfile
    GET, POST /control                      reads or changes the conditions that tests simulate
    GET  /usage                             calls by operation, and every image that is billed

boto3 finds it by AWS_ENDPOINT_URL_REKOGNITION, AWS_ENDPOINT_URL_BEDROCK and AWS_ENDPOINT_URL_BEDROCK_RUNTIME.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.model import OperationModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from local.config import LocalConfig
from local.service_model import ServiceError, error_codes, error_response, operation, parameters, response
from maskdrop.record import Record

HANG, CUT, SUCCEED = "hang", "cut", "succeed"
"""Outcomes of a call besides errors. hang: no response until the caller leaves. cut: half of the response body, then
the connection breaks. The service has processed and billed both."""

OPERATIONS = {
    "DetectFaces": "rekognition",
    "DetectLabels": "rekognition",
    "InvokeModel": "bedrock-runtime",
    "GetFoundationModel": "bedrock",
    "ListFoundationModels": "bedrock",
    "GetInferenceProfile": "bedrock",
}
"""The service of each operation."""

BILLED_MAX = 10_000
"""Billed images that GET /usage returns at most: the last ones."""

CREDENTIAL = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/aws4_request")
"""Access key, Region and service in the header Authorization of a signed request."""


@dataclass(frozen=True, slots=True)
class Conditions(Record):
    """Conditions that tests simulate.

    script: outcomes of the next calls, by operation, each used once: an error code of the operation, "hang", "cut",
        "succeed", or for InvokeModel a finish reason such as "Filter reason: prompt".
    lifecycle: state of a model by its ID without "us.": one of LIFECYCLES (local/bedrock.py).
    labels: what Rekognition finds, by label: [left, top, width, height, confidence in percent] of each instance, as
        ratios of the image; an empty list is a label without boxes. Empty: the emulator detects faces and people.
    """

    script: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lifecycle: dict[str, str] = field(default_factory=dict)
    labels: dict[str, tuple[tuple[float, float, float, float, float], ...]] = field(default_factory=dict)


class Ai:
    """Both services. calls: where the calls of roles are recorded, as local/emulator.py does; None for no record."""

    def __init__(self, calls: Path | None = None) -> None:
        self.conditions = Conditions()
        self._calls = calls
        self._count: Counter[str] = Counter()
        self._billed: deque[dict[str, Any]] = deque(maxlen=BILLED_MAX)

    async def control(self, request: Request) -> Response:
        """Returns the conditions, after the changes in the body of a POST."""
        if request.method == "POST":
            try:
                changes = await request.json()
                if unknown := set(changes) - set(self.conditions.to_json()):
                    raise ValueError(f"there is no condition {', '.join(sorted(unknown))}")
                changed = Conditions.from_json({**self.conditions.to_json(), **changes})
                _check(changed)
            except (ValueError, TypeError) as error:
                return JSONResponse({"Message": f"The body must be an object of conditions: {error}."}, 400)
            self.conditions = changed
        return JSONResponse(self.conditions.to_json())

    async def usage(self, _request: Request) -> Response:
        """Returns the number of calls by operation, also failed ones, and every billed image."""
        return JSONResponse({"calls": self._count, "billed": list(self._billed)})

    async def rekognition(self, request: Request) -> Response:
        """Responds to an operation of JSON 1.1, whose name is in the header X-Amz-Target."""
        target = request.headers.get("X-Amz-Target", "")
        _, _, name = target.partition("RekognitionService.")
        if OPERATIONS.get(name) != "rekognition":
            return JSONResponse({"__type": "UnknownOperationException"}, 400)
        return await self._respond(name, request)

    async def invoke_model(self, request: Request) -> Response:
        return await self._respond("InvokeModel", request)

    async def foundation_model(self, request: Request) -> Response:
        return await self._respond("GetFoundationModel", request)

    async def foundation_models(self, request: Request) -> Response:
        return await self._respond("ListFoundationModels", request)

    async def inference_profile(self, request: Request) -> Response:
        return await self._respond("GetInferenceProfile", request)

    async def _respond(self, name: str, request: Request) -> Response:
        """Responds to one call with the next outcome of its script."""
        model = operation(OPERATIONS[name], name)
        outcome = self._next(name)
        try:
            signed = CREDENTIAL.search(request.headers.get("Authorization", ""))
            if signed is None or signed[3] != model.service_model.signing_name:
                raise ServiceError("UnrecognizedClientException", "The request is not signed for this service.")
            self._count[name] += 1
            values = await parameters(model, request)
            self._record(name, values, key=signed[1], region=signed[2])
            if outcome in error_codes(model):
                raise ServiceError(outcome, f"The local stack simulates {outcome}.")
            result = await asyncio.to_thread(self._result, name, values, signed[2], outcome)
            responded = response(model, result)
        except ServiceError as error:
            return error_response(model, error)
        if outcome == HANG:
            while (await request.receive())["type"] != "http.disconnect":
                pass
        return CutResponse(responded.body, headers=dict(responded.headers)) if outcome == CUT else responded

    def _next(self, name: str) -> str:
        """Takes the next outcome from the script of an operation."""
        script = self.conditions.script
        if not script.get(name):
            return SUCCEED
        outcome, *left = script[name]
        script[name] = tuple(left)
        return outcome

    def _result(self, name: str, values: dict[str, Any], region: str, outcome: str) -> dict[str, Any]:
        # OpenCV loads in 0.3 s: at the first call, so that `make up` does not wait for it.
        from local import bedrock, rekognition

        lifecycle, labels = self.conditions.lifecycle, self.conditions.labels
        match name:
            case "DetectFaces" | "DetectLabels":
                detect = rekognition.detect_faces if name == "DetectFaces" else rekognition.detect_labels
                found = detect(values, labels)
                self._billed.append({"operation": name})
                return found
            case "InvokeModel":
                reason = outcome if outcome in bedrock.FINISH_REASONS else ""
                body, result = bedrock.invoke(values["modelId"], values["body"], region, lifecycle, reason)
                billed = {"operation": name, "model": values["modelId"], "prompt": result.prompt}
                self._billed.extend({**billed, "seed": seed} for seed in result.seeds)
                return {"body": body, "contentType": "application/json"}
            case "GetFoundationModel":
                return {"modelDetails": bedrock.foundation_model(values["modelIdentifier"], region, lifecycle)}
            case "ListFoundationModels":
                provider, modality = values.get("byProvider", ""), values.get("byOutputModality", "")
                found_models = bedrock.foundation_models(region, lifecycle, provider=provider, modality=modality)
                return {"modelSummaries": found_models}
        return bedrock.inference_profile(values["inferenceProfileIdentifier"], region)

    def _record(self, name: str, values: dict[str, Any], *, key: str, region: str) -> None:
        """Appends the call to the calls that tests compare with the policies of the roles."""
        if self._calls is None:
            return
        from local import bedrock

        service = "rekognition" if OPERATIONS[name] == "rekognition" else "bedrock"
        resources = ["*"]
        if name == "InvokeModel":
            resources = bedrock.resources(values["modelId"], region)
        elif name == "GetFoundationModel":
            resources = [bedrock.model_arn(values["modelIdentifier"].rpartition("/")[2], region)]
        elif name == "GetInferenceProfile":
            resources = bedrock.resources(values["inferenceProfileIdentifier"], region)[:1]
        with self._calls.open("a") as file:
            for resource in resources:
                file.write(json.dumps({"key": key, "action": f"{service}:{name}", "resource": resource}) + "\n")


class CutResponse(Response):
    """A response whose connection breaks after half of the body."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.body", "body": half, "more_body": True})


def app(config: LocalConfig) -> Starlette:
    """Returns the ASGI application."""
    ai = Ai(config.calls_file if config.strict else None)
    return Starlette(
        routes=[
            Route("/control", ai.control, methods=["GET", "POST"]),
            Route("/usage", ai.usage),
            Route("/rekognition", ai.rekognition, methods=["POST"]),
            Route("/model/{modelId:path}/invoke", ai.invoke_model, methods=["POST"]),
            Route("/foundation-models", ai.foundation_models),
            Route("/foundation-models/{modelIdentifier:path}", ai.foundation_model),
            Route("/inference-profiles/{inferenceProfileIdentifier:path}", ai.inference_profile),
        ]
    )


def _check(conditions: Conditions) -> None:
    """Raises ValueError for an operation, outcome or state that does not exist."""
    from local import bedrock

    for name, outcomes in conditions.script.items():
        if name not in OPERATIONS:
            raise ValueError(f"script: there is no operation {name}; operations are {', '.join(OPERATIONS)}")
        known: set[str] = {HANG, CUT, SUCCEED, *error_codes(_model(name))}
        if name == "InvokeModel":
            known.update(bedrock.FINISH_REASONS)
        if unknown := set(outcomes) - known:
            raise ValueError(f"script: {name} has no outcome {', '.join(sorted(unknown))}")
    for model, state in conditions.lifecycle.items():
        if model not in bedrock.MODELS or state not in bedrock.LIFECYCLES:
            raise ValueError(
                f"lifecycle: {model} must be one of {', '.join(bedrock.MODELS)}, and {state} a state of it"
            )


def _model(name: str) -> OperationModel:
    return operation(OPERATIONS[name], name)

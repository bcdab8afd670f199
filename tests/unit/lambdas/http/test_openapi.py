import base64
import gzip
import hashlib
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from lambdas.http.openapi import document, methods_at, operations
from lambdas.http.page import compressed_page, page
from lambdas.http.routes import routes
from maskdrop import schema
from maskdrop.background import BackgroundImage, Colour, Position
from maskdrop.edit import Candidate, Edit
from maskdrop.errors import ErrorInfo
from maskdrop.job import Job, Result, ResultItem, Source, Subject, Webhook, queued
from maskdrop.options import JSON_FIELDS, Options
from maskdrop.output import FIELDS, Output
from maskdrop.presets import PRESETS
from maskdrop.prompt import Prompt
from maskdrop.ssrf import URL, Policy, target
from tests.fakes import NOW, World
from tests.unit.lambdas.http.test_routes import OPERATOR, by, call

DIALECT_PATH = "/v1/remove-background"
"""The only path below /v1 that belongs to a dialect (withoutbg)."""


def violations(name: str, value: Any) -> list[str]:
    """Returns the violations of a value against a schema of the document."""
    referenced = {**schema.ref(name), "components": {"schemas": schema.components()}}
    return [error.message for error in Draft202012Validator(referenced).iter_errors(value)]


def test_the_openapi_document_has_every_v1_route_and_no_other() -> None:
    app = routes("")
    known = [(route.method.lower(), route.path) for route in app._static_routes + app._dynamic_routes]
    v1_routes = {(method, re.sub("<(.+?)>", r"{\1}", path)) for method, path in known if path.startswith("/v1/")}
    assert v1_routes - {("post", DIALECT_PATH)} == set(operations())


def test_the_openapi_document_needs_no_key_and_has_unique_operation_ids() -> None:
    response = call(World(), "/v1/openapi.json", context={})
    assert response.status == 200
    assert response.body == document()
    names = [operation["operationId"] for shape in response.body["paths"].values() for operation in shape.values()]
    assert len(names) == len(set(names)) == len(operations())


def test_every_referenced_schema_exists() -> None:
    text = json.dumps(document())
    assert set(re.findall(r"#/components/schemas/(\w+)", text)) == set(schema.components())


def test_only_open_operations_need_no_key() -> None:
    is_open = [shape for shape, item in document()["paths"].items() if item.get("get", {}).get("security") == []]
    assert is_open == ["/v1/health", "/v1/openapi.json", "/v1/docs"]
    assert document()["security"]


@given(st.data())
@pytest.mark.parametrize("name", [*FIELDS])
def test_every_output_value_that_matches_the_schema_is_parsed(name: str, data: st.DataObject) -> None:
    text = data.draw(st.from_regex(re.compile(FIELDS[name].pattern, re.ASCII), fullmatch=True))
    assert Output.from_json({name: text})
    assert not violations("Output", {name: text})


# The pattern cannot limit a host name to 253 characters.
@given(st.from_regex(re.compile(URL, re.ASCII), fullmatch=True).filter(lambda url: len(url) <= 253))
def test_every_url_that_matches_the_schema_is_parsed(url: str) -> None:
    host = re.split("[/?#]", url.removeprefix("https://"))[0].removesuffix(":443")
    found = target(url, Policy(trusted=frozenset({host.lower()})))
    assert found.port == 443


@pytest.mark.parametrize("options", PRESETS.values())
def test_the_output_of_every_preset_matches_the_schema(options: Options) -> None:
    assert not violations("Output", options.output.to_json())


BACKGROUND = BackgroundImage("inbox", "backgrounds/a.jpg", "contain", Position(1, 2), Colour(1, 2, 3))

OUTPUTS = {
    "format": "jpg", "channels": "rgba", "size": "preview", "roi": "0% 0% 50% 50%", "crop": "5px",
    "outline": "8px gold", "canvas": "1000x1000", "padding": "10%", "scale": "80%", "position": "10% 20%",
    "shadow": "drop", "background": "blur", "metadata": "keep",
}  # fmt: skip
"""A value of each output field."""

CHOSEN = [
    Options(),
    Options(output=Output(background=BACKGROUND)),
    Options(engine="sam", prompts=(Prompt((1, 2, 3, 4)), Prompt(None, ((1, 2, 1),))), instances="each"),
    Options(refine="vitmatte", review_below=0.5),
    Options.from_json({"strokes": [{"mode": "erase", "width": "2%", "hardness": 0.5, "points": [[1, 2], [3, 4]]}]}),
    Options(task="replace", edit=Edit(("a beach", "a wall"), "people", (1, 2), "subject")),
    *(Options(output=Output.from_json({name: text})) for name, text in OUTPUTS.items()),
]
"""Options that have, together, every field that `Options.to_json` writes."""


def closed(part: Any) -> Any:
    """Returns a schema whose objects have no field without a description."""
    if isinstance(part, list):
        return [closed(one) for one in part]
    if not isinstance(part, dict):
        return part
    extra = {} if "properties" not in part or "type" not in part else {"additionalProperties": False}
    return {name: closed(value) for name, value in part.items()} | extra


def undocumented(shape: Any, value: Any) -> list[str]:
    """Returns the violations of a value against a schema, fields that the schema lacks included."""
    whole = {**closed(shape), "components": {"schemas": closed(schema.components())}}
    return [error.message for error in Draft202012Validator(whole).iter_errors(value)]


def test_the_options_of_this_test_have_every_field_that_a_response_can_contain() -> None:
    assert {name for options in CHOSEN for name in options.to_json()} == set(JSON_FIELDS)
    assert {name for options in CHOSEN for name in options.output.to_json()} == set(FIELDS)


@pytest.mark.parametrize("options", CHOSEN, ids=lambda options: str(options.to_json()))
def test_a_job_has_only_fields_of_its_schema_in_every_state(options: Options) -> None:
    done = {
        "state": "done",
        "result": Result("results", "a.png", 3, 4, 5, "0" * 64, "png"),
        "results": (ResultItem(Result("results", "a/1.png", 3, 4, 5, "0" * 64, "png"), "face", 0.5, (1, 2, 3, 4)),),
        "candidates": (Candidate(1, "a beach", 1, "local", 0.0),),
        "subject": Subject((0, 1, 2, 3), 0.5, 0.9),
        "timings": {"decode": 1.5},
        "cost_usd": 0.001,
        "finished_at": NOW,
        "webhook": Webhook("https://hooks.example/", "k"),
    }
    failed = {"state": "failed", "error": ErrorInfo("empty_file", "Empty."), "subject": Subject(None, 0, 0)}
    for changes in ({}, done, failed):
        job = queued(Source("inbox", "a.jpg", bytes=3), "default", options, NOW)
        data = Job(**{name: getattr(job, name) for name in Job.__slots__} | changes).public()
        assert not undocumented(schema.ref("Job"), data)


@pytest.mark.parametrize("options", CHOSEN, ids=lambda options: str(options.to_json()))
def test_a_preset_has_only_fields_of_its_schema(options: Options) -> None:
    responses = operations()["get", "/v1/presets"].responses[200]
    shape = responses.body["application/json"]["properties"]["presets"]["items"]
    assert not undocumented(shape, {"name": "shop", **options.to_json()})
    assert not undocumented(shape, {"name": "shop", "error": ErrorInfo("invalid_preset", "Invalid.").to_json()})


def test_an_unsupported_method_returns_405_with_the_allowed_methods() -> None:
    response = call(World(), "/v1/jobs/1", context=by(OPERATOR), method="PATCH")
    assert (response.status, response.body["error"]["code"]) == (405, "method_not_allowed")
    assert response.headers["Allow"] == "GET, DELETE"
    assert methods_at("/v1/nothing") == []


def test_the_openapi_page_loads_no_resource_from_another_server() -> None:
    markup = re.sub("(?s)<(script|style)>.*?</\\1>", "", page())
    assert "src=" not in markup
    assert "href=" not in markup
    response = call(World(), "/v1/docs", context={})
    assert response.status == 200
    policy = response.headers["Content-Security-Policy"]
    assert "connect-src 'self'" in policy
    assert "unsafe-inline" not in policy
    inline = re.findall("(?s)<(script|style)>(.*?)</\\1>", page())
    assert len(inline) == 3
    for kind, text in inline:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert re.search(rf"{kind}-src [^;]*'sha256-{re.escape(digest)}'", policy)


def test_the_openapi_page_is_compressed_once() -> None:
    assert gzip.decompress(compressed_page()).decode() == page()
    assert compressed_page() is compressed_page()

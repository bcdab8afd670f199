import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from lambdas.http.openapi import document, methods_at, operations
from lambdas.http.page import page
from lambdas.http.routes import routes
from maskdrop import schema
from maskdrop.errors import ErrorInfo
from maskdrop.guard import URL, Policy, target
from maskdrop.job import Job, Result, Source, Subject, Webhook, queued
from maskdrop.options import Options
from maskdrop.output import FIELDS, BackgroundImage, Output
from maskdrop.presets import PRESETS
from maskdrop.prompt import Prompt
from tests.fakes import NOW
from tests.unit.lambdas.http.test_routes import OPERATOR, World, by, call

OF_DIALECTS = "/v1/remove-background"
"""Below /v1, and withoutbg's."""


def valid(name: str, value: Any) -> list[str]:
    """What is wrong with a value after the schema of that name."""
    whole = {**schema.ref(name), "components": {"schemas": schema.components()}}
    return [error.message for error in Draft202012Validator(whole).iter_errors(value)]


def test_every_route_of_ours_is_described_and_nothing_else() -> None:
    app = routes("")
    known = [(route.method.lower(), route.path) for route in app._static_routes + app._dynamic_routes]
    ours = {(method, re.sub("<(.+?)>", r"{\1}", path)) for method, path in known if path.startswith("/v1/")}
    assert ours - {("post", OF_DIALECTS)} == set(operations())


def test_the_description_is_given_to_whoever_asks_and_names_each_operation_once() -> None:
    answer = call(World(), "/v1/openapi.json", context={})
    assert answer.status == 200
    assert answer.body == document()
    names = [told["operationId"] for shape in answer.body["paths"].values() for told in shape.values()]
    assert len(names) == len(set(names)) == len(operations())


def test_every_schema_that_is_referred_to_is_there() -> None:
    text = json.dumps(document())
    assert set(re.findall(r"#/components/schemas/(\w+)", text)) == set(schema.components())


def test_every_operation_but_the_open_ones_says_that_a_key_is_needed() -> None:
    is_open = [shape for shape, told in document()["paths"].items() if told.get("get", {}).get("security") == []]
    assert is_open == ["/v1/health", "/v1/openapi.json", "/v1/docs"]
    assert document()["security"]


@given(st.data())
@pytest.mark.parametrize("name", [*FIELDS])
def test_what_the_description_lets_a_field_of_the_output_be_is_understood(name: str, data: st.DataObject) -> None:
    text = data.draw(st.from_regex(re.compile(FIELDS[name].pattern, re.ASCII), fullmatch=True))
    assert Output.from_json({name: text})
    assert not valid("Output", {name: text})


# A pattern cannot say that a host has at most 253 characters in all.
@given(st.from_regex(re.compile(URL, re.ASCII), fullmatch=True).filter(lambda url: len(url) <= 253))
def test_what_the_description_calls_an_address_is_read_as_one(url: str) -> None:
    host = re.split("[/?#]", url.removeprefix("https://"))[0].removesuffix(":443")
    found = target(url, Policy(trusted=frozenset({host.lower()})))
    assert found.port == 443


@pytest.mark.parametrize("options", PRESETS.values())
def test_the_presets_own_output_is_one_that_may_be_asked_for(options: Options) -> None:
    assert not valid("Output", options.output.to_json())


def test_a_job_is_told_as_described_from_its_beginning_to_its_end() -> None:
    wall = Options(output=Output(background=BackgroundImage("inbox", "backgrounds/a.jpg")))
    boxes = Options(engine="sam", prompts=(Prompt((1, 2, 3, 4)), Prompt(None, ((1, 2, 1),))))
    done = {
        "state": "done",
        "result": Result("results", "a.png", 3, 4, 5, "0" * 64, "png"),
        "subject": Subject((0, 1, 2, 3), 0.5, 0.9),
        "timings": {"decode": 1.5},
        "cost_usd": 0.001,
        "finished_at": NOW,
        "webhook": Webhook("https://hooks.example/", "k"),
    }
    failed = {"state": "failed", "error": ErrorInfo("empty_file", "Empty."), "subject": Subject(None, 0, 0)}
    described = set(schema.components()["Job"]["properties"])
    for options in (Options(), wall, boxes):
        for changes in ({}, done, failed):
            job = queued(Source("inbox", "a.jpg", bytes=3), "default", options, NOW)
            told = Job(**{name: getattr(job, name) for name in Job.__slots__} | changes).to_json()
            assert not valid("Job", told)
            assert set(told) == described


def test_a_wrong_method_is_told_the_right_ones() -> None:
    answer = call(World(), "/v1/jobs/1", context=by(OPERATOR), method="PATCH")
    assert (answer.status, answer.body["error"]["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, DELETE"
    assert methods_at("/v1/nothing") == []


def test_the_page_asks_nobody_elses_server() -> None:
    markup = re.sub("(?s)<(script|style)>.*?</\\1>", "", page())
    assert "src=" not in markup
    assert "href=" not in markup
    answer = call(World(), "/v1/docs", context={})
    assert answer.status == 200
    assert "connect-src 'self'" in answer.headers["Content-Security-Policy"]

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lambdas import environment
from lambdas.observe import (
    CountedEditor,
    CountedEndpoint,
    CountedEvents,
    CountedSubmissions,
    metrics,
    observed,
)
from maskdrop.errors import (
    EditFiltered,
    EmptyFile,
    EndpointStarting,
    EndpointUnavailable,
    MaskdropError,
    ModelRetired,
    SpendingCapReached,
)
from maskdrop.job import dropped
from maskdrop.options import Options
from maskdrop.services import EditRequest
from maskdrop.wire import Invocation
from tests.fakes import NOW, SETTINGS, FakeEditor, FakeEndpoint, FakeEvents, a_source

CONTEXT: Any = SimpleNamespace(
    function_name="f", memory_limit_in_mb=128, invoked_function_arn="arn:aws:lambda:r:1:function:f", aws_request_id="r"
)


def sent(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Returns the metrics in the log: lines in the embedded metric format."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    return [line for line in lines if "_aws" in line]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in SETTINGS.to_env().items():
        monkeypatch.setenv(name, value)
    environment.settings.cache_clear()
    monkeypatch.setenv("POWERTOOLS_TRACE_DISABLED", "1")
    return SETTINGS.stage


def test_every_metric_of_a_handler_has_the_dimensions_service_and_stage(
    stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @observed
    def handler(event: dict[str, Any], context: Any) -> None:
        metrics().add_metric("JobsGivenUp", "Count", 1)

    for _ in range(2):  # a warm function keeps them
        handler({}, CONTEXT)
        (line,) = [one for one in sent(capsys) if "JobsGivenUp" in one]
        (dimensions,) = line["_aws"]["CloudWatchMetrics"][0]["Dimensions"]
        assert {*dimensions} == {"service", "stage"}
        assert line["stage"] == stage


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (EndpointUnavailable("Invoking the endpoint failed: ThrottlingException."), 1),
        (EndpointStarting("The endpoint is starting."), 0),
        (EmptyFile("The file is empty."), 0),
    ],
)
def test_a_refused_synchronous_request_is_counted(error: MaskdropError, counted: int) -> None:
    names: list[str] = []
    counter: Any = SimpleNamespace(add_metric=lambda name, *_: names.append(name))
    endpoint: Any = SimpleNamespace(
        cut_out=_raiser(error), segment_box=lambda _: _raiser(error)(b"", Invocation(Options()))
    )
    with pytest.raises(type(error)):
        CountedEndpoint(endpoint, counter).cut_out(b"photo", Invocation(Options()))
    with pytest.raises(type(error)):
        CountedEndpoint(endpoint, counter).segment_box(b"{}")
    assert names == ["CutoutsRefused"] * 2 * counted


def test_a_refused_submission_is_counted_and_its_reason_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    names: list[str] = []
    counter: Any = SimpleNamespace(add_metric=lambda name, *_: names.append(name))
    endpoint = FakeEndpoint()
    CountedSubmissions(endpoint, counter).submit("b1", "s3://bucket/b1")
    assert (len(endpoint.submitted), names) == (1, [])
    endpoint.unavailable = True
    with pytest.raises(EndpointUnavailable):
        CountedSubmissions(endpoint, counter).submit("b2", "s3://bucket/b2")
    assert names == ["SubmissionsRefused"]
    (line,) = [line for line in caplog.records if line.message == "bundle refused"]
    assert "ThrottlingException" in line.why  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("error", "counted"),
    [(None, ["ImagesGenerated"]), (ModelRetired("gone"), ["EditsFailed"]), (EditFiltered("refused"), [])],
)
def test_generated_images_and_failures_of_the_editor_are_counted_and_refused_texts_are_not(
    error: MaskdropError | None, counted: list[str]
) -> None:
    names: list[str] = []
    counter: Any = SimpleNamespace(add_metric=lambda name, *_: names.append(name))
    editor = CountedEditor(FakeEditor(errors=[error] if error else []), counter)
    request = EditRequest(
        image=b"", mask=b"", width=1, height=1, change="background", prompt="x", negative_prompt="", seed=0
    )
    with nullcontext() if error is None else pytest.raises(type(error)):
        editor.edit(request)
    assert names == counted


def test_a_job_that_fails_at_its_spending_cap_is_counted() -> None:
    names: list[str] = []
    counter: Any = SimpleNamespace(add_metric=lambda name, *_: names.append(name))
    job = dropped(a_source(), NOW)
    CountedEvents(FakeEvents(), counter).publish(
        [replace(job, state="failed", error=SpendingCapReached("over").info, finished_at=NOW)]
    )
    assert names == ["JobsFailed", "SpendingCapsReached"]


def _raiser(error: MaskdropError) -> Callable[..., None]:
    def cut_out(image: bytes, invocation: Invocation) -> None:
        raise error

    return cut_out

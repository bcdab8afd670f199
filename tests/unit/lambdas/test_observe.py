import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from lambdas import environment
from lambdas.observe import CountedEndpoint, CountedSubmissions, metrics, observed
from maskdrop.errors import EmptyFile, EndpointStarting, EndpointUnavailable, MaskdropError
from maskdrop.options import Options
from maskdrop.wire import Invocation
from tests.fakes import SETTINGS, FakeEndpoint

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


def _raiser(error: MaskdropError) -> Callable[..., None]:
    def cut_out(image: bytes, invocation: Invocation) -> None:
        raise error

    return cut_out

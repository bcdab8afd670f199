import json
from dataclasses import replace
from pathlib import Path

import pytest

from maskdrop.errors import InvalidOptions
from maskdrop.job import dropped
from maskdrop.options import Options
from maskdrop.output import Output
from maskdrop.prompt import Prompt
from maskdrop.wire import (
    CUSTOM_ATTRIBUTES_MAX,
    Bundle,
    BundleResponse,
    Facts,
    Invocation,
    JobMessage,
    Notification,
    Overflow,
    bundle_of,
    sources_of,
    split_s3_uri,
)
from tests.fakes import FACTS, NOW, a_failure, a_source, a_success

EVENTS = Path(__file__).parents[2] / "events"


def event(name: str) -> str:
    return (EVENTS / f"{name}.json").read_text()


def test_a_key_of_an_s3_event_is_unquoted_exactly_once() -> None:
    (source,) = sources_of(json.loads(event("s3_put")))
    assert source.key == "inbox/default/Grüße a+b%2F😀.jpg"
    assert source.version_id == "096fKKXTRTtl3on89fVO.nfljtsv6qko"
    assert (source.bytes, source.sequencer) == (1024, "0055AED6DCD90281E5")


def test_the_test_event_of_s3_has_no_objects() -> None:
    assert list(sources_of(json.loads(event("s3_test_event")))) == []


def test_an_event_of_a_deleted_object_has_no_created_objects() -> None:
    removed = json.loads(event("s3_put").replace("ObjectCreated:Put", "ObjectRemoved:Delete"))
    assert list(sources_of(removed)) == []


def test_without_versions_the_etag_tells_two_uploads_apart() -> None:
    data = json.loads(event("s3_put"))
    del data["Records"][0]["s3"]["object"]["versionId"]
    (source,) = sources_of(data)
    assert source.version_id == "d41d8cd98f00b204e9800998ecf8427e"


def test_a_bundle_survives_the_wire() -> None:
    jobs = [dropped(a_source(f"inbox/object/ü {n}.jpg"), NOW) for n in range(3)]
    bundle = bundle_of("b1", jobs, "results-bucket")
    assert Bundle.from_bytes(bundle.to_bytes()) == bundle


def test_a_full_bundle_of_long_keys_stays_far_below_what_an_invocation_may_carry() -> None:
    jobs = [dropped(a_source(f"inbox/default/{n:03}{'x' * 1000}.jpg"), NOW) for n in range(64)]
    assert len(bundle_of("b1", jobs, "results-bucket").to_bytes()) < 200_000


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b'{"bundle": "b", "items": [1]}', b"\xff\xfe"])
def test_a_body_that_is_not_a_bundle_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidOptions, match="not a bundle"):
        Bundle.from_bytes(body)


def test_a_bundle_of_65_is_refused() -> None:
    jobs = [dropped(a_source(f"inbox/default/{n}.jpg"), NOW) for n in range(65)]
    with pytest.raises(InvalidOptions, match="at most 64"):
        Bundle.from_bytes(bundle_of("b1", jobs, "r").to_bytes())


def test_a_bundle_response_survives_the_wire() -> None:
    answer = BundleResponse("b1", "cpu", 812.5, 1.127, (a_success("1"), a_failure("2", retryable=True)))
    assert BundleResponse.from_bytes(answer.to_bytes()) == answer


def test_the_cost_of_an_image_is_its_share_of_the_bundle() -> None:
    assert BundleResponse("b", "cpu", 3_600_000, 2.0, (a_success("1"), a_success("2"))).usd_per_item == 1.0
    assert BundleResponse("b", "cpu", 3_600_000, None, (a_success("1"),)).usd_per_item is None


def test_a_completed_invocation_names_its_bundle_and_its_response() -> None:
    notification = Notification.from_body(event("sagemaker_completed"))
    assert notification == Notification(
        "b1", True, "s3://results-bucket/bundles/in/b1.json", "s3://results-bucket/bundles/out/b1.out", ""
    )


def test_a_failed_invocation_names_its_bundle_and_its_reason() -> None:
    notification = Notification.from_body(event("sagemaker_failed"))
    assert not notification.completed
    assert "(500)" in notification.reason


def test_an_s3_uri_is_split_at_its_first_slash() -> None:
    assert split_s3_uri("s3://bucket/a/b c.json") == ("bucket", "a/b c.json")


def test_a_job_message_survives_the_wire() -> None:
    assert JobMessage.from_body(JobMessage("ab", 3).to_body()) == JobMessage("ab", 3)


def test_an_invocation_survives_its_header() -> None:
    options = Options(engine="grabcut", prompts=(Prompt((1, 2, 30, 40)),), output=Output(format="webp"))
    for asked in (Invocation(options), Invocation(options, Overflow("results", "results/cutouts/ü.png", 4_000_000))):
        text = asked.to_header()
        assert text.isascii()
        assert Invocation.from_header(text) == asked


def test_an_empty_header_means_the_defaults() -> None:
    assert Invocation.from_header("") == Invocation(Options())


@pytest.mark.parametrize("overflow", [[], {}, {"bucket": "b", "key": "k"}, {"bucket": "b", "key": 1, "bytes_max": 2}])
def test_an_overflow_without_a_destination_is_refused(overflow: object) -> None:
    with pytest.raises(InvalidOptions, match="overflow"):
        Invocation.from_header(json.dumps({"overflow": overflow}))


def test_facts_survive_their_header_except_for_warnings_beyond_its_length() -> None:
    facts = replace(FACTS, warnings=("wärning",))
    for known in (facts, replace(facts, place=None)):
        assert Facts.from_header(known.to_header()) == known
    wordy = replace(facts, warnings=("first", "x" * CUSTOM_ATTRIBUTES_MAX, "last"))
    text = wordy.to_header()
    assert len(text) <= CUSTOM_ATTRIBUTES_MAX
    assert Facts.from_header(text).warnings == ("first",)

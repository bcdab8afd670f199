from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from lambdas.http.dialects.removebg import CODES, FIELD_CODES, PARAMETERS, PATHS
from maskdrop.access import OPEN_PATHS, used
from maskdrop.errors import (
    EndpointStarting,
    EndpointUnavailable,
    InvalidBackground,
    MaskdropError,
    RegionEmpty,
    RegionOutside,
    ResolutionTooHigh,
    UnreadablePicture,
    UnsupportedFormat,
)
from maskdrop.guard import Policy, target
from maskdrop.job import SENT_BACKGROUNDS_PREFIX
from maskdrop.now import BYTES_MAX
from maskdrop.options import Options
from maskdrop.output import BackgroundImage, Output
from maskdrop.services import Download
from maskdrop.wire import Invocation, Reply
from tests.fakes import NOW, FakeInteractive, FakeWeb, World
from tests.unit.lambdas.http.vendors import ENCODED, PHOTO, Answer, call, in_json, multipart, urlencoded

PATH = "/v1.0/removebg"

ADDRESS = "https://example.com/a.jpg"


class GuardedWeb(FakeWeb):
    """Refuses what the guard refuses."""

    def fetch(self, url: str) -> Download:
        target(url, Policy())
        return super().fetch(url)


class NothingFound(FakeInteractive):
    """Answers as where no subject is."""

    def cut_out(self, picture: bytes, asked: Invocation) -> Reply:
        reply = super().cut_out(picture, asked)
        return replace(reply, facts=replace(reply.facts, place=None))


def post(world: World, fields: dict[str, str | bytes], **headers: str) -> Answer:
    body, content_type = multipart(fields)
    return call(world, "POST", PATH, body=body, content_type=content_type, headers=headers)


def asked(**fields: str) -> Output:
    """The output that is asked of the endpoint for a file with these fields."""
    world = World()
    answer = post(world, {"image_file": PHOTO, **fields})
    assert answer.status == 200, answer.body
    [(picture, invocation)] = world.interactive.asked
    assert picture == PHOTO
    return invocation.options.output


def refused(answer: Answer) -> tuple[int, str]:
    [error] = answer.json["errors"]
    assert error["title"]
    return answer.status, error["code"]


@pytest.mark.parametrize(
    "body",
    [
        multipart({"image_file": PHOTO, "size": "regular"}),
        multipart({"image_file_b64": ENCODED}),
        multipart({"image_url": ADDRESS}),
        urlencoded({"image_file_b64": ENCODED, "size": "regular"}),
        urlencoded({"image_url": ADDRESS}),
        in_json({"image_file_b64": ENCODED, "crop": False, "roi": None}),
        in_json({"image_url": ADDRESS, "crop": False}),
    ],
)
def test_a_picture_comes_in_by_every_source_and_every_kind_of_body(body: tuple[bytes, str]) -> None:
    world = World()
    world.web.pictures[ADDRESS] = Download(PHOTO, "image/jpeg")
    answer = call(world, "POST", PATH, body=body[0], content_type=body[1])
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"a cut-out", "image/png")
    assert world.interactive.asked[0][0] == PHOTO
    assert world.interactive.asked[0][1].options == Options(output=Output(size="preview"))
    assert used(world.registry, "ann", f"{NOW:%Y-%m}")["pictures"] == 1


def test_the_answer_in_json_holds_the_picture_in_base64() -> None:
    answer = post(World(), {"image_file": PHOTO}, Accept="application/json")
    assert base64.b64decode(answer.json["data"]["result_b64"]) == b"a cut-out"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-width"] == "640"


def test_the_headers_say_what_the_vendors_say() -> None:
    answer = post(World(), {"image_file": PHOTO, "size": "full"}, Accept="*/*")
    assert {name: answer.headers[name] for name in answer.headers if name.startswith("x-") and "mask" not in name} == {
        "x-width": "640",
        "x-height": "480",
        "x-max-width": "1280",
        "x-max-height": "960",
        "x-type": "person",
        "x-credits-charged": "0",
        "x-foreground-top": "2",
        "x-foreground-left": "1",
        "x-foreground-width": "29",
        "x-foreground-height": "38",
        "x-ratelimit-limit": "3",
        "x-ratelimit-remaining": "2",
        "x-ratelimit-reset": str(int(NOW.timestamp()) + 60),
    }


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"type": "product"}, "product"),
        ({"type": "no\r\nsuch type"}, "person"),
        ({"type_level": "none"}, None),
        ({"type_level": "2"}, "person"),
    ],
)
def test_the_type_is_the_one_asked_for_and_may_be_left_out(fields: dict[str, str | bytes], told: str | None) -> None:
    assert post(World(), {"image_file": PHOTO, **fields}).headers.get("x-type") == told


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        ({}, {"size": "preview"}),
        ({"size": "auto"}, {}),
        ({"size": "4k"}, {}),
        ({"size": "hd"}, {"size": "hd"}),
        ({"format": "zip"}, {"format": "zip", "size": "preview"}),
        ({"format": "auto", "bg_color": "fff"}, {"format": "jpg", "size": "preview", "background": "white"}),
        ({"bg_color": "#81d4fa80"}, {"size": "preview", "background": "#81d4fa80"}),
        ({"bg_color": "salmon", "format": "png"}, {"size": "preview", "background": "salmon"}),
        ({"channels": "alpha"}, {"channels": "alpha", "size": "preview"}),
        ({"roi": "10% 20% 50px 100%"}, {"roi": "10% 20% 50px 100%", "size": "preview"}),
        ({"crop": "true"}, {"crop": "true", "size": "preview"}),
        ({"crop": "true", "crop_margin": "10px 20%"}, {"crop": "10px 20%", "size": "preview"}),
        ({"crop": "false", "crop_margin": "10px"}, {"size": "preview"}),
        ({"crop_margin": "10px"}, {"size": "preview"}),
        ({"scale": "80%"}, {"scale": "80%", "size": "preview"}),
        ({"scale": "original", "position": "center"}, {"position": "center", "size": "preview"}),
        ({"position": "20% 30%"}, {"position": "20% 30%", "size": "preview"}),
        ({"add_shadow": "true", "shadow_method": "latest", "semitransparency": "false"}, {"size": "preview"}),
    ],
)
def test_every_parameter_means_one_of_our_options(fields: dict[str, str], meant: dict[str, str]) -> None:
    assert asked(**fields) == Output.from_json(meant)


def test_an_empty_field_is_absent_and_an_unknown_one_ignored() -> None:
    empty = dict.fromkeys([*PARAMETERS, "image_url", "image_file_b64", "bg_image_url", "type_level", "crop"], "")
    assert asked(**empty, colour="red") == Output(size="preview")


@pytest.mark.parametrize("way", ["file", "url"])
def test_an_image_for_behind_the_subject_is_put_where_the_endpoint_reads_it(way: str) -> None:
    world = World()
    world.web.pictures["https://example.com/wall.jpg"] = Download(b"a wall", "image/jpeg")
    sent: dict[str, str | bytes] = {
        "file": {"bg_image_file": b"a wall"},
        "url": {"bg_image_url": "https://example.com/wall.jpg"},
    }[way]  # type: ignore[assignment]
    assert post(world, {"image_file": PHOTO, **sent}).status == 200
    output = world.interactive.asked[0][1].options.output
    assert isinstance(output.background, BackgroundImage)
    assert output.format == "jpg"
    assert output.background.key.startswith(SENT_BACKGROUNDS_PREFIX)
    assert world.storage.objects[output.background.bucket, output.background.key] == b"a wall"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "missing_source"),
        ({"image_file": b""}, "missing_source"),
        ({"image_file": PHOTO, "image_url": ADDRESS}, "multiple_sources"),
        ({"image_file_b64": "no base64!"}, "failed_to_read_image"),
        ({"image_url": "file:///etc/passwd"}, "invalid_image_url"),
        ({"image_url": "https://nowhere.example/"}, "failed_image_download"),
        ({"image_file": b"x" * (BYTES_MAX + 1)}, "file_too_large"),
        ({"image_file": PHOTO, "size": "huge"}, "invalid_size"),
        ({"image_file": PHOTO, "format": "bmp"}, "invalid_format"),
        ({"image_file": PHOTO, "roi": "1 2 3"}, "invalid_roi"),
        ({"image_file": PHOTO, "crop": "true", "crop_margin": "501px"}, "invalid_crop_margin"),
        ({"image_file": PHOTO, "scale": "9%"}, "invalid_scale"),
        ({"image_file": PHOTO, "position": "left"}, "invalid_position"),
        ({"image_file": PHOTO, "channels": "rgb"}, "invalid_channels"),
        ({"image_file": PHOTO, "channels": b"\xff"}, "invalid_channels"),
        ({"image_file": PHOTO, "semitransparency": "no"}, "invalid_semitransparency"),
        ({"image_file": PHOTO, "bg_color": "no colour"}, "invalid_bg_color"),
        ({"image_file": PHOTO, "bg_color": "s3://inbox-bucket/inbox/another-owners.jpg"}, "invalid_bg_color"),
        ({"image_file": PHOTO, "bg_color": "red", "bg_image_url": ADDRESS}, "multiple_bg_sources"),
        ({"image_file": PHOTO, "bg_image_url": "file:///etc/passwd"}, "invalid_bg_image_url"),
        ({"image_file": PHOTO, "bg_image_url": "https://nowhere.example/"}, "failed_bg_download"),
        ({"image_file": PHOTO, "bg_image_file": b"a wall", "channels": "alpha"}, "invalid_channels"),
    ],
)
def test_what_is_wrong_with_a_request_has_the_vendors_code(fields: dict[str, str | bytes], code: str) -> None:
    world = World(web=GuardedWeb())
    assert refused(post(world, fields)) == (400, code)
    assert (world.interactive.asked, world.storage.objects) == ([], {})


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", ""),
        (PHOTO, "image/jpeg"),
        (PHOTO, "application/x-www-form-urlencoded"),
        (PHOTO, "multipart/form-data"),
        (b"{", "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"[1]", "application/json"),
        (b'{"image_url": ["https://example.com/"]}', "application/json"),
        (b'{"image_file_b64": {}}', "application/json"),
    ],
)
def test_a_body_that_is_no_form_and_no_object_is_refused(body: bytes, content_type: str) -> None:
    assert call(World(), "POST", PATH, body=body, content_type=content_type).status == 400


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UnreadablePicture, 400, "failed_to_read_image"),
        (UnsupportedFormat, 400, "invalid_file_type"),
        (ResolutionTooHigh, 400, "resolution_too_high"),
        (RegionOutside, 400, "roi_exceeds_bounds"),
        (RegionEmpty, 400, "roi_region_empty"),
        (InvalidBackground, 400, "failed_bg_download"),
        (EndpointUnavailable, 503, "endpoint_unavailable"),
        (EndpointStarting, 503, "endpoint_unavailable"),
    ],
)
def test_what_the_container_finds_wrong_has_the_vendors_code(
    error: type[MaskdropError], status: int, code: str
) -> None:
    world = World()
    world.interactive.broken = error("It went wrong.")
    answer = post(world, {"image_file": PHOTO})
    assert refused(answer) == (status, code)
    assert ("retry-after" in answer.headers) == error.retryable
    assert (world.jobs.records, world.queue.sent) == ({}, [])


def test_a_picture_without_a_subject_is_an_error_there() -> None:
    assert refused(post(World(interactive=NothingFound()), {"image_file": PHOTO})) == (400, "unknown_foreground")


def test_a_call_too_many_is_told_when_to_come_again() -> None:
    world = World()
    answers = [post(world, {"image_file": PHOTO}) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert refused(answers[-1]) == (429, "rate_limit_exceeded")
    assert answers[-1].headers["retry-after"] == "60"


def test_no_address_is_open_and_who_signs_instead_is_answered_in_the_same_form() -> None:
    assert not set(PATHS) & set(OPEN_PATHS)
    signed = call(World(), "POST", f"/iam{PATH}", content_type="application/json", body=b"{}", caller=None)
    assert refused(signed) == (400, "missing_source")


def test_a_result_that_is_too_large_is_redirected_to_and_in_json_refused() -> None:
    world = World()
    world.interactive.result = b"x" * (BYTES_MAX + 1)
    answer = post(world, {"image_file": PHOTO})
    assert answer.status == 303
    assert answer.headers["location"].startswith("https://results-bucket/results/cutouts/")
    assert refused(answer) == (303, "file_too_large")
    assert refused(post(world, {"image_file": PHOTO}, Accept="application/json")) == (400, "resolution_too_high")


def test_an_account_has_credits_for_clients_that_look_first() -> None:
    attributes = call(World(), "GET", "/v1.0/account").json["data"]["attributes"]
    assert attributes["credits"].keys() == {"total", "subscription", "payg", "enterprise"}
    assert attributes["credits"]["total"] > 0
    assert attributes["api"]["sizes"] == "all"


def test_a_picture_to_improve_on_is_kept_with_the_uploads() -> None:
    world = World()
    body, content_type = multipart({"image_file": PHOTO, "tag": "shoes"})
    told = call(world, "POST", "/v1.0/improve", body=body, content_type=content_type).json
    assert world.storage.objects == {("inbox-bucket", f"uploads/improve/{told['id']}"): PHOTO}


def test_every_row_of_the_tables_is_of_use() -> None:
    assert set(PARAMETERS.values()) <= FIELD_CODES.keys()
    assert all(code != kind.code for kind, code in CODES.items())

from __future__ import annotations

import base64
import gzip
from dataclasses import replace

import pytest

from lambdas.http.cutouts import BODY_MAX
from lambdas.http.dialects.removebg import CODES, FIELD_CODES, PARAMETERS, PATHS, TITLES
from maskdrop.access import OPEN_PATHS, usage_of
from maskdrop.background import BackgroundImage
from maskdrop.catalog import SubjectKind
from maskdrop.errors import (
    DecodingLimit,
    EndpointStarting,
    EndpointUnavailable,
    InvalidBackground,
    MaskdropError,
    RegionEmpty,
    RegionOutside,
    ResolutionTooHigh,
    UnknownEngine,
    UnreadableImage,
    UnsupportedFormat,
)
from maskdrop.interactive import BYTES_MAX
from maskdrop.job import SENT_BACKGROUNDS_PREFIX
from maskdrop.options import Options
from maskdrop.output import Output
from maskdrop.services import Download
from maskdrop.ssrf import Policy, target
from maskdrop.wire import ImageResponse, Invocation
from tests.fakes import NOW, FakeInteractive, FakeWeb, World
from tests.unit.lambdas.http.vendors import ENCODED, PHOTO, Response, call, in_json, multipart, urlencoded

PATH = "/v1.0/removebg"

URL = "https://example.com/a.jpg"


class CheckedWeb(FakeWeb):
    """Checks URLs like the real adapter."""

    def fetch(self, url: str) -> Download:
        target(url, Policy())
        return super().fetch(url)


class NoSubject(FakeInteractive):
    """Returns a result without a subject."""

    def cut_out(self, image: bytes, invocation: Invocation) -> ImageResponse:
        reply = super().cut_out(image, invocation)
        return replace(reply, facts=replace(reply.facts, place=None))


def post(world: World, fields: dict[str, str | bytes], **headers: str) -> Response:
    body, content_type = multipart(fields)
    return call(world, "POST", PATH, body=body, content_type=content_type, headers=headers)


def requested_output(**fields: str) -> Output:
    """Returns the output options that the endpoint receives for a request with these fields."""
    world = World()
    response = post(world, {"image_file": PHOTO, **fields})
    assert response.status == 200, response.body
    image, invocation = world.interactive.requests[-1]
    assert image == PHOTO
    return invocation.options.output


def error_of(response: Response) -> tuple[int, str]:
    [error] = response.json["errors"]
    assert error["title"]
    assert error["code"] not in TITLES or error["title"] == TITLES[error["code"]]
    return response.status, error["code"]


@pytest.mark.parametrize(
    "body",
    [
        multipart({"image_file": PHOTO, "size": "regular"}),
        multipart({"image_file_b64": ENCODED}),
        multipart({"image_url": URL}),
        urlencoded({"image_file_b64": ENCODED, "size": "regular"}),
        urlencoded({"image_url": URL}),
        in_json({"image_file_b64": ENCODED, "crop": False, "roi": None}),
        in_json({"image_url": URL, "crop": False}),
    ],
)
def test_every_image_source_works_in_every_kind_of_body(body: tuple[bytes, str]) -> None:
    world = World()
    world.web.images[URL] = Download(PHOTO, "image/jpeg")
    response = call(world, "POST", PATH, body=body[0], content_type=body[1])
    assert (response.status, response.body, response.headers["content-type"]) == (200, b"a cut-out", "image/png")
    assert world.interactive.requests[0][0] == PHOTO
    assert world.interactive.requests[0][1].options == Options(output=Output(size="preview"))
    assert usage_of(world.registry, "ann", f"{NOW:%Y-%m}")["pictures"] == 1


def test_a_json_response_has_the_result_in_base64() -> None:
    response = post(World(), {"image_file": PHOTO}, Accept="application/json")
    data = response.json["data"]
    assert base64.b64decode(data.pop("result_b64")) == b"a cut-out"
    assert data == {"foreground_top": 2, "foreground_left": 1, "foreground_width": 29, "foreground_height": 38}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-width"] == "640"


def test_the_response_has_the_headers_of_remove_bg() -> None:
    response = post(World(), {"image_file": PHOTO, "size": "full"}, Accept="*/*")
    assert {
        name: response.headers[name] for name in response.headers if name.startswith("x-") and "mask" not in name
    } == {
        "x-content-type-options": "nosniff",
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
    ("kind", "fields", "expected"),
    [
        ("person", {}, "person"),
        ("person", {"type": "AUTO"}, "person"),
        ("person", {"type": "no\r\nsuch type"}, "person"),
        ("person", {"type_level": "2"}, "person"),
        ("person", {"type_level": "None"}, None),
        ("thing", {}, "other"),
        ("unknown", {}, "other"),
        ("unknown", {"type": "Car"}, "car"),
        ("unknown", {"type": "animal"}, "animal"),
        ("unknown", {"type": "graphics"}, "graphics"),
        ("unknown", {"type": "transportation", "type_level": "2"}, "transportation"),
        ("unknown", {"type": "transportation", "type_level": "latest"}, "transportation"),
        ("unknown", {"type": "transportation", "type_level": "1"}, "other"),
        ("unknown", {"type": "product", "type_level": "1"}, "product"),
        ("person", {"type": "person"}, "person"),
    ],
)
def test_x_type_is_the_requested_type_or_the_kind_of_the_subject_that_was_found(
    kind: SubjectKind, fields: dict[str, str | bytes], expected: str | None
) -> None:
    world = World()
    world.interactive.kind = kind
    assert post(world, {"image_file": PHOTO, **fields}).headers.get("x-type") == expected


@pytest.mark.parametrize(
    ("fields", "kind", "engines"),
    [
        ({}, "person", ["auto"]),
        ({"type": "auto"}, "thing", ["auto"]),
        ({"type": "sandwich"}, "thing", ["auto"]),
        ({"type": "person"}, "person", ["auto"]),
        ({"type": "Person"}, "thing", ["auto", "portrait"]),
        ({"type": "person"}, "none", ["auto", "portrait"]),
        ({"type": "car"}, "thing", ["auto"]),
        ({"type": "car"}, "none", ["auto", "u2netp"]),
        *(
            ({"type": name}, "person", ["auto", "u2netp"])
            for name in ("product", "animal", "Car", "car_part", "transportation", "graphics")
        ),
    ],
)
def test_the_engine_of_the_type_runs_where_the_default_engine_finds_another_subject(
    fields: dict[str, str | bytes], kind: SubjectKind, engines: list[str]
) -> None:
    world = World()
    world.interactive.kind = kind
    assert post(world, {"image_file": PHOTO, **fields}).status == 200
    assert [invocation.options.engine for _, invocation in world.interactive.requests] == engines
    assert usage_of(world.registry, "ann", f"{NOW:%Y-%m}")["pictures"] == 1


class WithoutThings(FakeInteractive):
    """An endpoint without the weights of u2netp."""

    def cut_out(self, image: bytes, invocation: Invocation) -> ImageResponse:
        if invocation.options.engine == "u2netp":
            raise UnknownEngine("The engine 'u2netp' is not installed.")
        return super().cut_out(image, invocation)


def test_a_type_whose_engine_is_not_installed_uses_the_default_engine_and_reports_what_that_found() -> None:
    response = post(World(interactive=WithoutThings()), {"image_file": PHOTO, "type": "product"})
    assert (response.status, response.headers["x-type"]) == (200, "person")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"size": "preview"}),
        ({"size": "auto"}, {}),
        ({"size": "4k"}, {}),
        ({"size": "4K"}, {}),
        ({"size": "50MP"}, {}),
        ({"size": "50mp"}, {}),
        ({"size": "Full"}, {}),
        ({"size": "HD", "format": "PNG", "channels": "RGBA"}, {"size": "hd"}),
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
        *(({"crop": word}, {"crop": "true", "size": "preview"}) for word in ("True", "TRUE", "1", "yes", "on")),
        *(({"crop": word, "crop_margin": "1px"}, {"size": "preview"}) for word in ("False", "FALSE", "0", "no", "off")),
        ({"semitransparency": "False"}, {"size": "preview"}),
        ({"scale": "80%"}, {"scale": "80%", "size": "preview"}),
        ({"scale": "original", "position": "center"}, {"position": "center", "size": "preview"}),
        ({"position": "20% 30%"}, {"position": "20% 30%", "size": "preview"}),
        ({"add_shadow": "true", "shadow_method": "latest", "semitransparency": "false"}, {"size": "preview"}),
        ({"add_shadow": "true", "type": "car"}, {"shadow": "contact", "size": "preview"}),
        ({"add_shadow": "True", "type": "car"}, {"shadow": "contact", "size": "preview"}),
        ({"add_shadow": "1", "type": "car", "shadow_opacity": "40"}, {"shadow": "contact 40%", "size": "preview"}),
        ({"shadow_type": "drop"}, {"shadow": "drop", "size": "preview"}),
        ({"shadow_type": "DROP", "shadow_opacity": "40%"}, {"shadow": "drop 40%", "size": "preview"}),
        ({"shadow_type": "3D", "shadow_opacity": "12.5"}, {"shadow": "contact 12.5%", "size": "preview"}),
        ({"shadow_type": "contact", "add_shadow": "false"}, {"shadow": "contact", "size": "preview"}),
        ({"shadow_type": "none", "shadow_opacity": "40", "add_shadow": "true", "type": "car"}, {"size": "preview"}),
        ({"add_shadow": "false", "type": "car"}, {"size": "preview"}),
        ({"add_shadow": "true", "type": "car", "channels": "alpha"}, {"channels": "alpha", "size": "preview"}),
    ],
)
def test_parameters_are_translated_to_output_options(fields: dict[str, str], expected: dict[str, str]) -> None:
    assert requested_output(**fields) == Output.from_json(expected)


def test_empty_and_unknown_fields_are_ignored() -> None:
    empty = dict.fromkeys([*PARAMETERS, "image_url", "image_file_b64", "bg_image_url", "type_level", "crop"], "")
    assert requested_output(**empty, colour="red") == Output(size="preview")


@pytest.mark.parametrize("source", ["file", "url", "data URL"])
def test_a_background_image_is_stored_in_the_inbox(source: str) -> None:
    world = World()
    world.web.images["https://example.com/wall.jpg"] = Download(b"a wall", "image/jpeg")
    fields: dict[str, str | bytes] = {
        "file": {"bg_image_file": b"a wall"},
        "url": {"bg_image_url": "https://example.com/wall.jpg"},
        "data URL": {"bg_image_url": f"data:image/jpeg;base64,{base64.b64encode(b'a wall').decode()}"},
    }[source]  # type: ignore[assignment]
    assert post(world, {"image_file": PHOTO, **fields}).status == 200
    output = world.interactive.requests[0][1].options.output
    assert isinstance(output.background, BackgroundImage)
    assert output.format == "jpg"
    assert output.background.key.startswith(SENT_BACKGROUNDS_PREFIX)
    assert world.storage.objects[output.background.bucket, output.background.key] == b"a wall"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "missing_source"),
        ({"image_file": b""}, "missing_source"),
        ({"image_file": PHOTO, "image_url": URL}, "multiple_sources"),
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
        ({"image_file": PHOTO, "semitransparency": "maybe"}, "invalid_semitransparency"),
        ({"image_file": PHOTO, "crop": "perhaps"}, "invalid_crop_margin"),
        ({"image_file": PHOTO, "crop": "true", "crop_margin": "false"}, "invalid_crop_margin"),
        ({"image_file": PHOTO, "add_shadow": "2"}, "invalid_add_shadow"),
        ({"image_file": PHOTO, "shadow_type": "moon"}, "invalid_shadow_type"),
        ({"image_file": PHOTO, "shadow_type": "drop", "shadow_opacity": "101"}, "invalid_shadow_opacity"),
        ({"image_url": "data:image/jpeg;base64,no!"}, "invalid_image_url"),
        ({"image_url": "data:image/svg+xml,%3Csvg%3E"}, "invalid_image_url"),
        ({"image_file": PHOTO, "bg_image_url": "data:image/jpeg;base64,!"}, "invalid_bg_image_url"),
        ({"image_file": PHOTO, "bg_color": "no colour"}, "invalid_bg_color"),
        ({"image_file": PHOTO, "bg_color": "s3://inbox-bucket/inbox/another-owners.jpg"}, "invalid_bg_color"),
        ({"image_file": PHOTO, "bg_color": "red", "bg_image_url": URL}, "multiple_bg_sources"),
        ({"image_file": PHOTO, "bg_image_url": "file:///etc/passwd"}, "invalid_bg_image_url"),
        ({"image_file": PHOTO, "bg_image_url": "https://nowhere.example/"}, "failed_bg_download"),
        ({"image_file": PHOTO, "bg_image_file": b"a wall", "channels": "alpha"}, "invalid_channels"),
    ],
)
def test_an_invalid_request_returns_the_error_code_of_remove_bg(fields: dict[str, str | bytes], code: str) -> None:
    world = World(web=CheckedWeb())
    response = post(world, fields)
    assert error_of(response) == (400, code)
    assert b"output." not in response.body
    assert (world.interactive.requests, world.storage.objects) == ([], {})


DATA_URL = f"data:image/jpeg;base64,{ENCODED}"

URL_SAFE = ENCODED.replace("+", "-").replace("/", "_").rstrip("=")


@pytest.mark.parametrize(
    "body",
    [
        in_json({"image_url": DATA_URL}),
        in_json({"image_file_b64": DATA_URL}),
        in_json({"image_file": DATA_URL}),
        in_json({"image_file": ENCODED}),
        in_json({"image_file_b64": URL_SAFE}),
        in_json({"image_file_b64": "\r\n".join(ENCODED[at : at + 76] for at in range(0, len(ENCODED), 76))}),
        multipart({"image_url": DATA_URL.replace("data:", "DATA:")}),
        urlencoded({"image_url": DATA_URL}),
        (f"image_file_b64={ENCODED}".encode(), "application/x-www-form-urlencoded"),
        (b"\xef\xbb\xbf" + in_json({"image_file_b64": ENCODED})[0], "Application/JSON; charset=utf-8"),
    ],
)
def test_an_image_in_base64_is_accepted_in_every_form_that_clients_write(body: tuple[bytes, str]) -> None:
    world = World()
    response = call(world, "POST", PATH, body=body[0], content_type=body[1])
    assert response.status == 200, response.body
    assert world.interactive.requests[0][0] == PHOTO


def test_json_may_have_booleans_and_numbers() -> None:
    world = World()
    fields = {"image_file_b64": ENCODED, "crop": True, "crop_margin": 0, "add_shadow": False, "type_level": 1}
    fields |= {"shadow_type": "drop", "shadow_opacity": 40, "semitransparency": True, "size": "auto", "scale": None}
    body, content_type = in_json(fields)
    assert call(world, "POST", PATH, body=body, content_type=content_type).status == 200
    output = world.interactive.requests[0][1].options.output
    assert output == Output.from_json({"crop": "true", "shadow": "drop 40%"})


def test_a_body_may_be_compressed_with_gzip() -> None:
    body, content_type = in_json({"image_file_b64": ENCODED})
    packed, headers = gzip.compress(body), {"Content-Encoding": "gzip"}
    world = World()
    assert call(world, "POST", PATH, body=packed, content_type=content_type, headers=headers).status == 200
    assert world.interactive.requests[0][0] == PHOTO


@pytest.mark.parametrize(
    ("body", "coding", "reason"),
    [
        (gzip.compress(b"{}" * 100)[:-20], "gzip", "ends before the end"),
        (b"{}", "gzip", "valid gzip"),
        (gzip.compress(bytes(10 * BODY_MAX)), "gzip", "too large"),
        (b"{}", "br", "must be gzip or absent"),
    ],
)
def test_a_compressed_body_that_is_damaged_or_too_large_returns_400(body: bytes, coding: str, reason: str) -> None:
    headers = {"Content-Encoding": coding}
    response = call(World(), "POST", PATH, body=body, content_type="application/json", headers=headers)
    [error] = response.json["errors"]
    assert response.status == 400
    assert reason in error["title"] + error["detail"]


@pytest.mark.parametrize(
    ("body", "right"),
    [
        (multipart({"image": PHOTO}), "'image_file'"),
        (multipart({"file": PHOTO, "size": "auto"}), "'image_file'"),
        (multipart({"photo": b"\xff\xd8\xff" + b"a" * 80}), "'image_file'"),
        (in_json({"image": ENCODED}), "'image_file_b64'"),
        (in_json({"url": URL}), "'image_url'"),
        (urlencoded({"source": URL}), "'image_url'"),
        (in_json({"image_base64": DATA_URL}), "'image_url'"),
    ],
)
def test_an_image_in_an_unknown_field_returns_the_name_of_the_right_field(body: tuple[bytes, str], right: str) -> None:
    response = call(World(), "POST", PATH, body=body[0], content_type=body[1])
    assert error_of(response) == (400, "missing_source")
    assert right in response.json["errors"][0]["detail"]


def test_a_request_without_a_body_has_no_image() -> None:
    assert error_of(call(World(), "POST", PATH)) == (400, "missing_source")


def test_an_unknown_field_beside_the_image_is_ignored() -> None:
    assert post(World(), {"image_file": PHOTO, "thumbnail": PHOTO}).status == 200


def test_a_failed_download_has_the_title_of_remove_bg_with_the_reason() -> None:
    [error] = post(World(), {"image_url": URL}).json["errors"]
    assert error["code"] == "failed_image_download"
    assert error["title"].startswith("Failed to download image from given image_url: ")


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
def test_a_body_that_is_neither_a_form_nor_an_object_returns_400(body: bytes, content_type: str) -> None:
    assert call(World(), "POST", PATH, body=body, content_type=content_type).status == 400


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UnreadableImage, 400, "failed_to_read_image"),
        (DecodingLimit, 400, "failed_to_read_image"),
        (UnsupportedFormat, 400, "invalid_file_type"),
        (ResolutionTooHigh, 400, "resolution_too_high"),
        (RegionOutside, 400, "roi_exceeds_bounds"),
        (RegionEmpty, 400, "roi_region_empty"),
        (InvalidBackground, 400, "failed_bg_download"),
        (EndpointUnavailable, 503, "endpoint_unavailable"),
        (EndpointStarting, 503, "endpoint_unavailable"),
    ],
)
def test_an_error_of_the_container_returns_the_error_code_of_remove_bg(
    error: type[MaskdropError], status: int, code: str
) -> None:
    world = World()
    world.interactive.broken = error("It went wrong.")
    response = post(world, {"image_file": PHOTO})
    assert error_of(response) == (status, code)
    assert ("retry-after" in response.headers) == error.retryable
    assert (world.jobs.records, world.queue.sent) == ({}, [])


def test_an_image_without_a_subject_returns_unknown_foreground() -> None:
    assert error_of(post(World(interactive=NoSubject()), {"image_file": PHOTO})) == (400, "unknown_foreground")


def test_a_request_above_the_rate_limit_returns_429_with_retry_after() -> None:
    world = World()
    responses = [post(world, {"image_file": PHOTO}) for _ in range(4)]
    assert [response.status for response in responses] == [200, 200, 200, 429]
    assert error_of(responses[-1]) == (429, "rate_limit_exceeded")
    assert responses[-1].headers["retry-after"] == "60"


def test_every_path_requires_a_caller_and_signed_requests_get_errors_in_the_same_format() -> None:
    assert not set(PATHS) & set(OPEN_PATHS)
    signed = call(World(), "POST", f"/iam{PATH}", content_type="application/json", body=b"{}", caller=None)
    assert error_of(signed) == (400, "missing_source")


def test_a_result_that_is_too_large_returns_a_redirect_and_an_error_for_json() -> None:
    world = World()
    world.interactive.result = b"x" * (BYTES_MAX + 1)
    response = post(world, {"image_file": PHOTO})
    assert response.status == 303
    assert response.headers["location"].startswith("https://results-bucket/results/cutouts/")
    assert error_of(response) == (303, "file_too_large")
    assert error_of(post(world, {"image_file": PHOTO}, Accept="application/json")) == (400, "resolution_too_high")


def test_the_account_has_credits() -> None:
    attributes = call(World(), "GET", "/v1.0/account").json["data"]["attributes"]
    assert attributes["credits"].keys() == {"total", "subscription", "payg", "enterprise"}
    assert attributes["credits"]["total"] > 0
    assert attributes["api"]["sizes"] == "all"


def test_improve_stores_the_image_with_the_uploads() -> None:
    world = World()
    body, content_type = multipart({"image_file": PHOTO, "tag": "shoes"})
    data = call(world, "POST", "/v1.0/improve", body=body, content_type=content_type).json
    assert world.storage.objects == {("inbox-bucket", f"uploads/improve/{data['id']}"): PHOTO}


def test_every_parameter_has_an_error_code_and_no_code_is_redundant() -> None:
    assert set(PARAMETERS.values()) <= FIELD_CODES.keys()
    assert all(code != kind.code for kind, code in CODES.items())


@pytest.mark.parametrize(
    ("headers", "title"), [({}, "Missing API Key"), ({"X-API-Key": "nobody's"}, "API Key invalid")]
)
def test_a_caller_without_a_valid_key_gets_the_error_of_remove_bg(headers: dict[str, str], title: str) -> None:
    body, content_type = multipart({"image_file": PHOTO})
    response = call(World(), "POST", PATH, body=body, content_type=content_type, headers=headers, caller=None, arn=None)
    [error] = response.json["errors"]
    assert (response.status, error["code"], error["title"]) == (403, "auth_failed", title)

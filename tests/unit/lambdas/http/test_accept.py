from __future__ import annotations

import pytest

from lambdas.http.accept import prefers_json
from tests.fakes import World
from tests.unit.lambdas.http.vendors import PHOTO, call, multipart

FILE, JSON = False, True


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", FILE),
        ("*/*", FILE),
        ("image/png", FILE),
        ("image/*", FILE),
        ("text/html", FILE),
        ("application/json, text/plain, */*", FILE),  # axios, Angular
        ("application/json, */*", FILE),
        ("image/png, application/json", FILE),
        ("application/json, image/png", FILE),
        ("application/json;q=0.5, image/*;q=0.8", FILE),
        ("application/json;q=0, */*", FILE),
        ("application/json;q=0", FILE),
        ("*/*;q=0.8, application/json;q=0.7", FILE),
        ("application/*;q=0.5, image/png;q=0.5", FILE),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", FILE),  # browsers
        # The HTTP node of n8n, where the format of the response is a file or detected.
        (
            "application/json,text/html,application/xhtml+xml,application/xml,text/*;q=0.9, image/*;q=0.8, */*;q=0.7",
            FILE,
        ),
        ("nonsense", FILE),
        ("application/json;q=high", FILE),
        ("application/json;q=1.5", FILE),
        (",;,", FILE),
        ("application/json", JSON),
        ("APPLICATION/JSON", JSON),
        ("application/json; charset=utf-8", JSON),
        ("application/json;q=0.3", JSON),
        ("application/json, text/plain", JSON),
        ("application/json, */*;q=0.1", JSON),
        ("application/json, text/javascript, */*; q=0.01", JSON),  # jQuery
        ("application/json,text/*;q=0.99", JSON),  # the HTTP node of n8n, where the response is JSON
        ("application/json, image/*;q=0.9", JSON),
        ("image/*;q=0.8 , application/json ; q=0.9", JSON),
        ("*/*, image/*;q=0.2", JSON),
        ("application/*", JSON),
        ("image/png;q=0, */*", JSON),
    ],
)
def test_json_is_preferred_where_its_quality_is_higher_than_that_of_the_file(accept: str, expected: bool) -> None:
    assert prefers_json(accept, "image/png") is expected


def test_a_range_that_matches_the_type_of_the_file_counts() -> None:
    assert not prefers_json("application/*", "application/zip")
    assert prefers_json("application/json, application/zip;q=0.5", "application/zip")


@pytest.mark.parametrize(
    ("headers", "content_type"),
    [
        ({}, "image/png"),
        ({"accept": "application/json"}, "application/json"),
        ({"ACCEPT": "application/json, text/plain, */*"}, "image/png"),
    ],
)
def test_remove_bg_returns_the_representation_that_the_header_prefers(
    headers: dict[str, str], content_type: str
) -> None:
    body, form = multipart({"image_file": PHOTO})
    response = call(World(), "POST", "/v1.0/removebg", body=body, content_type=form, headers=headers)
    assert (response.status, response.headers["content-type"]) == (200, content_type)

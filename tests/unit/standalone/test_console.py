"""The web console of `maskdrop serve`."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from maskdrop.console import HEADERS
from standalone.console import routes
from tests.unit.standalone.conftest import Start

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def console(tmp_path: Path) -> TestClient:
    for name in (
        "index.html",
        "js/app.js",
        "js/views/queue.mjs",
        "icon.svg",
        "vendor/a.wasm",
        "vendor/portrait.onnx",
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return TestClient(Starlette(routes=routes(tmp_path)))


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("", "text/html; charset=utf-8"),
        ("js/app.js", "text/javascript; charset=utf-8"),
        ("js/views/queue.mjs", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
        ("vendor/a.wasm", "application/wasm"),
        ("vendor/portrait.onnx", "application/octet-stream"),
        ("config.json", "application/json"),
    ],
)
def test_every_file_has_its_type_and_the_security_headers(console: TestClient, path: str, content_type: str) -> None:
    response = console.get(f"/console/{path}")
    assert (response.status_code, response.headers["content-type"]) == (200, content_type)
    assert {name: response.headers[name] for name in HEADERS} == HEADERS
    assert response.headers["cache-control"] == "no-cache"


def test_an_unchanged_file_is_not_sent_again(console: TestClient) -> None:
    tag = console.get("/console/js/app.js").headers["etag"]
    response = console.get("/console/js/app.js", headers={"If-None-Match": tag})
    assert (response.status_code, response.content) == (304, b"")


def test_the_policy_allows_no_other_origin_and_no_inline_code() -> None:
    policy = HEADERS["Content-Security-Policy"]
    sources = {source for rule in policy.split("; ") for source in rule.split(" ")[1:]}
    assert sources == {"'none'", "'self'", "'wasm-unsafe-eval'", "blob:", "data:"}


def test_the_configuration_names_the_preview_where_it_is_installed(console: TestClient, tmp_path: Path) -> None:
    assert console.get("/console/config.json").json() == {
        "files": {},
        "preview": True,
        "corrections_days": 0,
    }
    (tmp_path / "vendor" / "portrait.onnx").unlink()
    without = TestClient(Starlette(routes=routes(tmp_path)))
    assert without.get("/console/config.json").json()["preview"] is False


def test_no_file_outside_of_the_console_is_served(console: TestClient, tmp_path: Path) -> None:
    (tmp_path.parent / "secret.txt").write_text("secret")
    assert console.get("/console/%2e%2e/secret.txt").status_code == 404


@pytest.mark.parametrize("path", ["/", "/console"])
def test_the_server_redirects_to_the_console(start: Start, path: str) -> None:
    response = start(no_auth=False).get(path, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (307, "/console/")


def test_the_package_contains_every_file_of_the_console() -> None:
    files = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    packed = {(path, folder) for folder, patterns in files.items() for one in patterns for path in ROOT.glob(one)}
    of_console = [path for path in (ROOT / "web").rglob("*") if path.is_file() and "vendor" not in path.parts]
    wanted = {(path, f"share/maskdrop/{path.parent.relative_to(ROOT).as_posix()}") for path in of_console}
    assert wanted - packed == set()

"""The MCP server, called by the client of the package `mcp`: in this process, by standard input and output, by HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Awaitable, Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import anyio
import httpx2
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.server.mcpserver import MCPServer
from mcp_types import CallToolResult
from PIL import Image
from typer.testing import CliRunner

from cli import processing
from cli.app import app
from cli.engines import weights_folder
from cli.mcp import command, server
from cli.mcp.backends import ApiBackend, LocalBackend, Purse, ToolRequest
from cli.mcp.files import PREVIEW_BYTES_MAX, PREVIEW_SIDE, Files, preview_of
from cli.mcp.server import LOOPBACK, server_of
from cli.processing import Paint, paint_of
from lambdas.adapters.fetch import PublicWeb
from local.config import ROOT
from maskdrop.edit import EDITORS
from maskdrop.limits import IMAGE_BYTES_MAX
from maskdrop.services import Download
from maskdrop.ssrf import Policy
from maskdrop_client import ApiError
from tests.fakes import FakeWeb
from tests.unit.cli.conftest import ColourEditor
from tests.unit.maskdrop_client.api import Api
from tests.unit.sagemaker_model.detectors.fake_detector import FakeDetector

TOOLS = {"cutout", "mask", "detect", "repaint", "quote"}

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An allowed folder with a photo."""
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    shutil.copy(ROOT / "samples" / "default" / "astronaut.png", allowed / "a photo.png")
    (tmp_path / "weights").mkdir()
    return allowed


def local(folder: Path, *, usd_max: float = 0.0, paint: Paint | None = None, web: Any = None) -> LocalBackend:
    """The engines of an empty weights folder: those of the package."""
    chosen = paint or paint_of("local", usd_max)
    return LocalBackend(folder.parent / "weights", chosen, Purse(usd_max), web or PublicWeb(Policy()))


def call(
    backend: Any, folder: Path, name: str, arguments: dict[str, Any], *, out: Path | None = None, **more: Any
) -> CallToolResult:
    async def main() -> CallToolResult:
        async with Client(server_of(backend, Files.of([folder], out))) as client:
            return await client.call_tool(name, arguments, **more)

    return asyncio.run(main())


def ok(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


def error(result: CallToolResult) -> tuple[str, str]:
    """The code and the message of an error, which are also in its text."""
    assert result.is_error
    assert result.structured_content is not None
    info = result.structured_content["error"]
    assert result.content[0].text == f"{info['code']}: {info['message']}"  # type: ignore[union-attr]
    return info["code"], info["message"]


def preview(result: CallToolResult) -> Image.Image:
    [block] = [one for one in result.content if one.type == "image"]
    assert block.mime_type == "image/jpeg"
    return Image.open(BytesIO(base64.b64decode(block.data)))


def test_the_tools_are_listed_with_schemas_and_hints(folder: Path) -> None:
    async def main() -> None:
        async with Client(server_of(local(folder), Files.of([folder], None))) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(tools) == TOOLS
            for name, tool in tools.items():
                Draft202012Validator.check_schema(tool.input_schema)
                assert tool.output_schema is not None
                Draft202012Validator.check_schema(tool.output_schema)
                assert tool.description
                assert tool.annotations
                assert tool.annotations.read_only_hint is (name in ("detect", "quote"))
                assert all("description" in value for value in tool.input_schema["properties"].values())
            assert tools["cutout"].input_schema["required"] == ["image"]
            assert "u2netp" in tools["cutout"].input_schema["properties"]["engine"]["description"]
            assert "max_usd" in tools["repaint"].input_schema["properties"]

    asyncio.run(main())


def test_a_cutout_is_written_beside_its_source_with_a_small_preview(folder: Path) -> None:
    result = call(local(folder), folder, "cutout", {"image": "a photo.png"})
    data = ok(result)
    path = folder / "a photo-cutout.png"
    assert (data["file"]["path"], data["file"]["width"], data["cost_usd"]) == (str(path), 512, 0)
    assert data["subject"]["kind"] == "person"
    with Image.open(path) as opened:
        alpha = np.asarray(opened)[..., 3]
    assert {0, 255} <= {*np.unique(alpha)}
    shown = preview(result)
    assert max(shown.size) <= PREVIEW_SIDE
    corner = np.asarray(shown)[alpha[: shown.height, : shown.width] == 0]
    assert corner.min() > 180  # the pattern behind transparent parts is light


def test_a_result_never_replaces_a_file(folder: Path) -> None:
    backend = local(folder)
    paths = [ok(call(backend, folder, "mask", {"image": "a photo.png"}))["file"]["path"] for _ in range(2)]
    assert [Path(path).name for path in paths] == ["a photo-mask.png", "a photo-mask-2.png"]
    with Image.open(paths[0]) as opened:
        assert {*np.unique(np.asarray(opened))} == {0, 255}


def test_results_go_to_the_chosen_folder(folder: Path, tmp_path: Path) -> None:
    backend, arguments = local(folder), {"image": "a photo.png", "output": {"format": "jpg", "background": "white"}}
    by_flag = ok(call(backend, folder, "cutout", arguments, out=tmp_path / "results"))["file"]["path"]
    by_argument = ok(call(backend, folder, "cutout", {**arguments, "out": "made/today"}))["file"]["path"]
    assert by_flag == str(tmp_path / "results" / "a photo-cutout.jpg")
    assert by_argument == str(folder / "made" / "today" / "a photo-cutout.jpg")
    refused = call(backend, folder, "cutout", {**arguments, "out": str(tmp_path / "elsewhere")})
    assert error(refused)[0] == "path_not_allowed"
    assert not (tmp_path / "elsewhere").exists()


def test_each_instance_of_a_label_has_a_file(
    folder: Path, two_people: Path, detector: FakeDetector, tmp_path: Path
) -> None:
    result = call(
        local(two_people.parent, usd_max=0),
        two_people.parent,
        "cutout",
        {"image": str(two_people), "labels": ["face"], "instances": "each"},
    )
    files_ = ok(result)["files"]
    assert [(Path(one["path"]).name, one["label"], one["score"]) for one in files_] == [
        ("two-cutout-1.png", "face", 0.9), ("two-cutout-2.png", "face", 0.6),
    ]  # fmt: skip


def test_detections_have_labels_scores_and_boxes_and_no_file(
    folder: Path, two_people: Path, detector: FakeDetector
) -> None:
    before = {*two_people.parent.iterdir()}
    data = ok(call(local(folder), two_people.parent, "detect", {"image": two_people.name, "labels": ["face"]}))
    assert (data["total"], data["width"], data["labels"]) == (2, 1024, ["face", "person"])
    assert data["detections"][0] == {"label": "face", "score": 0.9, "box": [170.0, 60.0, 280.0, 200.0]}
    assert {*two_people.parent.iterdir()} == before


def test_a_background_of_colour_or_of_a_file_replaces_the_background(folder: Path) -> None:
    Image.new("RGB", (8, 8), (0, 0, 255)).save(folder / "blue.png")
    backend = local(folder)
    for background in ("#0000ff", f"cover file://{folder}/blue.png", f"file://{folder}/blue.png"):
        data = ok(call(backend, folder, "repaint", {"image": "a photo.png", "background": background}))
        with Image.open(data["file"]["path"]) as opened:
            assert opened.convert("RGB").getpixel((500, 5)) == (0, 0, 255)
    words = call(
        backend, folder, "repaint", {"image": "a photo.png", "background": f"sideways file://{folder}/blue.png"}
    )
    assert error(words)[0] == "invalid_options"
    outside = call(backend, folder, "repaint", {"image": "a photo.png", "background": "cover file:///etc/hosts"})
    assert error(outside)[0] == "path_not_allowed"


def test_no_detections_without_a_detector_have_a_warning(folder: Path) -> None:
    data = ok(call(local(folder), folder, "detect", {"image": "a photo.png"}))
    assert (data["total"], data["labels"]) == (0, [])
    assert data["warnings"][0].startswith("no_detector: ")


# Prices


def priced(usd_per_image: float = 0.07) -> tuple[ColourEditor, Paint]:
    editor = ColourEditor(usd_per_image=usd_per_image)
    return editor, Paint(editor, EDITORS["stability"], 1.0, lambda _: None)


def test_work_on_this_machine_is_quoted_as_free(folder: Path) -> None:
    for tool in TOOLS - {"quote"}:
        quote = ok(call(local(folder), folder, "quote", {"tool": tool, "calls": 1000, "generated": 2}))
        assert (quote["usd"], quote["calls"]) == (0, 1000)


def test_a_generated_background_needs_the_quoted_price(folder: Path) -> None:
    editor, paint = priced()
    backend = local(folder, usd_max=1.0, paint=paint)
    arguments = {"image": "a photo.png", "texts": ["a beach", "a forest"], "seeds": [7]}
    quote = ok(call(backend, folder, "quote", {"tool": "repaint", "calls": 3, "generated": 2}))
    assert (quote["usd_per_call"], quote["usd"]) == (0.14, 0.42)
    code, message = error(call(backend, folder, "repaint", arguments))
    assert code == "price_not_accepted"
    assert "max_usd=0.140" in message
    assert editor.requests == []
    data = ok(call(backend, folder, "repaint", {**arguments, "max_usd": quote["usd_per_call"]}))
    assert data["cost_usd"] == 0.14
    assert [(one["prompt"], one["seed"]) for one in data["files"]] == [("a beach", 7), ("a forest", 7)]
    assert data["file"] == data["files"][0]
    assert len([*folder.glob("a photo-repainted*")]) == 2


def test_the_server_spends_no_more_than_its_limit(folder: Path) -> None:
    editor, paint = priced()
    backend = local(folder, usd_max=0.1, paint=paint)
    arguments = {"image": "a photo.png", "texts": ["a beach"], "max_usd": 5}
    ok(call(backend, folder, "repaint", arguments))
    assert error(call(backend, folder, "repaint", arguments))[0] == "spending_cap_reached"
    assert len(editor.requests) == 1


def test_a_paid_detector_needs_the_quoted_price(folder: Path) -> None:
    backend = local(folder, usd_max=1.0)
    quote = ok(call(backend, folder, "quote", {"tool": "detect", "engine": "rekognition"}))
    assert quote["usd"] == 0.001
    refused = call(backend, folder, "detect", {"image": "a photo.png", "engine": "rekognition"})
    assert error(refused)[0] == "price_not_accepted"
    unknown = call(backend, folder, "quote", {"engine": "resnet"})
    assert error(unknown)[0] == "invalid_options"


def test_a_text_that_the_local_editor_cannot_draw_is_refused_before_work(folder: Path) -> None:
    code, _ = error(call(local(folder), folder, "repaint", {"image": "a photo.png", "texts": ["a beach"]}))
    assert code == "text_not_supported"
    assert "a photo-repainted.png" not in {path.name for path in folder.iterdir()}


# Errors


@pytest.mark.parametrize(
    ("image", "code"),
    [
        ("absent.png", "source_missing"),
        (".", "source_missing"),
        ("../secret.png", "path_not_allowed"),
        ("/etc/hosts", "path_not_allowed"),
        ("file:///etc/hosts", "path_not_allowed"),
        ("file://server/a.png", "path_not_allowed"),
        ("a\0.png", "path_not_allowed"),
        ("link.png", "path_not_allowed"),
        ("link/secret.png", "path_not_allowed"),
        ("notes.txt", "unsupported_format"),
        ("empty.png", "empty_file"),
        ("damaged.png", "unreadable_picture"),
        ("large.png", "file_too_large"),
        ("pipe.png", "source_missing"),
        ("https://127.0.0.1/a.png", "blocked_url"),
        ("https://169.254.169.254/latest/meta-data", "blocked_url"),
        ("https://[::1]/a.png", "blocked_url"),
        ("https://localhost/a.png", "blocked_url"),
        ("http://images.example/a.png", "blocked_url"),
        ("https://user:secret@images.example/a.png", "invalid_url"),
    ],
)
def test_an_image_that_cannot_be_used_is_a_typed_error(folder: Path, tmp_path: Path, image: str, code: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "link").symlink_to(tmp_path)
    (folder / "notes.txt").write_text("not an image")
    (folder / "empty.png").touch()
    (folder / "damaged.png").write_bytes((folder / "a photo.png").read_bytes()[:500])
    with (folder / "large.png").open("wb") as file:
        file.truncate(IMAGE_BYTES_MAX + 1)
    os.mkfifo(folder / "pipe.png")
    found, message = error(call(local(folder), folder, "cutout", {"image": image}))
    assert found == code, message
    assert message.endswith(".")


def test_a_url_is_fetched_and_its_result_is_in_the_first_folder(folder: Path) -> None:
    photo = (folder / "a photo.png").read_bytes()
    web = FakeWeb({"https://images.example/x/b%20c.png?size=1": Download(photo, "image/png")})
    result = call(local(folder, web=web), folder, "cutout", {"image": "https://images.example/x/b%20c.png?size=1"})
    assert ok(result)["file"]["path"] == str(folder / "b c-cutout.png")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"engine": "resnet"}, "unknown_engine"),
        ({"preset": "absent"}, "unknown_preset"),
        ({"output": {"format": "gif"}}, "invalid_options"),
        ({"output": {"hologram": "on"}}, "invalid_options"),
        ({"labels": ["face"]}, "unknown_label"),
        ({"boxes": [[600, 600, 700, 700]]}, "invalid_prompt"),
        ({"engine": "birefnet-general"}, "invalid_weights"),
    ],
)
def test_invalid_options_are_typed_errors(folder: Path, arguments: dict[str, Any], code: str) -> None:
    found, message = error(call(local(folder), folder, "cutout", {"image": "a photo.png", **arguments}))
    assert found == code, message


def test_arguments_of_other_types_are_refused_by_the_schema(folder: Path) -> None:
    for arguments in ({}, {"image": 3}, {"image": "a.png", "boxes": [[1, 2, 3]]}):
        result = call(local(folder), folder, "cutout", arguments)
        assert result.is_error
        assert "validation error" in result.content[0].text  # type: ignore[union-attr]


def test_an_unexpected_error_does_not_reach_the_client(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr("cli.mcp.backends.load_processor", broken)
    result = call(local(folder), folder, "cutout", {"image": "a photo.png"})
    assert result.is_error
    assert "secret" not in str(result)


# Progress, concurrency, cancellation


def test_progress_grows_and_names_the_steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, message))

    call(local(folder), folder, "cutout", {"image": "a photo.png"}, progress_callback=note)
    assert [message for _, message in seen][:2] == ["Loading the engine", "Segmenting the image"]
    assert [number for number, _ in seen] == sorted(number for number, _ in seen)


class Held:
    """A backend whose calls wait until they are released, in threads."""

    def __init__(self, backend: LocalBackend) -> None:
        self.release, self.started, self.runs = threading.Event(), threading.Event(), 0
        original = processing.load_processor

        def load(*arguments: Any, **more: Any) -> Any:
            processor = original(*arguments, **more)

            class Slow:
                def segment(_, *inner: Any) -> Any:  # noqa: N805  the test is `self`
                    self.runs += 1
                    self.started.set()
                    assert self.release.wait(30)
                    return processor.segment(*inner)

            return Slow()

        self.load = load


def test_a_call_in_progress_blocks_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = local(folder)
    held = Held(backend)
    monkeypatch.setattr("cli.mcp.backends.load_processor", held.load)
    monkeypatch.setattr(server, "HEARTBEAT_S", 0.01)
    messages: list[str | None] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        messages.append(message)
        if messages.count("Still processing") == 3:
            held.release.set()

    async def main() -> list[CallToolResult]:
        async with Client(server_of(backend, Files.of([folder], None))) as client:
            results: list[CallToolResult] = []

            async def cut(**more: Any) -> None:
                results.append(await client.call_tool("cutout", {"image": "a photo.png"}, **more))

            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(cut)
                group.start_soon(lambda: cut(progress_callback=note))
                await anyio.to_thread.run_sync(held.started.wait)
                quote = await client.call_tool("quote", {})  # while the others wait
                assert not quote.is_error
            return results

    results = asyncio.run(main())
    assert len({ok(result)["file"]["path"] for result in results}) == 4
    assert held.runs == 4


def test_a_cancelled_call_writes_no_file_and_pays_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor, paint = priced()
    backend = local(folder, usd_max=1.0, paint=paint)
    held = Held(backend)
    monkeypatch.setattr("cli.mcp.backends.load_processor", held.load)
    arguments = {"image": "a photo.png", "texts": ["a beach"], "max_usd": 1}

    async def main() -> None:
        async with Client(server_of(backend, Files.of([folder], None))) as client:
            async with anyio.create_task_group() as group:
                group.start_soon(client.call_tool, "repaint", arguments)
                group.start_soon(client.call_tool, "repaint", arguments)  # waits behind the first
                await anyio.to_thread.run_sync(held.started.wait)
                group.cancel_scope.cancel()
            held.release.set()

    asyncio.run(main())  # waits for the threads
    assert held.runs == 1
    assert editor.requests == []
    assert backend.purse.spent == 0
    assert {path.name for path in folder.iterdir()} == {"a photo.png"}


# The API as backend


def by_api(folder: Path, api: Api, usd_max: float = 1.0) -> ApiBackend:
    return ApiBackend(api.async_client(), Purse(usd_max))


def test_the_api_is_a_backend(folder: Path) -> None:
    api = Api()
    api.world.interactive.result = (folder / "a photo.png").read_bytes()
    api.world.interactive.detections = [{"label": "car", "score": 0.5, "box": [1, 2, 3, 4]}]
    for tool in ("cutout", "mask"):
        data = ok(call(by_api(folder, api), folder, tool, {"image": "a photo.png", "engine": "portrait"}))
        assert data["engine"] == "portrait"
        assert Path(data["file"]["path"]).read_bytes() == api.world.interactive.result
    repainted = ok(call(by_api(folder, api), folder, "repaint", {"image": "a photo.png", "background": "red"}))
    assert repainted["subject"]["kind"] == "person"
    found = ok(call(by_api(folder, api), folder, "detect", {"image": "a photo.png", "labels": ["car"]}))
    assert found["detections"] == [{"label": "car", "score": 0.5, "box": [1, 2, 3, 4]}]
    options = [invocation.options for _, invocation in api.world.interactive.requests]
    assert [one.task for one in options] == ["cutout", "mask", "replace", "detect"]


def test_an_error_of_the_api_keeps_its_code(folder: Path) -> None:
    api = Api()
    code, _message = error(call(by_api(folder, api), folder, "cutout", {"image": "https://images.example/absent.png"}))
    assert code == "failed_download"
    assert error(call(by_api(folder, api), folder, "cutout", {"image": "a photo.png", "engine": "x"}))[0] == (
        "unknown_engine"
    )


def test_an_edit_by_the_api_needs_the_highest_price(folder: Path) -> None:
    api = Api()
    backend = by_api(folder, api, usd_max=0.1)
    arguments = {"image": "a photo.png", "texts": ["impossible"]}
    usd = max(model.usd_per_image for model in EDITORS.values())
    assert ok(call(backend, folder, "quote", {"tool": "repaint", "generated": 1}))["usd"] == usd
    assert error(call(backend, folder, "repaint", arguments))[0] == "price_not_accepted"
    assert api.requests == []
    refused = call(by_api(folder, api, usd_max=0.1), folder, "repaint", {**arguments, "max_usd": usd})
    assert error(refused)[0] == "text_not_supported"


def test_the_price_of_a_request_that_the_api_refused_is_not_spent(folder: Path) -> None:
    backend = by_api(folder, Api(), usd_max=0.1)
    request = ToolRequest(
        task="replace", source=b"x", fields={"edit": {"prompts": ["impossible"], "seeds": [0]}}, usd_max=1.0
    )

    async def report(_: str) -> None: ...

    with pytest.raises(ApiError):
        asyncio.run(backend.process(request, report))
    assert backend.purse.spent == 0


# Previews


@pytest.mark.parametrize("size", [(3000, 20), (600, 800), (1, 1)])
def test_a_preview_is_small_for_every_image(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    data = preview_of(buffer.getvalue())
    assert data
    assert len(data) <= PREVIEW_BYTES_MAX
    with Image.open(BytesIO(data)) as opened:
        assert max(opened.size) <= PREVIEW_SIDE


def test_a_zip_has_no_preview(folder: Path) -> None:
    result = call(local(folder), folder, "cutout", {"image": "a photo.png", "output": {"format": "zip"}})
    assert ok(result)["file"]["path"].endswith(".zip")
    assert [block.type for block in result.content] == ["text"]


# The command and its transports


def session(target: Any, use: Callable[[Client], Awaitable[None]]) -> None:
    async def main() -> None:
        async with Client(target, read_timeout_seconds=60) as client:
            await use(client)

    asyncio.run(main())


def test_the_command_serves_standard_input_and_output(folder: Path) -> None:
    weights = str(folder.parent / "weights")
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "cli", "mcp", "--root", str(folder), "--folder", weights],
        cwd=ROOT,
    )

    async def use(client: Client) -> None:
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
        data = ok(await client.call_tool("cutout", {"image": "a photo.png"}))
        assert Path(data["file"]["path"]).parent == folder
        refused = await client.call_tool("cutout", {"image": "/etc/hosts"})
        assert error(refused)[0] == "path_not_allowed"

    session(parameters, use)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1:8848"}, 200),
        ({"Host": "localhost:8848", "Origin": "http://localhost:8848"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1:9999"}, 421),
        ({"Host": "127.0.0.1:8848", "Origin": "https://evil.example"}, 403),
        ({"Host": "127.0.0.1:8848", "Origin": "null"}, 403),
    ],
)
def test_http_refuses_other_hosts_and_origins(
    folder: Path, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], status: int
) -> None:
    made = server_of(local(folder), Files.of([folder], None))
    served: dict[str, Any] = {}
    monkeypatch.setattr(made, "run", lambda transport, **more: served.update(more, transport=transport))
    server.serve_http(made, command.PORT)
    assert (served["transport"], served.pop("host"), served.pop("port")) == ("streamable-http", LOOPBACK, command.PORT)
    application = made.streamable_http_app(host=LOOPBACK, transport_security=served["transport_security"])
    start = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }  # fmt: skip

    async def main() -> int:
        async with made.session_manager.run():
            transport = httpx2.ASGITransport(application)
            async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8848") as http:
                accept = {"Accept": "application/json, text/event-stream"}
                return (await http.post("/mcp", json=start, headers={**accept, **headers})).status_code

    assert asyncio.run(main()) == status


def test_the_command_names_the_package_that_is_missing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.delitem(sys.modules, "cli.mcp.server")
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    result = CliRunner().invoke(app, ["mcp", "--root", str(folder)])
    assert result.exit_code != 0
    assert command.INSTALL in result.output.replace("\n", "")


def test_the_command_refuses_a_root_that_is_not_a_folder(folder: Path) -> None:
    result = CliRunner().invoke(app, ["mcp", "--root", str(folder / "absent")])
    assert result.exit_code != 0
    assert "--root must be a folder" in result.output


def test_the_command_downloads_weights_to_the_default_folder_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Path] = []
    monkeypatch.setattr(command, "fetch_missing", fetched.append)
    monkeypatch.setattr(MCPServer, "run", lambda *_, **__: None)
    for words in (["--folder", str(folder)], ["--url", "https://api.example"], []):
        result = CliRunner().invoke(app, ["mcp", "--root", str(folder), *words])
        assert result.exit_code == 0, result.output
    assert fetched == [weights_folder(None)]


def test_the_whole_file_system_is_no_default_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    result = CliRunner().invoke(app, ["mcp"])
    assert result.exit_code != 0
    assert "name a folder by --root" in result.output


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_old_and_new_hosts_are_served(folder: Path, mode: str) -> None:
    messages: list[str | None] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        messages.append(message)

    async def main() -> None:
        async with Client(server_of(local(folder), Files.of([folder], None)), mode=mode) as client:
            tools = (await client.list_tools()).tools
            assert {tool.name for tool in tools} == TOOLS
            assert len(json.dumps([tool.model_dump(mode="json") for tool in tools])) < 40_000
            result = await client.call_tool("mask", {"image": "a photo.png"}, progress_callback=note)
            assert ok(result)["file"]["width"] == 512
            assert "Segmenting the image" in messages
            assert error(await client.call_tool("mask", {"image": "/etc/hosts"}))[0] == "path_not_allowed"

    asyncio.run(main())


def test_the_page_describes_the_tools_and_options() -> None:
    page = (ROOT / "docs" / "mcp.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == TOOLS
    result = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, ["mcp", "--help"])
    options = set(re.findall(r"--[a-z-]+", result.output)) - {"--help", "--no-http"}
    rows = " ".join(line for line in page.splitlines() if line.startswith("| `--"))
    assert set(re.findall(r"--[a-z-]+", rows)) == options
    for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL):
        [servers] = json.loads(block).values()
        arguments = servers["maskdrop"]["args"]
        assert arguments[0] == "mcp"
        assert {one for one in arguments if one.startswith("--")} <= options

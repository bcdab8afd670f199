"""The command `maskdrop mcp`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.engines import Weights, fetch_missing, weights_folder
from cli.mcp.backends import ApiBackend, Backend, LocalBackend, Purse
from cli.mcp.files import Files
from cli.processing import paint_of
from cli.terminal import print_errors
from lambdas.adapters.fetch import PublicWeb
from maskdrop.edit import EditorName
from maskdrop.errors import InvalidOptions
from maskdrop.ssrf import Policy
from maskdrop_client import AsyncMaskdrop, InvalidUsage

INSTALL = f"{sys.executable} -m pip install 'mcp>=2.3,<3'"
"""Installs the package `mcp`, as the extra `mcp` of Maskdrop does."""

PORT = 8848


def mcp(
    root: Annotated[
        list[Path] | None,
        typer.Option(
            "--root",
            help="Folder whose images the tools may read, and in which they may write; repeatable.",
            show_default="the current folder",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for results.", show_default="that of the image")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="URL of an API, instead of this machine's engines; its key is read from MASKDROP_API_KEY.",
            show_default="none",
        ),
    ] = None,
    editor: Annotated[EditorName, typer.Option(help="Editor of texts, as for `replace`.")] = "local",
    region: Annotated[
        str | None, typer.Option(help="Region of Amazon Bedrock.", show_default="that of the AWS profile")
    ] = None,
    max_usd: Annotated[
        float, typer.Option("--max-usd", min=0, help="Maximum price of all calls of this server in US dollars.")
    ] = 1.0,
    http: Annotated[
        bool, typer.Option("--http", help="Serve streamable HTTP on 127.0.0.1 instead of standard input and output.")
    ] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port of --http.")] = PORT,
    folder: Weights = None,
) -> None:
    """Serve the tools cutout, mask, detect, repaint and quote to MCP hosts, such as assistants and editors."""
    with print_errors():
        try:
            from cli.mcp.server import serve_http, server_of
        except ImportError as error:
            raise InvalidOptions(
                f"The package mcp is not installed, or it is an old release; run: {INSTALL}"
            ) from error
        files = Files.of(root or [_current_folder()], out)
        purse = Purse(max_usd)
        backend: Backend
        if url is not None:
            try:
                backend = ApiBackend(AsyncMaskdrop(url), purse)
            except InvalidUsage as error:
                raise InvalidOptions(str(error)) from error
        else:
            weights = weights_folder(folder)
            if folder is None:
                fetch_missing(weights)
            backend = LocalBackend(weights, paint_of(editor, max_usd, region), purse, PublicWeb(Policy()))
        server = server_of(backend, files)
        if http:
            serve_http(server, port)
        else:
            server.run("stdio")


def _current_folder() -> Path:
    """Raises InvalidOptions where some hosts start servers: in the root of the file system."""
    folder = Path.cwd()
    if folder == Path(folder.anchor):
        raise InvalidOptions(f"The current folder is {folder}, which has all files; name a folder by --root.")
    return folder

"""Serve the HTTP API and its dialects from this machine, without AWS."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.engines import Weights, fetch_missing, weights_folder
from cli.terminal import console, messages, print_errors
from maskdrop.redaction import log_to_stderr
from sagemaker_model.settings import ServerSettings
from standalone.database import Database
from standalone.registry import SqliteRegistry
from standalone.run import serve as run_server
from standalone.settings import ServeSettings, data_folder

MEGABYTE = 1_000_000


def serve(
    host: Annotated[str | None, typer.Option(help="IP address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port.", show_default="8080")] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Accept requests without a key, on 127.0.0.1.")] = False,
    anyone: Annotated[
        bool, typer.Option("--anyone", help="With --no-auth: listen on any IP address, for all who reach the port.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Folder of keys, usage, jobs and stored files.",
            show_default="~/.local/share/maskdrop",
        ),
    ] = None,
    folder: Weights = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Images processed at once.", show_default="one for each core")
    ] = None,
    queue: Annotated[
        int | None,
        typer.Option(min=1, help="Requests in progress at once; one more gets status 503.", show_default="128"),
    ] = None,
    max_mb: Annotated[float | None, typer.Option(min=0.1, help="Megabytes of an image.", show_default="33.5")] = None,
    max_megapixels: Annotated[
        float | None, typer.Option(min=0.1, help="Megapixels of an image.", show_default="50")
    ] = None,
    cors: Annotated[
        list[str] | None, typer.Option(help="Origin whose pages may call the API; repeat it, or use '*'.")
    ] = None,
    public_url: Annotated[
        str | None, typer.Option(help="URL of the server for its callers, behind a reverse proxy.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log every request and the engines.")] = False,
) -> None:
    """Serve the HTTP API, the vendors' dialects and the console until Ctrl-C, on this machine alone. Options override
    the environment variables SERVE_… and MODEL_… (docs/serve.md)."""
    with print_errors():
        chosen = _given(host=host, port=port, data=data, requests_max=queue, public_url=public_url)
        settings = replace(ServeSettings.from_env(os.environ), **chosen)
        settings = replace(
            settings,
            no_auth=no_auth or settings.no_auth,
            anyone=anyone or settings.anyone,
            **_given(cors_origins=" ".join(cors) if cors else None),
            **_given(image_bytes=round(max_mb * MEGABYTE) if max_mb else None),
        )
        settings.check()
        model = ServerSettings.from_env(os.environ)
        weights = folder or (model.weights_dir if os.environ.get("MODEL_WEIGHTS_DIR") else weights_folder(None))
        pixels = round(max_megapixels * 1e6) if max_megapixels else None
        model = replace(
            model,
            weights_dir=weights,
            max_bytes=max(model.max_bytes, settings.image_bytes),
            **_given(workers=workers, max_pixels=pixels),
        )
        _log(verbose=verbose)
        fetch_missing(weights)
        messages.print("Loading the engines …")
        run_server(settings, model, lambda: _print_usage(settings))


def _print_usage(settings: ServeSettings) -> None:
    console.print(f"Serving on {settings.url}; documentation: {settings.url}/v1/docs", soft_wrap=True)
    console.print(f"remove.bg: {settings.url}/v1.0/removebg; rembg: {settings.url}/api/remove", soft_wrap=True)
    if settings.no_auth:
        console.print("Requests need no key (--no-auth).")
    elif not _has_keys(settings):
        console.print(
            "No key exists yet, so that every request is refused. Create one in another shell:\n"
            f"  maskdrop keys create NAME --serve{_data_option(settings)}",
            markup=False,
            soft_wrap=True,
        )


def _has_keys(settings: ServeSettings) -> bool:
    database = Database(settings.data)
    try:
        return bool(SqliteRegistry(database).list("key"))
    finally:
        database.close()


def _data_option(settings: ServeSettings) -> str:
    return "" if settings.data == data_folder() else f" --data {settings.data}"


def _given(**options: Any) -> dict[str, Any]:
    """Returns the options that were given on the command line."""
    return {name: value for name, value in options.items() if value is not None}


def _log(*, verbose: bool) -> None:
    log_to_stderr(logging.INFO if verbose else logging.WARNING)
    os.environ.setdefault("POWERTOOLS_SERVICE_NAME", "serve")
    os.environ.setdefault("POWERTOOLS_LOG_LEVEL", "INFO" if verbose else "WARNING")  # read at the first log line

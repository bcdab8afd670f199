"""The web console at /console/: static files with the headers of `maskdrop.console`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from maskdrop.console import CACHE_CONTROL, CONFIG, CONTENT_TYPES, HEADERS, config, has_preview

FOLDERS = (Path(__file__).resolve().parent.parent / "web", Path(sys.prefix) / "share" / "maskdrop" / "web")
"""Folders of the web console: in a checkout and the container, and of an installed package."""

PATH = "/console"


def find_console() -> Path | None:
    """Returns the folder of the web console; None where it is not installed."""
    return next((folder for folder in FOLDERS if folder.is_dir()), None)


def routes(folder: Path, files: Mapping[str, str] | None = None, corrections_days: int = 0) -> list[BaseRoute]:
    """Returns the routes of the console in this folder. files, corrections_days: as in `maskdrop.console.config`."""
    settings = config(preview=has_preview(folder), files=files, corrections_days=corrections_days)

    async def respond(_: Request) -> Response:
        return Response(
            settings, media_type=CONTENT_TYPES[".json"], headers={"Cache-Control": CACHE_CONTROL, **HEADERS}
        )

    return [
        Route(PATH, lambda _: RedirectResponse(f"{PATH}/"), methods=["GET"]),
        Route(f"{PATH}/{CONFIG}", respond, methods=["GET"]),
        Mount(PATH, _Files(directory=folder, html=True)),
    ]


class _Files(StaticFiles):
    """Adds HEADERS to every file, and its Content-Type by CONTENT_TYPES."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update({"Cache-Control": CACHE_CONTROL, **HEADERS})
        if response.status_code == 200 and (kind := CONTENT_TYPES.get(Path(full_path).suffix)):
            response.headers["Content-Type"] = kind
        return response

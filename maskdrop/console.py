"""The web console's files: response headers, content types and settings, the same wherever it is served.

`standalone/` serves them at /console/, `infra/console.py` by CloudFront and `local/console.py` in the local stack.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

CONFIG = "config.json"
"""File that every server makes and the console reads at start; it is in no folder."""

PREVIEW = "vendor"
"""Folder below `web/` with ONNX Runtime Web and the network of the preview, which `make preview` copies there."""

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",  # WebAssembly of the preview; JavaScript has no eval
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self' blob: data:",
        "worker-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The browser loads the console's own files and calls its own origin only."""

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every file of the console."""

FILE_HEADERS = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}
"""Headers of stored files on the console's origin: a browser shows them as their type, and runs nothing in them.

The caller of an upload chooses its type: an SVG with a script could read the API key that the browser keeps for this
origin.
"""

CACHE_CONTROL = "no-cache"
"""The browser keeps a file and revalidates it on every use: names of files have no digest."""

CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}
"""Extension -> Content-Type of the console's files. The types of the operating system differ: Windows may name none."""


def has_preview(folder: Path) -> bool:
    """Returns whether the files of the preview are installed in this folder of the console."""
    return (folder / PREVIEW / "portrait.onnx").is_file()


def config(*, preview: bool, files: Mapping[str, str] | None = None, corrections_days: int = 0) -> str:
    """Returns the content of CONFIG, as JSON.

    preview: whether the files of the preview are served. files: prefix of the URLs of stored files -> path on the
    console's origin by which it fetches them; none where the API's URLs have that origin already.
    corrections_days: days for which corrections are kept as training records; 0: none are.
    """
    return json.dumps({"files": dict(files or {}), "preview": preview, "corrections_days": corrections_days})

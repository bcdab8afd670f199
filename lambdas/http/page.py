"""The OpenAPI document as an HTML page: Swagger UI (Apache-2.0), from the copy in Powertools.

Scripts and styles are inline, so the page loads no resource from another server.
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from importlib import resources
from string import Template

UI = "event_handler/openapi/swagger_ui"
SCRIPT, STYLE = "swagger-ui-bundle.min.js", "swagger-ui.min.css"

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy: the page may send requests only to this service."""

PAGE = Template(
    """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Maskdrop API</title>
<style>$style</style>
<div id="ui"></div>
<script>$script</script>
<script>
SwaggerUIBundle({url: "openapi.json", dom_id: "#ui", deepLinking: true, validatorUrl: null, tryItOutEnabled: true});
</script>
</html>
"""
)


@lru_cache(maxsize=1)
def page() -> str:
    """Returns the HTML page: 1.7 MB, or 0.5 MB compressed."""
    folder = resources.files("aws_lambda_powertools").joinpath(UI)
    script, style = (folder.joinpath(name).read_text("utf-8") for name in (SCRIPT, STYLE))
    return PAGE.substitute(script=script, style=style)


@lru_cache(maxsize=1)
def compressed_page() -> bytes:
    """Returns the HTML page as gzip. Compressed once a process: it takes 0.1 s of CPU time, and needs no key."""
    return gzip.compress(page().encode(), mtime=0)

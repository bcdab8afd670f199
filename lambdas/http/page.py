"""The OpenAPI document as an HTML page: Swagger UI (Apache-2.0), from the copy in Powertools.

Scripts and styles are inline, so the page loads no resource from another server. Its policy names their digests: no
other script runs.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from functools import lru_cache
from importlib import resources
from string import Template

UI = "event_handler/openapi/swagger_ui"
SCRIPT, STYLE = "swagger-ui-bundle.min.js", "swagger-ui.min.css"

PAGE = Template(
    """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Maskdrop API</title>
<style>$style</style>
<div id="ui"></div>
<script>$script</script>
<script>$start</script>
</html>
"""
)

START = """
SwaggerUIBundle({url: "openapi.json", dom_id: "#ui", deepLinking: true, validatorUrl: null, tryItOutEnabled: true});
"""


@lru_cache(maxsize=1)
def page() -> str:
    """Returns the HTML page: 1.7 MB, or 0.5 MB compressed."""
    return PAGE.substitute(script=_file(SCRIPT), style=_file(STYLE), start=START)


@lru_cache(maxsize=1)
def policy() -> str:
    """Returns the Content-Security-Policy of the page: it may send requests only to this service."""
    return (
        f"default-src 'none'; script-src {_source(_file(SCRIPT))} {_source(START)}; style-src {_source(_file(STYLE))}; "
        "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _file(name: str) -> str:
    return resources.files("aws_lambda_powertools").joinpath(UI, name).read_text("utf-8")


def _source(inline: str) -> str:
    """Returns the source of a policy that allows this script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"


@lru_cache(maxsize=1)
def compressed_page() -> bytes:
    """Returns the HTML page as gzip. Compressed once a process: it takes 0.1 s of CPU time, and needs no key."""
    return gzip.compress(page().encode(), mtime=0)

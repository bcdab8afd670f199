"""`make fuzz`: runs all checks of schemathesis on the API of the local stack, with valid and invalid requests.

Starts a stack if none is running. Sends requests as two callers, neither of which may see the other's data.
FUZZ_EXAMPLES: number of requests per operation and phase.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from local import keys, stack
from local.config import ROOT, LocalConfig
from local.connect import client
from tests.fuzz.hooks import image
from tests.web import served

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "100")

CALLERS = ("the one", "the other")

RATE = 1_000_000_000
"""Requests per minute of each caller: high enough that the rate limit has no effect."""


def fuzz(config: LocalConfig, api_url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs schemathesis; the exit code is 0 without failures. options: further options of schemathesis."""
    photo = image((320, 240), "PNG")
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: {len(photo)}\r\n\r\n"
    with served({"/a.png": head.encode() + photo}) as host, _callers(config) as callers:
        environment = os.environ | {
            "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks",
            "MASKDROP_API_URL": api_url,
            "MASKDROP_CALLERS": str(callers),
            "MASKDROP_PHOTO": f"http://localhost:{host.port}/a.png",  # localhost is a trusted host of a local stack
            "NO_PROXY": "*",
        }
        settings = Path(__file__).with_name("schemathesis.toml")
        argv = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings)]
        argv += ["run", f"{api_url}/v1/openapi.json", "--checks", "all", "--no-color", *options]
        return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603


@contextmanager
def _callers(config: LocalConfig) -> Iterator[Path]:
    """Creates a key per caller and yields the path of a file in the format of Web Fuzzing Commons."""
    deployment = keys.Deployment.from_stack(config.app_stack, partial(client, config))
    created = {name: keys.create_key(deployment, name, scope="own", rate=RATE) for name in CALLERS}
    auth = [
        {"name": name, "fixedHeaders": [{"name": "X-Api-Key", "value": text}]} for name, (text, _) in created.items()
    ]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "callers.json"
        file.write_text(json.dumps({"auth": auth}))
        yield file
    for _, key in created.values():
        keys.revoke_key(deployment, key.id)


def main() -> int:
    config = LocalConfig.from_env(os.environ)
    with ExitStack() as cleanup:
        running = stack.find(config)
        if running is None:
            print("No stack is running: starting one.")
            cleanup.callback(stack.down, config)
            running = stack.up(config)
        report = fuzz(config, running.api_url, "--max-examples", EXAMPLES)
    print(report.stdout, report.stderr)
    return report.returncode


if __name__ == "__main__":
    sys.exit(main())

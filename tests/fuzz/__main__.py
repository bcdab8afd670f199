"""`make fuzz`: schemathesis asks the API what its published description allows, and what it does not, with every check
that it has, against the stack on this machine, which is started when none is up. It comes as two callers, of whom
neither may see what is the other's. FUZZ_EXAMPLES: requests of each operation in each phase."""

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
from local.config import APP_STACK, ROOT, LocalConfig
from local.connect import client
from tests.fuzz.hooks import image
from tests.web import served

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "100")

CALLERS = ("the one", "the other")

UNBOUNDED = 1_000_000_000
"""Calls a minute: what is looked for here is not the limit."""


def fuzz(config: LocalConfig, api_url: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Its report is on standard output; it ends with 0 where nothing was found. more: options of schemathesis."""
    photo = image((320, 240), "PNG")
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: {len(photo)}\r\n\r\n"
    with served({"/a.png": head.encode() + photo}) as host, _callers(config) as callers:
        environment = os.environ | {
            "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks",
            "MASKDROP_API_URL": api_url,
            "MASKDROP_CALLERS": str(callers),
            "MASKDROP_PHOTO": f"http://localhost:{host.port}/a.png",  # one of the hosts that a stack here trusts
            "NO_PROXY": "*",
        }
        settings = Path(__file__).with_name("schemathesis.toml")
        argv = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings)]
        argv += ["run", f"{api_url}/v1/openapi.json", "--checks", "all", "--no-color", *more]
        return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603


@contextmanager
def _callers(config: LocalConfig) -> Iterator[Path]:
    """CALLERS with a key each, as a file in the form of Web Fuzzing Commons."""
    here = keys.Deployment.from_stack(APP_STACK, partial(client, config))
    made = {name: keys.create_key(here, name, scope="own", rate=UNBOUNDED) for name in CALLERS}
    told = [{"name": name, "fixedHeaders": [{"name": "X-Api-Key", "value": text}]} for name, (text, _) in made.items()]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "callers.json"
        file.write_text(json.dumps({"auth": told}))
        yield file
    for _, key in made.values():
        keys.revoke_key(here, key.id)


def main() -> int:
    config = LocalConfig.from_env(os.environ)
    with ExitStack() as cleanup:
        here = stack.find(config)
        if here is None:
            print("No stack is up: starting one.")
            cleanup.callback(stack.down, config)
            here = stack.up(config)
        done = fuzz(config, here.api_url, "--max-examples", EXAMPLES)
    print(done.stdout, done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())

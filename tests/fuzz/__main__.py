"""`make fuzz`: schemathesis asks the API what its published description allows, and what it does not, with every check
that it has, against the stack on this machine, which is started when none is up. FUZZ_EXAMPLES: requests of each
operation in each phase."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from local import stack
from local.config import ROOT, LocalConfig
from local.pictures import Pictures
from local.stack import Stack
from maskdrop.job import INBOX_PREFIX
from tests.fuzz.hooks import picture

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "100")


def fuzz(config: LocalConfig, here: Stack, *more: str) -> subprocess.CompletedProcess[str]:
    """Its report is on standard output; it ends with 0 where nothing was found. more: options of schemathesis."""
    Pictures(config, here).drop("fuzz/photo.png", picture((320, 240), "PNG"))
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks",
        "MASKDROP_API_KEY": here.api_key,
        "MASKDROP_API_URL": here.api_url,
        "MASKDROP_INBOX": here.inbox,
        "MASKDROP_PHOTO": f"{INBOX_PREFIX}fuzz/photo.png",
        "NO_PROXY": "*",
    }
    settings = Path(__file__).with_name("schemathesis.toml")
    argv = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings)]
    argv += ["run", f"{here.api_url}/v1/openapi.json", "--checks", "all", "--no-color", *more]
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603


def main() -> int:
    config = LocalConfig.from_env(os.environ)
    with ExitStack() as cleanup:
        here = stack.find(config)
        if here is None:
            print("No stack is up: starting one.")
            cleanup.callback(stack.down, config)
            here = stack.up(config)
        done = fuzz(config, here, "--max-examples", EXAMPLES)
    print(done.stdout, done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())

"""The command `serve-api` of the container: `python -m standalone`. Settings are the environment variables SERVE_… and
MODEL_… (docs/serve.md)."""

from __future__ import annotations

import logging
import os
import sys

from maskdrop.errors import MaskdropError
from sagemaker_model.settings import ServerSettings
from standalone.run import serve
from standalone.settings import ServeSettings

log = logging.getLogger("standalone")


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.captureWarnings(capture=True)
    try:
        serve(ServeSettings.from_env(os.environ), ServerSettings.from_env(os.environ))
    except MaskdropError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

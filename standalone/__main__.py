"""The command `serve-api` of the container, and its keys.

`python -m standalone [serve | create-key NAME | list-keys | revoke-key ID]`. Settings are the environment variables
SERVE_… and MODEL_… (docs/serve.md). `maskdrop serve` and `maskdrop keys` do the same outside the container.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from contextlib import closing

from maskdrop.errors import MaskdropError
from maskdrop.redaction import log_to_stderr
from sagemaker_model.serving.privileges import drop_root
from sagemaker_model.settings import ServerSettings
from standalone.database import Database
from standalone.keys import create_key, list_keys, revoke_key
from standalone.registry import SqliteRegistry
from standalone.run import serve
from standalone.settings import ServeSettings

log = logging.getLogger("standalone")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m standalone", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="serve the HTTP API until SIGTERM (default)")
    commands.add_parser("create-key", help="create an API key and print it").add_argument("name")
    commands.add_parser("list-keys", help="print the IDs and names of the API keys")
    commands.add_parser("revoke-key", help="delete an API key").add_argument("id")
    options = parser.parse_args(arguments)
    log_to_stderr()
    logging.captureWarnings(capture=True)
    try:
        settings = ServeSettings.from_env(os.environ)
        if options.command in (None, "serve"):
            model = ServerSettings.from_env(os.environ)
            drop_root(model.user, reads=model.weights_dir, owns=settings.data)
            serve(settings, model)
            return 0
        with closing(Database(settings.data)) as database:
            registry = SqliteRegistry(database)
            if options.command == "create-key":
                sys.stdout.write(f"{create_key(registry, options.name)[0]}\n")
            elif options.command == "list-keys":
                sys.stdout.writelines(f"{key.id} {key.name}\n" for key in list_keys(registry).values())
            else:
                revoke_key(registry, options.id)
    except MaskdropError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

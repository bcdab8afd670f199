"""The API that a command uses: a profile, the environment, or the running local stack."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.terminal import Unreachable, UsageError, messages
from local import stack
from local.config import LocalConfig
from local.connect import tls_verify
from maskdrop.errors import MaskdropError
from maskdrop_client import AuthenticationFailed, ClientError, ConnectionFailed, Maskdrop

URL, KEY = "MASKDROP_API_URL", "MASKDROP_API_KEY"

ProfileFlag = Annotated[
    str | None,
    typer.Option(
        "--profile",
        help="Profile of ~/.config/maskdrop/profiles.toml.",
        show_default=f"{URL} and {KEY}, else the running local stack, else the profile `default`",
    ),
]


class RemoteError(MaskdropError):
    """The API refused a request of a command."""

    code = "remote"


@dataclass(frozen=True, slots=True)
class Api:
    """URL of an API, its key ("" for none) and the path of the CA bundle of a local stack with TLS."""

    url: str
    key: str
    ca_bundle: Path | None = None


def profiles_file(env: Mapping[str, str]) -> Path:
    return Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "maskdrop" / "profiles.toml"


def api_of(profile: str | None, env: Mapping[str, str]) -> Api:
    """Returns the API of a profile, of the environment, of the running local stack, or of the profile `default`.

    Raises Unreachable where none of them exists, UsageError for an invalid file or an unknown profile.
    """
    file = profiles_file(env)
    profiles = _read(file)
    if profile is None:
        if env.get(URL):
            return Api(env[URL], env.get(KEY, ""))
        if running := stack.find(LocalConfig.of_running_stack(env)):
            return Api(running.api_url, running.api_key, Path(running.ca_bundle) if running.ca_bundle else None)
        if "default" not in profiles:
            raise Unreachable(
                f"No API is known: the local stack is not running (`make up` starts it), {URL} is not set, "
                f"and {file} has no profile `default`."
            )
    found = profiles.get(profile or "default")
    if found is None:
        raise UsageError(f"{file} has no profile {profile}; it has: {', '.join(profiles) or 'none'}.")
    if not isinstance(found, dict) or not isinstance(found.get("api_url"), str):
        raise UsageError(f'The profile {profile or "default"} of {file} must have api_url = "https://…" and api_key.')
    return Api(found["api_url"], str(found.get("api_key", "")))


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text()
        if file.stat().st_mode & 0o077:
            messages.print(f"{file} has API keys and is readable by others: chmod 600 {file}", style="yellow")
        return tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error}. It must be TOML with a table for each profile.") from error


@contextmanager
def client_of(profile: str | None, connections: int = 8) -> Iterator[Maskdrop]:
    """Yields a client of the API. Converts its errors: Unreachable without a response, or if the key is refused."""
    api = api_of(profile, os.environ)
    try:
        with Maskdrop(api.url, api.key, connections=connections, verify=tls_verify(api.ca_bundle)) as client:
            yield client
    except (ConnectionFailed, AuthenticationFailed) as error:
        raise Unreachable(f"{api.url}: {error}") from error
    except ClientError as error:
        raise RemoteError(str(error)) from error

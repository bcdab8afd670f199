"""Installs rembg (MIT) in a virtual environment of its own below .local/, because it pins other versions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from local.config import ROOT

REQUIREMENTS = ("rembg[cpu,cli]==2.0.86", "onnx==1.23.2")
"""The extra `cli` contains rembg's server; `rembg_network` needs onnx."""

FOLDER = ROOT / ".local" / "rembg"


def installed() -> Path:
    """Installs rembg if REQUIREMENTS changed; returns the folder with `python` and `rembg`."""
    programs, mark = FOLDER / "bin", FOLDER / ".installed"
    requirements = "\n".join(REQUIREMENTS)
    if not mark.exists() or mark.read_text() != requirements:
        subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER], check=True)  # noqa: S603
        subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)  # noqa: S603
        mark.write_text(requirements)
    return programs

"""rembg (MIT) in a virtual environment of its own, below .local/: it pins other versions than ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from local.config import ROOT

REQUIREMENTS = ("rembg[cpu,cli]==2.0.86", "onnx==1.23.2")
"""Its server is in `cli`; `rembg_network` needs onnx."""

FOLDER = ROOT / ".local" / "rembg"


def installed() -> Path:
    """The folder of its programs, `python` and `rembg` among them. Installed again only when REQUIREMENTS change."""
    programs, mark = FOLDER / "bin", FOLDER / ".installed"
    wanted = "\n".join(REQUIREMENTS)
    if not mark.exists() or mark.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER], check=True)  # noqa: S603
        subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)  # noqa: S603
        mark.write_text(wanted)
    return programs

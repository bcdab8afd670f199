"""The notebooks of docs/notebooks: their form, and the cells that need no account."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sagemaker_model.weights.store import named
from tests.contract.discs import HEIGHT, WIDTH, disc, write_discs

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def load(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def code_cells(path: Path, *, without: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the source of each code cell, and the cell. without: a tag of cells to leave out."""
    for cell in load(path)["cells"]:
        if cell["cell_type"] == "code" and without not in cell["metadata"].get("tags", []):
            yield "".join(cell["source"]), cell


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid(path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbformat.validate(load(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_of_a_notebook_compile_and_are_stored_without_outputs(path: Path) -> None:
    cells = list(code_cells(path))
    assert cells
    for source, cell in cells:
        compile(source, path.name, "exec")
        assert (cell["outputs"], cell["execution_count"]) == ([], None)


def test_a_page_links_every_notebook() -> None:
    pages = "\n".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    assert [path.name for path in NOTEBOOKS if f"(notebooks/{path.name})" not in pages] == []


def test_the_notebook_goes_from_photos_to_a_cut_out_on_this_machine(
    weights_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("torch", "onnx", "tflite"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(ROOT)
    image, mask = disc(1000)
    cv2.imwrite(str(tmp_path / "photo.jpg"), image)
    (tmp_path / "weights").mkdir()
    shutil.copy(weights_dir / named("selfie").file, tmp_path / "weights")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    small = ("side=160", "batch=4", "warmup=5", "ema=0.9", "workers=0", "threads=1")
    parameters = {
        "DATA": write_discs(tmp_path / "data"),
        "PHOTO": tmp_path / "photo.jpg",
        "WORK": tmp_path,
        "WEIGHTS": tmp_path / "weights",
        "START": tmp_path / "weights" / named("selfie").file,
        "RANGES": ["lr=0.0000001,0.003"],
        "FIXED": [*small, "steps=45", "validate_every=15"],
        "RUNS": 3,
        "MIN_SIDE": 64,
        "PORT": port,
    }
    names: dict[str, Any] = {}
    for source, cell in code_cells(FOLDER / "train_tune_deploy.ipynb", without="aws"):
        exec(compile(source, "notebook", "exec"), names)  # noqa: S102 - a file of the project
        if "parameters" in cell["metadata"].get("tags", []):
            assert parameters.keys() <= names.keys()
            names |= parameters
    assert names["tuning"]["trials"][names["tuning"]["best"]]["settings"] == {"lr": "0.003"}
    cut_out = cv2.imread(str(tmp_path / "cut-out.png"), cv2.IMREAD_UNCHANGED)
    assert cut_out is not None
    assert cut_out.shape == (HEIGHT, WIDTH, 4)
    assert np.abs(cut_out[..., 3].astype(int) - mask).mean() < 0.1 * 255

"""Who may take the place of whom, and the record of who did.

The rule asks three things of the new one, on the same images. A higher mean IoU, or there is no reason to change. No
more failures below 0.5, which users see and a mean hides. No more finds where there is nothing: those images are few
and outside the mean. Each alone can be had at the cost of the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from maskdrop import catalog
from maskdrop.errors import MaskdropError
from sagemaker_model.engines.base import Engine, load
from sagemaker_model.evaluation.compare import compare
from sagemaker_model.evaluation.run import Run
from sagemaker_model.evaluation.summary import FAILED, FIND, summarise
from sagemaker_model.weights.store import InvalidWeights, Weights, import_file, known


class NotPromoted(MaskdropError):
    """The new one is not better. The message says in what."""

    code, status = "not_promoted", 409


def promote(new: Run, current: Run, record: Path, install: Callable[[], object], now: datetime) -> None:
    """Installs the new one and adds a line to the record, if it is better.

    record: JSON lines; made where there is none. install: puts the new one into its place, whole or not at all.
    Raises NotPromoted, InvalidData for runs on different data, and what `install` raises; then nothing has changed.
    """
    if faults := reasons_against(new, current):
        raise NotPromoted(f"{new.about.predictor} does not replace {current.about.predictor}: {'; '.join(faults)}.")
    try:
        with record.open("a", encoding="utf-8") as lines:  # first: nothing is installed that cannot be recorded
            install()
            lines.write(json.dumps(entry(new, current, now)) + "\n")
    except OSError as error:
        raise NotPromoted(f"{record} cannot be written ({error.strerror}).") from error


def reasons_against(new: Run, current: Run) -> list[str]:
    """Why the new one may not take the place; none when it may. Raises InvalidData for runs on different data."""
    compare(current, new)
    reasons = [
        f"{len(run.faults)} images could not be scored for {run.about.predictor}"
        for run in (new, current)
        if run.faults
    ]
    a, b = summarise(new.results), summarise(current.results)
    if not a.subjects or not b.subjects:
        return [*reasons, "no image that was scored shows a subject"]
    if not a.subjects.mean.iou > b.subjects.mean.iou:
        reasons.append(f"its mean IoU is {a.subjects.mean.iou:.4f}, not above {b.subjects.mean.iou:.4f}")
    if a.subjects.failed > b.subjects.failed:
        reasons.append(f"{a.subjects.failed} images are below {FAILED}, not at most {b.subjects.failed}")
    if a.empties and b.empties and a.empties.finds > b.empties.finds:
        reasons.append(
            f"it finds over {FIND:.0%} in {a.empties.finds} images without a subject, not in at most {b.empties.finds}"
        )
    return reasons


def entry(new: Run, current: Run, now: datetime) -> dict[str, Any]:
    """One line of the record."""
    return {
        "date": now.isoformat(timespec="seconds"),
        "new": _who(new),
        "replaced": _who(current),
        "data": {"sha256": new.about.data_sha256, "split": new.about.split},
    }


def _who(run: Run) -> dict[str, Any]:
    return {
        "name": run.about.predictor,
        "weights_sha256": run.about.weights_sha256,
        **asdict(summarise(run.results)),
    }


def weights_for(row: catalog.Engine, file: Path) -> Weights:
    """The row of weights.toml that a candidate for an engine would be. Raises InvalidWeights."""
    fitting = [one for one in known().values() if one.engine == row.name and Path(one.file).suffix == file.suffix]
    if len(fitting) != 1:
        raise InvalidWeights(f"The engine {row.name!r} has {len(fitting)} weights named *{file.suffix}, not one.")
    return fitting[0]


def engine_of(file: Path, row: catalog.Engine, scratch: Path, device: str, threads: int) -> Engine:
    """The engine with this file as its weights, as it would run once installed. scratch: an empty folder, which is
    a folder of weights with that file afterwards. device, threads: as `Engine.setup` takes them. Raises InvalidWeights.
    """
    import_file(weights_for(row, file), file, scratch, own=True)
    found = load([row], device, scratch, threads)
    if row.name not in found:
        raise InvalidWeights(f"{row.name} does not run with {file.name} alone, or lacks a package.")
    return found[row.name]

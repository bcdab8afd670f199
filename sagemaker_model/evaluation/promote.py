"""Promotion: the rule that lets a new engine or new weights replace the current ones, and the promotion record.

On the same images, a candidate must meet three conditions. Its mean IoU is higher. It has no more failures (IoU < 0.5):
users notice failures, and a mean hides them. It has no more false positives on images without a subject: these images
are few and not part of the mean. Each value alone can improve at the cost of the others. A candidate for several data
sets, such as people and objects, must meet them on each.

A detector must meet one condition: its mAP is not lower. mAP counts missed boxes, false ones and inexact ones together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from maskdrop import catalog
from maskdrop.errors import MaskdropError
from sagemaker_model.detectors.base import Detector
from sagemaker_model.detectors.labels import load_detector
from sagemaker_model.engines.base import Engine, load
from sagemaker_model.evaluation.compare import compare
from sagemaker_model.evaluation.detection_run import DetectionRun, scores_json
from sagemaker_model.evaluation.detection_run import compare as compare_detectors
from sagemaker_model.evaluation.run import Run
from sagemaker_model.evaluation.summary import FAILED_IOU, FALSE_POSITIVE_SHARE, summarise
from sagemaker_model.weights.picklescan import CHECKPOINTS
from sagemaker_model.weights.store import InvalidWeights, NotInstalled, Weights, import_file, known


class NotPromoted(MaskdropError):
    """The candidate is not better. The message states the conditions that it fails."""

    code, status = "not_promoted", 409


def promote(runs: Sequence[tuple[Run, Run]], record: Path, install: Callable[[], object], now: datetime) -> None:
    """Installs a candidate that meets the conditions on each data set, and adds a line for each to the record.

    runs: of the candidate and of the current engine, for each data set; at least one.
    record: JSON Lines file, created if missing. install: installs the candidate atomically.
    Raises NotPromoted, InvalidData for runs on different data, and the errors of `install`; an error changes nothing.
    """
    for new, current in runs:
        if reasons := rejection_reasons(new, current):
            place = f" on {Path(new.info.data).name}" if len(runs) > 1 else ""
            raise NotPromoted(
                f"{new.info.predictor} does not replace {current.info.predictor}{place}: {'; '.join(reasons)}."
            )
    _install(record, install, *(record_entry(new, current, now) for new, current in runs))


def promote_detector(
    new: DetectionRun, current: DetectionRun | None, record: Path, install: Callable[[], object], now: datetime
) -> None:
    """Installs a detector whose mAP is not lower, and adds a line to the promotion record.

    current: None if no detector is installed; then a candidate that can be scored is installed.
    record, install and errors: see `promote`.
    """
    if reasons := detector_rejection_reasons(new, current):
        replaced = current.info.detector if current else "no detector"
        raise NotPromoted(f"{new.info.detector} does not replace {replaced}: {'; '.join(reasons)}.")
    entry = {
        "date": now.isoformat(timespec="seconds"),
        "new": _detection_entry(new),
        "replaced": _detection_entry(current) if current else None,
        "data": {"sha256": new.info.data_sha256, "split": new.info.split},
    }
    _install(record, install, entry)


def _install(record: Path, install: Callable[[], object], *entries: dict[str, Any]) -> None:
    """Installs and records. Raises NotPromoted if the record cannot be written, and the errors of `install`."""
    try:
        # Open the record first: a candidate whose promotion cannot be recorded is not installed.
        with record.open("a", encoding="utf-8") as lines:
            install()
            lines.writelines(json.dumps(entry) + "\n" for entry in entries)
    except OSError as error:
        raise NotPromoted(f"{record} cannot be written ({error.strerror}).") from error


def rejection_reasons(new: Run, current: Run) -> list[str]:
    """Returns the conditions that the candidate fails; empty if it can be promoted. Raises InvalidData for runs on
    different data."""
    compare(current, new)
    reasons = [
        f"{len(run.unscored)} images could not be scored for {run.info.predictor}"
        for run in (new, current)
        if run.unscored
    ]
    a, b = summarise(new.results), summarise(current.results)
    if not a.subjects or not b.subjects:
        return [*reasons, "no scored image shows a subject"]
    if not a.subjects.mean.iou > b.subjects.mean.iou:
        reasons.append(f"its mean IoU is {a.subjects.mean.iou:.4f}, not above {b.subjects.mean.iou:.4f}")
    if a.subjects.failed > b.subjects.failed:
        reasons.append(f"{a.subjects.failed} images are below {FAILED_IOU}, not at most {b.subjects.failed}")
    if a.empties and b.empties and a.empties.finds > b.empties.finds:
        reasons.append(
            f"it has false positives over {FALSE_POSITIVE_SHARE:.0%} in {a.empties.finds} images without a subject, "
            f"not in at most {b.empties.finds}"
        )
    return reasons


def detector_rejection_reasons(new: DetectionRun, current: DetectionRun | None) -> list[str]:
    """Returns the conditions that a detector fails; empty if it can be promoted. Raises InvalidData for runs on
    different data."""
    if current:
        compare_detectors(current, new)
    reasons = [
        f"{run.info.detector} failed on {len(run.unscored)} images" for run in (new, current) if run and run.unscored
    ]
    if math.isnan(new.scores.map):
        return [*reasons, "the data set has no boxes to find"]
    if current and new.scores.map < current.scores.map:
        reasons.append(f"its mAP is {new.scores.map:.4f}, below {current.scores.map:.4f}")
    return reasons


def _detection_entry(run: DetectionRun) -> dict[str, Any]:
    scores = scores_json(run.scores)
    del scores["classes"]
    return {"name": run.info.detector, "weights_sha256": run.info.weights_sha256, **scores}


def record_entry(new: Run, current: Run, now: datetime) -> dict[str, Any]:
    """Returns one line of the promotion record."""
    return {
        "date": now.isoformat(timespec="seconds"),
        "new": _run_entry(new),
        "replaced": _run_entry(current),
        "data": {"sha256": new.info.data_sha256, "split": new.info.split},
    }


def _run_entry(run: Run) -> dict[str, Any]:
    return {
        "name": run.info.predictor,
        "weights_sha256": run.info.weights_sha256,
        **asdict(summarise(run.results)),
    }


def weights_for(row: catalog.Engine, file: Path) -> Weights:
    """Returns the row of weights.toml that an engine's weights file replaces, by suffix. A .safetensors file, as
    training writes it, replaces a checkpoint of torch too. Raises InvalidWeights."""
    files = [one for one in known().values() if one.engine == row.name]
    matches = [one for one in files if Path(one.file).suffix == file.suffix]
    if not matches and file.suffix == ".safetensors":
        matches = [one for one in files if Path(one.file).suffix in CHECKPOINTS]
    if len(matches) != 1:
        accepted = ", ".join(one.file for one in files) or "none"
        raise InvalidWeights(
            f"{file.name} must have the suffix of exactly one weights file of the engine {row.name!r}, which has: "
            f"{accepted}. `maskdrop export` converts a trained network. A network without an engine can be evaluated "
            "(`maskdrop evaluate --trained`), but not promoted."
        )
    return matches[0]


def load_detector_candidate(file: Path, row: catalog.Engine, scratch: Path, device: str, threads: int) -> Detector:
    """Loads a detector with another weights file; see `load_candidate`. Raises InvalidWeights."""
    import_file(weights_for(row, file), file, scratch, own=True)
    try:
        return load_detector(row, device, scratch, threads)
    except NotInstalled as error:
        raise InvalidWeights(f"{row.name} cannot be loaded with {file.name} alone: {error.message}") from error


def load_candidate(file: Path, row: catalog.Engine, scratch: Path, device: str, threads: int) -> Engine:
    """Loads an engine with another weights file, as after its installation.

    scratch: an empty folder, which becomes a weights folder with that file. device, threads: see `Engine.setup`.
    Raises InvalidWeights.
    """
    import_file(weights_for(row, file), file, scratch, own=True)
    engines = load([row], device, scratch, threads)
    if row.name not in engines:
        raise InvalidWeights(f"{row.name} cannot be loaded with {file.name} alone, or a package is missing.")
    return engines[row.name]

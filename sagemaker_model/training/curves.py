"""Plots the history of a training run to curves.png."""

from __future__ import annotations

import json
import logging
from pathlib import Path

log = logging.getLogger(__name__)

CURVES = "curves.png"


def draw(out: Path) -> Path | None:
    """Plots loss, validation (IoU, or mAP of a detector) and learning rate by step. Returns None if matplotlib is not
    installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        log.info("%s is not drawn: matplotlib is not installed.", CURVES)
        return None
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    metric = "map" if any("map" in line for line in lines) else "iou"
    figure = Figure(figsize=(8, 8), layout="constrained")
    for axes, name in zip(figure.subplots(3, sharex=True), ("loss", metric, "lr"), strict=True):
        points = [(line["step"], line[name]) for line in lines if name in line]
        axes.plot(*zip(*points, strict=True) if points else ((), ()), marker="." if len(points) < 50 else "")
        axes.set_ylabel(name)
        axes.grid(visible=True, alpha=0.3)
    axes.set_xlabel("step")
    figure.savefig(out / CURVES, dpi=100)
    return out / CURVES

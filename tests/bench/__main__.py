"""`make bench`: compares the whole stack with the model server alone, and the model server with rembg's server.

Also measures the CPU time, cold imports and size of the Lambda functions and the memory of the model server. All
measurements run once, against a stack of their own, so their figures are comparable; on a shared machine only ratios
are. Writes reports/bench.json, whose `images_per_second` `maskdrop plan --bench` reads.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from local import stack
from local.config import ROOT, LocalConfig
from tests.bench import functions, interactive, memory, rembg_served, throughput
from tests.bench.machine import machine
from tests.bench.photos import Photos
from tests.ports import free_ports

IMAGES = int(os.environ.get("BENCH_PICTURES", "300"))
MEMORY_IMAGES = int(os.environ.get("BENCH_MEMORY_PICTURES", "1000"))

RATIO_GOAL = "goal: at most 1.5"
"""Minimal functions for the same triggers, on plain botocore and Powertools: tests/bench/minimal.py."""

Row = tuple[str, str, str]
"""The measurement, its figure, and its goal or an explanation."""


def main() -> int:
    console = Console(highlight=False, width=110)
    aws, sagemaker, model = free_ports(3)
    config = LocalConfig(
        aws_port=aws,
        sagemaker_port=sagemaker,
        model_port=model,
        state=ROOT / ".local" / "bench",
        folder=ROOT / ".local" / "bench",
    )
    photos = Photos.create()
    rows: list[Row] = []
    try:
        with console.status("Starting a separate stack"):
            running_stack = stack.up(config)
        with console.status(f"{IMAGES} images through the model server alone"):
            bare = throughput.bare(running_stack.model_url, photos.photo, IMAGES)
        with console.status(f"{IMAGES} images through the whole stack"):
            end_to_end = throughput.end_to_end(config, running_stack, photos.photo, IMAGES)
        rows += [
            ("model server alone", f"{bare:.1f} images/s", f"{throughput.CLIENTS} clients, 1 MP JPEG -> PNG cut-out"),
            ("S3 put to result, whole stack", f"{end_to_end:.1f} images/s", "includes the emulator's time"),
            ("whole stack / model server alone", f"{end_to_end / bare:.2f}", "1: no overhead"),
        ]
        with console.status("Interactive requests with 1, 4 and 8 clients"):
            for latencies in interactive.measured(config, running_stack, photos.photo):
                rows += _interactive_rows(latencies)
            api_ms = interactive.cpu_ms(config, photos.photo)
        with console.status("rembg's server with the same network"):
            comparison = rembg_served.measured(config, running_stack, photos.photo)
            rows += [*_rembg_rows(comparison), _api_row(api_ms, comparison.cpu_ms[1])]
        with console.status("ingest and record, in bundles of 64"):
            cpu = functions.cpu_ms(config, running_stack)
        rows += [
            (
                f"CPU of {name} / minimal function",
                f"{cpu[name] / cpu[f'minimal {name}']:.2f}",
                f"{cpu[name]:.2f} / {cpu[f'minimal {name}']:.2f} ms an image; {RATIO_GOAL}",
            )
            for name in ("ingest", "record")
        ]
        with console.status("cold imports"):
            bundle = functions.bundle(config)
            rows += [
                (f"cold import of {name} / minimal function", f"{ratio:.2f}", f"{ms:.0f} ms; {RATIO_GOAL}")
                for name, (ms, ratio) in functions.cold_imports(bundle).items()
            ]
            rows.append(("Lambda zip", f"{functions.zip_mb(bundle):.2f} MB", "goal: at most 5 MB"))
        with console.status(f"{MEMORY_IMAGES} images of mixed sizes"):
            steps = memory.resident_mb(config, running_stack.model_url, photos.mixed, MEMORY_IMAGES)
        rows += [(f"model server after {count} images", f"{mb:.0f} MB", "") for count, mb in steps[:-1]]
        rows.append(("model server, peak", f"{steps[-1][1]:.0f} MB", "goal: no growth from step to step"))
    finally:
        stack.down(config)
    console.print(_table(rows))
    report = ROOT / "reports" / "bench.json"
    report.parent.mkdir(exist_ok=True)
    rates = {"model_server": round(bare, 2), "stack": round(end_to_end, 2)}
    record = {"at": datetime.now(UTC).isoformat(), "machine": machine(), "images_per_second": rates, "rows": rows}
    report.write_text(json.dumps(record, indent=1))
    console.print(f"{machine()}. Report: {report.relative_to(ROOT)}")
    return 0


def _rembg_rows(comparison: rembg_served.Comparison) -> list[Row]:
    rows: list[Row] = []
    for rates in comparison.rates:
        clients = f"{rates.clients} clients" if rates.clients > 1 else "1 client"
        rows += [
            (f"rembg s, {clients}", f"{rates.rembg:.1f} images/s", "the same network, one pass per image"),
            ("  model server alone", f"{rates.bare:.1f} images/s", "two passes, edges and their colours refined"),
            ("  model server / rembg", f"{rates.ratio:.2f}", "goal: at least 3"),
            ("  POST /api/remove, whole stack", f"{rates.end_to_end:.1f} images/s", "includes the emulator's time"),
        ]
    theirs, ours = comparison.cpu_ms
    agreement = comparison.agreement
    return [
        *rows,
        ("CPU of rembg s for an image", f"{theirs:.0f} ms", ""),
        ("CPU of the model server for an image", f"{ours:.0f} ms", f"rembg / model server {theirs / ours:.2f}"),
        ("agreement of alpha, IoU", f"{agreement.iou:.3f}", f"at 0.5; the run fails below {rembg_served.IOU_MIN}"),
        ("  mean difference", f"{agreement.difference:.1f} of 255", ""),
    ]


def _api_row(api_ms: float, image_ms: float) -> Row:
    """image_ms: CPU time of the model server for an image."""
    note = f"{api_ms:.1f} / {image_ms:.0f} ms a request; goal: at most 0.1"
    return ("CPU of api / CPU of the model server", f"{api_ms / image_ms:.2f}", note)


def _interactive_rows(latencies: interactive.Latencies) -> list[Row]:
    clients = f"{latencies.clients} clients" if latencies.clients > 1 else "1 client"

    def figure(latency: interactive.Latency) -> str:
        return f"{latency.p50_ms:.0f} / {latency.p95_ms:.0f} ms"

    return [
        (f"interactive, {clients}", figure(latencies.end_to_end), "POST /v1/cutouts, p50 / p95, 1 MP JPEG -> PNG"),
        ("  model server alone", figure(latencies.bare), ""),
        ("  through the SageMaker emulator", figure(latencies.sagemaker), ""),
        ("  emulated gateway", figure(latencies.echo), "a function that returns as many bytes as the result"),
        ("  authorizer and rate limit", f"{latencies.key_ms:.0f} ms", "at p50: GET /v1/usage minus an empty response"),
        (
            "  rest / model server alone",
            f"{latencies.rest_ms / latencies.bare.p50_ms:.2f}",
            f"{latencies.rest_ms:.0f} ms at p50: this project's code; goal: at most 0.12",
        ),
    ]


def _table(rows: list[Row]) -> Table:
    table = Table("measured", "figure", "")
    for row in rows:
        table.add_row(*row)
    return table


if __name__ == "__main__":
    sys.exit(main())

"""`make bench`: how fast the whole path is beside the bare model server, and that beside rembg's server with the same
network; and what the parts around it cost.

Everything is measured in one run against a stack of its own, so that the figures can be compared with one another; on a
shared machine only their ratios hold. Writes reports/bench.json.
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
from tests.bench import functions, memory, now, rembg_served, throughput
from tests.bench.machine import machine
from tests.bench.photos import Photos
from tests.ports import free_ports

PICTURES = int(os.environ.get("BENCH_PICTURES", "300"))
MEMORY_PICTURES = int(os.environ.get("BENCH_MEMORY_PICTURES", "1000"))

Row = tuple[str, str, str]
"""What was measured, the figure, and its goal or what it means."""


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
    photos = Photos.made()
    rows: list[Row] = []
    try:
        with console.status("Starting a stack of its own"):
            here = stack.up(config)
        with console.status(f"{PICTURES} images to the bare model server"):
            bare = throughput.bare(here.model_url, photos.photo, PICTURES)
        with console.status(f"{PICTURES} images through the whole stack"):
            whole = throughput.whole(config, here, photos.photo, PICTURES)
        rows += [
            ("bare model server", f"{bare:.1f} images/s", f"{throughput.CLIENTS} clients, 1 MP JPEG -> PNG cut-out"),
            ("S3 put to result, whole stack", f"{whole:.1f} images/s", "the emulator's own share included"),
            ("whole / bare", f"{whole / bare:.2f}", "1 would be a path that costs nothing"),
        ]
        with console.status("One image now, with 1, 4 and 8 clients"):
            rows += [row for one in now.measured(config, here, photos.photo) for row in _of_one_now(one)]
            api_ms = now.cpu_ms(config, photos.photo)
            rows.append(("CPU of api for one image now", f"{api_ms:.1f} ms", "goal: at most 15 ms"))
        with console.status("rembg's server with the same network, beside ours"):
            rows += _beside_rembg(rembg_served.measured(config, here, photos.photo))
        with console.status("ingest and record, in bundles of 64"):
            cpu = functions.cpu_ms(config, here)
        rows += [
            ("CPU of ingest", f"{cpu['ingest']:.2f} ms an image", ""),
            ("CPU of record", f"{cpu['record']:.2f} ms an image", ""),
            ("CPU of both", f"{cpu['ingest'] + cpu['record']:.2f} ms an image", "goal: at most 3 ms"),
        ]
        with console.status("cold imports"):
            bundle = functions.bundle(config)
            rows += [
                (f"cold import of {name}", f"{ms:.0f} ms", "goal: at most 300 ms")
                for name, ms in functions.cold_imports(bundle).items()
            ]
            rows.append(("Lambda zip", f"{functions.zip_mb(bundle):.2f} MB", "goal: at most 5 MB"))
        with console.status(f"{MEMORY_PICTURES} images of mixed sizes"):
            steps = memory.resident_mb(config, here.model_url, photos.mixed, MEMORY_PICTURES)
        rows += [(f"model server after {count} images", f"{mb:.0f} MB", "") for count, mb in steps[:-1]]
        rows.append(("model server, peak", f"{steps[-1][1]:.0f} MB", "flat: no growth from step to step"))
    finally:
        stack.down(config)
    console.print(_table(rows))
    report = ROOT / "reports" / "bench.json"
    report.parent.mkdir(exist_ok=True)
    report.write_text(json.dumps({"at": datetime.now(UTC).isoformat(), "machine": machine(), "rows": rows}, indent=1))
    console.print(f"{machine()}. Report: {report.relative_to(ROOT)}")
    return 0


def _beside_rembg(beside: rembg_served.Beside) -> list[Row]:
    rows: list[Row] = []
    for rates in beside.rates:
        clients = f"{rates.clients} clients" if rates.clients > 1 else "1 client"
        rows += [
            (f"rembg s, {clients}", f"{rates.rembg:.1f} images/s", "the same network, one look at an image"),
            ("  bare model server", f"{rates.bare:.1f} images/s", "two looks, edges and their colours refined"),
            ("  bare / rembg", f"{rates.ratio:.2f}", "goal: at least 3"),
            ("  POST /api/remove, whole stack", f"{rates.whole:.1f} images/s", "the emulator's own share included"),
        ]
    theirs, ours = beside.cpu_ms
    agreement = beside.agreement
    return [
        *rows,
        ("CPU of rembg s for an image", f"{theirs:.0f} ms", ""),
        ("CPU of the bare model server", f"{ours:.0f} ms", f"rembg / bare {theirs / ours:.2f}"),
        ("alpha of both, IoU", f"{agreement.iou:.3f}", f"at 0.5; at least {rembg_served.IOU_MIN}, or the run fails"),
        ("  mean difference", f"{agreement.difference:.1f} of 255", ""),
    ]


def _of_one_now(one: now.Now) -> list[Row]:
    clients = f"{one.clients} clients" if one.clients > 1 else "1 client"

    def figure(latency: now.Latency) -> str:
        return f"{latency.p50_ms:.0f} / {latency.p95_ms:.0f} ms"

    return [
        (f"one image now, {clients}", figure(one.whole), "POST /v1/cutouts, p50 / p95, 1 MP JPEG -> PNG cut-out"),
        ("  bare model server", figure(one.bare), ""),
        ("  behind the stand-in for SageMaker", figure(one.stand_in), ""),
        ("  emulated gateway, with images", figure(one.echo), "a function that only hands out the result's size"),
        ("  its authorizer and count of calls", f"{one.key_ms:.0f} ms", "at p50: GET /v1/usage, less an empty answer"),
        ("  left", f"{one.left_ms:.0f} ms", "at p50: our part; goal: at most 15 ms"),
    ]


def _table(rows: list[Row]) -> Table:
    table = Table("measured", "figure", "")
    for row in rows:
        table.add_row(*row)
    return table


if __name__ == "__main__":
    sys.exit(main())

"""Writes docs/performance.md and its plots from the measurements."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import matplotlib
import numpy as np

from local.config import ROOT
from tests.bench import server_overhead
from tests.bench.machine import machine
from tests.bench.measure import cores
from tests.bench.network import Networks
from tests.bench.prompts import Prompts
from tests.bench.roofline import ITEM_BYTES
from tests.bench.served import Overload, Rate
from tests.bench.server_overhead import Overhead
from tests.bench.single_image import FIRST_MS_MAX, EngineTiming

matplotlib.use("Agg")

PAGE = ROOT / "docs" / "performance.md"
SERVED_PLOT = ROOT / "docs" / "images" / "performance.png"
ROOFLINE_PLOT = ROOT / "docs" / "images" / "roofline.png"

SERVED_SIDE = 1000


@dataclass(frozen=True, slots=True)
class Served:
    """Rate of one engine through the server. megabytes: the server's peak memory with all engines loaded."""

    engine: str
    rate: Rate
    megabytes: float


@dataclass(slots=True)
class Report:
    """All measurements. missing: the reason for each measurement that is missing, by name."""

    device: str
    random_weights: list[str] = field(default_factory=list)
    timings: list[EngineTiming] = field(default_factory=list)
    networks: Networks | None = None
    prompts: list[Prompts] = field(default_factory=list)
    server_mb: float = 0.0
    served: list[Served] = field(default_factory=list)
    overhead: list[Overhead] = field(default_factory=list)
    overload: Overload | None = None
    missing: dict[str, str] = field(default_factory=dict)


def write(report: Report) -> list[Path]:
    """Writes the page and the plots; returns their paths."""
    SERVED_PLOT.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(_page(report)) + "\n")
    _plot_served(report)
    if report.networks is None:
        return [PAGE, SERVED_PLOT]
    _plot_roofline(report.networks)
    return [PAGE, SERVED_PLOT, ROOFLINE_PLOT]


def _page(report: Report) -> Iterable[str]:
    yield "# Performance"
    yield from _prose(
        f"Written by `make bench-engines` on {datetime.now(UTC):%Y-%m-%d}. Machine: {machine()}; device "
        f"{report.device}. Medians of one run on a shared machine: compare figures only within this page. "
        "CPU times vary less than images a second."
    )
    if report.random_weights:
        names = ", ".join(f"`{name}`" for name in report.random_weights)
        yield from _prose(
            f"The weights of {names} are random: a network's time does not depend on its weights. The time of the "
            "later stages does: a matte of noise has no flat areas, so refine, foreground and encode take longer."
        )
    yield from _single_image(report)
    yield from _served(report)
    if report.overhead:
        yield from _overhead(report.overhead)
    if over := report.overload:
        yield from ("", "## Overload")
        yield from _prose(
            f"{over.clients} clients, {over.places} places (`MODEL_QUEUE_MAX`), `selfie`: {over.done} images done, "
            f"{over.refused} refused at once with 503 and Retry-After; the queue's metric, read 20 times a second, "
            f"was at most {over.waiting_max:.0f}."
        )
    if report.prompts:
        yield from _prompts(report.prompts)
    if report.networks:
        yield from _networks(report.networks)
    yield from ("", "## Not measured", "")
    yield from (f"- {name}: {reason}" for name, reason in report.missing.items())


def _single_image(report: Report) -> Iterable[str]:
    yield from ("", "## One image, one core", "")
    yield "![Shares of the stages, and images a second by clients](images/performance.png)"
    stages = list(dict.fromkeys(stage for row in report.timings for stage in row.stages))
    places = list(_engines(report))
    rows = [
        (
            f"`{row.engine}`", f"{row.side**2 / 1e6:.2f}", f"{row.first_ms:.0f}", f"{row.predict_ms:.1f}",
            f"{1000 / row.predict_ms:.1f}", f"{row.whole_ms:.1f}", f"{row.cpu_ms:.1f}", f"{1000 / row.whole_ms:.1f}",
            *(f"{row.stages.get(stage, 0) / sum(row.stages.values()):.0%}" for stage in stages),
            f"{row.predict_mb:.0f}", f"{row.whole_mb:.0f}",
        )
        for row in sorted(report.timings, key=lambda row: (places.index(row.engine), row.side))
    ]  # fmt: skip
    headers = ("engine", "MP", "first ms", "predict ms", "images/s", "whole ms", "CPU ms", "images/s", *stages)
    yield from _table((*headers, "predict MB", "whole MB"), rows)
    yield from _prose(
        "predict: the engine alone on decoded pixels. whole: from the JPEG to the PNG; the stages' shares refer to "
        "it. MB: peak resident memory of a separate process. first: the process's first image. For SAM, only first "
        f"includes the encoder; later prompts use its cached embedding. Where first takes over "
        f"{FIRST_MS_MAX / 1000:.0f} s, other sizes are skipped."
    )


def _served(report: Report) -> Iterable[str]:
    by_engine = {row.engine: row for row in report.timings if row.side == SERVED_SIDE}
    yield from ("", "## Through the server, 1 MP")
    rows = [
        (
            f"`{one.engine}`", f"{one.rate.clients}", f"{one.rate.images_s:.1f}", f"{one.rate.p50_ms:.0f}",
            f"{one.rate.p95_ms:.0f}", f"{one.rate.cpu_ms:.0f}",
            f"{one.rate.images_s * by_engine[one.engine].whole_ms / 1000 / cores():.0%}",
            f"{by_engine[one.engine].cpu_ms / one.rate.cpu_ms:.0%}", f"{one.megabytes:.0f}",
        )
        for one in report.served
    ]  # fmt: skip
    yield from _table(
        ("engine", "clients", "images/s", "p50 ms", "p95 ms", "CPU ms", "of the cores", "CPU alone / served", "MB"),
        rows,
    )
    client_cpu_max = max((one.rate.client_cpu for one in report.served), default=0)
    yield from _prose(
        f"From JPEG to PNG. Of the cores: images/s divided by {cores()} times the rate of one core (whole ms above). "
        "CPU ms: CPU time of the server for an image; next to it the ratio to the CPU time without the server. The "
        f"clients run on the same cores and use at most {client_cpu_max:.0%} of one. The server uses "
        f"{report.server_mb:.0f} MB with all engines loaded. Numbers of clients for which one image each would take "
        "too long are skipped."
    )


def _overhead(rows: Sequence[Overhead]) -> Iterable[str]:
    descriptions = {
        server_overhead.FILE_ENGINE: f"JPEG to PNG, {server_overhead.FILE_SIDE**2 / 1e6:.0f} MP",
        server_overhead.ARRAY_ENGINE: f"{server_overhead.ARRAY_SIDE}x{server_overhead.ARRAY_SIDE} array to alpha",
    }
    yield from ("", "## Overhead of the server", "")
    yield "| engine | task | images/s served | images/s without server | share | CPU ms served | CPU ms without |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        yield (
            f"| `{row.engine}` | {descriptions[row.engine]} | {row.served.images_s:.1f} | {row.direct_images_s:.1f} "
            f"| {row.share:.0%} | {row.served.cpu_ms:.0f} | {row.direct_cpu_ms:.0f} |"
        )
    yield from _prose(
        f"{server_overhead.CLIENTS} clients, alternating with the same processing without the server: decoding, "
        "network and encoding of files, the network alone for arrays. It runs in one thread on each core or in the "
        f"GPU's batches. Medians of {server_overhead.ROUNDS} rounds. The clients run on the same cores and use at most "
        f"{max(row.served.client_cpu for row in rows):.0%} of one. Arrays are sent as `application/x-npy`."
    )


def _prompts(rows: Sequence[Prompts]) -> Iterable[str]:
    yield from ("", "## First and second prompt, 1 MP, all cores")
    yield from _table(
        ("network", "first ms", "second ms", "ratio"),
        [
            (one.engine, f"{one.first_ms:.0f}", f"{one.next_ms:.0f}", f"{one.first_ms / one.next_ms:.0f}")
            for one in rows
        ],
    )
    yield from _prose("The engine on decoded pixels: first a point, then a box, which uses the cached embedding.")


def _networks(networks: Networks) -> Iterable[str]:
    yield from ("", "## Networks alone, with the roofline", "", "![Roofline](images/roofline.png)")
    rows = [
        (
            row.network, row.runtime, row.precision, _batch_label(row.batch, row.streams), f"{row.images_s:.2f}",
            f"{row.cpu_ms:.0f}", f"{row.images_s * networks.costs[row.network].flops / 1e9:.0f}",
            f"{row.of_roofline:.0%}", "" if row.joules is None else f"{row.joules:.2f}",
        )
        for row in networks.rows
    ]  # fmt: skip
    headers = ("network", "runtime", "precision", "batch", "images/s", "CPU ms", "GFLOP/s", "of roofline", "J an image")
    yield from _table(headers, rows)
    yield from _table(
        ("network", "GFLOP an image", "activations, 10^6", "weights, 10^6"),
        [
            (name, f"{cost.flops / 1e9:.1f}", f"{cost.activations / 1e6:.1f}", f"{cost.weights / 1e6:.1f}")
            for name, cost in networks.costs.items()
        ],
    )
    yield from _table(
        ("ceiling", "GFLOP/s, matrix product", "GB/s, copy"),
        [(name, f"{one.flops_s / 1e9:.0f}", f"{one.bytes_s / 1e9:.1f}") for name, one in networks.ceilings.items()],
    )
    yield from _prose(
        "Ceilings and networks were measured in one run, with all cores of the CPU or the whole GPU. FLOPs are counted "
        "by torch; bytes are those that convolutions and products with weights read and write "
        "(`tests/bench/roofline.py`). Of the roofline: share of min(product, FLOPs per byte times copy). The network "
        "of `selfie` is not counted, because it is not a torch network. J an image: energy of the whole GPU, from NVML."
    )


def _batch_label(batch: int, streams: int) -> str:
    return f"{batch}" if streams == 1 else f"{batch} on each core"


def _engines(report: Report) -> dict[str, None]:
    return dict.fromkeys(row.engine for row in report.timings)


def _prose(text: str) -> Iterable[str]:
    yield from ("", *textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False))


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield ""
    yield f"| {' | '.join(headers)} |"
    yield "|---" * len(headers) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _plot_served(report: Report) -> None:
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    rows = [row for row in report.timings if row.side == SERVED_SIDE]
    names, bar_starts = [row.engine for row in rows], np.zeros(len(rows))
    for stage in dict.fromkeys(stage for row in rows for stage in row.stages):
        shares = np.array([row.stages.get(stage, 0) / sum(row.stages.values()) for row in rows])
        left.barh(names, shares * 100, left=bar_starts, label=stage)
        bar_starts += shares * 100
    for place, row in enumerate(rows):
        left.text(101, place, f"{row.whole_ms:.0f} ms", va="center")
    left.set(xlabel="% of an image's time, one core, 1 MP", xlim=(0, 118))
    left.invert_yaxis()
    left.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, ncols=6, columnspacing=1, loc="upper center", bbox_to_anchor=(0.5, 1.12))
    for engine in _engines(report):
        rates = [one.rate for one in report.served if one.engine == engine]
        right.plot([rate.clients for rate in rates], [rate.images_s for rate in rates], marker="o", label=engine)
    clients = sorted({one.rate.clients for one in report.served})
    right.set(xscale="log", yscale="log", xlabel="clients", ylabel="images/s", title="Through the server, 1 MP")
    right.set_xticks(clients, [str(count) for count in clients])
    right.minorticks_off()
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.yaxis.set_major_formatter("{x:g}")
    right.spines[["top", "right"]].set_visible(False)
    right.legend(frameon=False)
    figure.savefig(SERVED_PLOT, dpi=110)
    plt.close(figure)


def _plot_roofline(networks: Networks) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    intensities = np.logspace(-1, 4, 200)
    colours = {precision: f"C{i}" for i, precision in enumerate(networks.ceilings)}
    for precision, ceiling in networks.ceilings.items():
        roof = [ceiling.attainable(one) / 1e9 for one in intensities]
        axes.plot(intensities, roof, color=colours[precision], label=f"{precision}: attainable")
    markers = dict(zip(dict.fromkeys((row.network, row.runtime) for row in networks.rows), "osD^vP*X", strict=False))
    for (name, runtime), marker in markers.items():
        rows = [row for row in networks.rows if (row.network, row.runtime) == (name, runtime)]
        cost = networks.costs[name]
        axes.scatter(
            [cost.intensity(row.batch, ITEM_BYTES[row.precision]) for row in rows],
            [row.images_s * cost.flops / 1e9 for row in rows],
            marker=marker,
            c=[colours[row.precision] for row in rows],
            label=f"{name}, {runtime}",
        )
    axes.set(xscale="log", yscale="log", xlabel="FLOPs a byte moved", ylabel="GFLOP/s")
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(frameon=False)
    for handle in legend.legend_handles[len(colours) :]:
        handle.set_color("grey")  # type: ignore[union-attr]
    figure.savefig(ROOFLINE_PLOT, dpi=110)
    plt.close(figure)

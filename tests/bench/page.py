"""docs/performance.md and its plots, from what was measured."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import matplotlib
import numpy as np

from local.config import ROOT
from tests.bench import beside
from tests.bench.alone import FIRST_MS_MAX, Alone
from tests.bench.beside import Beside
from tests.bench.machine import machine
from tests.bench.measure import cores
from tests.bench.network import Networks
from tests.bench.prompts import Prompts
from tests.bench.roofline import ITEM_BYTES
from tests.bench.served import Overload, Rate

matplotlib.use("Agg")

PAGE = ROOT / "docs" / "performance.md"
SERVED_PLOT = ROOT / "docs" / "images" / "performance.png"
ROOFLINE_PLOT = ROOT / "docs" / "images" / "roofline.png"

SERVED_SIDE = 1000


@dataclass(frozen=True, slots=True)
class Served:
    """megabytes: of the server at the most, with all engines loaded."""

    engine: str
    rate: Rate
    megabytes: float


@dataclass(slots=True)
class Report:
    """What was measured, and in `missing` what was not and why."""

    device: str
    random_weights: list[str] = field(default_factory=list)
    alone: list[Alone] = field(default_factory=list)
    networks: Networks | None = None
    prompts: list[Prompts] = field(default_factory=list)
    server_mb: float = 0.0
    served: list[Served] = field(default_factory=list)
    beside: list[Beside] = field(default_factory=list)
    overload: Overload | None = None
    missing: dict[str, str] = field(default_factory=dict)


def write(report: Report) -> list[Path]:
    """The files written."""
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
        f"{report.device}. Medians of one run on a shared machine: compare figures of this page with one another, not "
        "with other pages; CPU times are steadier than images a second."
    )
    if report.random_weights:
        names = ", ".join(f"`{name}`" for name in report.random_weights)
        yield from _prose(
            f"The weights of {names} are random: the time of a network does not depend on them. What follows it "
            "does: a matte of noise has no flat places, so its refine, foreground and encode are slower than real ones."
        )
    yield from _alone(report)
    yield from _served(report)
    if report.beside:
        yield from _beside(report.beside)
    if over := report.overload:
        yield from ("", "## A full server")
        yield from _prose(
            f"{over.clients} clients, {over.places} places (`MODEL_QUEUE_MAX`), `selfie`: {over.done} images done, "
            f"{over.refused} refused at once with 503 and Retry-After; the queue's metric, asked 20 times a second, "
            f"was {over.waiting_max:.0f} at the most."
        )
    if report.prompts:
        yield from _prompts(report.prompts)
    if report.networks:
        yield from _networks(report.networks)
    yield from ("", "## Not measured", "")
    yield from (f"- {what}: {why}" for what, why in report.missing.items())


def _alone(report: Report) -> Iterable[str]:
    yield from ("", "## One image, one core", "")
    yield "![Shares of the stages, and images a second by clients](images/performance.png)"
    stages = list(dict.fromkeys(stage for row in report.alone for stage in row.stages))
    places = list(_engines(report))
    rows = [
        (
            f"`{row.engine}`", f"{row.side**2 / 1e6:.2f}", f"{row.first_ms:.0f}", f"{row.predict_ms:.1f}",
            f"{1000 / row.predict_ms:.1f}", f"{row.whole_ms:.1f}", f"{row.cpu_ms:.1f}", f"{1000 / row.whole_ms:.1f}",
            *(f"{row.stages.get(stage, 0) / sum(row.stages.values()):.0%}" for stage in stages),
            f"{row.predict_mb:.0f}", f"{row.whole_mb:.0f}",
        )
        for row in sorted(report.alone, key=lambda row: (places.index(row.engine), row.side))
    ]  # fmt: skip
    heads = ("engine", "MP", "first ms", "predict ms", "images/s", "whole ms", "CPU ms", "images/s", *stages)
    yield from _table((*heads, "predict MB", "whole MB"), rows)
    yield from _prose(
        "Predict is the engine alone on decoded pixels; whole is from the JPEG's bytes to the PNG's, and the shares "
        "are of it. MB: resident at the most, in a process of its own. First is the process's first image; of SAM, "
        "all but first are of later prompts: what its encoder saw is kept. Where first takes over "
        f"{FIRST_MS_MAX / 1000:.0f} s, other sizes are left out."
    )


def _served(report: Report) -> Iterable[str]:
    alone = {row.engine: row for row in report.alone if row.side == SERVED_SIDE}
    yield from ("", "## Through the server, 1 MP")
    rows = [
        (
            f"`{one.engine}`", f"{one.rate.clients}", f"{one.rate.images_s:.1f}", f"{one.rate.p50_ms:.0f}",
            f"{one.rate.p95_ms:.0f}", f"{one.rate.cpu_ms:.0f}",
            f"{one.rate.images_s * alone[one.engine].whole_ms / 1000 / cores():.0%}",
            f"{alone[one.engine].cpu_ms / one.rate.cpu_ms:.0%}", f"{one.megabytes:.0f}",
        )
        for one in report.served
    ]  # fmt: skip
    yield from _table(
        ("engine", "clients", "images/s", "p50 ms", "p95 ms", "CPU ms", "of the cores", "CPU alone / served", "MB"),
        rows,
    )
    most = max((one.rate.client_cpu for one in report.served), default=0)
    yield from _prose(
        f"JPEG in, PNG out. Of the cores: beside {cores()} times what one core does alone (whole ms above). CPU ms: of "
        "the server, an image; beside it what the image takes alone. The clients run on the same cores and take "
        f"{most:.0%} of one at the most. The server has {report.server_mb:.0f} MB with all engines loaded. Where one "
        "image for each client would take too long, that many clients are left out."
    )


def _beside(rows: Sequence[Beside]) -> Iterable[str]:
    what = {
        beside.WHOLE: f"JPEG to PNG, {beside.WHOLE_SIDE**2 / 1e6:.0f} MP, beside decoding, network and encoding",
        beside.DECODED: f"{beside.DECODED_SIDE}x{beside.DECODED_SIDE} decoded, alpha back, beside the network alone",
    }
    yield from ("", "## The server beside its work", "")
    yield "| engine | what | images/s served | images/s without server | share | CPU ms served | CPU ms without |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        yield (
            f"| `{row.engine}` | {what[row.engine]} | {row.served.images_s:.1f} | {row.alone_images_s:.1f} "
            f"| {row.share:.0%} | {row.served.cpu_ms:.0f} | {row.alone_cpu_ms:.0f} |"
        )
    yield from _prose(
        f"{beside.CLIENTS} clients, in turns with the same work in as many threads as there are cores, or in the GPU's "
        f"batches; medians of {beside.TURNS} turns. The clients run on the same cores and take "
        f"{max(row.served.client_cpu for row in rows):.0%} of one at the most. Decoded images come and go as "
        "`application/x-npy`."
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
    yield from _prose("The engine on decoded pixels: a click first, then a box, for which the embedding is kept.")


def _networks(networks: Networks) -> Iterable[str]:
    yield from ("", "## Networks alone, beside the roofline", "", "![Roofline](images/roofline.png)")
    rows = [
        (
            row.network, row.runtime, row.precision, _how(row.batch, row.streams), f"{row.images_s:.2f}",
            f"{row.cpu_ms:.0f}", f"{row.images_s * networks.work[row.network].flops / 1e9:.0f}",
            f"{row.of_roofline:.0%}", "" if row.joules is None else f"{row.joules:.2f}",
        )
        for row in networks.rows
    ]  # fmt: skip
    heads = ("network", "by", "precision", "batch", "images/s", "CPU ms", "GFLOP/s", "of roofline", "J an image")
    yield from _table(heads, rows)
    yield from _table(
        ("network", "GFLOP an image", "activations, 10^6", "weights, 10^6"),
        [
            (name, f"{work.flops / 1e9:.1f}", f"{work.activations / 1e6:.1f}", f"{work.weights / 1e6:.1f}")
            for name, work in networks.work.items()
        ],
    )
    yield from _table(
        ("ceiling", "GFLOP/s, matrix product", "GB/s, copy"),
        [(name, f"{one.flops_s / 1e9:.0f}", f"{one.bytes_s / 1e9:.1f}") for name, one in networks.ceilings.items()],
    )
    yield from _prose(
        "Ceilings and networks were measured in one run, with all cores of the CPU or the whole GPU. FLOPs are counted "
        "by torch; bytes are what convolutions and products with weights read and write (`tests/bench/roofline.py`). "
        "Of the roofline: beside min(product, FLOPs a byte times copy). The network of `selfie` is not counted: it is "
        "no network of torch. J an image: by NVML, of the whole GPU, where there is one."
    )


def _how(batch: int, streams: int) -> str:
    return f"{batch}" if streams == 1 else f"{batch} on each core"


def _engines(report: Report) -> dict[str, None]:
    return dict.fromkeys(row.engine for row in report.alone)


def _prose(text: str) -> Iterable[str]:
    yield from ("", *textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield ""
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _plot_served(report: Report) -> None:
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    rows = [row for row in report.alone if row.side == SERVED_SIDE]
    names, left_ends = [row.engine for row in rows], np.zeros(len(rows))
    for stage in dict.fromkeys(stage for row in rows for stage in row.stages):
        shares = np.array([row.stages.get(stage, 0) / sum(row.stages.values()) for row in rows])
        left.barh(names, shares * 100, left=left_ends, label=stage)
        left_ends += shares * 100
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
        work = networks.work[name]
        axes.scatter(
            [work.intensity(row.batch, ITEM_BYTES[row.precision]) for row in rows],
            [row.images_s * work.flops / 1e9 for row in rows],
            marker=marker,
            c=[colours[row.precision] for row in rows],
            label=f"{name}, {runtime}",
        )
    axes.set(xscale="log", yscale="log", xlabel="FLOPs a byte moved", ylabel="GFLOP/s")
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(frameon=False)
    for handle in legend.legend_handles[len(colours) :]:
        handle.set_color("grey")
    figure.savefig(ROOFLINE_PLOT, dpi=110)
    plt.close(figure)

"""Train a network locally or on SageMaker, tune hyperparameters, interpolate weights."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cli.terminal import console, print_errors
from local.config import ROOT, LocalError
from sagemaker_model.training import jobs, submit
from sagemaker_model.training.ranges import is_range
from sagemaker_model.training.settings import descriptions, metric_of, settings_of

if TYPE_CHECKING:
    from sagemaker_model.training.search import Trial

METRIC_NAMES = {"iou": "IoU", "map": "mAP"}

SKIPPED_SHOWN = 10
"""Maximum number of skipped records printed. training.json has all of them."""

ERROR_CHARACTERS = 2_000
"""Maximum length of an error of the SageMaker SDK: its last message, not its whole log."""

PACKAGES_MISSING = "Training needs {}: install requirements-models.txt (the extras gpu, export and train)."

SDK_PYTHON = ROOT / ".venv-sagemaker" / "bin" / "python"
"""Python of the environment that `make sagemaker` creates. The SDK pins older versions of packages that we use."""

app = typer.Typer(help=__doc__)


class On(StrEnum):
    local = "local"
    sagemaker = "sagemaker"


class Strategy(StrEnum):
    bayesian = "bayesian"
    hyperband = "hyperband"


Network = Annotated[
    str, typer.Argument(help="Network: attention-unet, portrait, modnet, modnet-soc, mask-rcnn, detector or rt-detr.")
]
Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME=VALUE", help="Settings, for example lr=0.001 steps=5000; all of them are below."),
]
Data = Annotated[str, typer.Option(help="Data folder, shards or detection data set; on SageMaker, an S3 prefix.")]
Out = Annotated[str, typer.Option(help="Output folder; on SageMaker, an S3 prefix.")]
Val = Annotated[str | None, typer.Option(help="Data for validation (default: --data).")]
Backgrounds = Annotated[
    str | None, typer.Option(help="Folder of background images to put subjects on (default: none).")
]
Start = Annotated[
    str | None,
    typer.Option(help="Initial weights: a file; on SageMaker, an S3 prefix with one file (default: random)."),
]
Image = Annotated[str, typer.Option(help="On SageMaker: image URI of the container.")]
Role = Annotated[str, typer.Option(help="On SageMaker: ARN of the job's execution role.")]
Instance = Annotated[str, typer.Option(help="On SageMaker: instance type.")]
Hours = Annotated[int, typer.Option(help="On SageMaker: maximum run time, in hours.", min=1)]
Spot = Annotated[bool, typer.Option("--spot/--no-spot", help="On SageMaker: use Spot instances.")]


SETTINGS_HELP = "\n\n".join(f"{name}: {text}." for name, text in descriptions().items())

EPILOGS = {"train": SETTINGS_HELP, "tune": SETTINGS_HELP}
"""Name of a command -> last part of its help: the settings."""


@app.command()
def train(
    network: Network,
    data: Data,
    out: Out,
    settings: Settings = None,
    val: Val = None,
    backgrounds: Backgrounds = None,
    start: Start = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the last checkpoint in OUT.")] = False,
    on: Annotated[On, typer.Option(help="Where to train: local or sagemaker.")] = On.local,
    image: Image = "",
    role: Role = "",
    instance: Instance = jobs.INSTANCE,
    hours: Hours = jobs.HOURS,
    spot: Spot = True,
) -> None:
    """Train a network. Writes the best weights to OUT/best.safetensors; on SageMaker, prints the job name."""
    with print_errors():
        given = parse_settings(settings or [])
        if on is On.local:
            folders = (Path(folder) if folder else None for folder in (val, backgrounds, start))
            _train_locally(network, given, Path(data), Path(out), *folders, resume=resume)
            return
        channels = _channels(data, val, backgrounds, start)
        config = jobs.JobConfig(
            image=image, role=role, out=out, channels=channels, instance=instance, hours=hours, spot=spot
        )
        name = _submit(jobs.training_job(_job_name(network), network, given, config))
        console.print(f"Training job {name}. It writes its weights to {escape(out)}{name}/output/.", soft_wrap=True)


@app.command()
def tune(
    network: Network,
    settings: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=VALUE",
            help="Settings to tune, such as lr=0.001:0.1 or batch=8,16, and fixed settings, such as steps=5000.",
        ),
    ],
    data: Data,
    out: Out,
    val: Val = None,
    backgrounds: Backgrounds = None,
    start: Start = None,
    runs: Annotated[int, typer.Option(help="Maximum number of training runs.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the search.", min=1)] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="On this machine: continue the search in OUT.")] = False,
    on: Annotated[On, typer.Option(help="Where to train: local or sagemaker.")] = On.local,
    strategy: Annotated[
        Strategy, typer.Option(help="On SageMaker: search strategy. On this machine: successive halving.")
    ] = Strategy.bayesian,
    at_once: Annotated[int, typer.Option(help="On SageMaker: maximum number of parallel training jobs.", min=1)] = 2,
    image: Image = "",
    role: Role = "",
    instance: Instance = jobs.INSTANCE,
    hours: Hours = jobs.HOURS,
    spot: Spot = True,
) -> None:
    """Search settings with the best validation result. Writes its weights and OUT/tuning.json; on SageMaker, prints the
    name of the tuning job."""
    with print_errors():
        given = parse_settings(settings)
        ranges = {name: value for name, value in given.items() if is_range(value)}
        fixed = {name: value for name, value in given.items() if name not in ranges}
        if on is On.local:
            folders = (Path(folder) if folder else None for folder in (val, backgrounds, start))
            _tune_locally(network, fixed, ranges, Path(data), Path(out), *folders, runs=runs, seed=seed, resume=resume)
            return
        channels = _channels(data, val, backgrounds, start)
        config = jobs.JobConfig(
            image=image, role=role, out=out, channels=channels, instance=instance, hours=hours, spot=spot
        )
        request = jobs.tuning_job(
            _job_name(network),
            network,
            fixed,
            ranges,
            config,
            runs=runs,
            at_once=at_once,
            strategy="Hyperband" if strategy is Strategy.hyperband else "Bayesian",
            seed=seed,
        )
        name = _submit(request)
        console.print(f"Tuning job {name}: up to {runs} runs, {at_once} in parallel.", soft_wrap=True)


@app.command()
def blend(
    network: Annotated[str, typer.Argument(help="Network, as in `train`.")],
    start: Annotated[Path, typer.Argument(help="Initial weights of a training run.")],
    end: Annotated[Path, typer.Argument(help="Final weights of that run.")],
    out: Annotated[Path, typer.Argument(help="Output file, .safetensors.")],
    share: Annotated[float, typer.Option(help="Weight of END in the interpolation, 0 to 1.", min=0, max=1)] = 0.5,
) -> None:
    """Write interpolated (averaged) weights. They generalise better to images outside the training data."""
    with print_errors():
        try:
            from sagemaker_model.training.blend import blend as write_blend
        except ModuleNotFoundError as error:
            raise LocalError(PACKAGES_MISSING.format(error.name)) from error
        write_blend(network, start, end, share, out)
        console.print(f"Wrote {escape(str(out))}.", soft_wrap=True)


def _train_locally(
    network: str,
    given: Mapping[str, str],
    data: Path,
    out: Path,
    val: Path | None,
    backgrounds: Path | None,
    start: Path | None,
    *,
    resume: bool,
) -> None:
    """Trains in this process, with a progress bar. Raises MaskdropError."""
    settings, metric = settings_of(network, given), metric_of(network)
    try:
        from sagemaker_model.training import curves
        from sagemaker_model.training import train as loop
    except ModuleNotFoundError as error:
        raise LocalError(PACKAGES_MISSING.format(error.name)) from error
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(network, total=settings.steps)

        def report(line: dict[str, Any]) -> None:
            if metric in line:
                console.print(f"step {line['step']:,}: {METRIC_NAMES[metric]} {line[metric]:.4f}")
            else:
                description = f"{network}, loss {line['loss']:.3f}, {line['samples_s']:.0f} samples/s"
                progress.update(bar, completed=line["step"], description=description)

        try:
            result = loop.train(
                network,
                loop.Data(train=data, val=val or data, backgrounds=backgrounds),
                out,
                settings,
                start=start,
                resume=resume,
                report=report,
            )
        except KeyboardInterrupt:
            console.print("Interrupted. To resume from the last checkpoint, repeat the command with --resume.")
            raise typer.Exit(130) from None
    if curves.draw(out) is None:
        console.print("curves.png is not drawn: install matplotlib (the extra `train`).")
    for id_, reason in list(result["skipped"].items())[:SKIPPED_SHOWN]:
        console.print(f"[red]skipped[/red]  {escape(id_)}: {escape(reason)}", soft_wrap=True)
    if result["skipped"]:
        console.print(f"{len(result['skipped'])} unusable records.")
    console.print(
        f"{METRIC_NAMES[metric]} {result[f'best_{metric}']:.4f} at step {result['best_step']:,}: "
        f"{escape(str(out / loop.BEST))}",
        soft_wrap=True,
    )


def _tune_locally(
    network: str,
    fixed: Mapping[str, str],
    ranges: Mapping[str, str],
    data: Path,
    out: Path,
    val: Path | None,
    backgrounds: Path | None,
    start: Path | None,
    *,
    runs: int,
    seed: int,
    resume: bool,
) -> None:
    """Searches settings in this process, and prints a line for each run. Raises MaskdropError."""
    try:
        from sagemaker_model.training.search import search
        from sagemaker_model.training.train import BEST, Data
    except ModuleNotFoundError as error:
        raise LocalError(PACKAGES_MISSING.format(error.name)) from error

    metric = METRIC_NAMES[metric_of(network)]

    def report(trial: Trial, step: int) -> None:
        result = trial.failure or f"{metric} {trial.score(step):.4f}"
        console.print(f"run {trial.number}, step {step:,}: {escape(result)}", soft_wrap=True)

    try:
        best, trials = search(
            network,
            Data(train=data, val=val or data, backgrounds=backgrounds),
            out,
            fixed,
            ranges,
            runs=runs,
            seed=seed,
            start=start,
            resume=resume,
            report=report,
        )
    except KeyboardInterrupt:
        console.print("Interrupted. To continue the search, repeat the command with --resume.")
        raise typer.Exit(130) from None
    table = Table("run", *ranges, "steps", metric, box=None)
    for trial in trials:
        step = max(trial.scores, key=int, default="0")
        table.add_row(str(trial.number), *trial.settings.values(), step, f"{trial.score(int(step)):.4f}")
    console.print(table)
    chosen = " ".join(f"{name}={value}" for name, value in best.settings.items())
    console.print(f"Best settings: {chosen} (run {best.number}). Weights: {escape(str(out / BEST))}", soft_wrap=True)


def _submit(request: Mapping[str, Any]) -> str:
    """Submits a request through the SageMaker SDK, and returns the name of the job. Raises LocalError."""
    if not SDK_PYTHON.exists():
        raise LocalError(
            f"The SageMaker SDK needs an environment of its own, and {SDK_PYTHON} does not exist: run `make sagemaker`."
        )
    command = [str(SDK_PYTHON), "-I", submit.__file__]
    result = subprocess.run(command, input=json.dumps(request), text=True, capture_output=True)  # noqa: S603
    if result.returncode:
        raise LocalError(f"SageMaker request failed: {result.stderr.strip()[-ERROR_CHARACTERS:]}")
    return result.stdout.strip()


def parse_settings(settings: Sequence[str]) -> dict[str, str]:
    """Parses NAME=VALUE arguments. Raises LocalError."""
    pairs = {name: value for name, equals, value in (text.partition("=") for text in settings) if equals}
    if len(pairs) != len(settings):
        raise LocalError(f"Settings must be NAME=VALUE, each name once; got {' '.join(settings)!r}.")
    return pairs


def _channels(data: str, val: str | None, backgrounds: str | None, start: str | None) -> dict[str, str]:
    channels = {"train": data, "val": val, "backgrounds": backgrounds, "start": start}
    return {name: prefix for name, prefix in channels.items() if prefix}


def _job_name(network: str) -> str:
    """Returns a new job name. SageMaker limits names of tuning jobs to 32 characters."""
    return f"{network}-{datetime.now(UTC):%y%m%d-%H%M%S}"

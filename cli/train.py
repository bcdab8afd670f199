"""Train a network locally or on SageMaker, tune hyperparameters, interpolate weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import boto3
import typer
from botocore.exceptions import BotoCoreError, ClientError
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.terminal import console, explained
from local.config import LocalError
from sagemaker_model.training import jobs
from sagemaker_model.training.settings import settings_of

SKIPPED_SHOWN = 10
"""On the terminal; training.json has all."""

NEEDED = "Training needs {}: install requirements-models.txt (the extras gpu, export and train)."

app = typer.Typer(help=__doc__)


class On(StrEnum):
    local = "local"
    sagemaker = "sagemaker"


Network = Annotated[str, typer.Argument(help="attention-unet, portrait, modnet, modnet-soc or mask-rcnn.")]
Settings = Annotated[list[str] | None, typer.Argument(metavar="NAME=VALUE", help="Settings, say lr=0.001 steps=5000.")]
Data = Annotated[str, typer.Option(help="A data folder or shards; on SageMaker, their prefix in S3.")]
Out = Annotated[str, typer.Option(help="The folder of the run; on SageMaker, a prefix in S3.")]
Val = Annotated[str | None, typer.Option(help="The same as --data for validation, where it lies elsewhere.")]
Backgrounds = Annotated[str | None, typer.Option(help="Images to put subjects on.")]
Start = Annotated[
    str | None, typer.Option(help="Weights to begin with: a file; on SageMaker, a prefix with that file.")
]
Image = Annotated[str, typer.Option(help="On SageMaker: the container, as the endpoints run it.")]
Role = Annotated[str, typer.Option(help="On SageMaker: ARN of the role that the job works as.")]
Instance = Annotated[str, typer.Option(help="On SageMaker: instance type.")]
Hours = Annotated[int, typer.Option(help="On SageMaker: after which a run is stopped.", min=1)]
Spot = Annotated[bool, typer.Option("--spot/--no-spot", help="On SageMaker: on spare instances.")]


@app.command()
def train(
    network: Network,
    data: Data,
    out: Out,
    settings: Settings = None,
    val: Val = None,
    backgrounds: Backgrounds = None,
    start: Start = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in OUT.")] = False,
    on: Annotated[On, typer.Option(help="Where to train: local or sagemaker.")] = On.local,
    image: Image = "",
    role: Role = "",
    instance: Instance = jobs.INSTANCE,
    hours: Hours = jobs.HOURS,
    spot: Spot = True,
) -> None:
    """Train a network. Writes the best weights to OUT/best.safetensors; on SageMaker, prints the job name."""
    with explained():
        given = _pairs(settings or [])
        if on is On.local:
            folders = (Path(folder) if folder else None for folder in (val, backgrounds, start))
            _train_here(network, given, Path(data), Path(out), *folders, resume=resume)
            return
        channels = _channels(data, val, backgrounds, start)
        place = jobs.Place(
            image=image, role=role, out=out, channels=channels, instance=instance, hours=hours, spot=spot
        )
        name = _name(network)
        request = jobs.training_job(name, network, given, place)
        with _sagemaker() as client:
            client.create_training_job(**request)
        console.print(f"Training job {name}. Its weights come to {escape(out)}{name}/output/.", soft_wrap=True)


@app.command()
def tune(
    network: Network,
    settings: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=VALUE", help="What to find, lr=0.001:0.1 or batch=8,16; others as in `train`, steps=5000."
        ),
    ],
    data: Data,
    out: Out,
    image: Image,
    role: Role,
    val: Val = None,
    backgrounds: Backgrounds = None,
    start: Start = None,
    runs: Annotated[int, typer.Option(help="Maximum number of training jobs.", min=1)] = 20,
    at_once: Annotated[int, typer.Option(help="Maximum number of parallel training jobs.", min=1)] = 2,
    instance: Instance = jobs.INSTANCE,
    hours: Hours = jobs.HOURS,
    spot: Spot = True,
) -> None:
    """Run a hyperparameter tuning job on SageMaker and print its name."""
    with explained():
        given = _pairs(settings)
        ranges = {name: value for name, value in given.items() if jobs.is_range(value)}
        fixed = {name: value for name, value in given.items() if name not in ranges}
        channels = _channels(data, val, backgrounds, start)
        place = jobs.Place(
            image=image, role=role, out=out, channels=channels, instance=instance, hours=hours, spot=spot
        )
        name = _name(network)
        request = jobs.tuning_job(name, network, fixed, ranges, place, runs=runs, at_once=at_once)
        with _sagemaker() as client:
            client.create_hyper_parameter_tuning_job(**request)
        console.print(f"Tuning job {name}, {runs} runs, {at_once} at once.", soft_wrap=True)


@app.command()
def blend(
    network: Annotated[str, typer.Argument(help="As in `train`.")],
    start: Annotated[Path, typer.Argument(help="The weights that a training began with.")],
    end: Annotated[Path, typer.Argument(help="The weights that it ended with.")],
    out: Annotated[Path, typer.Argument(help="The file to write, .safetensors.")],
    share: Annotated[float, typer.Option(help="Weight of END in the interpolation, 0 to 1.", min=0, max=1)] = 0.5,
) -> None:
    """Write interpolated (averaged) weights. They generalise better to images outside the training data."""
    with explained():
        try:
            from sagemaker_model.training.blend import blend as blended
        except ModuleNotFoundError as error:
            raise LocalError(NEEDED.format(error.name)) from error
        blended(network, start, end, share, out)
        console.print(f"Wrote {escape(str(out))}.", soft_wrap=True)


def _train_here(
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
    """With a bar. Raises MaskdropError."""
    settings = settings_of(network, given)
    try:
        from sagemaker_model.training import curves
        from sagemaker_model.training import train as loop
    except ModuleNotFoundError as error:
        raise LocalError(NEEDED.format(error.name)) from error
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(network, total=settings.steps)

        def report(line: dict[str, Any]) -> None:
            if "iou" in line:
                console.print(f"step {line['step']:,}: IoU {line['iou']:.4f}")
            else:
                description = f"{network}, loss {line['loss']:.3f}, {line['samples_s']:.0f} samples/s"
                progress.update(bar, completed=line["step"], description=description)

        try:
            made = loop.train(
                network,
                loop.Data(train=data, val=val or data, backgrounds=backgrounds),
                out,
                settings,
                start=start,
                resume=resume,
                report=report,
            )
        except KeyboardInterrupt:
            console.print("Stopped. The same command with --resume goes on from the last checkpoint.")
            raise typer.Exit(130) from None
    curves.draw(out)
    for id_, reason in list(made["skipped"].items())[:SKIPPED_SHOWN]:
        console.print(f"[red]left out[/red]  {escape(id_)}: {escape(reason)}", soft_wrap=True)
    if made["skipped"]:
        console.print(f"{len(made['skipped'])} records could not be used.")
    console.print(
        f"IoU {made['best_iou']:.4f} at step {made['best_step']:,}: {escape(str(out / loop.BEST))}", soft_wrap=True
    )


def _pairs(settings: Sequence[str]) -> dict[str, str]:
    """Raises LocalError."""
    pairs = {name: value for name, is_, value in (text.partition("=") for text in settings) if is_}
    if len(pairs) != len(settings):
        raise LocalError(f"Settings must be NAME=VALUE, each name once; got {' '.join(settings)!r}.")
    return pairs


def _channels(data: str, val: str | None, backgrounds: str | None, start: str | None) -> dict[str, str]:
    channels = {"train": data, "val": val, "backgrounds": backgrounds, "start": start}
    return {name: prefix for name, prefix in channels.items() if prefix}


def _name(network: str) -> str:
    """Of a job. SageMaker takes 32 characters for a tuning job."""
    return f"{network}-{datetime.now(UTC):%y%m%d-%H%M%S}"


@contextmanager
def _sagemaker() -> Iterator[Any]:
    """Yields a client with the user's credentials. Raises LocalError for AWS errors."""
    try:
        yield boto3.client("sagemaker")
    except (BotoCoreError, ClientError) as error:
        raise LocalError(f"SageMaker request failed: {error}") from error

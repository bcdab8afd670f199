"""Data for training and evaluation: prepare it, and backgrounds to put people on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cli.terminal import console, explained
from sagemaker_model.data import backdrops, folders
from sagemaker_model.data.masks import Subject
from sagemaker_model.data.prepare import entries_of, reasons
from sagemaker_model.data.prepare import prepare as prepare_
from sagemaker_model.data.recipe import Kind, Recipe
from sagemaker_model.data.records import SPLITS, BadRecord, InvalidData
from sagemaker_model.imaging.pixels import Pixels

app = typer.Typer(no_args_is_help=True, help=__doc__)

LicenceClass = Literal["clean", "unclear"]

REASONS_SHOWN = 5
"""Of each reason, so many records are named on the terminal; manifest.json has them all."""


@app.command()
def prepare(
    kind: Annotated[Kind, typer.Argument(help="The layout of SOURCE.", show_default=False)],
    source: Annotated[Path, typer.Argument(help="The dataset, as it was published.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="A folder for the shards, new or of a run to go on with.")],
    side: Annotated[int, typer.Option(help="Pixels of the longer side at most; the shape stays.")] = 640,
    split: Annotated[
        str | None,
        typer.Option(help="Shares of train/val or train/val/test. By default the dataset's own split, or 0.7/0.3."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of split, order and backgrounds.")] = 0,
    shard_mb: Annotated[int, typer.Option(help="Megabytes after which a shard ends.", min=1)] = 200,
    class_: Annotated[
        list[str] | None,
        typer.Option("--class", help="Name of a class that is subject; any number. By default the dataset's persons."),
    ] = None,
    subject: Annotated[
        Subject | None,
        typer.Option(help="Who counts of several: all, the most central one (default of coco), or images of only one."),
    ] = None,
    min_share: Annotated[
        float | None,
        typer.Option(
            help="Of the image that a subject covers at least. By default 0.4 for coco, 0.15 for voc, else 0."
        ),
    ] = None,
    empty: Annotated[
        bool | None,
        typer.Option("--empty/--no-empty", help="Keep images without a subject. By default for voc and folders."),
    ] = None,
    min_side: Annotated[int, typer.Option(help="Minimum length of the shorter side, in pixels.")] = 128,
    aspect: Annotated[
        str | None, typer.Option(help="WIDTH:HEIGHT, say 9:16: images are cut to that shape around the subject.")
    ] = None,
    backgrounds: Annotated[
        list[Path] | None,
        typer.Option(help="A folder of images to put subjects of the training split on; any number.", exists=True),
    ] = None,
    swapped: Annotated[
        float, typer.Option(help="Share of the training records that come on another background as well.")
    ] = 0.5,
    licence: Annotated[str, typer.Option(help="Of records whose dataset names none.")] = "",
    licence_class: Annotated[LicenceClass | None, typer.Option(help="Of records whose dataset names none.")] = None,
    backgrounds_class: Annotated[LicenceClass | None, typer.Option(help="Licence class of the backgrounds.")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of threads (default: one per core).", min=1)] = None,
) -> None:
    """Convert a published dataset to shards for training and evaluation.

    Records that cannot be used are left out, counted and named with their reason in OUT/manifest.json. A run that was
    broken off is taken up by the same command, and ends with the same bytes as one that was not.
    """
    with explained():
        recipe = Recipe.of(
            kind,
            classes=tuple(class_) if class_ else None,
            subject=subject,
            side=side,
            shares=_shares(split) if split else None,
            seed=seed,
            shard_bytes=shard_mb * 1_000_000,
            min_share=min_share,
            empty=empty,
            min_side=min_side,
            aspect=_aspect(aspect) if aspect else None,
            swapped=swapped,
            licence=licence,
            licence_class=licence_class,
            backgrounds_class=backgrounds_class,
        )
        behind = [path for folder in backgrounds or () for path in _pictures(folder)]
        with console.status("Looking"):
            entries = entries_of(source, recipe)
        cv2.setNumThreads(1)  # the workers share the cores
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("Preparing", total=len(entries))
            manifest = prepare_(
                entries,
                recipe,
                out,
                backgrounds=behind,
                workers=workers or os.cpu_count() or 1,
                progress=lambda done: progress.advance(task, done),
            )
    _say(manifest, out)
    if not manifest["shards"]:
        raise typer.Exit(1)


@app.command()
def backgrounds(
    photos: Annotated[Path, typer.Argument(help="A data folder: what lies beside its subjects is taken.")],
    out: Annotated[Path, typer.Argument(help="Output folder.")],
    panoramas: Annotated[
        Path | None, typer.Option(help="A folder of .hdr or .exr panoramas without people to take views of.")
    ] = None,
    views: Annotated[int, typer.Option(help="Number of views per panorama.", min=1)] = 20,
    side: Annotated[int, typer.Option(help="Side of a view, in pixels.", min=64)] = 480,
    clean: Annotated[bool, typer.Option(help="Only photos whose licence class is clean.")] = False,
    seed: Annotated[int, typer.Option(help="Random seed of the views.")] = 0,
) -> None:
    """Create images without people: strips of the training photos beside their subjects, and views of panoramas.

    Photos in which others than the subject stand about give strips with people: choose them, or look at the strips.
    """
    with explained(), console.status("Making backgrounds"):
        out.mkdir(parents=True, exist_ok=True)
        left_out = 0
        for entry in folders.entries(photos):
            if entry.split not in ("train", "") or (clean and entry.licence_class != "clean"):
                continue
            try:
                found = list(backdrops.strips(entry.load()))
            except BadRecord:
                left_out += 1
                continue
            for number, strip in enumerate(found):
                _write(out / f"{entry.id}-{number}.jpg", strip)
        for path in _pictures(panoramas) if panoramas else ():
            random, around = np.random.default_rng((seed, *path.name.encode())), backdrops.panorama(path)
            for number in range(views):
                _write(out / f"{path.stem}-{number:03}.jpg", backdrops.view(around, side, random))
    made = sum(1 for _ in out.glob("*.jpg"))
    console.print(f"{made:,} images in {escape(str(out))}; {left_out:,} records could not be used.", soft_wrap=True)


def _write(path: Path, rgb: Pixels) -> None:
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, 92))
    path.write_bytes(jpeg.tobytes())


def _say(manifest: dict[str, Any], out: Path) -> None:
    table = Table("part", *SPLITS)
    for part, counts in sorted(manifest["counts"].items()):
        table.add_row(escape(part), *(f"{counts[split]:,}" for split in SPLITS))
    console.print(table)
    console.print(f"{len(manifest['shards'])} shards in {escape(str(out))}.", soft_wrap=True)
    for reason, count in reasons(manifest).most_common():
        named = [id_ for id_, said in manifest["skipped"].items() if said.partition(":")[0] == reason][:REASONS_SHOWN]
        more = ", …" if count > len(named) else ""
        console.print(f"Left out, {escape(reason)}: {count:,} ({escape(', '.join(named))}{more})", soft_wrap=True)


def _pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not found:
        raise InvalidData(f"There are no images in {folder}.")
    return found


def _shares(text: str) -> tuple[float, float, float]:
    """ "0.7/0.3" as (0.7, 0.3, 0.0). Raises InvalidData."""
    try:
        train, val, *rest = (float(share) for share in text.split("/"))
        (test,) = rest or (0.0,)
    except ValueError as error:
        raise InvalidData(f"--split is two or three shares, say 0.7/0.3, not {text!r}.") from error
    return train, val, test


def _aspect(text: str) -> tuple[int, int]:
    """ "9:16" as (9, 16). Raises InvalidData."""
    try:
        width, height = (int(number) for number in text.split(":"))
    except ValueError as error:
        raise InvalidData(f"--aspect is two whole numbers, say 9:16, not {text!r}.") from error
    return width, height

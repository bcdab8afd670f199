"""Prepare data for training and evaluation, download corrections, create background images."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cli.keys import Data, Stage
from cli.terminal import console, print_errors
from local.keys import connection
from maskdrop.review import TRAINING_PREFIX
from sagemaker_model.data import backdrops, folders
from sagemaker_model.data.masks import Subject
from sagemaker_model.data.prepare import entries_of, reasons
from sagemaker_model.data.prepare import prepare as prepare_
from sagemaker_model.data.prepare_boxes import PROBLEMS, BoxKind, BoxRecipe, Preparation, listing_of, prepare_boxes
from sagemaker_model.data.recipe import Kind, Recipe
from sagemaker_model.data.records import SPLITS, BadRecord, InvalidData
from sagemaker_model.imaging.pixels import Pixels
from standalone.database import Database
from standalone.files import Files
from standalone.settings import BUCKET_OUT, data_folder

app = typer.Typer(no_args_is_help=True, help=__doc__)

LicenceClass = Literal["clean", "unclear"]

PROGRESS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())

NAMES_SHOWN = 5
"""Maximum number of record names printed per reason. manifest.json has all of them."""


@app.command()
def prepare(
    kind: Annotated[Kind, typer.Argument(help="Layout of SOURCE.", show_default=False)],
    source: Annotated[Path, typer.Argument(help="Folder or file of the dataset, as published.", show_default=False)],
    out: Annotated[
        Path, typer.Argument(help="Folder of the shards: a new one, or one of an interrupted run to resume.")
    ],
    side: Annotated[
        int, typer.Option(help="Maximum length of the longer side, in pixels; keeps the aspect ratio.")
    ] = 640,
    split: Annotated[
        str | None,
        typer.Option(help="Shares of train/val or train/val/test (default: the dataset's own split, else 0.7/0.3)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of split, order and backgrounds.")] = 0,
    shard_mb: Annotated[int, typer.Option(help="Size at which a shard ends, in megabytes.", min=1)] = 200,
    class_: Annotated[
        list[str] | None,
        typer.Option(
            "--class", help="Class that is the subject; repeatable (default: the dataset's classes of people)."
        ),
    ] = None,
    subject: Annotated[
        Subject | None,
        typer.Option(
            help="Subject of an image with several instances: all of them, the central one, or only (skip the image) "
            "(default: central for coco, else all)."
        ),
    ] = None,
    min_share: Annotated[
        float | None,
        typer.Option(
            help="Minimum share of the image that a subject covers (default: 0.4 for coco, 0.15 for voc, else 0)."
        ),
    ] = None,
    empty: Annotated[
        bool | None,
        typer.Option(
            "--empty/--no-empty", help="Keep images without a subject (default: yes for voc and folders, else no)."
        ),
    ] = None,
    min_side: Annotated[int, typer.Option(help="Minimum length of the shorter side, in pixels.")] = 128,
    aspect: Annotated[
        str | None,
        typer.Option(
            help="Aspect ratio to crop to, around the subject: WIDTH:HEIGHT, for example 9:16 (default: no cropping)."
        ),
    ] = None,
    backgrounds: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of background images for subjects of the training split; repeatable (default: none).",
            exists=True,
        ),
    ] = None,
    swapped: Annotated[
        float, typer.Option(help="Share of the training records that are stored a second time, on another background.")
    ] = 0.5,
    licence: Annotated[str, typer.Option(help="Licence of records whose dataset states none.")] = "",
    licence_class: Annotated[
        LicenceClass | None, typer.Option(help="Licence class of records whose dataset states none.")
    ] = None,
    backgrounds_class: Annotated[LicenceClass | None, typer.Option(help="Licence class of the backgrounds.")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of threads (default: one per core).", min=1)] = None,
) -> None:
    """Convert a published dataset to shards for training and evaluation.

    Skips unusable records and lists them with their reasons in OUT/manifest.json. To resume an interrupted run, repeat
    the command; the result has the same bytes as an uninterrupted run.
    """
    with print_errors():
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
        background_paths = [path for folder in backgrounds or () for path in _image_paths(folder)]
        with console.status("Listing records"):
            entries = entries_of(source, recipe)
        cv2.setNumThreads(1)  # the workers share the cores
        with Progress(*PROGRESS, console=console, transient=True) as progress:
            task = progress.add_task("Preparing", total=len(entries))
            manifest = prepare_(
                entries,
                recipe,
                out,
                backgrounds=background_paths,
                workers=workers or os.cpu_count() or 1,
                progress=lambda done: progress.advance(task, done),
            )
    _print_summary(manifest, out)
    if not manifest["shards"]:
        raise typer.Exit(1)


@app.command()
def prepare_detection(
    kind: Annotated[BoxKind, typer.Argument(help="Form of SOURCE.", show_default=False)],
    source: Annotated[Path, typer.Argument(help="Folder or file of the dataset, as published.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Output folder: images/, annotations.json, problems.csv.")],
    class_: Annotated[
        list[str] | None,
        typer.Option("--class", help="Class to keep; repeatable, in the order of their numbers (default: all)."),
    ] = None,
    names: Annotated[
        str,
        typer.Option(help="Names of the classes 0, 1, … of lst and rec, separated by commas (default: the numbers)."),
    ] = "",
    split: Annotated[
        str | None,
        typer.Option(help="Shares of train/val or train/val/test (default: the dataset's own split, else 0.7/0.3)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the split.")] = 0,
    empty: Annotated[
        bool, typer.Option("--empty/--no-empty", help="Keep images without a box of the classes (default: no).")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Number of threads (default: one per core).", min=1)] = None,
) -> None:
    """Convert a dataset of labelled boxes to the form that detectors are trained and evaluated on (COCO).

    Clips or skips broken rows, and lists each with its reason in OUT/problems.csv.
    """
    with print_errors():
        recipe = BoxRecipe(
            kind=kind,
            classes=tuple(class_ or ()),
            names=tuple(name.strip() for name in names.split(",")) if names else (),
            shares=_shares(split) if split else None,
            seed=seed,
            empty=empty,
        )
        with console.status("Listing images"):
            listing = listing_of(source, recipe)
        cv2.setNumThreads(1)  # the workers share the cores
        with Progress(*PROGRESS, console=console, transient=True) as progress:
            task = progress.add_task("Preparing", total=len(listing.entries))
            preparation = prepare_boxes(
                listing,
                recipe,
                out,
                workers=workers or os.cpu_count() or 1,
                progress=lambda done: progress.advance(task, done),
            )
    _print_preparation(preparation, out)


CORRECTION = re.compile(r"(images|masks|records)/([0-9a-f]{32})(\.[A-Za-z0-9]{1,8})?")
"""Path of a file of a training record below TRAINING_PREFIX (`maskdrop.review`)."""


@app.command()
def corrections(
    out: Annotated[Path, typer.Argument(help="Output folder: images/, masks/, records/.")],
    stage: Stage = None,
    serve: Annotated[bool, typer.Option("--serve", help="Corrections of `maskdrop serve` on this machine.")] = False,
    data: Data = None,
) -> None:
    """Download the corrections of reviewed results as a data folder, for `maskdrop data prepare folders OUT SHARDS`.

    Use a new folder for each download: a correction whose job was deleted is not downloaded again.
    """
    with print_errors(), _stored_corrections(stage, data, serve=serve) as (paths, read):
        matches = [found for path in paths if (found := CORRECTION.fullmatch(path))]
        complete = {found[2] for found in matches if found[1] == "records"}
        for found in matches:
            if found[2] in complete:
                target = out / found[0]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(read(found[0]))
    number = "1 correction" if len(complete) == 1 else f"{len(complete):,} corrections"
    console.print(f"{number} in {escape(str(out))}.", soft_wrap=True)


@contextmanager
def _stored_corrections(
    stage: str | None, data: Path | None, *, serve: bool
) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """Yields the paths of the training records below TRAINING_PREFIX, and a function that reads the file of a path."""
    if serve:
        database = Database(data or data_folder())
        try:
            files = Files(data or data_folder(), database)
            keys = files.keys(BUCKET_OUT, TRAINING_PREFIX)
            yield (
                [key.removeprefix(TRAINING_PREFIX) for key in keys],
                lambda path: files.read(BUCKET_OUT, TRAINING_PREFIX + path),
            )
        finally:
            database.close()
        return
    with connection(stage) as (outputs, make_client):
        s3, bucket = make_client("s3"), outputs["ResultsBucket"]
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=TRAINING_PREFIX)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]

        def read(path: str) -> bytes:
            body: bytes = s3.get_object(Bucket=bucket, Key=TRAINING_PREFIX + path)["Body"].read()
            return body

        yield [key.removeprefix(TRAINING_PREFIX) for key in keys], read


@app.command()
def backgrounds(
    photos: Annotated[Path, typer.Argument(help="Data folder of photos to cut strips from.")],
    out: Annotated[Path, typer.Argument(help="Output folder.")],
    panoramas: Annotated[
        Path | None,
        typer.Option(help="Folder of .hdr or .exr panoramas without people, for rendered views (default: none)."),
    ] = None,
    views: Annotated[int, typer.Option(help="Number of views per panorama.", min=1)] = 20,
    side: Annotated[int, typer.Option(help="Side of a view, in pixels.", min=64)] = 480,
    clean: Annotated[bool, typer.Option(help="Use only photos of the licence class clean.")] = False,
    seed: Annotated[int, typer.Option(help="Random seed of the views.")] = 0,
) -> None:
    """Create background images without people: strips beside the subjects of training photos, and views of panoramas.

    Check the strips of photos that show other people than the subject: these strips can contain people.
    """
    with print_errors(), console.status("Creating backgrounds"):
        out.mkdir(parents=True, exist_ok=True)
        skipped = 0
        for entry in folders.entries(photos):
            if entry.split not in ("train", "") or (clean and entry.licence_class != "clean"):
                continue
            try:
                strips = list(backdrops.strips(entry.load()))
            except BadRecord:
                skipped += 1
                continue
            for number, strip in enumerate(strips):
                _write(out / f"{entry.id}-{number}.jpg", strip)
        for path in _image_paths(panoramas) if panoramas else ():
            random, panorama = np.random.default_rng((seed, *path.name.encode())), backdrops.read_panorama(path)
            for number in range(views):
                _write(out / f"{path.stem}-{number:03}.jpg", backdrops.panorama_view(panorama, side, random))
    count = sum(1 for _ in out.glob("*.jpg"))
    console.print(f"{count:,} images in {escape(str(out))}; {skipped:,} unusable records.", soft_wrap=True)


def _write(path: Path, rgb: Pixels) -> None:
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, 92))
    path.write_bytes(jpeg.tobytes())


def _print_summary(manifest: dict[str, Any], out: Path) -> None:
    table = Table("part", *SPLITS)
    for part, counts in sorted(manifest["counts"].items()):
        table.add_row(escape(part), *(f"{counts[split]:,}" for split in SPLITS))
    console.print(table)
    console.print(f"{len(manifest['shards'])} shards in {escape(str(out))}.", soft_wrap=True)
    for reason, count in reasons(manifest).most_common():
        named = [id_ for id_, text in manifest["skipped"].items() if text.partition(":")[0] == reason][:NAMES_SHOWN]
        more = ", …" if count > len(named) else ""
        console.print(f"Skipped, {escape(reason)}: {count:,} ({escape(', '.join(named))}{more})", soft_wrap=True)


def _print_preparation(preparation: Preparation, out: Path) -> None:
    data = preparation.data
    boxes = np.zeros((len(SPLITS), len(data.names)), np.int64)
    images = dict.fromkeys(SPLITS, 0)
    for record in data.records:
        images[record.split] += 1
        np.add.at(boxes[SPLITS.index(record.split)], record.labels, 1)
    table = Table("boxes of", *SPLITS)
    for label, name in enumerate(data.names):
        table.add_row(escape(name), *(f"{count:,}" for count in boxes[:, label]))
    console.print(table)
    counts = ", ".join(f"{count:,} {split}" for split, count in images.items())
    console.print(f"{len(data.records):,} images in {escape(str(out))}: {counts}.", soft_wrap=True)
    if images["train"] and not images["val"]:
        console.print("Training needs images of val: --split 0.8/0.1/0.1 draws them.")
    if preparation.others:
        console.print(f"{preparation.others:,} boxes of other classes were left out.")
    for (action, reason), count in preparation.reasons().most_common():
        console.print(f"{action.capitalize()}, {escape(reason)}: {count:,}", soft_wrap=True)
    if preparation.problems:
        console.print(f"{escape(str(out / PROBLEMS))} lists them.", soft_wrap=True)


def _image_paths(folder: Path) -> list[Path]:
    """Returns the files below a folder, without hidden ones. Raises InvalidData."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise InvalidData(f"The folder {folder} contains no files.")
    return paths


def _shares(text: str) -> tuple[float, float, float]:
    """Parses "0.7/0.3" to (0.7, 0.3, 0.0). Raises InvalidData."""
    try:
        train, val, *rest = (float(share) for share in text.split("/"))
        (test,) = rest or (0.0,)
    except ValueError as error:
        raise InvalidData(f"--split must be two or three shares, for example 0.7/0.3; got {text!r}.") from error
    return train, val, test


def _aspect(text: str) -> tuple[int, int]:
    """Parses "9:16" to (9, 16). Raises InvalidData."""
    try:
        width, height = (int(number) for number in text.split(":"))
    except ValueError as error:
        raise InvalidData(f"--aspect must be two integers, for example 9:16; got {text!r}.") from error
    return width, height

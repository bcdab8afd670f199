"""Generate a grid of candidates around a target: the command of the predecessor, with its configuration file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.markup import escape
from rich.table import Column, Table

from cli.batch import Photo, is_done, photos_of
from cli.contact_sheet import Group, contact_sheet
from cli.engines import Weights, weights_for
from cli.images import USD_MAX, RekognitionFlag, UsdMax, print_price
from cli.options import ConfidenceFlag, EngineFlag, PromptFlags, options_of
from cli.processing import Processor, load_processor, paint_of
from cli.repaint_config import DEFAULT_EDITOR, RepaintConfig, read_config
from cli.results import RESULTS, check_out, read_file, write_file
from cli.terminal import FAILED, console, messages, print_errors
from maskdrop.edit import Edit, EditorName
from maskdrop.errors import EditFiltered, InputError, MaskdropError, MaskEmpty
from maskdrop.options import Options
from maskdrop.output import Output
from sagemaker_model.imaging.encode import encode
from sagemaker_model.imaging.pixels import Limits, decode
from sagemaker_model.imaging.resize import resized

SHEET = "contact-sheet.jpg"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One image of the grid. number: of its prompt, from 1. data: b"" for one that failed, with the error."""

    number: int
    prompt: str
    seed: int
    data: bytes = b""
    error: MaskdropError | None = None

    @property
    def name(self) -> str:
        return f"prompt-{self.number}-seed-{self.seed}.png"


def repaint(
    config: Annotated[
        Path,
        typer.Option(
            "--config", "--config_file", dir_okay=False, help="YAML file with candidate_prompts, seed_range and others."
        ),
    ],
    img_path: Annotated[Path, typer.Option("--img-path", "--img_path", help="Photo, or a folder with its subfolders.")],
    target_label: Annotated[
        str, typer.Option("--target-label", "--target_label", help="Label of the part to keep; all of its instances.")
    ] = "face",
    editor: Annotated[
        EditorName | None,
        typer.Option(help="Editor: local, stability, titan or nova.", show_default="that of modelId, else stability"),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(help="Region of Amazon Bedrock.", show_default="that of the file, else of the AWS profile"),
    ] = None,
    max_usd: UsdMax = USD_MAX,
    min_confidence: ConfidenceFlag = None,
    engine: EngineFlag = None,
    out: Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="Folder for the results.")] = RESULTS,
    rekognition: RekognitionFlag = False,
    folder: Weights = None,
) -> None:
    """Generate a new background around a label, once for each prompt and seed of a configuration file. Writes the
    candidates and a contact sheet. In a folder, photos with all candidates are skipped. Exits 1 if a candidate is
    missing."""
    with print_errors():
        settings = read_config(config)
        for warning in settings.warnings:
            messages.print(f"[yellow]{escape(warning)}[/yellow]", soft_wrap=True)
        photos = photos_of([img_path], out)
        check_out([photo.path for photo in photos], out)
        pending = [photo for photo in photos if photo.listed or not _complete(photo, settings, out / photo.name)]
        for photo in pending:
            read_file(photo.path)  # raises an error before anything is paid
        paint = paint_of(editor or settings.editor or DEFAULT_EDITOR, max_usd, region or settings.region)
        images = len(settings.prompts) * len(settings.seeds) * len(pending)
        print_price(paint, paint.check(settings.prompts, images))
        prompts = PromptFlags(labels=[target_label], min_confidence=min_confidence)
        options = options_of("replace", prompts, engine=engine, edit={"prompts": settings.prompts[0]})
        processor = load_processor(options, weights_for(options.engine, folder), rekognition=rekognition, paint=paint)
        failed = 0
        for photo in pending:
            try:
                failed += not repaint_photo(photo, processor, options, settings, target_label, out)
            except InputError as error:
                if photo.listed:
                    raise
                failed += 1
                messages.print(f"[red]{escape(f'{photo.path}: {error.message}')}[/red]", soft_wrap=True)
    if len(photos) > 1:
        done = len(pending) - failed
        console.print(f"{done} done, {len(photos) - len(pending)} skipped, {failed} failed.")
    if failed:
        raise typer.Exit(FAILED)


def _complete(photo: Photo, settings: RepaintConfig, folder: Path) -> bool:
    """Whether all candidates of a photo exist. An interrupted run leaves some of them, with a contact sheet."""
    grid = [(number, prompt, seed) for number, prompt in enumerate(settings.prompts, 1) for seed in settings.seeds]
    return all(is_done(photo, folder / Candidate(*one).name) for one in grid)


def repaint_photo(
    photo: Photo, processor: Processor, options: Options, settings: RepaintConfig, label: str, out: Path
) -> bool:
    """Writes the candidates of one photo and their contact sheet. Returns whether all candidates were generated."""
    data, target = read_file(photo.path), out / photo.name
    if settings.size:
        data = resized_photo(data, settings.size, processor.limits)
        width, height = settings.size
        messages.print(f"The photo was resized to {width} x {height} pixels; its sides may be stretched.")
    candidates = []
    try:
        for candidate in grid(processor, data, options, settings):
            candidates.append(candidate)
            if candidate.data:
                write_file(target / candidate.name, candidate.data)
    except MaskEmpty as error:
        raise MaskEmpty(
            f"Found no {label!r} in {photo.path}; no image was generated. Use another --target-label or a lower "
            "--min-confidence."
        ) from error
    finally:
        _report(candidates, target, Group("Source", [(photo.name.name, data)]))
    return not any(candidate.error for candidate in candidates)


def grid(processor: Processor, photo: bytes, options: Options, settings: RepaintConfig) -> Iterator[Candidate]:
    """Segments a photo once, and yields a candidate for each prompt and seed.

    A candidate that the content filter refuses does not stop the others. Raises what `Processor.segment` and
    `Editor.edit` raise.
    """
    segmented = processor.segment(photo, options)
    for warning in segmented.warnings:
        messages.print(f"[yellow]{escape(warning)}[/yellow]", soft_wrap=True)
    for number, prompt in enumerate(settings.prompts, 1):
        for seed in settings.seeds:
            candidate = Candidate(number, prompt, seed)
            one = replace(options, edit=Edit((prompt,), seeds=(seed,)))
            try:
                made = processor.generate(photo, one, segmented)
            except EditFiltered as error:
                yield replace(candidate, error=error)
            else:
                yield replace(candidate, data=made.cutout.data)


def _report(candidates: list[Candidate], folder: Path, source: Group) -> None:
    """Writes the contact sheet and prints the candidates, also after an error in the middle of the grid."""
    if not any(candidate.data for candidate in candidates):
        return
    sheet = folder / SHEET
    write_file(sheet, contact_sheet([source, *groups(candidates)]))
    console.print(table(candidates, folder))
    console.print(f"Wrote {escape(str(sheet))}", soft_wrap=True)


def resized_photo(data: bytes, size: tuple[int, int], limits: Limits) -> bytes:
    """Returns a photo, upright, at `size` (width, height) as PNG. Its mask is made at that size."""
    image = decode(data, limits)
    height, width = image.rgb.shape[:2]
    alpha = np.full((height, width), 255, np.uint8) if image.alpha is None else image.alpha
    return encode(resized(image.rgb, size), resized(alpha, size), Output(), None, {})


def groups(candidates: list[Candidate]) -> list[Group]:
    """Returns the candidates of each prompt, without those that failed."""
    found: dict[int, Group] = {}
    for one in candidates:
        if one.data:
            group = found.get(one.number, Group(f"{one.number}. {one.prompt}", []))
            found[one.number] = Group(group.heading, [*group.images, (f"seed {one.seed}", one.data)])
    return list(found.values())


def table(candidates: list[Candidate], folder: Path) -> Table:
    rows = Table(*(Column(name, overflow="fold") for name in ("prompt", "seed", "result")))
    for one in candidates:
        result = f"{one.error.code}: {one.error.message}" if one.error else str(folder / one.name)
        rows.add_row(escape(f"{one.number}. {one.prompt:.60}"), str(one.seed), escape(result))
    return rows

"""Preparation of a detection data set: reads its form, validates every box, and writes the form of `detection.py`.

A row that breaks a rule is clipped or left out, never used as it is: problems.csv lists each with its reason. An image
all of whose boxes are broken is left out, too: training would take it for an image without objects.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from maskdrop.errors import InputError
from sagemaker_model.data.boxes import coco, labelme, mxnet, open_images, voc
from sagemaker_model.data.boxes.base import Box, BoxedEntry, Listing
from sagemaker_model.data.detection import (
    ANNOTATIONS,
    IMAGES,
    ROUNDING,
    DetectionRecord,
    DetectionSet,
    Floats,
    write_set,
)
from sagemaker_model.data.recipe import DEFAULT_SHARES, Shares, draw_split, validate_shares
from sagemaker_model.data.records import LIMITS, BadRecord, InvalidData
from sagemaker_model.imaging.pixels import decode
from sagemaker_model.weights.files import atomic_write

BoxKind = Literal["coco", "open-images", "voc", "labelme", "lst", "rec"]

PROBLEMS = "problems.csv"

SIDE_MIN = 0.01
"""Pixels of a box's shorter side below which it is empty: COCO's coordinates have two decimals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxRecipe:
    """Rules of a preparation.

    classes: names of the classes to keep, in the order of their numbers; () keeps all. names: of the classes of a list
    or RecordIO file, by number, which these forms lack.
    shares: of train, val and test; None keeps the data set's own split, and uses DEFAULT_SHARES if it has none.
    empty: whether to keep images without a box of the classes.
    """

    kind: BoxKind
    classes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    shares: Shares | None = None
    seed: int = 0
    empty: bool = False


class Problem(NamedTuple):
    """A broken row; a line of problems.csv. image: its name. reason: "reason: details"."""

    image: str
    reason: str
    action: Literal["image skipped", "box skipped", "box clipped"]


class Preparation(NamedTuple):
    """The result. problems: broken rows. others: number of boxes of classes that are not selected, which are no problem
    of the data set and not in problems.csv."""

    data: DetectionSet
    problems: list[Problem]
    others: int

    def reasons(self) -> Counter[tuple[str, str]]:
        """Counts problems by action and reason, without the details after the colon."""
        return Counter((problem.action, problem.reason.partition(":")[0]) for problem in self.problems)


def listing_of(source: Path, recipe: BoxRecipe) -> Listing:
    """Lists the entries of a source in the form of the recipe's kind. Raises InvalidData."""
    if not source.exists():
        raise InvalidData(f"{source} does not exist.")
    if recipe.names and recipe.kind not in ("lst", "rec"):
        raise InvalidData(f"{recipe.kind} has names of classes: names are for lst and rec.")
    readers: dict[BoxKind, Callable[[], Listing]] = {
        "coco": lambda: coco.listing(source),
        "open-images": lambda: open_images.listing(source),
        "voc": lambda: voc.listing(source),
        "labelme": lambda: labelme.listing(source),
        "lst": lambda: mxnet.lst_listing(source, recipe.names),
        "rec": lambda: mxnet.rec_listing(source, recipe.names),
    }
    return readers[recipe.kind]()


def prepare_boxes(
    listing: Listing,
    recipe: BoxRecipe,
    out: Path,
    *,
    workers: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> Preparation:
    """Writes a data set into the folder `out`: images/, annotations.json and problems.csv.

    workers: number of threads. progress: called with the number of entries processed since the last call.
    Raises InvalidData, also for a folder with a data set, an unknown class, and a source without a usable image.
    """
    validate_shares(recipe.shares or DEFAULT_SHARES)
    names = _class_names(listing, recipe)
    if (out / ANNOTATIONS).exists():
        raise InvalidData(f"{out} has a data set: choose another folder, or delete this one.")
    records: list[DetectionRecord] = []
    problems: list[Problem] = []
    others = 0
    try:
        (out / IMAGES).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(workers) as pool:
            for outcome in pool.map(partial(_process, recipe=recipe, names=names, out=out), _unique(listing.entries)):
                records += [outcome.record] if outcome.record else []
                problems += outcome.problems
                others += outcome.others
                progress(1)
        data = DetectionSet(names, tuple(records))
        _write_problems(out / PROBLEMS, problems)
        if not records:
            raise InvalidData(f"The source has no usable image; {out / PROBLEMS} lists the reasons.")
        write_set(data, out)
    except OSError as error:
        raise InvalidData(f"{error.filename or out} cannot be written: {error.strerror or error}.") from error
    return Preparation(data, problems, others)


def _class_names(listing: Listing, recipe: BoxRecipe) -> tuple[str, ...]:
    """Returns the classes of the result: those of the recipe, else of the source. Raises InvalidData."""
    found = {box.label for entry in listing.entries for box in entry.boxes if isinstance(box, Box)}
    known = listing.names or tuple(sorted(found, key=lambda name: (len(name), name) if name.isdigit() else (0, name)))
    if unknown := [name for name in recipe.classes if name not in known]:
        raise InvalidData(f"The source has no class {', '.join(unknown)}; it has: {', '.join(known)}.")
    if len(set(recipe.classes)) < len(recipe.classes):
        raise InvalidData(f"Each class must be given once; got {', '.join(recipe.classes)}.")
    return recipe.classes or known


def _unique(entries: Sequence[BoxedEntry]) -> list[BoxedEntry]:
    """Returns entries with flat file names; the second of two entries with the same name gets a fault."""
    taken: set[str] = set()
    result = []
    for entry in entries:
        name = entry.name.replace("\\", "/").strip("/.").replace("/", "_")
        if not name or not name.isprintable():
            entry = replace(entry, fault=entry.fault or f"bad file name: {entry.name!r}")
        elif name in taken and not entry.fault:
            entry = replace(entry, fault=f"name taken: {name}")
        if not entry.fault:
            taken.add(name)
        result.append(replace(entry, name=name))
    return result


# One image


class _Outcome(NamedTuple):
    """record: None for an image that is left out. others: number of boxes of classes not selected."""

    record: DetectionRecord | None
    problems: list[Problem]
    others: int = 0


def _process(entry: BoxedEntry, *, recipe: BoxRecipe, names: Sequence[str], out: Path) -> _Outcome:
    """Validates an image and its boxes, and writes the image. Raises OSError if it cannot be written."""
    problems: list[Problem] = []
    boxes: list[tuple[Box, Floats]] = []
    others = 0
    try:
        if entry.fault:
            raise BadRecord(entry.fault)
        data = entry.load()
        width, height = _size(data, entry)
        for box in entry.boxes:
            if isinstance(box, str):
                problems.append(Problem(entry.name, box, "box skipped"))
                continue
            if box.label not in names:
                others += 1
                continue
            try:
                corners, clipping = _validated(box, entry.unit, width, height)
            except BadRecord as error:
                problems.append(Problem(entry.name, error.message, "box skipped"))
                continue
            problems += [Problem(entry.name, clipping, "box clipped")] if clipping else []
            boxes.append((box, corners))
        if not boxes and problems:
            raise BadRecord("no usable box")
        if not boxes and not recipe.empty:
            raise BadRecord("no box of the classes")
    except BadRecord as error:
        return _Outcome(None, [*problems, Problem(entry.name, error.message, "image skipped")], others)
    path = out / IMAGES / entry.name
    path.write_bytes(data)
    record = DetectionRecord(
        file=path,
        width=width,
        height=height,
        boxes=np.array([corners for _, corners in boxes], np.float32).reshape(-1, 4),
        labels=np.array([names.index(box.label) for box, _ in boxes], np.int64),
        crowd=np.array([box.crowd for box, _ in boxes], np.bool_),
        areas=np.array([_area(box, corners) for box, corners in boxes], np.float32),
        split=_split(entry, recipe),
    )
    return _Outcome(record, problems, others)


def _size(data: bytes, entry: BoxedEntry) -> tuple[int, int]:
    """Decodes an image and returns (width, height) of the upright image. Raises BadRecord."""
    try:
        height, width = decode(data, LIMITS).rgb.shape[:2]
    except InputError as error:
        raise BadRecord(f"unreadable image: {error}") from error
    if entry.size not in (None, (width, height)):
        raise BadRecord(f"image of another size: {width} x {height}, but the data set states {entry.size}")
    return width, height


def _validated(box: Box, unit: str, width: int, height: int) -> tuple[Floats, str]:
    """Returns the corners in pixels inside the image, 4 float32, and the reason for clipping them, "" if they are not
    clipped. Raises BadRecord."""
    size = np.array((width, height) * 2, np.float64)
    corners = np.array(box.corners, np.float64) * (size if unit == "shares" else 1)
    place = f"{box.label} at {', '.join(f'{value:.2f}' for value in corners)}"
    if not np.isfinite(corners).all():
        raise BadRecord(f"not a number: {place}")
    if (corners[:2] > corners[2:]).any():
        raise BadRecord(f"box inside out: {place}")
    inside = np.clip(corners, 0, size)
    if (corners[2:] - corners[:2] < SIDE_MIN).any():
        raise BadRecord(f"empty box: {place}")
    if (inside[2:] - inside[:2] < SIDE_MIN).any():
        raise BadRecord(f"box outside the image: {place}, image of {width} x {height}")
    moved = bool((np.abs(inside - corners) > ROUNDING).any())
    return inside.astype(np.float32), f"box beyond the image: {place}, image of {width} x {height}" if moved else ""


def _area(box: Box, corners: Floats) -> float:
    """Returns the area of the instance that the row states, in pixels, else of its box."""
    whole = float((corners[2:] - corners[:2]).prod())
    return box.area if box.area is not None and 0 < box.area <= whole else whole


def _split(entry: BoxedEntry, recipe: BoxRecipe) -> str:
    if entry.split and not recipe.shares:
        return entry.split
    return draw_split(recipe.seed, entry.name, recipe.shares or DEFAULT_SHARES)


def _write_problems(path: Path, problems: Sequence[Problem]) -> None:
    with (
        atomic_write(path) as temporary,
        # Names may contain single surrogates, which have no UTF-8.
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(Problem._fields)
        table.writerows(problems)

"""Archives of originals with cut-outs that another service made: pairs, alignment, and an evaluation data set.

A cut-out may be smaller than its original, cropped to the subject, or placed on another canvas. `align` finds its scale
and place in the original by the colours of its opaque pixels. `write_dataset` writes the pairs as a data set in which
the cut-outs' alpha is the "ground truth", at the cut-outs' scale.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from maskdrop import catalog
from maskdrop.errors import MaskdropError
from maskdrop.options import Options
from sagemaker_model.cutout import FULL_SIZE_ALPHA, decode_image
from sagemaker_model.data.records import InvalidData
from sagemaker_model.engines.base import Engine
from sagemaker_model.evaluation.cases import Case, Dataset, read_dataset
from sagemaker_model.evaluation.run import Predictor
from sagemaker_model.evaluation.summary import Unscored
from sagemaker_model.imaging.pixels import Pixels, decode
from sagemaker_model.imaging.resize import resized
from sagemaker_model.settings import ServerSettings

PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".avif", ".jxl", ".tif", ".tiff", ".bmp", ".gif")
CUTOUTS = (".png", ".webp", ".avif", ".tif", ".tiff", ".zip")

SUFFIX = re.compile(
    r"(?i)[ ._-]*(?:\(\d+\)|removebg-preview|remove-?bg|rembg|no[_-]?bg|no[_-]?background|bg[_-]?removed"
    r"|background[_-]?removed|cut-?out|transparent|matte|alpha|out)$"
)
"""Endings that services and their clients append to the name of the original."""

SPLIT = "archive"

OPAQUE = 250
"""Minimum alpha of pixels whose colours a cut-out keeps from the original."""

PIXELS_MIN = 30
"""Minimum opaque pixels of an alignment, at the size of the first search."""

ALIGNED_RMS = 30.0
"""Largest root mean square difference of the opaque pixels' colours, of 255, between a cut-out and the original.
Of 30 pairs at scales of 0.37 to 1, the right photo differed by at most 23, another one by at least 44."""

SEARCH_SIDES = 160, 480, 960
"""Pixels of the original's long side in the three searches, each around the best place of the one before."""

SCALE_STEPS = 1.04, 1.008, 1.0016
"""Ratio of two scales in the three searches: about four pixels on the subject, then one, then a fifth."""

NEARLY_ONE = 0.05
"""Difference from 1 of a scale next to which the scale 1 is tried too: most cut-outs have it exactly."""

SCALE_MAX = 1.5
"""Largest scale of a subject: services enlarge it where the caller sets its scale on the canvas."""


PNG_FAST = (cv2.IMWRITE_PNG_COMPRESSION, 1)


class NotAligned(MaskdropError):
    """A cut-out could not be found in its original."""

    code = "not_aligned"


@dataclass(frozen=True, slots=True)
class Pair:
    """An original with its cut-out. id: unique, a file name."""

    id: str
    original: Path
    cutout: Path


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of two folders. alone: files of both without a partner, with the reason."""

    pairs: list[Pair]
    alone: list[Unscored]


@dataclass(frozen=True, slots=True)
class Placement:
    """Place of a cut-out's visible part in its original.

    scale: size of the cut-out's pixels in pixels of the original: 0.5 is half the resolution.
    x, y: left and top edge of the visible part, in pixels of the scaled original. rms: difference of the colours.
    """

    scale: float
    x: int
    y: int
    rms: float


@dataclass(frozen=True, slots=True)
class Aligned:
    """An aligned pair, at the scale of the cut-out.

    rgb: HxWx3 uint8, the scaled original. colours, alpha: of the cut-out in the original's frame.
    cropped: whether the cut-out showed only a part of the original, or another canvas.
    """

    rgb: Pixels
    colours: Pixels
    alpha: Pixels
    placement: Placement
    cropped: bool


def find_pairs(originals: Path, cutouts: Path) -> Pairs:
    """Pairs files by their paths below the folders without endings such as -removebg-preview; then by their names
    alone, where a name is unique. Raises InvalidData for a folder without images."""
    photos, results = _listed(originals, PHOTOS), _listed(cutouts, CUTOUTS)
    by_path: dict[str, list[Path]] = defaultdict(list)
    by_name: dict[str, list[Path]] = defaultdict(list)
    for photo in photos:
        relative = photo.relative_to(originals)
        for key in {_plain(relative, strip=False), _plain(relative, strip=True)}:
            by_path[key].append(photo)
            by_name[Path(key).name].append(photo)
    pairs, alone, used = [], [], set()
    for result in results:
        relative = result.relative_to(cutouts)
        keys = [_plain(relative, strip=False), _plain(relative, strip=True)]
        candidates = next(
            (
                found
                for table, name in ((by_path, str), (by_name, _name))
                for key in keys
                if (found := table[name(key)])
            ),
            [],
        )
        candidates = [photo for photo in candidates if photo.resolve() != result.resolve()]
        name = relative.as_posix()
        if len(candidates) != 1:
            reason = f"{len(candidates)} originals have its name" if candidates else "no original has its name"
            alone.append(Unscored(name, reason))
            continue
        used.add(candidates[0])
        pairs.append(Pair(re.sub(r"[^\w.-]+", "_", name.replace("/", "__")), candidates[0], result))
    lonely = (photo for photo in photos if photo not in used)
    alone += [Unscored(photo.relative_to(originals).as_posix(), "no cut-out has its name") for photo in lonely]
    return Pairs(_unique(pairs), alone)


def read_cutout(path: Path) -> tuple[Pixels, Pixels]:
    """Reads colours and alpha of a cut-out: an image with alpha, a grey matte (whose colours are black), or a zip with
    color.jpg and alpha.png. Returns HxWx3 and HxW uint8. Raises InvalidData."""
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                colours = _image(archive.read("color.jpg")).convert("RGB")
                alpha = _image(archive.read("alpha.png")).convert("L")
            if colours.size != alpha.size:
                raise InvalidData("color.jpg and alpha.png differ in size")
            return np.asarray(colours), np.asarray(alpha)
        image = _image(path.read_bytes())
        if image.mode == "P" or "transparency" in image.info:
            image = image.convert("RGBA")
        if "A" in image.getbands():
            rgba = np.asarray(image.convert("RGBA"))
            return rgba[..., :3], rgba[..., 3]
        if image.mode in ("1", "L"):
            alpha = image.convert("L")
            return np.zeros((*np.asarray(alpha).shape, 3), np.uint8), np.asarray(alpha)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, KeyError, zipfile.BadZipFile) as error:
        raise InvalidData("the cut-out is damaged or not an image") from error
    raise InvalidData(f"the cut-out has no alpha channel ({image.mode}): it has a background")


def align(rgb: Pixels, colours: Pixels, alpha: Pixels) -> Aligned:
    """Places a cut-out in its original. rgb: HxWx3 of the original. Raises NotAligned."""
    height, width = rgb.shape[:2]
    rows, columns = alpha.shape
    scale = max(columns / width, rows / height)
    if _same_frame((width, height), (columns, rows)):
        frame = resized(rgb, (columns, rows))
        rms = _difference(frame, colours, alpha)
        if rms <= ALIGNED_RMS or not colours.any():
            return Aligned(frame, colours, alpha, Placement(scale, 0, 0, rms), cropped=False)
    box = cv2.boundingRect((alpha >= OPAQUE).astype(np.uint8))
    if not colours.any() or not box[2]:
        raise NotAligned("the cut-out has another shape than the original, and no opaque colours to find it by")
    left, top, across, down = box
    part = colours[top : top + down, left : left + across]
    opaque = alpha[top : top + down, left : left + across]
    placement = _search(rgb, part, opaque)
    if placement is None or placement.rms > ALIGNED_RMS:
        raise NotAligned("the cut-out's colours are not in the original: is it of another photo, or edited?")
    frame = resized(rgb, (round(width * placement.scale), round(height * placement.scale)))
    x, y = placement.x - left, placement.y - top
    return Aligned(frame, _pasted(colours, frame, x, y), _pasted(alpha, frame[..., 0], x, y), placement, cropped=True)


def write_dataset(pairs: Sequence[Pair], folder: Path, *, workers: int = 1) -> Iterator[Placement | Unscored]:
    """Aligns pairs and writes them as a data set: images/, masks/, cutouts/ and manifest.csv. Yields the outcome of
    each pair, in order; the manifest is written at the end."""
    for name in ("images", "masks", "cutouts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = []
    with ThreadPoolExecutor(workers) as pool:
        for pair, outcome in zip(pairs, pool.map(lambda pair: _write_pair(pair, folder), pairs), strict=True):
            if isinstance(outcome, Aligned):
                place = (f"{outcome.placement.scale:.4f}", outcome.placement.x, outcome.placement.y)
                rows.append((pair.id, SPLIT, *place, int(outcome.cropped), pair.original, pair.cutout))
                yield outcome.placement
            else:
                yield outcome
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("id", "split", "scale", "x", "y", "cropped", "original", "cutout"))
        table.writerows(rows)


def archive_predictor(engine: Engine, row: catalog.Engine, pairs: Iterable[Pair]) -> Predictor:
    """Returns a predictor that runs an engine on the originals, at their full size as in production, and scales its
    alpha to the size of the cut-outs."""
    originals = {pair.id: pair.original for pair in pairs}
    limits = ServerSettings().limits

    def predict(case: Case) -> Pixels:
        decoded = decode_image(originals[case.id].read_bytes(), Options(engine=row.name), limits)
        alpha = FULL_SIZE_ALPHA[row.returns](engine.predict(decoded.image.rgb, decoded.prompts), decoded.image)
        with Image.open(case.mask) as mask:
            size = mask.size
        return resized(alpha, size)

    return predict


def read_archive(folder: Path) -> Dataset:
    """Reads the data set that `write_dataset` wrote. Raises InvalidData where no pair could be aligned."""
    return read_dataset(folder, SPLIT)


def _write_pair(pair: Pair, folder: Path) -> Aligned | Unscored:
    try:
        original = decode(pair.original.read_bytes(), ServerSettings().limits)
        aligned = align(original.rgb, *read_cutout(pair.cutout))
    except MaskdropError as error:
        return Unscored(pair.id, error.message)
    except OSError as error:
        return Unscored(pair.id, f"not readable: {error.strerror}")
    if not aligned.alpha.any():
        return Unscored(pair.id, "the cut-out is empty")
    bgra = cv2.cvtColor(np.dstack((aligned.colours, aligned.alpha)), cv2.COLOR_RGBA2BGRA)
    for name, pixels in (
        ("images", cv2.cvtColor(aligned.rgb, cv2.COLOR_RGB2BGR)),
        ("masks", aligned.alpha),
        ("cutouts", bgra),
    ):
        (folder / name / f"{pair.id}.png").write_bytes(cv2.imencode(".png", pixels, PNG_FAST)[1].tobytes())
    return aligned


def _listed(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())
    if not found:
        raise InvalidData(f"{folder} has no images; accepted are {', '.join(endings)}.")
    return found


def _plain(path: Path, *, strip: bool) -> str:
    """Returns a path in lower case without its ending; with `strip`, also without the endings that services append."""
    name = _without_ending(path.name)
    while strip and (shorter := _without_ending(SUFFIX.sub("", name))) not in ("", name):
        name = shorter
    return (path.parent / name).as_posix().casefold()


def _without_ending(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in (*PHOTOS, *CUTOUTS) else name


def _name(key: str) -> str:
    return Path(key).name


def _unique(pairs: list[Pair]) -> list[Pair]:
    """Returns the pairs with ids that differ, also where upper and lower case do not."""
    seen: dict[str, int] = defaultdict(int)
    unique = []
    for pair in pairs:
        seen[pair.id.casefold()] += 1
        count = seen[pair.id.casefold()]
        unique.append(pair if count == 1 else Pair(f"{pair.id}~{count}", pair.original, pair.cutout))
    return unique


def _image(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return ImageOps.exif_transpose(image)


def _same_frame(original: tuple[int, int], cutout: tuple[int, int]) -> bool:
    """Whether a size can be the other one, scaled: one scale explains both sides, rounded up or down."""
    sides = [*zip(original, cutout, strict=True)]
    return max((side - 1) / whole for whole, side in sides) <= min((side + 1) / whole for whole, side in sides)


def _difference(frame: Pixels, colours: Pixels, alpha: Pixels) -> float:
    """Returns the root mean square difference of the opaque pixels; 0 without any."""
    opaque = alpha >= OPAQUE
    if not opaque.any():
        return 0.0
    error = frame[opaque].astype(np.float32) - colours[opaque]
    return float(np.sqrt((error * error).mean()))


def _search(rgb: Pixels, part: Pixels, alpha: Pixels) -> Placement | None:
    """Finds the visible part of a cut-out in the original, from a coarse to a fine resolution."""
    height, width = rgb.shape[:2]
    down, across = alpha.shape
    lowest = max(across / width, down / height)
    count = max(1, round(np.log(SCALE_MAX / lowest) / np.log(SCALE_STEPS[0])))
    scales = [lowest * (SCALE_MAX / lowest) ** (step / count) for step in range(count + 1)]
    scales.append(1.0)
    best: Placement | None = None
    for side, ratio in zip(SEARCH_SIDES, SCALE_STEPS, strict=True):
        working = min(1.0, side / max(height, width))
        image = resized(rgb, (max(1, round(width * working)), max(1, round(height * working))))
        if best is not None:
            scales = [max(lowest, best.scale * ratio**step) for step in range(-6, 7)]
            if abs(best.scale - 1) < NEARLY_ONE:
                scales.insert(0, 1.0)
        found = [_matched(image, working, part, alpha, scale, best) for scale in scales]
        best = min((one for one in found if one is not None), key=lambda one: one.rms, default=None)
        if best is None:
            return None
    return best


def _matched(
    image: Pixels, working: float, part: Pixels, alpha: Pixels, scale: float, near: Placement | None
) -> Placement | None:
    """Returns the best place of a part at one scale.

    image: the original, scaled by `working`. near: place to search around; None: the whole image.
    """
    shrink = working / scale
    size = (max(2, round(alpha.shape[1] * shrink)), max(2, round(alpha.shape[0] * shrink)))
    if size[0] > image.shape[1] + 1 or size[1] > image.shape[0] + 1:
        return None
    size = (min(size[0], image.shape[1]), min(size[1], image.shape[0]))
    template = resized(part, size)
    mask = (resized(alpha, size) >= OPAQUE).astype(np.float32)
    if mask.sum() < PIXELS_MIN:
        return None
    x0 = y0 = 0
    window = image
    if near is not None:
        reach = 6
        x0 = max(0, min(round(near.x / near.scale * working) - reach, image.shape[1] - size[0]))
        y0 = max(0, min(round(near.y / near.scale * working) - reach, image.shape[0] - size[1]))
        window = image[y0 : y0 + size[1] + 2 * reach, x0 : x0 + size[0] + 2 * reach]
    squares = cv2.matchTemplate(
        window.astype(np.float32), template.astype(np.float32), cv2.TM_SQDIFF, mask=np.dstack([mask] * 3)
    )
    lowest, _, (x, y), _ = cv2.minMaxLoc(squares)
    rms = float(np.sqrt(max(0.0, lowest) / (3 * mask.sum())))
    return Placement(scale, round((x + x0) / shrink), round((y + y0) / shrink), rms)


def _pasted(pixels: Pixels, frame: Pixels, x: int, y: int) -> Pixels:
    """Returns pixels in an empty frame, with their left top corner at x, y; parts beyond the frame are cut off."""
    canvas = np.zeros_like(frame)
    height, width = pixels.shape[:2]
    left, top = max(0, x), max(0, y)
    right, bottom = min(frame.shape[1], x + width), min(frame.shape[0], y + height)
    if right > left and bottom > top:
        canvas[top:bottom, left:right] = pixels[top - y : bottom - y, left - x : right - x]
    return canvas

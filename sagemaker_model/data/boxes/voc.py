"""Reader of boxes in Pascal VOC's form (host.robots.ox.ac.uk/pascal/VOC, "Annotation guidelines"): XML per image.

Layout: Annotations/*.xml, JPEGImages/, ImageSets/Main/{train,val,test}.txt; or XML files beside their images. Corners
are pixels counted from 1, both included: the first pixel of a row is xmin = xmax = 1, here 0 to 1. Objects marked as
difficult become crowds, which evaluation ignores as Pascal VOC does.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path

from sagemaker_model.data.boxes.base import Box, BoxedEntry, Listing, images_by_stem
from sagemaker_model.data.records import SPLITS, BadRecord, InvalidData, read_file


def listing(source: Path) -> Listing:
    """Lists the annotations of a folder such as VOC2012, of its parent VOCdevkit, or of a folder of XML files.
    Raises InvalidData."""
    root = source / "VOC2012" if (source / "VOC2012").is_dir() else source
    annotations = root / "Annotations"
    files = sorted((annotations if annotations.is_dir() else root).glob("*.xml"))
    if not files:
        raise InvalidData(f"{source} is not Pascal VOC: it must have XML files, or a folder Annotations/ with them.")
    images = images_by_stem(root / "JPEGImages" if (root / "JPEGImages").is_dir() else root)
    lists = {split: root / "ImageSets" / "Main" / f"{split}.txt" for split in SPLITS}
    splits = {
        name: split
        for split, path in lists.items()
        if path.is_file()
        for name in path.read_text(errors="replace").split()
    }
    return Listing([_entry(file, images.get(file.stem, []), splits.get(file.stem, "")) for file in files])


def _entry(file: Path, images: list[Path], split: str) -> BoxedEntry:
    image = images[0] if images else file.with_suffix(".jpg")
    try:
        root = _parse(read_file(file))
        stated = _number(root, "size/width"), _number(root, "size/height")
        size = (int(stated[0]), int(stated[1])) if all(stated) else None  # some tools write a size of 0
        boxes = [_box(one) for one in root.iter("object")]
    except (BadRecord, ValueError, OverflowError) as error:
        fault = f"unreadable annotation: {file.name} ({error})"
        return BoxedEntry(name=image.name, load=bytes, fault=fault)
    return BoxedEntry(name=image.name, load=partial(read_file, image), boxes=boxes, size=size, split=split)


def _parse(data: bytes) -> ET.Element:
    """Parses XML without a document type, so without entities that expand or read files. Raises BadRecord."""
    try:
        text = data.decode("utf-8-sig")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise BadRecord("unreadable annotation: it declares a document type")
        return ET.fromstring(text)  # noqa: S314  entities need a document type
    except (ValueError, ET.ParseError) as error:
        raise BadRecord(f"unreadable annotation: {error}") from error


def _number(element: ET.Element, path: str) -> float:
    """Returns a number, 0 if it is missing. Raises ValueError."""
    return float(element.findtext(path) or 0)


def _box(element: ET.Element) -> Box | str:
    label = (element.findtext("name") or "").strip()
    try:
        xmin, ymin, xmax, ymax = (
            float(element.findtext(f"bndbox/{name}", "")) for name in ("xmin", "ymin", "xmax", "ymax")
        )
    except ValueError:
        return f"bad row: no numbers in bndbox of {label or 'an object'}"
    if not label:
        return "bad row: an object without a name"
    return Box(label, (xmin - 1, ymin - 1, xmax, ymax), crowd=(element.findtext("difficult") or "").strip() == "1")

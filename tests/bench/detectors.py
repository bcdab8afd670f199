"""Measures the detectors `faces` and `people`: precision and recall at IoU 0.5, and the time for an image.

`python -m tests.bench.detectors DATA`: DATA has the folders `people` (photos with masks) and `detection` (photos with
boxes). A person of `people` is the box around the mask. faces.json has the faces of both folders: boxes of the networks
compared here and of CenterFace, checked one by one. Faces that none of them finds are missing.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from sagemaker_model.detectors.base import Detector, Floats
from sagemaker_model.detectors.blaze import iou
from sagemaker_model.detectors.faces import Faces
from sagemaker_model.detectors.people import People
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized

WEIGHTS_DIR = Path(".local/weights")

IOU_MIN = 0.5

LARGE = 96**2
"""Area in pixels from which COCO calls an instance large."""


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """One photo.

    boxes: the instances to find. ignored: boxes that count neither when found nor when missed.
    mask: of the main person, if known.
    """

    file: Path
    boxes: Floats
    ignored: Floats
    mask: Path | None = None


@dataclass(slots=True)
class Score:
    """Counts over the photos of one data set. ious: of the masks. seconds: of the detector's thread."""

    correct: int = 0
    extra: int = 0
    missed: int = 0
    large: int = 0
    large_found: int = 0
    ious: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def line(self) -> str:
        large = f", {self.large_found} of {self.large} large ones" if self.large else ""
        masks = f", mean IoU of the masks {np.mean(self.ious):.3f}" if self.ious else ""
        precision = self.correct / max(1, self.correct + self.extra)
        recall = self.correct / max(1, self.correct + self.missed)
        return (
            f"precision {precision:.3f} ({self.extra} extra), recall {recall:.3f} ({self.missed} missed{large})"
            f"{masks}, {1000 * np.median(self.seconds):.0f} ms of one core an image ({len(self.seconds)} images)"
        )


def _boxes(rows: Sequence[Sequence[float]]) -> Floats:
    return np.array(rows, np.float32).reshape(-1, 4)


def faces(data: Path, folder: str) -> Iterator[Photo]:
    """The photos of faces.json in one folder."""
    for name, (found, ignored) in json.loads(Path(__file__).with_name("faces.json").read_text()).items():
        part, _, file = name.partition("/")
        if part == folder:
            yield Photo(data / part / "images" / file, _boxes(found), _boxes(ignored))


def masked_people(data: Path) -> Iterator[Photo]:
    """The validation photos with masks of the main person."""
    for row in csv.DictReader((data / "people" / "manifest.csv").open()):
        if row["split"] == "val":
            (file,) = (data / "people" / "images").glob(f"{row['id']}.*")
            mask = data / "people" / "masks" / f"{row['id']}.png"
            x, y, width, height = cv2.boundingRect(cv2.threshold(_read(mask)[:, :, 0], 127, 1, cv2.THRESH_BINARY)[1])
            found = _boxes([[x, y, x + width, y + height]] if width else [])
            yield Photo(file, found, _boxes([]), mask if width else None)


def boxed_people(data: Path) -> Iterator[Photo]:
    """All photos with boxes; crowds are ignored."""
    coco = json.loads((data / "detection" / "instances.json").read_text())
    (person,) = (one["id"] for one in coco["categories"] if one["name"] == "person")
    for image in coco["images"]:
        rows: tuple[list[list[float]], list[list[float]]] = ([], [])
        for one in coco["annotations"]:
            if (one["image_id"], one["category_id"]) == (image["id"], person):
                x, y, width, height = one["bbox"]
                rows[one["iscrowd"]].append([x, y, x + width, y + height])
        yield Photo(data / "detection" / "images" / image["file_name"], _boxes(rows[0]), _boxes(rows[1]))


def measure(detector: Detector, photos: Iterator[Photo]) -> Score:
    score = Score()
    for photo in photos:
        rgb = _read(photo.file)
        start = time.thread_time()
        found = detector.detect(rgb, masks=photo.mask is not None)
        score.seconds.append(time.thread_time() - start)
        free = set(range(len(photo.boxes)))
        overlaps = iou(found.boxes, photo.boxes)
        for number, box in enumerate(found.boxes):
            match = max(free, key=lambda one: overlaps[number, one], default=None)
            if match is not None and overlaps[number, match] >= IOU_MIN:
                free.remove(match)
                score.correct += 1
                mask = found.masks[number] if found.masks else None
                if photo.mask and mask:
                    score.ious.append(_mask_iou(mask.values, _read(photo.mask)[:, :, 0]))
            elif not iou(box[None], photo.ignored).max(initial=0) > 0.01:
                score.extra += 1
        score.missed += len(free)
        large = {number for number, box in enumerate(photo.boxes) if (box[2:] - box[:2]).prod() >= LARGE}
        score.large += len(large)
        score.large_found += len(large - free)
    return score


def _mask_iou(values: Floats, truth: Pixels) -> float:
    one, other = resized(values, (truth.shape[1], truth.shape[0])) >= 0.5, truth > 127
    return float((one & other).sum() / max(1, (one | other).sum()))


def _read(file: Path) -> Pixels:
    image = cv2.imread(str(file))
    if image is None:
        raise SystemExit(f"{file} cannot be read.")
    return np.ascontiguousarray(image[:, :, ::-1], np.uint8)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tests.bench.detectors DATA")
    data = Path(sys.argv[1])
    cv2.setNumThreads(1)
    one, many = Faces(), People()
    for detector in (one, many):
        detector.setup("cpu", WEIGHTS_DIR)
    print("faces, people (val):", measure(one, faces(data, "people")).line())
    print("faces, detection:", measure(one, faces(data, "detection")).line())
    print("people, people (val):", measure(many, masked_people(data)).line())
    print("people, detection:", measure(many, boxed_people(data)).line())


if __name__ == "__main__":
    main()

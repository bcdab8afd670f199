"""One run: every case predicted and scored, kept as a folder.

run.json      what was evaluated on what, the summary, and the cases that could not be scored
scores.csv    one line for each case that was
alphas/       ID.png, the prediction at the image's size: itself a folder of predictions
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from maskdrop import catalog
from maskdrop.errors import InvalidPrompt, MaskdropError
from maskdrop.options import Options
from maskdrop.prompt import Prompt, Prompts
from sagemaker_model.cutout import FULL_SIZE_ALPHA, decode_image
from sagemaker_model.engines.base import Engine
from sagemaker_model.evaluation.cases import Case, Dataset, InvalidData, read_alpha
from sagemaker_model.evaluation.metrics import OPAQUE, Scores, score
from sagemaker_model.evaluation.summary import Fault, Result, summarise
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.settings import ServerSettings

RUN, SCORES, ALPHAS = "run.json", "scores.csv", "alphas"

MEASURES = tuple(item.name for item in fields(Scores))
COLUMNS = ("id", "part", "subject", "found", *MEASURES)

Predict = Callable[[Case], Pixels]
"""Alpha HxW uint8 of a case at the image's size. Raises MaskdropError, which is a fault of this case alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What was evaluated on what.

    predictor: an engine's name and how it was prompted, or the folder of predictions.
    weights_sha256: "" where there are none. data, split, by, data_sha256: of the `Dataset`.
    """

    predictor: str
    weights_sha256: str
    data: str
    split: str
    by: str
    data_sha256: str

    @classmethod
    def of(cls, predictor: str, weights_sha256: str, dataset: Dataset) -> About:
        return cls(
            predictor=predictor,
            weights_sha256=weights_sha256,
            data=str(dataset.folder.resolve()),
            split=dataset.split,
            by=dataset.by,
            data_sha256=dataset.sha256,
        )


@dataclass(frozen=True, slots=True)
class Run:
    about: About
    results: list[Result]
    faults: list[Fault]
    folder: Path | None = None

    def alpha(self, name: str) -> Pixels:
        """The prediction for the case of this id, HxW uint8. Raises InvalidData where none was kept."""
        if self.folder is None:
            raise InvalidData("The run was not kept.")
        return read_alpha(self.folder / ALPHAS / f"{name}.png")


def by_engine(engine: Engine, row: catalog.Engine, *, truth_box: bool = False) -> Predict:
    """By the steps that a user's image goes through, up to the alpha.

    truth_box: the prompt is the box around the true mask, as a careful user would draw it. Raises InvalidPrompt for an
    engine that takes none.
    """
    if truth_box and "box" not in row.prompts:
        raise InvalidPrompt(f"The engine {row.name!r} takes no box.")
    limits = ServerSettings().limits

    def predict(case: Case) -> Pixels:
        options = Options(engine=row.name, prompts=_truth_box(case) if truth_box else ())
        decoded = decode_image(case.image.read_bytes(), options, limits)
        return FULL_SIZE_ALPHA[row.returns](engine.predict(decoded.image.rgb, decoded.prompts), decoded.image)

    return predict


def by_folder(folder: Path) -> Predict:
    """From ID.png, a matte in grey or a cut-out whose alpha counts. Raises InvalidData when there is no such folder."""
    if not folder.is_dir():
        raise InvalidData(f"There is no folder {folder}.")
    return lambda case: read_alpha(folder / f"{case.id}.png")


def evaluate(
    cases: Sequence[Case], predict: Predict, *, workers: int, folder: Path | None = None
) -> Iterator[Result | Fault]:
    """What became of each case, in order, as it comes. folder: where the predictions are kept."""
    if folder:
        (folder / ALPHAS).mkdir(parents=True, exist_ok=True)
        (folder / RUN).unlink(missing_ok=True)  # until it is written again, the folder is no run
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(partial(_evaluated, predict=predict, folder=folder), cases)


def write_run(run: Run, folder: Path) -> None:
    """`run` without its predictions, which `evaluate` has put there."""
    with (folder / SCORES).open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for result in run.results:
            line = asdict(result)
            table.writerow(line | line.pop("scores"))
    whole = {
        "about": asdict(run.about),
        "summary": asdict(summarise(run.results)),
        "faults": [asdict(fault) for fault in run.faults],
    }
    (folder / RUN).write_text(json.dumps(whole, indent=1) + "\n")  # last: a folder that has it is whole


def read_run(folder: Path) -> Run:
    """Raises InvalidData for a folder that is no finished run."""
    try:
        whole = json.loads((folder / RUN).read_text())
        with (folder / SCORES).open(newline="", encoding="utf-8") as file:
            results = [_result(line) for line in csv.DictReader(file)]
        return Run(About(**whole["about"]), results, [Fault(**fault) for fault in whole["faults"]], folder)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InvalidData(f"{folder} is no finished run of `maskdrop evaluate --out`: {error}.") from error


def write_ious(path: Path, results: Sequence[Result]) -> None:
    """One line `id,iou` for each case, and no header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows((result.id, result.scores.iou) for result in results)


def _result(line: dict[str, str]) -> Result:
    scores = Scores(**{name: float(line[name]) for name in MEASURES})
    return Result(line["id"], line["part"], float(line["subject"]), float(line["found"]), scores)


def _evaluated(case: Case, *, predict: Predict, folder: Path | None) -> Result | Fault:
    try:
        truth, alpha = read_alpha(case.mask), predict(case)
        if alpha.shape != truth.shape:
            ours, theirs = (f"{width} x {height}" for height, width in (alpha.shape, truth.shape))
            raise InvalidData(f"The prediction has {ours} pixels and the true mask {theirs}.")
    except MaskdropError as error:
        return Fault(case.id, error.message)
    if folder:
        (folder / ALPHAS / f"{case.id}.png").write_bytes(cv2.imencode(".png", alpha)[1].tobytes())
    subject, found = (float(np.mean(values >= OPAQUE)) for values in (truth, alpha))
    return Result(case.id, case.part, subject, found, score(alpha, truth))


def _truth_box(case: Case) -> Prompts:
    x, y, width, height = cv2.boundingRect((read_alpha(case.mask) >= OPAQUE).astype(np.uint8))
    return (Prompt((x, y, x + width, y + height)),) if width else ()

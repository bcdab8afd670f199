"""A run: the predictions and scores of all cases, stored in a folder.

run.json      predictor and data, the summary, and the cases that could not be scored
scores.csv    one line per scored case
alphas/       ID.png, predictions at the image's size; `folder_predictor` reads them
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
from sagemaker_model.data.records import InvalidData
from sagemaker_model.engines.base import Engine
from sagemaker_model.evaluation.cases import Case, Dataset, read_alpha
from sagemaker_model.evaluation.edges import edge_error
from sagemaker_model.evaluation.metrics import MASK_THRESHOLD, Scores, score
from sagemaker_model.evaluation.summary import Result, Unscored, summarise
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.settings import ServerSettings

RUN, SCORES, ALPHAS = "run.json", "scores.csv", "alphas"

METRICS = tuple(item.name for item in fields(Scores))
COLUMNS = ("id", "part", "subject", "found", *METRICS, "edge")

Predictor = Callable[[Case], Pixels]
"""Predicts the alpha of a case, HxW uint8 at the image's size. Raises MaskdropError if this case alone fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """Predictor and data of a run. Names are keys of run.json.

    predictor: name and prompt of the engine, or the folder of predictions. weights_sha256: "" without weights.
    data, split, by, data_sha256: of the `Dataset`.
    """

    predictor: str
    weights_sha256: str
    data: str
    split: str
    by: str
    data_sha256: str

    @classmethod
    def of(cls, predictor: str, weights_sha256: str, dataset: Dataset) -> RunInfo:
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
    """Results of an evaluation. folder: where it is stored, if it is."""

    info: RunInfo
    results: list[Result]
    unscored: list[Unscored]
    folder: Path | None = None

    def alpha(self, name: str) -> Pixels:
        """Reads the prediction for the case with this id, HxW uint8. Raises InvalidData if it was not stored."""
        if self.folder is None:
            raise InvalidData("The predictions of this run were not stored.")
        return read_alpha(self.folder / ALPHAS / f"{name}.png")


def engine_predictor(engine: Engine, row: catalog.Engine, *, truth_box: bool = False) -> Predictor:
    """Returns a predictor that runs an engine through the production pipeline, up to the alpha.

    truth_box: prompt the engine with the bounding box of the true mask, as a careful user would draw it.
    Raises InvalidPrompt if the engine does not support a box.
    """
    if truth_box and "box" not in row.prompts:
        raise InvalidPrompt(f"The engine {row.name!r} does not support a box.")
    limits = ServerSettings().limits

    def predict(case: Case) -> Pixels:
        options = Options(engine=row.name, prompts=_truth_box(case) if truth_box else ())
        decoded = decode_image(case.image.read_bytes(), options, limits)
        return FULL_SIZE_ALPHA[row.returns](engine.predict(decoded.image.rgb, decoded.prompts), decoded.image)

    return predict


def folder_predictor(folder: Path) -> Predictor:
    """Returns a predictor that reads ID.png from a folder: grey mattes, or cut-outs with alpha. Raises InvalidData if
    the folder does not exist."""
    if not folder.is_dir():
        raise InvalidData(f"The folder {folder} does not exist.")
    return lambda case: read_alpha(folder / f"{case.id}.png")


def evaluate(
    cases: Sequence[Case], predictor: Predictor, *, workers: int, folder: Path | None = None
) -> Iterator[Result | Unscored]:
    """Yields the result of each case, in order, as soon as it is ready. folder: where to store the predictions."""
    if folder:
        (folder / ALPHAS).mkdir(parents=True, exist_ok=True)
        (folder / RUN).unlink(missing_ok=True)  # marks the run as incomplete until `write_run`
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(partial(_evaluate_case, predictor=predictor, folder=folder), cases)


def write_run(run: Run, folder: Path) -> None:
    """Writes a run without its predictions, which `evaluate` stores."""
    with (folder / SCORES).open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for result in run.results:
            line = asdict(result)
            table.writerow(line | line.pop("scores"))
    content = {
        "about": asdict(run.info),
        "summary": asdict(summarise(run.results)),
        "faults": [asdict(case) for case in run.unscored],
    }
    (folder / RUN).write_text(json.dumps(content, indent=1) + "\n")  # last: this file marks a complete run


def read_run(folder: Path) -> Run:
    """Reads a run. Raises InvalidData for a folder without a complete run."""
    try:
        content = json.loads((folder / RUN).read_text())
        with (folder / SCORES).open(newline="", encoding="utf-8") as file:
            results = [_parse_result(line) for line in csv.DictReader(file)]
        return Run(RunInfo(**content["about"]), results, [Unscored(**case) for case in content["faults"]], folder)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InvalidData(f"{folder} is not a complete run of `maskdrop evaluate --out`: {error}.") from error


def write_ious(path: Path, results: Sequence[Result]) -> None:
    """Writes one line `id,iou` per result, without a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows((result.id, result.scores.iou) for result in results)


def _parse_result(line: dict[str, str]) -> Result:
    scores = Scores(**{name: float(line[name]) for name in METRICS})
    edge = float(line["edge"]) if line["edge"] else None
    return Result(line["id"], line["part"], float(line["subject"]), float(line["found"]), scores, edge)


def _evaluate_case(case: Case, *, predictor: Predictor, folder: Path | None) -> Result | Unscored:
    try:
        truth, alpha = read_alpha(case.mask), predictor(case)
        if alpha.shape != truth.shape:
            alpha_size, truth_size = (f"{width} x {height}" for height, width in (alpha.shape, truth.shape))
            raise InvalidData(f"The prediction is {alpha_size} pixels; the true mask is {truth_size}.")
    except MaskdropError as error:
        return Unscored(case.id, error.message)
    if folder:
        (folder / ALPHAS / f"{case.id}.png").write_bytes(cv2.imencode(".png", alpha)[1].tobytes())
    subject, found = (float(np.mean(values >= MASK_THRESHOLD)) for values in (truth, alpha))
    rgb = decode_image(case.image.read_bytes(), Options(), ServerSettings().limits).image.rgb
    return Result(case.id, case.part, subject, found, score(alpha, truth), edge_error(rgb, alpha, truth))


def _truth_box(case: Case) -> Prompts:
    x, y, width, height = cv2.boundingRect((read_alpha(case.mask) >= MASK_THRESHOLD).astype(np.uint8))
    return (Prompt((x, y, x + width, y + height)),) if width else ()

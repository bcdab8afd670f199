"""Searches settings on this machine: random search with successive halving.

Every trial trains with random settings of the ranges. The best third of the trials continues with three times as many
steps, until the last ones reach `steps`. Rounds end at validations. A trial resumes from its checkpoint, so no step is
trained twice, and the last ones have the weights that `train` writes with their settings. SageMaker's counterpart is
Hyperband. Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
2016.

Files of a search:
    tuning.json          ranges, trials and their validation IoU or mAP by steps, number of the best trial
    best.safetensors     weights of the best trial; training.json: its settings
    trials/0, 1, …       the runs; those of trials that ended early keep only their history
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from maskdrop.settings import InvalidSettings
from sagemaker_model.training.ranges import Range, ranges_of
from sagemaker_model.training.settings import metric_of, settings_of
from sagemaker_model.training.train import AVERAGE, BEST, LAST, TRAINING, Data, TrainingDiverged, train
from sagemaker_model.weights.files import atomic_write

TUNING = "tuning.json"

REDUCTION = 3
"""Share of the trials that continue, and factor of their steps: 3, as in the papers on Hyperband and ASHA."""


@dataclass(slots=True)
class Trial:
    """Settings of one run.

    settings: values of the searched settings, as text. scores: best validation IoU or mAP so far, by number of steps.
    failure: reason why the loss diverged.
    """

    number: int
    settings: dict[str, str]
    scores: dict[str, float] = field(default_factory=dict)
    failure: str | None = None

    def score(self, step: int) -> float:
        """Returns the IoU or mAP at a step; -1 if the trial did not reach it."""
        return self.scores.get(str(step), -1.0)


def rounds(runs: int, steps: int, validate_every: int) -> list[tuple[int, int]]:
    """Returns the number of trials of each round and the step at which they stop, which is that of a validation."""
    counts = [runs]
    while counts[-1] >= REDUCTION:
        counts.append(counts[-1] // REDUCTION)
    shares = [REDUCTION ** (len(counts) - number) for number in range(1, len(counts) + 1)]
    return [
        (count, min(steps, -(-steps // (share * validate_every)) * validate_every))
        for count, share in zip(counts, shares, strict=True)
    ]


def trials_of(
    network: str, fixed: Mapping[str, str], ranges: Mapping[str, Range], *, runs: int, seed: int
) -> list[Trial]:
    """Returns at most `runs` different trials. The first has the defaults of the network if all are in the ranges.
    Raises InvalidSettings for a combination that the network rejects."""
    random = np.random.default_rng(seed)
    defaults = settings_of(network, fixed)
    settings = [{name: range_.sample(random) for name, range_ in ranges.items()} for _ in range(10 * runs)]
    if all(range_.contains(getattr(defaults, name)) for name, range_ in ranges.items()):
        settings.insert(0, {name: str(getattr(defaults, name)).lower() for name in ranges})
    distinct = list({tuple(each.values()): each for each in settings}.values())[:runs]
    for each in distinct:
        settings_of(network, {**fixed, **each})
    return [Trial(number, each) for number, each in enumerate(distinct)]


def search(
    network: str,
    data: Data,
    out: Path,
    fixed: Mapping[str, str],
    texts: Mapping[str, str],
    *,
    runs: int,
    seed: int = 1,
    start: Path | None = None,
    resume: bool = False,
    report: Callable[[Trial, int], None] = lambda _trial, _step: None,
) -> tuple[Trial, list[Trial]]:
    """Searches settings, and returns the best trial and all trials.

    fixed: settings of all runs. texts: ranges, as in `ranges.py`. runs: maximum number of trials. resume: continue the
    search in `out`. report: called after each trial of a round, with the step that it reached. The result depends on
    the arguments and data alone, within the limits that train.py describes. Raises InvalidSettings, TrainingDiverged
    if the loss of every trial diverges, and the errors of `train`.
    """
    if searched := [name for name in ("steps", "validate_every") if name in texts]:
        raise InvalidSettings(f"All runs need the same number of steps and validations: fix {', '.join(searched)}.")
    trials = trials_of(network, fixed, ranges_of(network, texts), runs=runs, seed=seed)
    plan = {"network": network, "fixed": dict(fixed), "ranges": dict(texts), "runs": runs, "seed": seed}
    file = out / TUNING
    if file.exists():
        trials = _resumed(file, plan, resume=resume)
    out.mkdir(parents=True, exist_ok=True)
    ranked = trials
    settings = settings_of(network, fixed)
    for count, step in rounds(len(trials), settings.steps, settings.validate_every):
        for trial in ranked[count:]:
            for name in (LAST, AVERAGE, BEST):
                (_folder(out, trial) / name).unlink(missing_ok=True)
        for trial in ranked[:count]:
            if str(step) in trial.scores or trial.failure:
                continue
            chosen = settings_of(network, {**fixed, **trial.settings})
            try:
                result = train(network, data, _folder(out, trial), chosen, start=start, resume=True, until=step)
                trial.scores[str(step)] = result[f"best_{metric_of(network)}"]
            except TrainingDiverged as error:
                trial.failure = str(error)
            _write(file, plan, trials)
            report(trial, step)
        ranked = sorted(ranked[:count], key=lambda trial: -trial.score(step))
    best = ranked[0]
    if best.failure:
        raise TrainingDiverged(f"The loss of every trial diverged. Search smaller learning rates. {best.failure}")
    for name in (BEST, TRAINING):
        shutil.copyfile(_folder(out, best) / name, out / name)
    _write(file, plan, trials, best)
    return best, trials


def _folder(out: Path, trial: Trial) -> Path:
    return out / "trials" / str(trial.number)


def _resumed(file: Path, plan: Mapping[str, Any], *, resume: bool) -> list[Trial]:
    """Returns the trials of a search that was interrupted. Raises InvalidSettings."""
    if not resume:
        raise InvalidSettings(f"{file.parent} already has a search: resume it with --resume, or choose another folder.")
    saved = json.loads(file.read_text())
    if changed := [name for name, value in plan.items() if saved[name] != value]:
        raise InvalidSettings(f"{file.parent} was started with different {', '.join(changed)}: choose another folder.")
    return [Trial(**trial) for trial in saved["trials"]]


def _write(file: Path, plan: Mapping[str, Any], trials: list[Trial], best: Trial | None = None) -> None:
    content = {**plan, "best": best and best.number, "trials": [asdict(trial) for trial in trials]}
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(content, indent=1))

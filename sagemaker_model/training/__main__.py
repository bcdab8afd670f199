"""Trains a network: on this machine, and unchanged as a training job of SageMaker.

    python -m sagemaker_model.training --network attention-unet --data DATA --out RUN

A small try on a CPU:     … --network attention-unet --steps 300 --side 64 --filters 8 --validate_every 100
On all GPUs of a machine: … --network modnet --batch 64 --workers 16

Every setting of `settings.py` is an option. A line of JSON is printed for every line of the history. In a training job
(`python -m sagemaker_model train`, as SageMaker starts the container) what is not given comes from SageMaker:
hyperparameters, the channels train, val, backgrounds and start, and the folder of checkpoints, from which a job that
was interrupted goes on. The results are copied to the folder of the model.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from maskdrop.errors import MaskdropError
from maskdrop.settings import InvalidSettings
from sagemaker_model.training.settings import SETTINGS, TrainingSettings, settings_of

log = logging.getLogger("sagemaker_model.training")

SAGEMAKER = Path("/opt/ml")

CHANNELS = {"data": "train", "val": "val", "backgrounds": "backgrounds", "start": "start"}


def arguments(given: Sequence[str], env: Mapping[str, str], sagemaker: Path) -> argparse.Namespace:
    """What is given, and what SageMaker says where nothing is. Raises InvalidSettings."""
    parser = argparse.ArgumentParser(
        prog="python -m sagemaker_model.training", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--network", choices=tuple(SETTINGS))
    parser.add_argument("--data", type=Path, help="a data folder or shards")
    parser.add_argument("--val", type=Path, help="the same for validation, where it is another folder")
    parser.add_argument("--backgrounds", type=Path, help="a folder of images to put subjects on")
    parser.add_argument("--start", type=Path, help="weights to begin with, or the folder that has them alone")
    parser.add_argument("--out", type=Path, help="the folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in OUT, where there is one")
    for item in fields(TrainingSettings):
        parser.add_argument(f"--{item.name}", metavar="VALUE")
    defaults = _said_by_sagemaker(env, sagemaker)
    unknown = sorted(defaults.keys() - vars(parser.parse_args([])).keys())
    if unknown:
        raise InvalidSettings(f"There is no hyperparameter {', '.join(unknown)}.")
    parser.set_defaults(**defaults)
    chosen = parser.parse_args(given)
    if missing := [name for name in ("network", "data", "out") if getattr(chosen, name) is None]:
        raise InvalidSettings(f"Nothing says {', '.join(missing)}.")
    return chosen


def _said_by_sagemaker(env: Mapping[str, str], sagemaker: Path) -> dict[str, Any]:
    """SageMaker's own files, or the variables that its training toolkit makes of them."""
    file = sagemaker / "input" / "config" / "hyperparameters.json"
    text = env.get("SM_HPS") or (file.read_text() if file.exists() else "{}")
    said: dict[str, Any] = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in json.loads(text).items()
        if not name.startswith("_")  # of the tuner
    }
    for name, channel in CHANNELS.items():
        folder = Path(env.get(f"SM_CHANNEL_{channel.upper()}", sagemaker / "input" / "data" / channel))
        if folder.exists():
            said[name] = folder
    if said:
        # Each run of a tuning job has its own: whether they share the folder's prefix in S3 is not documented.
        said |= {"out": sagemaker / "checkpoints" / env.get("TRAINING_JOB_NAME", ""), "resume": True}
    return said


def run(chosen: argparse.Namespace) -> dict[str, Any]:
    """Raises MaskdropError."""
    from sagemaker_model.training.curves import draw
    from sagemaker_model.training.train import Data, train

    given = {item.name: getattr(chosen, item.name) for item in fields(TrainingSettings)}
    settings = settings_of(chosen.network, {name: text for name, text in given.items() if text is not None})
    data = Data(train=chosen.data, val=chosen.val or chosen.data, backgrounds=chosen.backgrounds)
    made = train(
        chosen.network,
        data,
        chosen.out,
        settings,
        start=_file(chosen.start),
        resume=chosen.resume,
        report=lambda line: print(json.dumps(line), flush=True),  # noqa: T201 - SageMaker reads metrics from it
    )
    if os.environ.get("RANK", "0") == "0":
        draw(chosen.out)
    return made


def _file(start: Path | None) -> Path | None:
    """Of a folder, its only file. Raises InvalidSettings."""
    if start is None or not start.is_dir():
        return start
    files = [path for path in start.iterdir() if path.is_file()]
    if len(files) != 1:
        raise InvalidSettings(f"{start} has {len(files)} files, and the weights to begin with are one.")
    return files[0]


def main(given: Sequence[str], sagemaker: Path = SAGEMAKER) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    first = os.environ.get("RANK", "0") == "0"
    in_job = (sagemaker / "input").exists()
    try:
        chosen = arguments(given, os.environ, sagemaker)
        _on_every_gpu(given)
        run(chosen)
        if in_job and first:
            model = Path(os.environ.get("SM_MODEL_DIR", sagemaker / "model"))
            shutil.copytree(chosen.out, model, dirs_exist_ok=True, ignore=shutil.ignore_patterns("last.pt", ".*"))
    except MaskdropError as error:
        log.error("%s", error)
        if in_job and first:
            (sagemaker / "output" / "failure").write_text(str(error))  # SageMaker shows it as the reason
        return 1
    return 0


def _on_every_gpu(given: Sequence[str]) -> None:
    """Begins anew as one process for each GPU, where there are several."""
    import torch

    count = torch.cuda.device_count()
    if count > 1 and "WORLD_SIZE" not in os.environ:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        os.execv(sys.executable, [sys.executable, *launch, "-m", "sagemaker_model.training", *given])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

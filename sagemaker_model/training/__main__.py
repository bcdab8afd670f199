"""Trains a network, locally or as a SageMaker training job.

    python -m sagemaker_model.training --network attention-unet --data DATA --out RUN

Short test on a CPU:      … --network attention-unet --steps 300 --side 64 --filters 8 --validate_every 100
All GPUs of a machine:    … --network modnet --batch 64 --workers 16

Every setting of `settings.py` is an option. Each line of the history is printed as JSON. SageMaker starts the container
with `python -m sagemaker_model train`. There, hyperparameters and the channels train, val, backgrounds and start
are the defaults of the options. An interrupted job resumes from SageMaker's checkpoint folder. The results are copied
to SageMaker's model folder.
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
from maskdrop.redaction import log_to_stderr
from maskdrop.settings import InvalidSettings
from sagemaker_model.training.settings import SETTINGS, TrainingSettings, descriptions, settings_of

log = logging.getLogger("sagemaker_model.training")

SAGEMAKER = Path("/opt/ml")

CHANNELS = {"data": "train", "val": "val", "backgrounds": "backgrounds", "start": "start"}


def parse_arguments(argv: Sequence[str], env: Mapping[str, str], sagemaker: Path) -> argparse.Namespace:
    """Parses the command line; SageMaker's values are the defaults. Raises InvalidSettings."""
    parser = argparse.ArgumentParser(
        prog="python -m sagemaker_model.training", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--network", choices=tuple(SETTINGS), help="network to train")
    parser.add_argument("--data", type=Path, help="data folder, folder of shards, or detection data set")
    parser.add_argument("--val", type=Path, help="data for validation (default: DATA)")
    parser.add_argument("--backgrounds", type=Path, help="folder of background images to put subjects on")
    parser.add_argument(
        "--start",
        type=Path,
        help="initial weights: a file, a folder with one file, or for rt-detr a folder of save_pretrained",
    )
    parser.add_argument("--out", type=Path, help="output folder of the run")
    parser.add_argument("--resume", action="store_true", help="resume from the checkpoint in OUT, if it exists")
    for name, description in descriptions().items():
        parser.add_argument(f"--{name}", metavar="VALUE", help=description.replace("%", "%%"))
    defaults = _sagemaker_defaults(env, sagemaker)
    unknown = sorted(defaults.keys() - vars(parser.parse_args([])).keys())
    if unknown:
        raise InvalidSettings(
            f"Unknown hyperparameters: {', '.join(unknown)}. They must be names of options or settings."
        )
    parser.set_defaults(**defaults)
    chosen = parser.parse_args(argv)
    if missing := [name for name in ("network", "data", "out") if getattr(chosen, name) is None]:
        raise InvalidSettings(f"Missing options: {', '.join(missing)}.")
    return chosen


def _sagemaker_defaults(env: Mapping[str, str], sagemaker: Path) -> dict[str, Any]:
    """Returns option values from SageMaker's files, or from the environment variables of its training toolkit."""
    file = sagemaker / "input" / "config" / "hyperparameters.json"
    text = env.get("SM_HPS") or (file.read_text() if file.exists() else "{}")
    defaults: dict[str, Any] = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in json.loads(text).items()
        if not name.startswith("_")  # added by the tuner
    }
    for name, channel in CHANNELS.items():
        folder = Path(env.get(f"SM_CHANNEL_{channel.upper()}", sagemaker / "input" / "data" / channel))
        if folder.exists():
            defaults[name] = folder
    if defaults:
        # One folder per run: AWS does not document whether runs of a tuning job share the checkpoint prefix in S3.
        defaults |= {"out": sagemaker / "checkpoints" / env.get("TRAINING_JOB_NAME", ""), "resume": True}
    return defaults


def run(chosen: argparse.Namespace) -> dict[str, Any]:
    """Trains with the parsed options, draws the curves, and returns the content of training.json.
    Raises MaskdropError."""
    from sagemaker_model.training.curves import draw
    from sagemaker_model.training.train import Data, train

    values = {item.name: getattr(chosen, item.name) for item in fields(TrainingSettings)}
    settings = settings_of(chosen.network, {name: text for name, text in values.items() if text is not None})
    data = Data(train=chosen.data, val=chosen.val or chosen.data, backgrounds=chosen.backgrounds)
    result = train(
        chosen.network,
        data,
        chosen.out,
        settings,
        start=_weights_file(chosen.start),
        resume=chosen.resume,
        report=lambda line: print(json.dumps(line), flush=True),  # noqa: T201 - SageMaker reads metrics from stdout
    )
    if os.environ.get("RANK", "0") == "0":
        draw(chosen.out)
    return result


def _weights_file(start: Path | None) -> Path | None:
    """Returns the only file of a folder; returns a file, or a folder with config.json (of transformers), unchanged.
    Raises InvalidSettings."""
    if start is None or not start.is_dir() or (start / "config.json").exists():
        return start
    files = [path for path in start.iterdir() if path.is_file()]
    if len(files) != 1:
        raise InvalidSettings(f"The folder of initial weights must have exactly one file; {start} has {len(files)}.")
    return files[0]


def main(argv: Sequence[str], sagemaker: Path = SAGEMAKER) -> int:
    """Runs the command line and returns the exit code: 0, or 1 after an error, which is logged."""
    log_to_stderr()
    main_process = os.environ.get("RANK", "0") == "0"
    in_job = (sagemaker / "input").exists()
    try:
        chosen = parse_arguments(argv, os.environ, sagemaker)
        _start_process_per_gpu(argv)
        run(chosen)
        if in_job and main_process:
            model = Path(os.environ.get("SM_MODEL_DIR", sagemaker / "model"))
            shutil.copytree(chosen.out, model, dirs_exist_ok=True, ignore=shutil.ignore_patterns("last.pt", ".*"))
    except MaskdropError as error:
        log.error("%s", error)
        if in_job and main_process:
            (sagemaker / "output" / "failure").write_text(str(error))  # SageMaker shows it as the failure reason
        return 1
    return 0


def _start_process_per_gpu(argv: Sequence[str]) -> None:
    """Replaces this process by one process per GPU, if the machine has several GPUs."""
    import torch

    count = torch.cuda.device_count()
    if count > 1 and "WORLD_SIZE" not in os.environ:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        os.execv(sys.executable, [sys.executable, *launch, "-m", "sagemaker_model.training", *argv])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

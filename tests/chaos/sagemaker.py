"""Starts the SageMaker emulator (local/sagemaker.py) with faults of calls.

python -m tests.chaos.sagemaker SEED
"""

from __future__ import annotations

import logging
import os
import sys

import uvicorn

from local.config import HOST, LocalConfig
from local.sagemaker import app
from tests.chaos.faulty import FaultyApp
from tests.chaos.plan import Faults

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    config = LocalConfig.from_env(os.environ)
    faulty = FaultyApp(app(config), Faults(int(sys.argv[1])))
    uvicorn.run(faulty, host=HOST, port=config.sagemaker_port, log_level="warning", timeout_graceful_shutdown=2)

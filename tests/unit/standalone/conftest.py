"""A server with a fake engine, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from maskdrop.catalog import DEFAULT_ENGINE
from sagemaker_model.settings import ServerSettings
from standalone.app import create_app
from standalone.settings import ServeSettings
from tests.unit.sagemaker_model.engines.fake_engine import Half

JPEG = cv2.imencode(".jpg", np.full((30, 40, 3), 90, np.uint8))[1].tobytes()

MODEL = ServerSettings(device="cpu", workers=2, deadline_s=30)

Start = Callable[..., TestClient]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server: `start(engine, others, no_auth=…)`. engine: the default one, `Half()`. others: by name."""
    with ExitStack() as stack:

        def start(
            engine: Half | None = None, others: Mapping[str, Half] | None = None, **changes: object
        ) -> TestClient:
            engine = engine or Half()
            settings = replace(ServeSettings(data=tmp_path, no_auth=True), **changes)  # type: ignore[arg-type]
            app = create_app(settings, MODEL, {DEFAULT_ENGINE["cutout"]: engine, **(others or {})})
            client = stack.enter_context(TestClient(app, base_url=settings.url))
            while engine.entered.acquire(blocking=False):
                pass  # consumes the calls of the warm-up
            return client

        yield start

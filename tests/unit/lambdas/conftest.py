import uuid
from collections.abc import Iterator

import pytest

from lambdas import observe


@pytest.fixture(autouse=True)
def _fresh_powertools(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Creates new loggers per test, because a logger keeps the standard output of the test that created it."""
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", f"maskdrop-{uuid.uuid4()}")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Maskdrop")
    for cached in (observe.logger, observe.metrics, observe.tracer):
        cached.cache_clear()
    yield
    for cached in (observe.logger, observe.metrics, observe.tracer):
        cached.cache_clear()

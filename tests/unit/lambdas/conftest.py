import uuid
from collections.abc import Iterator

import pytest

from lambdas import observe


@pytest.fixture(autouse=True)
def _fresh_powertools(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loggers are kept by name and hold the standard output of the test that made them: each test gets its own."""
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", f"maskdrop-{uuid.uuid4()}")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Maskdrop")
    for made in (observe.logger, observe.metrics, observe.tracer):
        made.cache_clear()
    yield
    for made in (observe.logger, observe.metrics, observe.tracer):
        made.cache_clear()

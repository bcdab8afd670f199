"""The circuit breaker of an editor, by Powertools. Its state is in the registry, which all executions share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from maskdrop.edit import Change
from maskdrop.editing import PAUSE_S
from maskdrop.errors import EditorUnavailable
from maskdrop.services import EditedImage, Editor, EditRequest

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.circuit_breaker.persistence import CircuitBreakerPersistenceLayer

FAILURES = 3
"""Consecutive failures in one execution environment after which the breaker opens: fewer than the attempts of a job."""


class SafeEditor:
    """Does not call its editor for PAUSE_S seconds after FAILURES consecutive failures. Then it tries one call.

    Each execution environment counts its own failures, and reads the shared state at most every 5 seconds.

    store: returns the store of the state, at the first call. name: of the breaker.
    """

    def __init__(self, editor: Editor, store: Callable[[], CircuitBreakerPersistenceLayer], name: str) -> None:
        self._editor, self._store, self._name = editor, store, name
        self.usd_per_image = editor.usd_per_image

    def check(self, prompt: str, change: Change = "background") -> None:
        self._editor.check(prompt, change)

    def edit(self, request: EditRequest) -> EditedImage:
        image: EditedImage = self._call(request)
        return image

    @cached_property
    def _call(self) -> Any:
        from aws_lambda_powertools.utilities.circuit_breaker import CircuitBreakerConfig, circuit_breaker

        config = CircuitBreakerConfig(
            failure_threshold=FAILURES,
            recovery_timeout=PAUSE_S,
            success_threshold=1,
            handled_exceptions=EditorUnavailable,
        )
        return circuit_breaker(self._name, self._store(), on_circuit_open=_paused, config=config)(self._editor.edit)


def _paused(request: EditRequest, *, circuit: Any) -> Any:  # noqa: ARG001  Powertools passes both
    raise EditorUnavailable(
        "The service that generates images has failed repeatedly: calls are paused for some minutes.", paused=True
    )

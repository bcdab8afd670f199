"""The circuit breaker of the editor, with Powertools' state machine and a store in memory."""

import uuid
from dataclasses import replace

import pytest
from aws_lambda_powertools.utilities.circuit_breaker.persistence import (
    CircuitBreakerDynamoDBPersistence,
    CircuitBreakerPersistenceLayer,
)
from aws_lambda_powertools.utilities.circuit_breaker.persistence.base import CircuitBreakerExistingLockError
from aws_lambda_powertools.utilities.circuit_breaker.persistence.record import CircuitStateRecord

from lambdas.adapters.editors.breaker import FAILURES, SafeEditor
from maskdrop.editing import CALL_S, PAUSE_S
from maskdrop.errors import EditFiltered, EditorUnavailable
from maskdrop.services import EditRequest
from tests.fakes import SETTINGS, FakeEditor

REQUEST = EditRequest(
    image=b"", mask=b"", width=1, height=1, change="background", prompt="x", negative_prompt="", seed=0
)


class Store(CircuitBreakerPersistenceLayer):
    """One record, as in the registry. Nothing is cached, so that another environment's change is seen at once."""

    def __init__(self) -> None:
        super().__init__()
        self.record: CircuitStateRecord | None = None

    def _retrieve_from_cache(self, name: str) -> None:
        return None

    def _get_record(self, name: str) -> CircuitStateRecord | None:
        return self.record

    def _put_record(
        self, record: CircuitStateRecord, condition: str | None = None, expected_opened_at: int | None = None
    ) -> None:
        if condition and (self.record is None or self.record.opened_at != expected_opened_at):
            raise CircuitBreakerExistingLockError
        self.record = record

    def _update_record(self, record: CircuitStateRecord) -> None:
        self.record = record

    def pass_time(self) -> None:
        """Makes the circuit as old as its pause."""
        assert self.record
        assert self.record.opened_at
        self.record = replace(self.record, opened_at=self.record.opened_at - PAUSE_S)


def safe(editor: FakeEditor, store: Store) -> SafeEditor:
    return SafeEditor(editor, lambda: store, uuid.uuid4().hex)


def fail(editor: SafeEditor) -> EditorUnavailable:
    with pytest.raises(EditorUnavailable) as caught:
        editor.edit(REQUEST)
    return caught.value


def test_the_service_is_not_called_after_consecutive_failures_until_one_call_succeeds() -> None:
    inner, store = FakeEditor(errors=[EditorUnavailable("down") for _ in range(FAILURES + 1)]), Store()
    editor = safe(inner, store)
    assert [fail(editor).paused for _ in range(FAILURES + 2)] == [False] * FAILURES + [True] * 2
    assert len(inner.requests) == FAILURES
    store.pass_time()
    assert not fail(editor).paused  # one call is tried, and fails
    assert fail(editor).paused
    store.pass_time()
    assert editor.edit(REQUEST).data
    assert editor.edit(REQUEST).data
    assert len(inner.requests) == FAILURES + 3


def test_another_environment_sees_the_open_circuit() -> None:
    store, name = Store(), uuid.uuid4().hex
    first = SafeEditor(FakeEditor(errors=[EditorUnavailable("down") for _ in range(FAILURES)]), lambda: store, name)
    for _ in range(FAILURES):
        fail(first)
    other = FakeEditor()
    assert fail(SafeEditor(other, lambda: store, name)).paused
    assert other.requests == []


def test_a_success_between_failures_and_a_refused_text_do_not_open_the_circuit() -> None:
    inner = FakeEditor()
    editor = safe(inner, Store())
    for _ in range(FAILURES):
        inner.errors = [EditorUnavailable("down")]
        fail(editor)
        editor.edit(REQUEST)
        inner.errors = [EditFiltered("no")]
        with pytest.raises(EditFiltered):
            editor.edit(REQUEST)
    assert editor.edit(REQUEST).data


def test_a_trial_ends_before_another_environment_may_start_one() -> None:
    assert CALL_S < PAUSE_S  # Powertools holds the lock of a trial for the pause
    assert SETTINGS.max_attempts > FAILURES


def test_the_state_is_an_item_of_the_registry() -> None:
    calls: list[dict[str, object]] = []

    class Client:
        meta = type("Meta", (), {"events": type("Events", (), {"register_last": lambda *_, **__: None})()})()

        def get_item(self, **values: object) -> dict[str, object]:
            calls.append(values)
            return {}

    store = CircuitBreakerDynamoDBPersistence(
        "registry", key_attr="kind", static_pk_value="circuit", sort_key_attr="name", expiry_attr="expires_at",
        boto3_client=Client(),  # type: ignore[arg-type]
    )  # fmt: skip
    SafeEditor(FakeEditor(), lambda: store, "editor-stability").edit(REQUEST)
    assert calls[0]["Key"] == {"kind": {"S": "circuit"}, "name": {"S": "editor-stability"}}

import pytest

from lambdas import connect
from lambdas.adapters.editors import NoEditor
from lambdas.edit import process
from lambdas.environment import settings
from lambdas.observe import CountedEditor
from maskdrop.edit import EDITORS
from maskdrop.errors import StorageUnavailable
from maskdrop.wire import JobMessage
from tests.fakes import NOW, SETTINGS
from tests.unit.lambdas.test_record import sqs
from tests.unit.maskdrop.test_editing import a_job, a_world


def test_a_message_of_a_job_generates_its_images() -> None:
    job = a_job()
    world = a_world(job)
    response = process(sqs(JobMessage(job.id, 0).to_body()), world.settings, world.services, lambda: NOW)
    assert response == {"batchItemFailures": []}
    assert world.jobs.records[job.id].stage == "compose"


def test_a_message_is_redelivered_where_it_is_unreadable_or_another_service_fails() -> None:
    job = a_job()
    world = a_world(job)
    failed = {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    assert process(sqs("not json"), world.settings, world.services, lambda: NOW) == failed

    def read(bucket: str, key: str) -> bytes:
        raise StorageUnavailable(f"S3 is down: {bucket}/{key}.")

    world.storage.read = read  # type: ignore[method-assign]
    assert process(sqs(JobMessage(job.id, 0).to_body()), world.settings, world.services, lambda: NOW) == failed


@pytest.mark.parametrize("name", EDITORS)
def test_every_editor_can_be_created(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in SETTINGS.to_env().items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("MASKDROP_EDITOR", name)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for cached in (settings, connect.registry, connect.services):
        cached.cache_clear()
    try:
        editor = connect.services().editor
    finally:
        for cached in (settings, connect.registry, connect.services):
            cached.cache_clear()
    assert isinstance(editor, NoEditor if name == "off" else CountedEditor)
    assert editor.usd_per_image == EDITORS[name].usd_per_image  # type: ignore[index]

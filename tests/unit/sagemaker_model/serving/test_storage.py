from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.response import StreamingBody
from botocore.stub import Stubber

from maskdrop.errors import FileTooLarge, NotAllowed, SourceMissing, StorageUnavailable
from sagemaker_model.serving.storage import NEW, S3Storage, StoredObject


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[S3Storage, Stubber]]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    storage = S3Storage(threads=2)
    with Stubber(storage._s3) as stub:
        yield storage, stub


def write(storage: S3Storage, replaces: str) -> bool:
    return storage.write("b", "k", b"x", "image/png", {"maskdrop-job": "1"}, replaces)


def accept(_: StoredObject) -> None: ...


@pytest.mark.parametrize(("returned", "expected"), [("v1", "v1"), (None, ""), ("null", "")])
def test_head_returns_version_etag_size_and_metadata(
    s3: tuple[S3Storage, Stubber], returned: str | None, expected: str
) -> None:
    storage, stub = s3
    response = {"ETag": '"e"', "ContentLength": 5, "Metadata": {"a": "b"}} | (
        {"VersionId": returned} if returned else {}
    )
    stub.add_response("head_object", response, {"Bucket": "b", "Key": "k"})
    assert storage.head("b", "k") == StoredObject("e", expected, 5, {"a": "b"})


def test_a_missing_object_is_none_for_head_and_source_missing_for_read(s3: tuple[S3Storage, Stubber]) -> None:
    storage, stub = s3
    stub.add_client_error("head_object", "404", http_status_code=404)
    stub.add_client_error("get_object", "NoSuchKey", http_status_code=404)
    assert storage.head("b", "k") is None
    with pytest.raises(SourceMissing):
        storage.read("b", "k", accept)


def test_the_body_is_not_read_if_the_check_raises(s3: tuple[S3Storage, Stubber]) -> None:
    storage, stub = s3
    body = io.BytesIO(b"photo")
    stub.add_response("get_object", {"ETag": '"e"', "ContentLength": 5, "Body": StreamingBody(body, 5)})

    def refuse(_: StoredObject) -> None:
        assert body.tell() == 0
        raise FileTooLarge("No.")

    with pytest.raises(FileTooLarge):
        storage.read("b", "k", refuse)
    assert body.closed


def test_a_truncated_body_raises_storage_unavailable(s3: tuple[S3Storage, Stubber]) -> None:
    storage, stub = s3
    stub.add_response("get_object", {"ETag": '"e"', "ContentLength": 5, "Body": StreamingBody(io.BytesIO(b"ph"), 5)})
    with pytest.raises(StorageUnavailable):
        storage.read("b", "k", accept)


@pytest.mark.parametrize(("replaces", "condition"), [(NEW, {"IfNoneMatch": "*"}), ("e", {"IfMatch": '"e"'})])
def test_a_write_is_conditional_on_the_etag_that_it_replaces(
    s3: tuple[S3Storage, Stubber], replaces: str, condition: dict[str, str]
) -> None:
    storage, stub = s3
    sent = {"Bucket": "b", "Key": "k", "Body": b"x", "ContentType": "image/png", "Metadata": {"maskdrop-job": "1"}}
    stub.add_response("put_object", {}, sent | condition)
    assert write(storage, replaces)


@pytest.mark.parametrize(
    ("code", "status"), [("PreconditionFailed", 412), ("ConditionalRequestConflict", 409), ("NoSuchKey", 404)]
)
def test_a_write_whose_condition_fails_returns_false(s3: tuple[S3Storage, Stubber], code: str, status: int) -> None:
    storage, stub = s3
    stub.add_client_error("put_object", code, http_status_code=status)
    assert not write(storage, NEW)


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("AccessDenied", 403, NotAllowed),
        ("SlowDown", 503, StorageUnavailable),
        ("InternalError", 500, StorageUnavailable),
        ("NoSuchBucket", 404, StorageUnavailable),
        ("RequestTimeout", 400, StorageUnavailable),
    ],
)
def test_errors_of_s3_become_errors_of_maskdrop(
    s3: tuple[S3Storage, Stubber], code: str, status: int, error: type[Exception]
) -> None:
    storage, stub = s3
    stub.add_client_error("put_object", code, http_status_code=status)
    with pytest.raises(error):
        write(storage, NEW)


def test_a_broken_connection_raises_storage_unavailable(
    s3: tuple[S3Storage, Stubber], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, _ = s3

    def broken(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://s3")

    monkeypatch.setattr(storage._s3, "put_object", broken)
    with pytest.raises(StorageUnavailable):
        write(storage, NEW)

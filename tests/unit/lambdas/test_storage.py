"""Tests presigned URLs and forms of S3."""

import base64
import json
from typing import Any

import pytest
from botocore.session import Session
from botocore.stub import Stubber

from lambdas.adapters.storage import S3Storage
from lambdas.connect import S3_CLIENT
from maskdrop.errors import SourceMissing, StorageUnavailable


def storage(region: str) -> S3Storage:
    keys: dict[str, Any] = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    client: Any = Session().create_client("s3", region, config=S3_CLIENT, **keys)
    return S3Storage(client)


def test_signed_urls_name_the_region_of_the_bucket() -> None:
    signer = storage("eu-central-1")
    home = "https://inbox.s3.eu-central-1.amazonaws.com/"
    assert signer.form("inbox", "k", "image/jpeg", bytes_max=1, seconds=1).url == home
    assert signer.link("inbox", "k", seconds=1).startswith(f"{home}k?")


def test_a_form_is_limited_to_one_key_one_type_and_a_size_range() -> None:
    form = storage("us-east-1").form("inbox", "uploads/1/Zoë.jpg", "image/jpeg", bytes_max=1000, seconds=300)
    conditions = json.loads(base64.b64decode(form.fields["policy"]))["conditions"]
    exact = {name: value for one in conditions if isinstance(one, dict) for name, value in one.items()}
    assert (exact["bucket"], exact["key"], exact["Content-Type"]) == ("inbox", "uploads/1/Zoë.jpg", "image/jpeg")
    assert [one for one in conditions if not isinstance(one, dict)] == [["content-length-range", 1, 1000]]
    signed = {name: value for name, value in exact.items() if name != "bucket"}
    assert signed.items() <= form.fields.items()
    assert form.fields["x-amz-algorithm"] == "AWS4-HMAC-SHA256"


def test_a_copy_takes_no_tags_along_and_a_missing_object_is_a_missing_source() -> None:
    client: Any = Session().create_client("s3", "us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    expected = {
        "Bucket": "results",
        "Key": "training/images/1.jpg",
        "CopySource": {"Bucket": "inbox", "Key": "uploads/1/Zoë & co.jpg"},
        "TaggingDirective": "REPLACE",
    }
    with Stubber(client) as stub:
        stub.add_response("copy_object", {}, expected)
        S3Storage(client).copy("inbox", "uploads/1/Zoë & co.jpg", "results", "training/images/1.jpg")
        stub.add_client_error("copy_object", "NoSuchKey", http_status_code=404)
        with pytest.raises(SourceMissing, match="s3://inbox/a"):
            S3Storage(client).copy("inbox", "a", "results", "b")


def test_tags_come_with_their_version_and_a_missing_object_is_a_missing_source() -> None:
    client: Any = Session().create_client("s3", "us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    tags = [{"Key": "GuardDutyMalwareScanStatus", "Value": "NO_THREATS_FOUND"}]
    with Stubber(client) as stub:
        stub.add_response("get_object_tagging", {"VersionId": "v1", "TagSet": tags}, {"Bucket": "inbox", "Key": "a"})
        assert S3Storage(client).tags("inbox", "a") == ("v1", {"GuardDutyMalwareScanStatus": "NO_THREATS_FOUND"})
        stub.add_response("get_object_tagging", {"VersionId": "v2", "TagSet": []})
        assert S3Storage(client).tags("inbox", "a") == ("v2", {})
        for code in ("NoSuchKey", "MethodNotAllowed"):
            stub.add_client_error("get_object_tagging", code)
            with pytest.raises(SourceMissing, match="s3://inbox/a"):
                S3Storage(client).tags("inbox", "a")
        stub.add_client_error("get_object_tagging", "AccessDenied", http_status_code=403)
        with pytest.raises(StorageUnavailable):
            S3Storage(client).tags("inbox", "a")

"""Tests presigned URLs and forms of S3."""

import base64
import json
from typing import Any

from botocore.session import Session

from lambdas.adapters.storage import S3Storage
from lambdas.connect import S3_CLIENT


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

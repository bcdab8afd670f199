"""What of S3 no emulator shows: the policy of a form, which only AWS keeps to the letter."""

import base64
import json

from botocore.session import Session

from lambdas.adapters.storage import S3Storage
from lambdas.connect import S3_CLIENT


def test_a_form_is_good_for_one_key_one_type_and_a_file_that_is_neither_empty_nor_too_large() -> None:
    client = Session().create_client(
        "s3", "eu-central-1", aws_access_key_id="a", aws_secret_access_key="b", config=S3_CLIENT
    )
    form = S3Storage(client).form("inbox", "uploads/1/Zoë.jpg", "image/jpeg", bytes_max=1000, seconds=300)
    conditions = json.loads(base64.b64decode(form.fields["policy"]))["conditions"]
    exact = {name: value for one in conditions if isinstance(one, dict) for name, value in one.items()}
    assert (exact["bucket"], exact["key"], exact["Content-Type"]) == ("inbox", "uploads/1/Zoë.jpg", "image/jpeg")
    assert [one for one in conditions if not isinstance(one, dict)] == [["content-length-range", 1, 1000]]
    signed = {name: value for name, value in exact.items() if name != "bucket"}
    assert signed.items() <= form.fields.items()
    assert form.fields["x-amz-algorithm"] == "AWS4-HMAC-SHA256"
    assert form.url.startswith("https://")

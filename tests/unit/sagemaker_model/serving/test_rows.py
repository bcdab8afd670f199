from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.stub import ANY, Stubber

from maskdrop.errors import NotAllowed, TableUnavailable
from sagemaker_model.serving.rows import DynamoDBRows

ROW = {"id": "a", "state": "done", "subject": {"score": 0.5}, "result": None, "warnings": ["x"]}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[DynamoDBRows, Stubber]]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    rows = DynamoDBRows("NewImages", "us-east-1", threads=1)
    with Stubber(rows._dynamodb) as stub:
        yield rows, stub


def described(*keys: str) -> dict[str, Any]:
    kinds = dict(zip(keys, ("HASH", "RANGE"), strict=False))
    return {"Table": {"KeySchema": [{"AttributeName": name, "KeyType": kind} for name, kind in kinds.items()]}}


def test_the_fields_of_a_row_are_set_and_a_finished_row_is_protected(table: tuple[DynamoDBRows, Stubber]) -> None:
    rows, stub = table
    names = {"#state": "state", "#subject": "subject", "#result": "result", "#warnings": "warnings"}
    parameters = {
        "TableName": "NewImages",
        "Key": {"id": {"S": "a"}},
        "UpdateExpression": "SET #state = :state, #subject = :subject, #result = :result, #warnings = :warnings",
        "ConditionExpression": "attribute_not_exists(#state) OR #state <> :done OR :state = :done",
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": ANY,
    }
    stub.add_response("update_item", {}, parameters)
    rows.write(ROW)
    stub.add_client_error("update_item", "ConditionalCheckFailedException")
    rows.write({**ROW, "state": "failed"})
    stub.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("code", "error"),
    [("ProvisionedThroughputExceededException", TableUnavailable), ("ResourceNotFoundException", NotAllowed)],
)
def test_errors_that_last_are_not_allowed_and_the_others_unavailable(
    table: tuple[DynamoDBRows, Stubber], code: str, error: type[Exception]
) -> None:
    rows, stub = table
    stub.add_client_error("update_item", code)
    with pytest.raises(error, match=code):
        rows.write(ROW)


@pytest.mark.parametrize("keys", [("image",), ("id", "version")])
def test_a_table_with_another_key_is_refused(table: tuple[DynamoDBRows, Stubber], keys: tuple[str, ...]) -> None:
    rows, stub = table
    stub.add_response("describe_table", described("id"))
    rows.check()
    stub.add_response("describe_table", described(*keys))
    with pytest.raises(NotAllowed, match="partition key 'id' alone"):
        rows.check()

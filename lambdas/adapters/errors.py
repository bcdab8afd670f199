"""Translates the errors of botocore to the errors of Maskdrop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError

from maskdrop.errors import Unavailable


@contextmanager
def translated_errors(kind: type[Unavailable], action: str) -> Iterator[None]:
    """Raises `kind` for every botocore error of the block. action: start of the error message, such as "Listing jobs".

    Every such error is retryable, also a missing permission: an operator may add it before the last delivery.
    """
    try:
        yield
    except ClientError as error:
        raise kind(f"{action} failed: {error.response['Error'].get('Code', 'unknown')}.") from error
    except BotoCoreError as error:
        raise kind(f"{action} failed: {type(error).__name__}.") from error


def code_of(error: ClientError) -> str:
    """Returns the AWS error code; "" without one."""
    return str(error.response["Error"].get("Code", ""))


def condition_failed(error: ClientError) -> bool:
    """Returns whether a conditional write to DynamoDB failed because its condition is false."""
    return code_of(error) == "ConditionalCheckFailedException"

"""Where the errors of botocore become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError

from maskdrop.errors import Unavailable


@contextmanager
def as_error(kind: type[Unavailable], doing: str) -> Iterator[None]:
    """Raises `kind` for whatever botocore raises inside. Every such error is worth another try: a wrong permission is
    as temporary as a full disk when someone mends it before the message's 10 deliveries are over."""
    try:
        yield
    except ClientError as error:
        raise kind(f"{doing} failed: {error.response['Error'].get('Code', 'unknown')}.") from error
    except BotoCoreError as error:
        raise kind(f"{doing} failed: {type(error).__name__}.") from error


def code_of(error: ClientError) -> str:
    return str(error.response["Error"].get("Code", ""))

"""Before every call of the API: whose key is it? API Gateway asks at each call and keeps no answer: its cache wants a
key in every place where one may be. So a revoked key is refused at once."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas import connect
from lambdas.observe import logger, observed
from maskdrop.access import Caller, Key, digest
from maskdrop.services import Registry


@observed
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:  # noqa: ARG001  Lambda passes two
    return process(event, connect.registry())


def process(event: dict[str, Any], registry: Registry) -> dict[str, Any]:
    """The policy for one call, and for a key that is known: its digest, which is the value of its API Gateway key and
    so names its usage plan, and its caller for `lambdas.http.routes`."""
    name = digest(key_in(event["headers"] or {}))
    value = registry.get("key", name)
    key = Key.from_json(value) if value else None
    logger().info("asked", extra={"path": event["path"], "key": key.id if key else None})
    if key is None:
        return _policy("nobody", "Deny", event["methodArn"])
    caller = Caller(id=key.id, owner=key.owner, scope=key.scope, rate=key.rate, key=name)
    return {
        **_policy(caller.id, "Allow", event["methodArn"]),
        "usageIdentifierKey": name,
        "context": caller.to_context(),
    }


def key_in(headers: dict[str, str]) -> str:
    """The key in X-Api-Key, else in Authorization: Bearer; "" where there is none."""
    told = {name.lower(): value for name, value in headers.items()}
    scheme, _, token = told.get("authorization", "").partition(" ")
    bearer = token if scheme.lower() == "bearer" else ""
    return (told.get("x-api-key") or bearer).strip()


def _policy(principal: str, effect: str, method: str) -> dict[str, Any]:
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": method}
    return {"principalId": principal, "policyDocument": {"Version": "2012-10-17", "Statement": [statement]}}

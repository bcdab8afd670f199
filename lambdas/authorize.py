"""Lambda authorizer of the API: authenticates the API key of every request.

API Gateway does not cache the policy, because its cache requires every identity source in every request. A revoked key
is rejected at once.
"""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas import connect
from lambdas.observe import logger, observed
from maskdrop.access import Caller, Key, digest
from maskdrop.services import Registry


@observed
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:  # noqa: ARG001  Lambda passes two
    return process(event, connect.keys())


def process(event: dict[str, Any], registry: Registry) -> dict[str, Any]:
    """Returns the policy for one request. For a valid key, adds the usage identifier and the caller.

    The usage identifier is the key's digest, the value of the API Gateway key that selects the usage plan.

    Raises TableUnavailable when the registry does not respond: API Gateway returns its response AUTHORIZER_FAILURE,
    503 with Retry-After (infra/api.py).
    """
    name = digest(key_in(event["headers"] or {}))
    value = registry.get("key", name)
    key = Key.from_json(value) if value else None
    logger().info("request", extra={"path": event["path"], "key": key.id if key else None})
    if key is None:
        return _policy("nobody", "Deny", event["methodArn"])
    caller = Caller(id=key.id, owner=key.owner, scope=key.scope, rate=key.rate, key=name)
    return {
        **_policy(caller.id, "Allow", event["methodArn"]),
        "usageIdentifierKey": name,
        "context": caller.to_context(),
    }


def key_in(headers: dict[str, str]) -> str:
    """Returns the key in X-Api-Key, else in Authorization: Bearer; "" without a key."""
    lowered = {name.lower(): value for name, value in headers.items()}
    scheme, _, token = lowered.get("authorization", "").partition(" ")
    bearer = token if scheme.lower() == "bearer" else ""
    return (lowered.get("x-api-key") or bearer).strip()


def _policy(principal: str, effect: str, method: str) -> dict[str, Any]:
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": method}
    return {"principalId": principal, "policyDocument": {"Version": "2012-10-17", "Statement": [statement]}}

from typing import Any

import pytest

from lambdas.authorize import process
from maskdrop.access import Caller, Key, digest
from tests.fakes import NOW, FakeRegistry

TEXT = "maskdrop_" + "k" * 43
KEY = Key(id="k1", name="the shop", owner="shop", scope="own", rate=30, created_at=NOW, webhook_secret="whsec_AA==")
METHOD = "arn:aws:execute-api:us-east-1:123456789012:api/dev/GET/v1/jobs"


@pytest.fixture
def registry() -> FakeRegistry:
    registry = FakeRegistry()
    registry.put("key", digest(TEXT), KEY.to_json())
    return registry


def authorize(registry: FakeRegistry, headers: dict[str, str] | None) -> dict[str, Any]:
    return process({"type": "REQUEST", "methodArn": METHOD, "path": "/v1/jobs", "headers": headers}, registry)


def effect(response: dict[str, Any]) -> tuple[str, str]:
    (statement,) = response["policyDocument"]["Statement"]
    return statement["Effect"], statement["Resource"]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Api-Key": TEXT},
        {"x-api-key": TEXT},
        {"X-API-KEY": f" {TEXT} "},
        {"Authorization": f"Bearer {TEXT}"},
        {"authorization": f"bearer  {TEXT}"},
        {"X-Api-Key": "", "Authorization": f"Bearer {TEXT}"},
        {"X-Api-Key": TEXT, "Authorization": "Basic dTpw"},
    ],
)
def test_a_key_is_accepted_in_either_header_in_any_case(registry: FakeRegistry, headers: dict[str, str]) -> None:
    response = authorize(registry, headers)
    assert effect(response) == ("Allow", METHOD)
    caller = Caller(id="k1", owner="shop", scope="own", rate=30, key=digest(TEXT))
    assert Caller.of({"authorizer": response["context"]}) == caller
    assert response["usageIdentifierKey"] == digest(TEXT)


@pytest.mark.parametrize(
    "headers",
    [
        None,
        {},
        {"X-Api-Key": ""},
        {"X-Api-Key": "maskdrop_unknown"},
        {"X-Api-Key": TEXT.upper()},
        {"X-Api-Key": digest(TEXT)},
        {"X-Api-Key": "unknown", "Authorization": f"Bearer {TEXT}"},
        {"Authorization": TEXT},
        {"Authorization": f"Basic {TEXT}"},
        {"X-Other": TEXT},
    ],
)
def test_an_unknown_key_is_denied(registry: FakeRegistry, headers: dict[str, str] | None) -> None:
    response = authorize(registry, headers)
    assert effect(response) == ("Deny", METHOD)
    assert "usageIdentifierKey" not in response


def test_a_revoked_key_is_denied_at_once(registry: FakeRegistry) -> None:
    registry.delete("key", digest(TEXT))
    assert effect(authorize(registry, {"X-Api-Key": TEXT}))[0] == "Deny"


def test_the_policy_context_is_text_without_secrets(registry: FakeRegistry) -> None:
    response = authorize(registry, {"X-Api-Key": TEXT})
    assert all(isinstance(value, str) for value in response["context"].values())
    assert TEXT not in str(response)
    assert "whsec_" not in str(response)


def test_the_repr_of_a_key_has_no_secret() -> None:
    assert "whsec_" not in repr(KEY)
    assert Key.from_json(KEY.to_json()) == KEY

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from local.emulator import (
    TYPES,
    ResourceStore,
    enforce_partition_keys,
    name_source_account,
    record_calls,
    refuse_slow_and_throttled_functions,
    refuse_web_pages,
)

CONFIG = "AWS::SageMaker::EndpointConfig"


def test_ref_returns_the_arn_and_getatt_the_name(tmp_path: Path) -> None:
    handlers = ResourceStore(tmp_path / "sagemaker.json").handlers("AWS::SageMaker::Endpoint")
    physical_id, attributes = handlers["create"]("Bulk", {"EndpointName": "mine"}, "stack")
    assert physical_id.endswith(":endpoint/mine")
    assert attributes == {"EndpointName": "mine"}


def test_an_unnamed_resource_gets_a_name_that_an_update_keeps(tmp_path: Path) -> None:
    file = tmp_path / "sagemaker.json"
    handlers = ResourceStore(file).handlers(CONFIG)
    physical_id, attributes = handlers["create"]("Bulk", {"a": 1}, "stack")
    updated_id, updated_attributes = handlers["update"](physical_id, {"a": 1}, {"a": 2}, "stack")
    assert (updated_id, updated_attributes) == (physical_id, attributes)
    assert json.loads(file.read_text()) == {CONFIG: {attributes["EndpointConfigName"]: {"a": 2}}}


def test_a_deleted_resource_is_removed_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "sagemaker.json"
    handlers = ResourceStore(file).handlers(CONFIG)
    physical_id, _ = handlers["create"]("Bulk", {}, "stack")
    handlers["delete"](physical_id, {})
    assert json.loads(file.read_text()) == {CONFIG: {}}


def test_only_alarms_on_metric_math_bypass_the_emulator(tmp_path: Path) -> None:
    builtin: dict[str, Callable[..., Any]] = {
        "create": lambda *_: ("builtin", {}),
        "update": lambda *_: ("builtin", {}),
        "delete": lambda *_: None,
    }
    handlers = ResourceStore(tmp_path / "sagemaker.json").alarms(builtin)
    assert handlers["create"]("Late", {"Metrics": [{}]}, "stack")[0] == "stack-Late"
    assert handlers["create"]("Late", {"MetricName": "x"}, "stack")[0] == "builtin"


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_every_added_type_can_be_created_and_deleted(tmp_path: Path, kind: str) -> None:
    properties = {"ResourceId": "endpoint/a/variant/b", "ScalableDimension": "d", "ServiceNamespace": "sagemaker"}
    handlers = ResourceStore(tmp_path / "sagemaker.json").handlers(kind)
    physical_id, attributes = handlers["create"]("It", properties, "stack")
    assert physical_id
    assert attributes
    handlers["delete"](physical_id, properties)
    assert json.loads((tmp_path / "sagemaker.json").read_text()) == {kind: {}}


def test_allowed_calls_of_roles_are_recorded_once_with_their_partition_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(context: Any, *_: Any) -> Any:
        return SimpleNamespace(decision="ImplicitDeny" if context.action == "s3:PutObject" else "Allow")

    def enforce(_key: str, action: str, principal: str, body: bytes = b"") -> Any:
        keys = {name.lower(): value for name, value in core.iam_actions.dynamodb_service_context(body).items()}
        context = SimpleNamespace(principal_arn=principal, action=action, resource_arn="table", service_context=keys)
        return core.iam_evaluator.evaluate(context, [])

    core: Any = ModuleType("ministack.core")
    core.iam_evaluator = SimpleNamespace(enforce=enforce, evaluate=evaluate)
    core.iam_actions = SimpleNamespace(dynamodb_service_context=lambda _body: {})
    monkeypatch.setitem(sys.modules, "ministack", ModuleType("ministack"))
    monkeypatch.setitem(sys.modules, "ministack.core", core)
    file = tmp_path / "calls.jsonl"
    record_calls(file)
    role = "arn:aws:sts::000000000000:assumed-role/api/session"
    for body in (b'{"Key": {"kind": {"S": "key"}, "name": {"S": "a"}}}', b'{"Key": {"kind": {"S": "key"}}}'):
        assert core.iam_evaluator.enforce("A", "dynamodb:GetItem", role, body).decision == "Allow"
    core.iam_evaluator.enforce("A", "dynamodb:Query", role, b'{"ExpressionAttributeValues": {":k": {"S": "preset"}}}')
    core.iam_evaluator.enforce("A", "s3:PutObject", role)
    core.iam_evaluator.enforce("B", "dynamodb:GetItem", "arn:aws:iam::000000000000:root")
    calls = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(call["key"], call["role"], call["action"], call["leading_keys"]) for call in calls] == [
        ("A", "api", "dynamodb:GetItem", ["key"]),
        ("A", "api", "dynamodb:Query", ["preset"]),
    ]


def test_policies_see_the_partition_keys_of_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    core: Any = ModuleType("ministack.core")
    core.iam_actions = SimpleNamespace(dynamodb_service_context=lambda _body: {"dynamodb:Select": "COUNT"})
    monkeypatch.setitem(sys.modules, "ministack", ModuleType("ministack"))
    monkeypatch.setitem(sys.modules, "ministack.core", core)
    enforce_partition_keys()
    context = core.iam_actions.dynamodb_service_context
    assert context(b'{"Key": {"kind": {"S": "key"}}}') == {"dynamodb:Select": "COUNT", "dynamodb:leadingkeys": ["key"]}
    assert context(b'{"TableName": "registry"}') == {"dynamodb:Select": "COUNT"}  # a scan names no partition key


def test_trust_policies_see_the_account_for_which_a_service_assumes_a_role(monkeypatch: pytest.MonkeyPatch) -> None:
    core: Any = ModuleType("ministack.core")
    core.iam_evaluator = SimpleNamespace(evaluate_trust_policy=lambda _document, _caller, context: context)
    monkeypatch.setitem(sys.modules, "ministack", ModuleType("ministack"))
    monkeypatch.setitem(sys.modules, "ministack.core", core)
    name_source_account()
    context = SimpleNamespace(service_context={})
    core.iam_evaluator.evaluate_trust_policy("{}", "arn", context)
    assert context.service_context == {"aws:sourceaccount": "000000000000"}


def test_the_emulator_responds_to_this_machine_alone() -> None:
    async def server(scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def status(host: str, origin: str = "", path: str = "/") -> int:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        headers = [(b"host", host.encode()), *([(b"origin", origin.encode())] if origin else [])]
        asyncio.run(ministack.app({"type": "http", "path": path, "headers": headers}, None, send))
        return int(sent[0]["status"])

    ministack: Any = SimpleNamespace(app=server)
    refuse_web_pages(ministack)
    assert status("127.0.0.1:4566") == 200
    assert status("evil.example:4566") == 403
    assert status("127.0.0.1:4566", "https://evil.example") == 403
    assert status("127.0.0.1:4566", "https://shop.example", "/restapis/a/dev/_user_request_/v1/health") == 200


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"body": {"statusCode": 200}}, (200, "shaped")),
        ({"throttle": True, "body": {}}, ("INTEGRATION_FAILURE", None)),
        (None, ("INTEGRATION_TIMEOUT", None)),  # the function does not end
    ],
)
def test_a_throttled_or_slow_function_gets_the_gateway_response_of_api_gateway(
    monkeypatch: pytest.MonkeyPatch, result: dict[str, Any] | None, expected: tuple[Any, Any]
) -> None:
    gateway: Any = ModuleType("ministack.services.apigateway_v1")

    async def proxied() -> Any:
        if result is None:
            await asyncio.Event().wait()
        return gateway._lambda_proxy_response(result)

    gateway._invoke_lambda_proxy_v1 = proxied
    gateway._lambda_proxy_response = lambda result: (result["body"]["statusCode"], "shaped")
    gateway._gw_error = lambda kind, message: (kind, message)
    services: Any = ModuleType("ministack.services")
    services.apigateway_v1 = gateway
    monkeypatch.setitem(sys.modules, "ministack", ModuleType("ministack"))
    monkeypatch.setitem(sys.modules, "ministack.services", services)
    monkeypatch.setattr("local.emulator.INTEGRATION_TIMEOUT_S", 0.01)
    refuse_slow_and_throttled_functions()
    assert asyncio.run(gateway._invoke_lambda_proxy_v1()) == expected

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local.emulator import TYPES, ResourceStore

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

"""Starts MiniStack with the resource types it does not know: SageMaker's and Application Auto Scaling's, and alarms on
metric math.

    python emulator.py SAGEMAKER_JSON

Runs in the emulator's own virtual environment and so imports MiniStack and the standard library alone. The types have
no service behind them: their properties are written to SAGEMAKER_JSON as {resource type: {name: properties}}, where the
stand-in for SageMaker reads them. Everything else about MiniStack is set by its environment: `stack.py`.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

ACCOUNT = "us-east-1:000000000000"
Properties = dict[str, Any]
Provisioned = tuple[str, dict[str, str]]
"""What a resource type's handler returns: the physical id, which is what Ref gives, and the attributes of GetAtt."""


def _sagemaker(kind: str, attribute: str) -> Callable[[str, Properties], Provisioned]:
    """Ref gives the ARN, Fn::GetAtt the name, as CloudFormation's reference says of the three."""

    def provisioned(default: str, properties: Properties) -> Provisioned:
        name = properties.get(attribute) or default
        return f"arn:aws:sagemaker:{ACCOUNT}:{kind}/{name}", {attribute: name}

    return provisioned


def _target(_default: str, properties: Properties) -> Provisioned:
    parts = (properties["ResourceId"], properties["ScalableDimension"], properties["ServiceNamespace"])
    return "|".join(parts), {"Id": "|".join(parts)}


def _policy(default: str, properties: Properties) -> Provisioned:
    name = properties.get("PolicyName") or default
    arn = f"arn:aws:autoscaling:{ACCOUNT}:scalingPolicy:local:policyName/{name}"
    return arn, {"Arn": arn, "PolicyName": name}


TYPES: dict[str, Callable[[str, Properties], Provisioned]] = {
    "AWS::SageMaker::Model": _sagemaker("model", "ModelName"),
    "AWS::SageMaker::EndpointConfig": _sagemaker("endpoint-config", "EndpointConfigName"),
    "AWS::SageMaker::Endpoint": _sagemaker("endpoint", "EndpointName"),
    "AWS::ApplicationAutoScaling::ScalableTarget": _target,
    "AWS::ApplicationAutoScaling::ScalingPolicy": _policy,
}


class Register:
    """The properties of every such resource, kept in one JSON file that is replaced whole at each change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._resources: dict[str, dict[str, Properties]] = {}

    def put(self, resource_type: str, name: str, properties: Properties | None) -> None:
        with self._lock:
            kept = self._resources.setdefault(resource_type, {})
            if properties is None:
                kept.pop(name, None)
            else:
                kept[name] = properties
            fresh = self._path.with_suffix(".new")
            fresh.write_text(json.dumps(self._resources, indent=1))
            fresh.replace(self._path)

    def handlers(self, resource_type: str) -> dict[str, Callable[..., Any]]:
        """The create, update and delete of one type, in the form in which MiniStack calls them."""
        provisioned = TYPES[resource_type]

        def create(logical_id: str, properties: Properties, stack: str) -> Provisioned:
            made = provisioned(f"{stack}-{logical_id}", properties)
            self.put(resource_type, _name(made[0]), properties)
            return made

        def update(physical_id: str, _old: Properties, properties: Properties, _stack: str) -> Provisioned:
            self.put(resource_type, _name(physical_id), properties)
            return physical_id, provisioned(_name(physical_id), properties)[1]

        def delete(physical_id: str, _properties: Properties) -> None:
            self.put(resource_type, _name(physical_id), None)

        return {"create": create, "update": update, "delete": delete}

    def alarms(self, known: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
        """MiniStack's handlers of alarms, behind ours for those on metric math, which it refuses. Nothing on one
        machine publishes the metrics that they watch."""

        def create(logical_id: str, properties: Properties, stack: str) -> Provisioned:
            if "Metrics" not in properties:
                made: Provisioned = known["create"](logical_id, properties, stack)
                return made
            name = properties.get("AlarmName") or f"{stack}-{logical_id}"
            self.put("AWS::CloudWatch::Alarm", name, properties)
            return name, {"Arn": f"arn:aws:cloudwatch:{ACCOUNT}:alarm:{name}"}

        def update(physical_id: str, old: Properties, properties: Properties, stack: str, *rest: str) -> Provisioned:
            if "Metrics" in properties:
                return create(physical_id, {"AlarmName": physical_id, **properties}, stack)
            updated: Provisioned = known["update"](physical_id, old, properties, stack, *rest)
            return updated

        return {**known, "create": create, "update": update}


def _name(physical_id: str) -> str:
    return physical_id.rpartition("/")[2] if physical_id.startswith("arn:") else physical_id


def main() -> None:
    from ministack import app
    from ministack.services.cloudformation import provisioners

    register = Register(Path(sys.argv.pop(1)))
    # A private name, so MiniStack is pinned exactly. `engine.py` refuses a template with a type that is not in it.
    handlers = provisioners._RESOURCE_HANDLERS
    handlers.update({name: register.handlers(name) for name in TYPES})
    handlers["AWS::CloudWatch::Alarm"] = register.alarms(handlers["AWS::CloudWatch::Alarm"])
    # With TLS it would also open port 443 wherever it may, as root may; that is for Cognito, which nothing here uses.
    app._port_is_bindable = lambda _host, _port: False
    app.main()


if __name__ == "__main__":
    main()

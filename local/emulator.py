"""Starts MiniStack, the AWS emulator, and adds resource types that it lacks.

    python emulator.py SAGEMAKER_JSON

Adds the types of SageMaker and Application Auto Scaling, CloudWatch alarms on metric math, the custom resource that
empties a bucket before it is deleted, and the malware scan of GuardDuty. Lets */* match an absent Accept header,
returns the gateway responses of a throttled or slow function, and refuses requests of web pages. It runs in the
emulator's own virtual environment and imports only MiniStack, the standard library and maskdrop.

The added types have no service. Their properties are written to SAGEMAKER_JSON as {resource type: {name: properties}},
which the SageMaker emulator (local/sagemaker.py) reads. `local/stack.py` sets all other options of MiniStack in its
environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any

ACCOUNT = "us-east-1:000000000000"
Properties = dict[str, Any]
Provisioned = tuple[str, dict[str, str]]
"""Result of a resource handler: the physical ID (the value of Ref) and the attributes of Fn::GetAtt."""


def _sagemaker(kind: str, attribute: str) -> Callable[[str, Properties], Provisioned]:
    """Returns a handler whose Ref is the ARN and whose Fn::GetAtt is the name, as in the CloudFormation reference."""

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


def _emptied_bucket(default: str, _properties: Properties) -> Provisioned:
    """The CDK's function for this type needs the AWS SDK of Node.js. The emulator deletes buckets and their objects."""
    return default, {"Bucket": default}


def _plan(default: str, _properties: Properties) -> Provisioned:
    arn = f"arn:aws:guardduty:{ACCOUNT}:malware-protection-plan/{default}"
    return default, {"Arn": arn, "MalwareProtectionPlanId": default}


SCAN_PLAN = "AWS::GuardDuty::MalwareProtectionPlan"

TYPES: dict[str, Callable[[str, Properties], Provisioned]] = {
    "AWS::SageMaker::Model": _sagemaker("model", "ModelName"),
    "AWS::SageMaker::EndpointConfig": _sagemaker("endpoint-config", "EndpointConfigName"),
    "AWS::SageMaker::Endpoint": _sagemaker("endpoint", "EndpointName"),
    "AWS::ApplicationAutoScaling::ScalableTarget": _target,
    "AWS::ApplicationAutoScaling::ScalingPolicy": _policy,
    SCAN_PLAN: _plan,
    "Custom::S3AutoDeleteObjects": _emptied_bucket,
}


class ResourceStore:
    """Properties of the added resources, in one JSON file that is replaced atomically at each change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._resources: dict[str, dict[str, Properties]] = json.loads(path.read_text()) if path.exists() else {}

    def of(self, resource_type: str) -> list[Properties]:
        """Returns the properties of the resources of one type."""
        with self._lock:
            return [*self._resources.get(resource_type, {}).values()]

    def put(self, resource_type: str, name: str, properties: Properties | None) -> None:
        """Stores the properties of a resource; None deletes it."""
        with self._lock:
            resources = self._resources.setdefault(resource_type, {})
            if properties is None:
                resources.pop(name, None)
            else:
                resources[name] = properties
            temporary = self._path.with_suffix(".new")
            temporary.write_text(json.dumps(self._resources, indent=1))
            temporary.replace(self._path)

    def handlers(self, resource_type: str) -> dict[str, Callable[..., Any]]:
        """Returns the create, update and delete handlers of one type, with the signatures that MiniStack calls."""
        provisioned = TYPES[resource_type]

        def create(logical_id: str, properties: Properties, stack: str) -> Provisioned:
            resource = provisioned(f"{stack}-{logical_id}", properties)
            self.put(resource_type, _name(resource[0]), properties)
            return resource

        def update(physical_id: str, _old: Properties, properties: Properties, _stack: str) -> Provisioned:
            self.put(resource_type, _name(physical_id), properties)
            return physical_id, provisioned(_name(physical_id), properties)[1]

        def delete(physical_id: str, _properties: Properties) -> None:
            self.put(resource_type, _name(physical_id), None)

        return {"create": create, "update": update, "delete": delete}

    def alarms(self, builtin: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
        """Returns alarm handlers that store alarms on metric math, which MiniStack rejects, and delegate other alarms.

        Alarms on metric math are never evaluated: the local stack does not publish their metrics.
        """

        def create(logical_id: str, properties: Properties, stack: str) -> Provisioned:
            if "Metrics" not in properties:
                created: Provisioned = builtin["create"](logical_id, properties, stack)
                return created
            name = properties.get("AlarmName") or f"{stack}-{logical_id}"
            self.put("AWS::CloudWatch::Alarm", name, properties)
            return name, {"Arn": f"arn:aws:cloudwatch:{ACCOUNT}:alarm:{name}"}

        def update(physical_id: str, old: Properties, properties: Properties, stack: str, *rest: str) -> Provisioned:
            if "Metrics" in properties:
                return create(physical_id, {"AlarmName": physical_id, **properties}, stack)
            updated: Provisioned = builtin["update"](physical_id, old, properties, stack, *rest)
            return updated

        return {**builtin, "create": create, "update": update}


CALLS_FILE = "MASKDROP_CALLS_FILE"
PARTITION_KEYS = "maskdrop:partitionkeys"


def record_calls(path: Path) -> None:
    """Appends each new call that a role may make: access key, role, action, resource and DynamoDB partition keys.

    Tests compare the calls with the policies of the template. Calls that IAM denies are not recorded. MiniStack has no
    dynamodb:LeadingKeys: it allows every partition key.
    """
    from ministack.core import iam_actions, iam_evaluator

    enforce, evaluate, lock = iam_evaluator.enforce, iam_evaluator.evaluate, threading.Lock()
    dynamodb_context = iam_actions.dynamodb_service_context
    access_key: ContextVar[str] = ContextVar("access_key", default="")
    known: set[str] = set()

    def evaluated(context: Any, *policies: Any) -> Any:
        result = evaluate(context, *policies)
        if result.decision == "Allow" and ":assumed-role/" in context.principal_arn:
            call = {
                "key": access_key.get(),
                "role": context.principal_arn.split("/")[1],
                "action": context.action,
                "resource": context.resource_arn,
                "leading_keys": context.service_context.get(PARTITION_KEYS) or [],
            }
            line = json.dumps(call) + "\n"
            with lock:
                if line not in known:
                    known.add(line)
                    with path.open("a") as file:
                        file.write(line)
        return result

    def enforced(access_key_id: str, *arguments: Any, **named: Any) -> Any:
        access_key.set(access_key_id)
        return enforce(access_key_id, *arguments, **named)

    def with_partition_keys(body: bytes) -> dict[str, Any]:
        return {**dynamodb_context(body), PARTITION_KEYS: _partition_keys(json.loads(body or b"{}"))}

    iam_evaluator.enforce, iam_evaluator.evaluate = enforced, evaluated
    iam_actions.dynamodb_service_context = with_partition_keys


def _partition_keys(request: dict[str, Any]) -> list[str]:
    """The partition keys that a request to the registry may name; for a query, all its values."""
    item = request.get("Key") or request.get("Item")
    values = [item.get("kind")] if item else list((request.get("ExpressionAttributeValues") or {}).values())
    return [value["S"] for value in values if value and "S" in value]


API_PATH = "/restapis/"
"""Prefix of the HTTP API, whose callers need a key: pages of other sites may call it."""


def refuse_web_pages(app: Any) -> None:
    """Lets the emulator respond to requests of this machine alone. MiniStack checks neither Host nor Origin and allows
    every page to read its responses, and outside strict mode no request needs a signature."""
    from maskdrop.loopback import LocalOnly

    app.app = LocalOnly(app.app, open_path=API_PATH)


def enforce_partition_keys() -> None:
    """Gives policies the partition keys of a request as dynamodb:LeadingKeys, which MiniStack lacks."""
    from ministack.core import iam_actions

    context = iam_actions.dynamodb_service_context

    def with_leading_keys(body: bytes) -> dict[str, Any]:
        keys = _partition_keys(json.loads(body or b"{}"))
        return {**context(body), **({"dynamodb:leadingkeys": keys} if keys else {})}

    iam_actions.dynamodb_service_context = with_leading_keys


def name_source_account() -> None:
    """Gives trust policies the account for which a service assumes a role: aws:SourceAccount, which MiniStack lacks."""
    from ministack.core import iam_evaluator

    evaluate = iam_evaluator.evaluate_trust_policy

    def evaluated(document: Any, caller: str, context: Any = None) -> Any:
        if context is not None:
            context.service_context.setdefault("aws:sourceaccount", ACCOUNT.partition(":")[2])
        return evaluate(document, caller, context)

    iam_evaluator.evaluate_trust_policy = evaluated


def match_absent_types() -> None:
    """Lets the binary media type */* match a request without Content-Type or Accept, as in API Gateway.

    MiniStack returns the base64 text of a binary response to a client that sends no Accept, such as Go's net/http,
    java.net.http and .NET's HttpClient.
    """
    from ministack.services import apigateway_v1

    matches = apigateway_v1._media_type_matches  # a private name: MiniStack is pinned exactly

    def matches_or_is_absent(media_type: str | None, binary_media_types: list[str]) -> bool:
        return "*/*" in (binary_media_types or ()) or matches(media_type, binary_media_types)

    apigateway_v1._media_type_matches = matches_or_is_absent


INTEGRATION_TIMEOUT_S = 29
"""Seconds that API Gateway waits for a function: its default. MiniStack waits without a limit."""


def refuse_slow_and_throttled_functions() -> None:
    """Returns the gateway response INTEGRATION_FAILURE for a throttled function, and INTEGRATION_TIMEOUT for a slow
    one, as API Gateway does.

    MiniStack returns Lambda's own error with the status 429, without the body and the Retry-After of the API.
    """
    from ministack.services import apigateway_v1

    proxied, shaped = apigateway_v1._invoke_lambda_proxy_v1, apigateway_v1._lambda_proxy_response

    class Throttled(Exception):
        """The function is throttled."""

    async def within_timeout(*arguments: Any, **named: Any) -> Any:
        try:
            return await asyncio.wait_for(proxied(*arguments, **named), INTEGRATION_TIMEOUT_S)
        except TimeoutError:
            return apigateway_v1._gw_error("INTEGRATION_TIMEOUT", None)

    def shaped_or_throttled(result: dict[str, Any]) -> Any:
        if result.get("throttle"):
            raise Throttled
        return shaped(result)

    async def proxied_or_refused(*arguments: Any, **named: Any) -> Any:
        try:
            return await within_timeout(*arguments, **named)
        except Throttled:
            return apigateway_v1._gw_error("INTEGRATION_FAILURE", None)

    apigateway_v1._lambda_proxy_response = shaped_or_throttled
    apigateway_v1._invoke_lambda_proxy_v1 = proxied_or_refused


EICAR = b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE"
"""Part of the test file of the anti-malware industry (eicar.org): the only malware that the emulated scan finds."""

SCAN_S = 1.0
"""Seconds from the creation of an object to its scan."""


def scan_new_objects(plans: Callable[[], Iterable[Properties]]) -> None:
    """Tags new objects with the result of a malware scan, as GuardDuty does by its malware protection plans.

    plans: their properties at the time of the call.
    """
    from ministack.services import s3

    from maskdrop.malware import CLEAN, MALWARE, TAG

    fire = s3._fire_s3_event_async

    def is_protected(bucket: str, key: str) -> bool:
        buckets = [plan["ProtectedResource"]["S3Bucket"] for plan in plans()]
        return any(one["BucketName"] == bucket and key.startswith(tuple(one["ObjectPrefixes"])) for one in buckets)

    def scan(bucket: str, key: str, version_id: str | None) -> None:
        if (body := s3._get_object_data(bucket, key, version_id)) is not None:
            tags = s3._object_tags.setdefault((bucket, key, version_id), {})
            tags[TAG] = MALWARE if EICAR in body else CLEAN

    def fired(bucket: str, key: str, event: str, *arguments: Any, **named: Any) -> None:
        fire(bucket, key, event, *arguments, **named)
        if event.startswith("s3:ObjectCreated:") and is_protected(bucket, key):
            call = (scan, bucket, key, named.get("version_id"))
            timer = threading.Timer(SCAN_S, copy_context().run, call)
            timer.daemon = True
            timer.start()

    s3._fire_s3_event_async = fired


def _name(physical_id: str) -> str:
    """Returns the resource name of a physical ID, which is an ARN or the name itself."""
    return physical_id.rpartition("/")[2] if physical_id.startswith("arn:") else physical_id


def main() -> None:
    sys.path.append(str(Path(__file__).resolve().parent.parent))  # for maskdrop
    from ministack import app
    from ministack.services.cloudformation import provisioners

    store = ResourceStore(Path(sys.argv.pop(1)))
    # A private name of MiniStack, which is therefore pinned exactly. Its `engine.py` rejects types that are not in it.
    handlers = provisioners._RESOURCE_HANDLERS
    handlers.update({name: store.handlers(name) for name in TYPES})
    handlers["AWS::CloudWatch::Alarm"] = store.alarms(handlers["AWS::CloudWatch::Alarm"])
    # With TLS, MiniStack also opens port 443 if it may (as root), for Cognito, which the local stack does not use.
    match_absent_types()
    enforce_partition_keys()
    name_source_account()
    refuse_web_pages(app)
    refuse_slow_and_throttled_functions()
    scan_new_objects(lambda: store.of(SCAN_PLAN))
    app._port_is_bindable = lambda _host, _port: False
    if calls := os.environ.get(CALLS_FILE):
        record_calls(Path(calls))
    app.main()


if __name__ == "__main__":
    main()

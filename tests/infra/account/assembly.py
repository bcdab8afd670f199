"""The resources of a synthesized stage. References are resolved to plausible values of one account and Region."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ACCOUNT = "111122223333"
"""An account ID of AWS's documentation."""

Node = tuple[str, str]
"""(stack, logical ID)."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of a template.

    body: as in the template. properties: with resolved references.
    """

    stack: str
    logical_id: str
    type: str
    body: dict[str, Any]
    properties: dict[str, Any]

    @property
    def node(self) -> Node:
        return self.stack, self.logical_id

    @property
    def raw(self) -> dict[str, Any]:
        """Properties as in the template."""
        properties: dict[str, Any] = self.body.get("Properties", {})
        return properties

    def __str__(self) -> str:
        return f"{self.stack}/{self.logical_id} ({self.type})"


@dataclass(frozen=True)
class Assembly:
    """The stacks of one stage, deployed to one Region.

    templates: template by stack name.
    dependencies: names of the stacks that are deployed before a stack.
    """

    templates: dict[str, dict[str, Any]]
    dependencies: dict[str, set[str]]
    region: str = "us-east-1"

    @classmethod
    def read(cls, folder: Path, region: str = "us-east-1") -> Assembly:
        """Reads an output folder of the CDK."""
        artifacts = json.loads((folder / "manifest.json").read_text())["artifacts"]
        stacks = {name: one for name, one in artifacts.items() if one["type"] == "aws:cloudformation:stack"}
        return cls(
            {
                name: json.loads((folder / one["properties"]["templateFile"]).read_text())
                for name, one in stacks.items()
            },
            {name: set(one.get("dependencies", ())) & set(stacks) for name, one in stacks.items()},
            region,
        )

    def edited(self, old: str, new: str) -> Assembly:
        """Returns a copy in which a text is replaced in every template."""
        text = json.dumps(self.templates).replace(old, new)
        assert old not in text, old
        return Assembly(json.loads(text), self.dependencies, self.region)

    def in_region(self, region: str) -> Assembly:
        return Assembly(self.templates, self.dependencies, region)

    @cached_property
    def resources(self) -> dict[Node, Resource]:
        return {
            (stack, logical_id): Resource(
                stack, logical_id, body["Type"], body, self.resolve(stack, body.get("Properties", {}))
            )
            for stack, template in self.templates.items()
            for logical_id, body in template["Resources"].items()
        }

    def of(self, *types: str) -> list[Resource]:
        """Resources of these types. May be empty."""
        return [one for one in self.resources.values() if one.type in types]

    def stack(self, prefix: str) -> str:
        """The stack whose name is `prefix` and the stage."""
        (found,) = [name for name in self.templates if name.rpartition("-")[0] == prefix]
        return found

    @cached_property
    def exports(self) -> dict[str, tuple[str, Any]]:
        """(stack, value) by the name of an export."""
        return {
            self.resolve(stack, output["Export"]["Name"]): (stack, output["Value"])
            for stack, template in self.templates.items()
            for output in template.get("Outputs", {}).values()
            if "Export" in output
        }

    def resolve(self, stack: str, value: Any) -> Any:
        """Replaces intrinsic functions by the values that they would have in the account."""
        match value:
            case {"Ref": str(name), **rest} if not rest:
                return self._ref(stack, name)
            case {"Fn::GetAtt": [name, attribute]}:
                return self._attribute(stack, name, attribute)
            case {"Fn::GetAtt": str(text)}:
                return self._attribute(stack, *text.split(".", 1))
            case {"Fn::Join": [separator, parts]}:
                return separator.join(str(self.resolve(stack, part)) for part in self.resolve(stack, parts))
            case {"Fn::Sub": str(text)}:
                return self._substitute(stack, text, {})
            case {"Fn::Sub": [text, variables]}:
                return self._substitute(stack, text, self.resolve(stack, variables))
            case {"Fn::Select": [index, items]}:
                return self.resolve(stack, items)[int(index)]
            case {"Fn::Split": [separator, text]}:
                return self.resolve(stack, text).split(separator)
            case {"Fn::GetAZs": _}:
                return [f"{self.region}{zone}" for zone in "abc"]
            case {"Fn::ImportValue": name}:
                owner, exported = self.exports[self.resolve(stack, name)]
                return self.resolve(owner, exported)
            case {"Fn::GetStackOutput": {"StackName": owner, "OutputName": name}}:
                return self.resolve(owner, self.templates[owner]["Outputs"][name]["Value"])
            case dict():
                unknown = [key for key in value if key.startswith("Fn::")]
                assert not unknown, f"{stack}: {unknown} is not supported here"
                resolved = {key: self.resolve(stack, item) for key, item in value.items()}
                return {key: item for key, item in resolved.items() if item is not NO_VALUE}
            case list():
                return [item for item in (self.resolve(stack, item) for item in value) if item is not NO_VALUE]
        return value

    def _ref(self, stack: str, name: str) -> Any:
        pseudo = {
            "AWS::AccountId": ACCOUNT,
            "AWS::NoValue": NO_VALUE,
            "AWS::Partition": "aws",
            "AWS::Region": self.region,
            "AWS::StackId": f"arn:aws:cloudformation:{self.region}:{ACCOUNT}:stack/{stack}/{UUID}",
            "AWS::StackName": stack,
            "AWS::URLSuffix": "amazonaws.com",
        }
        if name in pseudo:
            return pseudo[name]
        template = self.templates[stack]
        if name in template.get("Parameters", {}):
            return template["Parameters"][name].get("Default", "value")
        return self.physical_id(stack, name)

    def _substitute(self, stack: str, text: str, variables: dict[str, Any]) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name in variables:
                return str(variables[name])
            return str(self._attribute(stack, *name.split(".", 1)) if "." in name else self._ref(stack, name))

        return re.sub(r"\$\{([^!}]+)\}", value, text).replace("${!", "${")

    def physical_id(self, stack: str, logical_id: str) -> str:
        """The value of Ref: an ARN, a URL, a generated ID or the name, as the resource reference states."""
        kind = self.templates[stack]["Resources"][logical_id]["Type"]
        if kind in REF_IS_ARN:
            return self._arn(stack, logical_id)
        if kind == "AWS::SQS::Queue":
            return f"https://sqs.{self.region}.amazonaws.com/{ACCOUNT}/{self.name(stack, logical_id)}"
        if kind in GENERATED:
            return GENERATED[kind]
        return self.name(stack, logical_id)

    def name(self, stack: str, logical_id: str) -> str:
        """The name in the template, or the one that CloudFormation generates: <stack>-<logical ID>-<random>."""
        body = self.templates[stack]["Resources"][logical_id]
        properties = body.get("Properties", {})
        for key in (f"{body['Type'].rpartition('::')[2]}Name", "Name", f"{body['Type'].split('::')[1]}Name"):
            if isinstance(properties.get(key), (str, dict)):
                return str(self.resolve(stack, properties[key]))
        random = "A1B2C3D4E5F6"
        limit = 64 if body["Type"].startswith(("AWS::Lambda", "AWS::IAM")) else 63
        name = f"{stack}-{logical_id}"[: limit - len(random) - 1] + f"-{random}"
        return name.lower() if body["Type"] == "AWS::S3::Bucket" else name

    def _arn(self, stack: str, logical_id: str) -> str:
        kind, name = self.templates[stack]["Resources"][logical_id]["Type"], self.name(stack, logical_id)
        return ARNS.get(kind, "arn:aws:{service}:{region}:{account}:{resource}/{name}").format(
            service=kind.split("::")[1].lower(),
            resource=re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.split("::")[2]).lower(),
            region=self.region,
            account=ACCOUNT,
            name=name,
            uuid=UUID,
        )

    def _attribute(self, stack: str, logical_id: str, attribute: str) -> Any:
        kind = self.templates[stack]["Resources"][logical_id]["Type"]
        name = self.name(stack, logical_id)
        if attribute.endswith("Arn"):
            return self._arn(stack, logical_id)
        if attribute.endswith("Name") and not attribute.endswith("DomainName"):
            return name
        if (kind, attribute) in ATTRIBUTES:
            return ATTRIBUTES[kind, attribute].format(region=self.region, account=ACCOUNT, name=name)
        return f"{attribute.lower().replace('.', '-')}-{UUID[:8]}"

    @cached_property
    def edges(self) -> dict[Node, set[Node]]:
        """The resources that each one waits for directly: references, DependsOn, imports and stack dependencies."""
        found: dict[Node, set[Node]] = {}
        for node, resource in self.resources.items():
            stack = resource.stack
            after = resource.body.get("DependsOn", [])
            targets = {(stack, one) for one in ([after] if isinstance(after, str) else after)}
            for name in references(resource.body):
                if name in self.templates[stack]["Resources"]:
                    targets.add((stack, name))
            for export in _imports(resource.body):
                owner, value = self.exports[self.resolve(stack, export)]
                targets |= {(owner, name) for name in references(value) if name in self.templates[owner]["Resources"]}
            for earlier in self.dependencies[stack]:
                targets |= {(earlier, name) for name in self.templates[earlier]["Resources"]}
            found[node] = targets - {node}
        return found

    def waits_for(self, node: Node) -> set[Node]:
        """All resources that CloudFormation completes before it creates this one."""
        found: set[Node] = set()
        waiting = [node]
        while waiting:
            for one in self.edges[waiting.pop()] - found:
                found.add(one)
                waiting.append(one)
        return found


NO_VALUE = object()
UUID = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"

REF_IS_ARN = {
    "AWS::Lambda::LayerVersion",
    "AWS::SNS::Topic",
    "AWS::SNS::Subscription",
    "AWS::SageMaker::Model",
    "AWS::SageMaker::Endpoint",
    "AWS::SageMaker::EndpointConfig",
    "AWS::ApplicationAutoScaling::ScalingPolicy",
    "AWS::ECS::Service",
    "AWS::ECS::TaskDefinition",
    "AWS::ElasticLoadBalancingV2::Listener",
    "AWS::ElasticLoadBalancingV2::ListenerRule",
    "AWS::ElasticLoadBalancingV2::LoadBalancer",
    "AWS::ElasticLoadBalancingV2::TargetGroup",
}
"""Types whose Ref is the ARN (CloudFormation resource reference, "Return values")."""

GENERATED = {
    "AWS::KMS::Key": UUID,
    "AWS::ApiGateway::RestApi": "a1b2c3d4e5",
    "AWS::ApiGateway::Resource": "f6g7h8",
    "AWS::ApiGateway::Deployment": "i9j0k1",
    "AWS::ApiGateway::Authorizer": "l2m3n4",
    "AWS::ApiGateway::UsagePlan": "o5p6q7",
    "AWS::EC2::VPC": "vpc-0123456789abcdef0",
    "AWS::EC2::Subnet": "subnet-0123456789abcdef0",
    "AWS::EC2::RouteTable": "rtb-0123456789abcdef0",
    "AWS::EC2::SecurityGroup": "sg-0123456789abcdef0",
    "AWS::EC2::VPCEndpoint": "vpce-0123456789abcdef0",
    "AWS::EC2::InternetGateway": "igw-0123456789abcdef0",
    "AWS::ApplicationAutoScaling::ScalableTarget": (
        "endpoint/e/variant/main|sagemaker:variant:DesiredInstanceCount|sagemaker"
    ),
    "AWS::Lambda::EventSourceMapping": UUID,
}
"""Types whose Ref is an ID that the service generates."""

_ELB = "arn:aws:elasticloadbalancing:{region}:{account}:"

ARNS = {
    "AWS::S3::Bucket": "arn:aws:s3:::{name}",
    "AWS::SQS::Queue": "arn:aws:sqs:{region}:{account}:{name}",
    "AWS::SNS::Topic": "arn:aws:sns:{region}:{account}:{name}",
    "AWS::DynamoDB::Table": "arn:aws:dynamodb:{region}:{account}:table/{name}",
    "AWS::IAM::Role": "arn:aws:iam::{account}:role/{name}",
    "AWS::IAM::ManagedPolicy": "arn:aws:iam::{account}:policy/{name}",
    "AWS::KMS::Key": "arn:aws:kms:{region}:{account}:key/{uuid}",
    "AWS::Lambda::Function": "arn:aws:lambda:{region}:{account}:function:{name}",
    "AWS::Lambda::LayerVersion": "arn:aws:lambda:{region}:{account}:layer:{name}:1",
    "AWS::Logs::LogGroup": "arn:aws:logs:{region}:{account}:log-group:{name}:*",
    "AWS::Events::EventBus": "arn:aws:events:{region}:{account}:event-bus/{name}",
    "AWS::Events::Rule": "arn:aws:events:{region}:{account}:rule/{name}",
    "AWS::CodeBuild::Project": "arn:aws:codebuild:{region}:{account}:project/{name}",
    "AWS::ECR::Repository": "arn:aws:ecr:{region}:{account}:repository/{name}",
    "AWS::CloudWatch::Alarm": "arn:aws:cloudwatch:{region}:{account}:alarm:{name}",
    "AWS::SageMaker::Model": "arn:aws:sagemaker:{region}:{account}:model/{name}",
    "AWS::SageMaker::Endpoint": "arn:aws:sagemaker:{region}:{account}:endpoint/{name}",
    "AWS::SageMaker::EndpointConfig": "arn:aws:sagemaker:{region}:{account}:endpoint-config/{name}",
    "AWS::WAFv2::WebACL": "arn:aws:wafv2:{region}:{account}:regional/webacl/{name}/{uuid}",
    "AWS::ApplicationAutoScaling::ScalingPolicy": "arn:aws:autoscaling:{region}:{account}:scalingPolicy:{uuid}:"
    "resource/sagemaker/endpoint/e/variant/main:policyName/{name}",
    "AWS::ECS::TaskDefinition": "arn:aws:ecs:{region}:{account}:task-definition/{name}:1",
    "AWS::ElasticLoadBalancingV2::Listener": _ELB + "listener/app/balancer/0123456789abcdef/0123456789abcdef",
    "AWS::ElasticLoadBalancingV2::ListenerRule": (
        _ELB + "listener-rule/app/balancer/0123456789abcdef/0123456789abcdef/0123456789abcdef"
    ),
    "AWS::ElasticLoadBalancingV2::LoadBalancer": _ELB + "loadbalancer/app/balancer/0123456789abcdef",
    "AWS::ElasticLoadBalancingV2::TargetGroup": _ELB + "targetgroup/server/0123456789abcdef",
}

ATTRIBUTES = {
    ("AWS::ApiGateway::RestApi", "RootResourceId"): "r8s9t0",
    ("AWS::ECR::Repository", "RepositoryUri"): "{account}.dkr.ecr.{region}.amazonaws.com/{name}",
    ("AWS::EC2::VPC", "CidrBlock"): "10.0.0.0/16",
    ("AWS::EC2::VPC", "DefaultSecurityGroup"): "sg-0123456789abcdef1",
    ("AWS::EC2::SecurityGroup", "GroupId"): "sg-0123456789abcdef0",
    ("AWS::S3::Bucket", "DomainName"): "{name}.s3.amazonaws.com",
    ("AWS::ApiGateway::DomainName", "RegionalDomainName"): "d-a1b2c3d4e5.execute-api.{region}.amazonaws.com",
    ("AWS::ApiGateway::DomainName", "RegionalHostedZoneId"): "Z1UJRXOUMOOFQ8",
}


def references(value: Any) -> Iterator[str]:
    """The logical IDs (and pseudo parameters) that Ref, Fn::GetAtt and Fn::Sub name in a value."""
    match value:
        case {"Ref": str(name)}:
            yield name
        case {"Fn::GetAtt": [name, _]}:
            yield name
        case {"Fn::GetAtt": str(text)}:
            yield text.partition(".")[0]
        case {"Fn::Sub": str(text)} | {"Fn::Sub": [str(text), *_]}:
            yield from (name.partition(".")[0] for name in re.findall(r"\$\{([^!}]+)\}", text))
            if isinstance(value["Fn::Sub"], list):
                yield from references(value["Fn::Sub"][1])
        case dict():
            for item in value.values():
                yield from references(item)
        case list():
            for item in value:
                yield from references(item)


def _imports(value: Any) -> Iterator[Any]:
    match value:
        case {"Fn::ImportValue": name}:
            yield name
        case dict():
            for item in value.values():
                yield from _imports(item)
        case list():
            for item in value:
                yield from _imports(item)

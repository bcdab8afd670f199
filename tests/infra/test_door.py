"""The optional stack of the door: `maskdrop serve` on Fargate behind a load balancer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from infra import door
from infra.stages import Door, Stage
from lambdas.http.openapi import document
from tests.infra.account.assembly import Assembly, Resource
from tests.infra.conftest import synthesize

CERTIFICATE = "arn:aws:acm:us-east-1:123456789012:certificate/1"

Variants = dict[str, Assembly]


def of(variants: Variants, name: str, kind: str) -> list[Resource]:
    return [one for one in variants[name].of(kind) if one.stack.startswith("MaskdropDoor-")]


def only(variants: Variants, kind: str, name: str = "door") -> dict[str, Any]:
    (found,) = of(variants, name, kind)
    return found.properties


def container(variants: Variants, name: str = "door") -> dict[str, Any]:
    (found,) = only(variants, "AWS::ECS::TaskDefinition", name)["ContainerDefinitions"]
    assert isinstance(found, dict)
    return found


def environment(variants: Variants, name: str = "door") -> dict[str, str]:
    return {one["Name"]: one["Value"] for one in container(variants, name)["Environment"]}


def test_the_door_is_off_by_default(variants: Variants) -> None:
    assert Stage(name="dev").door is None
    for name in ("dev", "prod"):
        assert not [stack for stack in variants[name].templates if "Door" in stack]


def test_the_door_changes_no_resource_of_the_other_stacks(variants: Variants) -> None:
    """CloudFormation can add and remove it without touching the API; the references are outputs without an export."""
    for stack, template in variants["serverless"].templates.items():
        with_door = variants["door"].templates[stack]
        assert with_door["Resources"] == template["Resources"], stack
        exports = [one for one in with_door.get("Outputs", {}).values() if "Export" in one]
        assert exports == [one for one in template.get("Outputs", {}).values() if "Export" in one]


def test_a_task_serves_the_api_with_the_keys_of_the_stage(variants: Variants) -> None:
    registry = next(one for one in variants["door"].of("AWS::DynamoDB::Table") if "Registry" in one.logical_id)

    assert container(variants)["Command"] == ["serve-api"]
    assert container(variants)["Image"].endswith("-cpu")
    assert environment(variants)["SERVE_REGISTRY"] == variants["door"].physical_id(*registry.node)
    assert environment(variants)["SERVE_HOST"] == "0.0.0.0"  # noqa: S104


def test_a_task_has_the_options_of_its_stage(variants: Variants) -> None:
    found = environment(variants, "everything")
    task = only(variants, "AWS::ECS::TaskDefinition", "everything")

    assert (task["Cpu"], task["Memory"], found["MODEL_WORKERS"]) == ("2048", "8192", "2")
    assert found["SERVE_PUBLIC_URL"] == "https://cutouts.example.com"
    assert (found["SERVE_TRUSTED_HOSTS"], found["SERVE_HTTP_SOURCES"]) == ("images.corp", "1")
    assert found["SERVE_CORS_ORIGINS"] == "https://shop.example"
    assert found["MODEL_NON_COMMERCIAL"] == "1"
    target = only(variants, "AWS::ApplicationAutoScaling::ScalableTarget", "everything")
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 6)


def test_a_task_may_read_keys_and_count_requests_only(variants: Variants) -> None:
    (policy,) = [one for one in of(variants, "door", "AWS::IAM::Policy") if "TaskRole" in one.logical_id]

    allowed = {
        (kind, action.removeprefix("dynamodb:"))
        for statement in policy.properties["PolicyDocument"]["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
        for kind in statement["Condition"]["ForAllValues:StringEquals"]["dynamodb:LeadingKeys"]
    }
    counts = {(kind, action) for kind in ("window", "usage") for action in ("GetItem", "PutItem", "UpdateItem")}
    slots = {("slot", "PutItem"), ("slot", "DeleteItem")}
    assert allowed == {("key", "GetItem"), ("cap", "GetItem"), ("preset", "Query"), *counts, *slots}


def test_callers_reach_the_load_balancer_and_only_the_load_balancer_reaches_the_tasks(variants: Variants) -> None:
    groups = {one.logical_id: one for one in of(variants, "door", "AWS::EC2::SecurityGroup")}
    callers = next(one for name, one in groups.items() if name.startswith("Callers"))
    tasks = next(one for name, one in groups.items() if name.startswith("Tasks"))
    (ingress,) = of(variants, "door", "AWS::EC2::SecurityGroupIngress")

    assert [one["FromPort"] for one in callers.properties["SecurityGroupIngress"]] == [443]
    assert "SecurityGroupIngress" not in tasks.properties
    assert ingress.raw["SourceSecurityGroupId"] == {"Fn::GetAtt": [callers.logical_id, "GroupId"]}
    assert ingress.raw["GroupId"] == {"Fn::GetAtt": [tasks.logical_id, "GroupId"]}
    assert ingress.properties["FromPort"] == door.PORT
    assert not of(variants, "door", "AWS::EC2::NatGateway")


def test_only_the_listed_networks_may_call(variants: Variants) -> None:
    (callers,) = [
        one for one in of(variants, "everything", "AWS::EC2::SecurityGroup") if one.logical_id.startswith("Callers")
    ]
    assert [one["CidrIp"] for one in callers.properties["SecurityGroupIngress"]] == ["203.0.113.0/24"]


def test_the_door_forwards_synchronous_requests_and_refuses_others(variants: Variants) -> None:
    paths = [
        path
        for rule in of(variants, "door", "AWS::ElasticLoadBalancingV2::ListenerRule")
        for condition in rule.properties["Conditions"]
        for path in condition["PathPatternConfig"]["Values"]
    ]
    (default,) = only(variants, "AWS::ElasticLoadBalancingV2::Listener")["DefaultActions"]
    operations = {path for path in document()["paths"] if "{" not in path}

    assert sorted(paths) == sorted(door.PATHS)
    # POST /v1.0/improve stores its image, which no other task could read.
    stored = {"/v1/jobs", "/v1/uploads", "/v1/edits", "/v1/usage", "/v1.0/improve"}
    assert operations - {*paths} <= stored
    assert json.loads(default["FixedResponseConfig"]["MessageBody"])["error"]["code"] == "not_found"


def test_https_accepts_tls_1_2_and_1_3_with_the_certificate(variants: Variants) -> None:
    listener = only(variants, "AWS::ElasticLoadBalancingV2::Listener")

    assert (listener["Port"], listener["Protocol"]) == (443, "HTTPS")
    assert listener["SslPolicy"].startswith("ELBSecurityPolicy-TLS13-1-2")
    assert listener["Certificates"][0]["CertificateArn"].startswith("arn:aws:acm:")


def test_a_replaced_task_finishes_its_requests(variants: Variants) -> None:
    attributes = {
        one["Key"]: one["Value"]
        for kind, name in (("TargetGroup", "TargetGroupAttributes"), ("LoadBalancer", "LoadBalancerAttributes"))
        for one in only(variants, f"AWS::ElasticLoadBalancingV2::{kind}")[name]
    }
    drain = int(attributes["deregistration_delay.timeout_seconds"])
    service = only(variants, "AWS::ECS::Service")

    assert drain == int(environment(variants)["SERVE_DRAIN_S"]) < container(variants)["StopTimeout"] <= 120
    assert int(attributes["idle_timeout.timeout_seconds"]) > int(environment(variants)["SERVE_REQUEST_S"])
    assert service["DeploymentConfiguration"]["MinimumHealthyPercent"] == 100
    assert service["DeploymentConfiguration"]["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
    assert "DesiredCount" not in service  # an update keeps the number of running tasks
    assert only(variants, "AWS::ElasticLoadBalancingV2::TargetGroup")["HealthCheckPath"] == "/v1/health"


def test_the_service_waits_for_the_rules_that_use_its_target_group(variants: Variants) -> None:
    """ECS refuses a target group without a load balancer."""
    (service,) = of(variants, "door", "AWS::ECS::Service")
    waits = variants["door"].waits_for(service.node)

    assert {one.node for one in of(variants, "door", "AWS::ElasticLoadBalancingV2::ListenerRule")} & waits


def test_alarms_of_the_door_notify_the_operator(variants: Variants) -> None:
    (topic,) = [one for one in variants["door"].of("AWS::SNS::Topic") if one.logical_id.startswith("AlarmsTopic")]
    alarms = {one.logical_id[:-8]: one.properties for one in of(variants, "door", "AWS::CloudWatch::Alarm")}

    assert {*alarms} == {"Faults", "Down"}
    for alarm in alarms.values():
        assert alarm["AlarmActions"] == [variants["door"].physical_id(*topic.node)]


def test_without_a_certificate_it_serves_http_to_listed_networks(tmp_path: Path) -> None:
    stacks = synthesize(tmp_path, "dev", door={"sources": ["10.0.0.0/8"]})

    (listener,) = stacks["MaskdropDoor"].of("AWS::ElasticLoadBalancingV2::Listener").values()
    assert (listener["Port"], listener["Protocol"]) == (80, "HTTP")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "API keys would cross the internet unencrypted"),
        ({"certificate": CERTIFICATE, "min_tasks": 3}, "min_tasks must not exceed max_tasks"),
        ({"certificate": CERTIFICATE, "vcpus": 1, "memory_gb": 16}, "memory_gb must be 2 to 8 with 1 vCPUs"),
        ({"certificate": CERTIFICATE, "vcpus": 8, "memory_gb": 18}, "in steps of 4"),
        ({"certificate": CERTIFICATE, "sources": []}, "at least 1 item"),
        ({"certificate": CERTIFICATE, "sources": ["everyone"]}, "pattern"),
    ],
)
def test_an_invalid_door_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Door(**options)

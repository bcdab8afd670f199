"""Options of a stage that companies require: a key, a network, a domain name, limits of roles and tags."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.encryption import KEY_USE, has_local_storage
from infra.malware import TAGGING
from infra.stages import Stage, load
from maskdrop.malware import SCANNED, TAG
from tests.infra.conftest import Template, synthesize, synthesize_file

STAGES = Path(__file__).parent / "stages"
SECURITY = Path(__file__).resolve().parents[2] / "docs" / "security.md"
KEY = load("everything", STAGES).kms_key

Stacks = dict[str, Template]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Stacks:
    """The stage of tests/infra/stages with every option. Synthesis fails if cdk-nag does."""
    return synthesize_file(tmp_path_factory.mktemp("everything"), "everything", STAGES)


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> Stacks:
    """A stage on instances without local storage, whose data is deleted with it."""
    certificate = "arn:aws:acm:eu-central-1:123456789012:certificate/1234abcd"
    options = {"bulk": "cpu", "interactive": "off", "kms_key": KEY, "permissions_boundary": "developer"}
    domain = {"name": "images.example.com", "certificate": certificate}
    return synthesize(tmp_path_factory.mktemp("on-cpu"), "dev", **options, domain=domain)


def resources(stacks: Stacks) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (logical ID, resource) of every stack."""
    for template in stacks.values():
        yield from template.body["Resources"].items()


def listed(one: Any) -> list[Any]:
    return one if isinstance(one, list) else [one]


def statements_by_role(stacks: Stacks) -> dict[str, list[dict[str, Any]]]:
    """Returns the statements of every role by its logical ID."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, one in resources(stacks):
        if one["Type"] == "AWS::IAM::Role":
            for policy in one["Properties"].get("Policies", []):
                found.setdefault(name, []).extend(policy["PolicyDocument"]["Statement"])
        if one["Type"] == "AWS::IAM::Policy":
            for role in one["Properties"]["Roles"]:
                found.setdefault(role["Ref"], []).extend(one["Properties"]["PolicyDocument"]["Statement"])
    return found


def actions_of(statements: list[dict[str, Any]]) -> set[str]:
    return {action for one in statements for action in listed(one["Action"])}


# ---- kms_key

KEY_OF = {
    "AWS::S3::Bucket": "BucketEncryption",
    "AWS::DynamoDB::Table": "SSESpecification",
    "AWS::SQS::Queue": "KmsMasterKeyId",
    "AWS::SNS::Topic": "KmsMasterKeyId",
    "AWS::Logs::LogGroup": "KmsKeyId",
    "AWS::Events::EventBus": "KmsKeyIdentifier",
    "AWS::ECR::Repository": "EncryptionConfiguration",
    "AWS::CodeBuild::Project": "EncryptionKey",
}


@pytest.mark.parametrize("kind", KEY_OF)
def test_the_key_of_the_stage_encrypts_every_resource_that_stores_data(everything: Stacks, kind: str) -> None:
    found = [one["Properties"] for _, one in resources(everything) if one["Type"] == kind]
    assert found
    for properties in found:
        access_logs = kind == "AWS::S3::Bucket" and "LoggingConfiguration" not in properties
        assert (KEY in json.dumps(properties[KEY_OF[kind]])) is not access_logs


def test_buckets_use_a_bucket_key_and_s3_delivers_access_logs_under_its_own_key(everything: Stacks) -> None:
    rules = [
        bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"][0]
        for bucket in everything["Maskdrop"].of("AWS::S3::Bucket").values()
    ]
    algorithms = {rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"]: rule.get("BucketKeyEnabled") for rule in rules}
    assert algorithms == {"aws:kms": True, "AES256": None}
    assert len(rules) == 3


def test_a_queue_with_the_key_has_no_second_encryption(everything: Stacks) -> None:
    for queue in everything["Maskdrop"].of("AWS::SQS::Queue").values():
        assert "SqsManagedSseEnabled" not in queue


def test_without_a_key_services_encrypt_with_their_own(stacks: Stacks) -> None:
    text = json.dumps([template.body for template in stacks.values()])
    assert "aws:kms" not in text
    assert "kms:ViaService" not in text
    assert "KmsKeyId" not in text


def test_the_endpoint_writes_its_output_with_the_key(everything: Stacks) -> None:
    (config,) = everything["MaskdropBulk"].of("AWS::SageMaker::EndpointConfig").values()
    assert config["AsyncInferenceConfig"]["OutputConfig"]["KmsKeyId"] == KEY


def test_the_key_encrypts_the_volumes_of_instances_without_local_storage(everything: Stacks, on_cpu: Stacks) -> None:
    (on_c6i,) = on_cpu["MaskdropBulk"].of("AWS::SageMaker::EndpointConfig").values()
    (on_g6,) = everything["MaskdropBulk"].of("AWS::SageMaker::EndpointConfig").values()
    assert on_c6i["KmsKeyId"] == KEY
    assert "KmsKeyId" not in on_g6


@pytest.mark.parametrize(
    ("instance_type", "local"),
    [
        ("ml.g4dn.xlarge", True),
        ("ml.g6e.2xlarge", True),
        ("ml.c6id.large", True),
        ("ml.c6i.xlarge", False),
        ("ml.p3.2xlarge", False),
    ],
)
def test_instance_types_with_local_storage_are_known(instance_type: str, local: bool) -> None:
    assert has_local_storage(instance_type) is local


def test_a_role_may_use_the_key_only_through_the_services_that_it_calls(everything: Stacks) -> None:
    users = 0
    for role, statements in statements_by_role(everything).items():
        expected: dict[str, set[str]] = {}
        for action in actions_of(statements):
            if action in KEY_USE:
                expected.setdefault(action.partition(":")[0], set()).update(KEY_USE[action])
        found = {}
        for one in statements:
            if KEY in json.dumps(one["Resource"]):
                ((service, *_),) = [one["Condition"]["StringEquals"]["kms:ViaService"]["Fn::Join"][1]]
                found[service.removesuffix(".")] = set(listed(one["Action"]))
        assert found == expected, role
        users += bool(found)
    assert users == 14  # nine functions, two endpoints, the door, the upload of the console and the malware scan


def test_every_action_on_encrypted_resources_has_its_use_of_the_key() -> None:
    text = "".join(path.read_text() for path in (SECURITY.parents[1] / "infra").glob("*.py"))
    used = set(re.findall(r'"((?:s3|dynamodb|sqs|sns):[A-Za-z]+)"', text))
    without_data = {
        "s3:DeleteObject",
        "s3:ListBucket",
        "sqs:DeleteMessage",
        "dynamodb:LeadingKeys",
        "s3:GetBucketTagging",
        *TAGGING,
        "s3:GetBucketNotification",
        "s3:PutBucketNotification",
        "s3:RequestObjectTagKeys",
    }
    assert used - without_data <= set(KEY_USE)


def test_data_under_a_former_key_can_be_read_but_not_written(tmp_path: Path) -> None:
    stacks = synthesize(tmp_path, "dev", former_kms_keys=[KEY])
    uses = {
        (action, one["Condition"]["StringEquals"]["kms:ViaService"]["Fn::Join"][1][0])
        for statements in statements_by_role(stacks).values()
        for one in statements
        if KEY in json.dumps(one["Resource"])
        for action in listed(one["Action"])
    }
    assert uses == {("kms:Decrypt", service) for service in ("dynamodb.", "s3.", "sqs.")}
    assert all(KEY not in json.dumps(one) for _, one in resources(stacks) if one["Type"] in KEY_OF)


def test_another_repository_is_filled_by_a_build(everything: Stacks, stacks: Stacks) -> None:
    names = []
    for template in (everything["MaskdropImage"], stacks["MaskdropImage"]):
        ((name, repository),) = template.of("AWS::ECR::Repository").items()
        (image,) = template.of("Custom::Image").values()
        assert image["Repository"] == {"Ref": name}  # changes with the name of the repository, so that images are built
        names.append(repository["RepositoryName"])
    assert names[0].startswith("maskdrop-everything-")
    assert names[1] == "maskdrop-dev"


def key_policy() -> list[dict[str, Any]]:
    """Returns the statements of the key policy in docs/security.md."""
    (text,) = re.findall(r"```json\n(.*?)```", SECURITY.read_text(), flags=re.DOTALL)
    policy: dict[str, Any] = json.loads(text)
    return list(policy["Statement"])


def test_the_documented_key_policy_names_the_services_that_the_templates_need(everything: Stacks) -> None:
    needed = set()
    for _, one in resources(everything):
        if one["Type"] in ("AWS::SQS::QueuePolicy", "AWS::SNS::TopicPolicy"):
            for statement in one["Properties"]["PolicyDocument"]["Statement"]:
                if statement["Effect"] == "Allow":
                    needed.add(statement["Principal"]["Service"])
        if one["Type"] == "AWS::Logs::LogGroup":
            needed.add("logs.REGION.amazonaws.com")
        if one["Type"] == "AWS::Events::EventBus":
            needed.add("events.amazonaws.com")
    documented = {
        service
        for statement in key_policy()
        if "Service" in statement["Principal"]
        for service in listed(statement["Principal"]["Service"])
    }
    assert documented == needed


def test_the_documented_key_policy_limits_every_service_to_the_account() -> None:
    for statement in key_policy():
        if "Service" in statement["Principal"]:
            assert "ACCOUNT" in json.dumps(statement["Condition"])


def test_services_that_send_to_a_queue_are_limited_by_the_queue() -> None:
    """EventBridge sends no aws:SourceAccount to KMS for a target, so that the condition would lose every event."""
    (statement,) = [one for one in key_policy() if "s3.amazonaws.com" in json.dumps(one["Principal"])]
    assert statement["Principal"]["Service"] == ["s3.amazonaws.com", "sns.amazonaws.com", "events.amazonaws.com"]
    queues = "arn:aws:sqs:REGION:ACCOUNT:Maskdrop-*"
    assert statement["Condition"] == {"ArnLike": {"kms:EncryptionContext:aws:sqs:arn": queues}}
    assert "kms:DescribeKey" not in statement["Action"]  # has no encryption context


def test_the_documented_key_policy_encrypts_the_log_groups_of_the_stage(everything: Stacks) -> None:
    (pattern,) = [
        one["Condition"]["ArnLike"]["kms:EncryptionContext:aws:logs:arn"]
        for one in key_policy()
        if "logs.REGION.amazonaws.com" in json.dumps(one["Principal"])
    ]
    prefixes = tuple(one.rpartition("log-group:")[2].replace("*", "") for one in pattern)
    for _, one in resources(everything):
        if one["Type"] == "AWS::Logs::LogGroup":
            name = one["Properties"]["LogGroupName"]
            text = name if isinstance(name, str) else name["Fn::Join"][1][0]
            assert text.startswith(prefixes)


def test_the_key_of_the_topics_allows_cloudwatch_for_this_account_only(stacks: Stacks) -> None:
    (key,) = stacks["Maskdrop"].of("AWS::KMS::Key").values()
    (statement,) = [one for one in key["KeyPolicy"]["Statement"] if "cloudwatch" in json.dumps(one["Principal"])]
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    assert statement["Action"] == ["kms:Decrypt", "kms:GenerateDataKey*"]


# ---- vpc

IN_VPC = {"ingest", "edit", "record", "sweep", "dead_letters"}


def test_the_network_has_no_way_to_the_internet(everything: Stacks) -> None:
    network = everything["MaskdropNetwork"]
    kinds = {one["Type"] for one in network.body["Resources"].values()}
    assert not kinds & {"AWS::EC2::NatGateway", "AWS::EC2::InternetGateway", "AWS::EC2::Route"}
    assert [one["MapPublicIpOnLaunch"] for one in network.of("AWS::EC2::Subnet").values()] == [False, False]


def test_security_groups_accept_https_from_functions_and_containers_only(everything: Stacks) -> None:
    network = everything["MaskdropNetwork"]
    groups = network.of("AWS::EC2::SecurityGroup")
    assert not [name for name, one in groups.items() if "SecurityGroupIngress" in one]
    accepted = network.of("AWS::EC2::SecurityGroupIngress").values()
    assert {(one["FromPort"], one["ToPort"]) for one in accepted} == {(443, 443)}
    sources = sorted(one["SourceSecurityGroupId"]["Fn::GetAtt"][0][:-8] for one in accepted)
    assert sources == ["Containers", "Functions"]  # the containers call Rekognition
    allowed = [rule for one in groups.values() for rule in one["SecurityGroupEgress"] if rule["IpProtocol"] == "tcp"]
    assert {(rule["FromPort"], rule["ToPort"]) for rule in allowed} == {(443, 443)}


def test_rejected_traffic_is_logged(everything: Stacks) -> None:
    (flow_log,) = everything["MaskdropNetwork"].of("AWS::EC2::FlowLog").values()
    assert flow_log["TrafficType"] == "REJECT"


def functions_by_vpc(stacks: Stacks) -> dict[str, bool]:
    return {
        one["Handler"].split(".")[1]: "VpcConfig" in one
        for one in stacks["Maskdrop"].of("AWS::Lambda::Function").values()
        if one["Handler"].startswith("lambdas.")
    }


def test_functions_that_fetch_no_url_run_in_the_network(everything: Stacks) -> None:
    assert {name for name, inside in functions_by_vpc(everything).items() if inside} == IN_VPC


def test_the_containers_of_the_endpoints_run_in_both_subnets(everything: Stacks) -> None:
    for stack in ("MaskdropBulk", "MaskdropInteractive"):
        (model,) = everything[stack].of("AWS::SageMaker::Model").values()
        assert len(model["VpcConfig"]["Subnets"]) == 2
        (group,) = model["VpcConfig"]["SecurityGroupIds"]
        assert "Containers" in group["Fn::ImportValue"]


def test_roles_in_the_network_may_create_network_interfaces(everything: Stacks) -> None:
    allowed = {
        role
        for role, statements in statements_by_role(everything).items()
        if "ec2:CreateNetworkInterface" in actions_of(statements)
    }
    functions = {re.sub(r"Role[0-9A-F]{8}$", "", role) for role in allowed}
    assert functions == {"Ingest", "Edit", "Record", "Sweep", "DeadLetters", "BulkG6Xlarge", "InteractiveG6Xlarge"}


def test_the_network_has_an_endpoint_of_every_service_that_is_called_from_it(everything: Stacks) -> None:
    endpoints = everything["MaskdropNetwork"].of("AWS::EC2::VPCEndpoint").values()
    services = {one["ServiceName"]["Fn::Join"][1][-1].removeprefix(".") for one in endpoints}
    # Lambda and SageMaker call the others outside the network.
    outside = {"logs", "xray", "kms", "ec2", "ecr", "cloudwatch", "sns"}
    called = set()
    for role, statements in statements_by_role(everything).items():
        if role.startswith(("Ingest", "Edit", "Record", "Sweep", "DeadLetters", "Bulk", "Interactive")):
            called |= {action.partition(":")[0] for action in actions_of(statements)} - outside
    assert {service.partition(".")[0].removesuffix("-runtime") for service in services} == called
    assert "sagemaker.runtime" in services
    gateways = [one for one in endpoints if one["VpcEndpointType"] == "Gateway"]
    assert [one["PolicyDocument"]["Statement"][0]["Condition"] for one in gateways] == 2 * [
        {"StringEquals": {"aws:ResourceAccount": {"Ref": "AWS::AccountId"}}}
    ]


def test_without_vpc_there_is_no_network(stacks: Stacks) -> None:
    assert "MaskdropNetwork" not in stacks
    assert not any(functions_by_vpc(stacks).values())


# ---- non_commercial


def test_only_the_endpoints_of_a_stage_that_allows_it_run_non_commercial_weights(
    everything: Stacks, stacks: Stacks
) -> None:
    for name, settings in ((everything, {"1"}), (stacks, {None})):
        models = [one["Properties"] for _, one in resources(name) if one["Type"] == "AWS::SageMaker::Model"]
        assert {one["PrimaryContainer"]["Environment"].get("MODEL_NON_COMMERCIAL") for one in models} == settings


# ---- rekognition


def test_only_the_endpoints_of_a_stage_that_allows_it_may_call_rekognition(everything: Stacks, stacks: Stacks) -> None:
    actions = {"rekognition:DetectFaces", "rekognition:DetectLabels"}
    for name, roles, settings in ((everything, {"Bulk", "Interactive"}, {"1"}), (stacks, set(), {None})):
        called = {
            role: {action for action in actions_of(statements) if action.startswith("rekognition:")}
            for role, statements in statements_by_role(name).items()
        }
        allowed = {role: found for role, found in called.items() if found}
        assert all(found == actions for found in allowed.values())
        assert {re.sub("(Bulk|Interactive).*", r"\1", role) for role in allowed} == roles
        models = [one["Properties"] for _, one in resources(name) if one["Type"] == "AWS::SageMaker::Model"]
        assert {one["PrimaryContainer"]["Environment"].get("MODEL_REKOGNITION") for one in models} == settings


def test_without_rekognition_the_network_has_no_endpoint_of_it_and_no_access_for_containers(
    tmp_path: Path,
) -> None:
    network = synthesize(tmp_path, "dev", bulk="cpu", interactive="off", vpc=True)["MaskdropNetwork"]
    assert "rekognition" not in json.dumps(network.body)
    (accepted,) = network.of("AWS::EC2::SecurityGroupIngress").values()
    assert accepted["SourceSecurityGroupId"]["Fn::GetAtt"][0].startswith("Functions")


# ---- domain


def test_the_domain_name_has_the_tls_policy_of_the_api_and_no_path(everything: Stacks) -> None:
    template = everything["Maskdrop"]
    (name,) = template.of("AWS::ApiGateway::DomainName").values()
    (api,) = template.of("AWS::ApiGateway::RestApi").values()
    assert name["SecurityPolicy"] == api["SecurityPolicy"]
    assert name["EndpointAccessMode"] == api["EndpointAccessMode"] == "STRICT"
    assert name["EndpointConfiguration"] == {"Types": ["REGIONAL"]}
    (mapping,) = template.of("AWS::ApiGateway::BasePathMapping").values()
    assert "BasePath" not in mapping
    (stage,) = template.of("AWS::ApiGateway::Stage")
    assert mapping["Stage"] == {"Ref": stage}
    assert template.body["Outputs"]["ApiDomain"]["Value"] == "https://images.example.com"


def test_the_firewall_protects_the_domain_name_too(everything: Stacks) -> None:
    template = everything["Maskdrop"]
    (association,) = template.of("AWS::WAFv2::WebACLAssociation").values()
    (mapping,) = template.of("AWS::ApiGateway::BasePathMapping").values()
    assert mapping["Stage"] in association["ResourceArn"]["Fn::Join"][1]


def test_a_hosted_zone_gets_the_alias_record(everything: Stacks, on_cpu: Stacks) -> None:
    (record,) = everything["Maskdrop"].of("AWS::Route53::RecordSet").values()
    assert (record["Name"], record["HostedZoneId"]) == ("images.example.com", "Z0123456789ABCDEFGHIJ")
    assert on_cpu["Maskdrop"].of("AWS::ApiGateway::DomainName")
    assert "AWS::Route53::RecordSet" not in {one["Type"] for _, one in resources(on_cpu)}


def test_the_url_of_api_gateway_keeps_working(everything: Stacks) -> None:
    (api,) = everything["Maskdrop"].of("AWS::ApiGateway::RestApi").values()
    assert "DisableExecuteApiEndpoint" not in api
    assert "ApiUrl" in everything["Maskdrop"].body["Outputs"]


# ---- permissions_boundary and qualifier


@pytest.mark.parametrize(("stage", "boundary"), [("everything", "boundaries/developer"), ("on_cpu", "developer")])
def test_every_role_has_the_permissions_boundary(request: pytest.FixtureRequest, stage: str, boundary: str) -> None:
    stacks: Stacks = request.getfixturevalue(stage)
    roles = [one["Properties"] for _, one in resources(stacks) if one["Type"] == "AWS::IAM::Role"]
    assert len(roles) > 10
    for role in roles:
        assert json.dumps(role["PermissionsBoundary"]).endswith(f':policy/{boundary}"]]}}')


def test_the_roles_of_custom_resources_are_among_them(on_cpu: Stacks) -> None:
    roles = [name for name, one in resources(on_cpu) if one["Type"] == "AWS::IAM::Role"]
    assert any(name.startswith("CustomS3AutoDelete") for name in roles)


def test_stacks_are_deployed_with_the_roles_and_the_bucket_of_the_qualifier(everything: Stacks) -> None:
    folder = everything["Maskdrop"].folder
    for stack in everything:
        text = (folder / "manifest.json").read_text() + (folder / f"{stack}-everything.assets.json").read_text()
        assert "cdk-imaging-deploy-role-" in text
        assert "cdk-imaging-assets-" in text
        assert "hnb659fds" not in text
        assert "hnb659fds" not in json.dumps(everything[stack].body)


# ---- reserved_concurrency


def test_executions_are_reserved_for_the_functions_of_the_file_only(everything: Stacks) -> None:
    reserved = {
        one["Handler"].split(".")[1]: one["ReservedConcurrentExecutions"]
        for one in everything["Maskdrop"].functions
        if "ReservedConcurrentExecutions" in one
    }
    assert reserved == load("everything", STAGES).reserved_concurrency


def test_a_stage_names_the_functions_that_it_deploys(everything: Stacks) -> None:
    deployed = {one["Handler"].split(".")[1] for one in everything["Maskdrop"].functions}
    assert deployed == set(load("everything", STAGES).functions)


# ---- tags and budget

WITHOUT_TAGS = {
    # CloudFormation has no tags for these.
    "AWS::ApiGateway::Account", "AWS::ApiGateway::Authorizer", "AWS::ApiGateway::BasePathMapping",
    "AWS::ApiGateway::Deployment", "AWS::ApiGateway::GatewayResponse", "AWS::ApiGateway::Method",
    "AWS::ApiGateway::Resource", "AWS::ApplicationAutoScaling::ScalingPolicy", "AWS::EC2::SecurityGroupIngress",
    "AWS::EC2::Route", "AWS::EC2::SecurityGroupEgress", "AWS::EC2::SubnetRouteTableAssociation",
    "AWS::EC2::VPCGatewayAttachment", "AWS::IAM::Policy", "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::Permission", "AWS::Logs::MetricFilter", "AWS::Route53::RecordSet", "AWS::S3::BucketPolicy",
    "AWS::SNS::Subscription", "AWS::SNS::TopicPolicy", "AWS::SQS::QueuePolicy", "AWS::WAFv2::WebACLAssociation",
    "AWS::CDK::Metadata", "Custom::Image",
    "AWS::CloudFront::OriginAccessControl", "AWS::CloudFront::ResponseHeadersPolicy", "AWS::Lambda::LayerVersion",
    "Custom::CDKBucketDeployment",
    # CloudFormation has tags; the CDK passes none, and CloudFormation adds those of the stack.
    "AWS::CloudFront::Function",
}  # fmt: skip


def test_every_resource_that_can_have_tags_has_those_of_the_stage(everything: Stacks) -> None:
    expected = load("everything", STAGES).all_tags
    tagged = 0
    for name, one in resources(everything):
        if one["Type"] in WITHOUT_TAGS:
            continue
        tags = one["Properties"].get("Tags") or one["Properties"].get("ResourceTags")
        found = tags if isinstance(tags, dict) else {tag["Key"]: tag["Value"] for tag in tags or []}
        assert expected.items() <= found.items(), f"{name} is a {one['Type']}"
        tagged += 1
    assert tagged > 50


def test_cloudformation_tags_what_the_cdk_adds_without_tags(on_cpu: Stacks, everything: Stacks) -> None:
    manifest = json.loads((everything["Maskdrop"].folder / "manifest.json").read_text())
    stacks = [one for one in manifest["artifacts"].values() if one["type"] == "aws:cloudformation:stack"]
    assert len(stacks) == len(everything)
    for stack in stacks:
        assert stack["properties"]["tags"] == load("everything", STAGES).all_tags


def test_the_budget_of_a_stage_counts_the_resources_with_its_tag(everything: Stacks, stacks: Stacks) -> None:
    (of_stage,) = everything["MaskdropAccount"].of("AWS::Budgets::Budget").values()
    (of_account,) = stacks["MaskdropAccount"].of("AWS::Budgets::Budget").values()
    assert of_stage["Budget"]["CostFilters"] == {"TagKeyValue": ["user:maskdrop:stage$everything"]}
    assert "CostFilters" not in of_account["Budget"]


def test_names_that_belong_to_the_account_contain_stage_and_region(stacks: Stacks) -> None:
    (budget,) = stacks["MaskdropAccount"].of("AWS::Budgets::Budget").values()
    (dashboard,) = stacks["Maskdrop"].of("AWS::CloudWatch::Dashboard").values()
    regional = ["maskdrop-dev-", {"Ref": "AWS::Region"}]
    assert dashboard["DashboardName"] == {"Fn::Join": ["", regional]}
    assert budget["Budget"]["BudgetName"]["Fn::Join"][1][:2] == regional


# ---- engines


def test_the_api_knows_the_engines_of_the_image_and_of_the_stage() -> None:
    def installed(**options: object) -> set[str]:
        return set(Stage(name="dev", **options).installed_engines)  # type: ignore[arg-type]

    assert {"auto", "portrait", "labels"} <= installed()
    assert not {"detector", "rekognition", "sam", "*"} & installed()
    assert "rekognition" in installed(rekognition=True)
    assert "*" in installed(weights="s3://bucket/prefix/")
    assert installed(weights="s3://bucket/prefix/", engines=["sam"]) == installed() | {"sam"}


def test_corrections_are_stored_only_where_the_stage_allows_it(everything: Stacks, stacks: Stacks) -> None:
    for found, allowed, days in ((everything, True, 730), (stacks, False, 1)):
        writing = [
            statement
            for role, statements in statements_by_role(found).items()
            for statement in statements
            if "training/*" in json.dumps(statement.get("Resource", "")) and role.startswith("Api")
        ]
        assert bool(writing) is allowed
        assert all(set(listed(one["Action"])) == {"s3:PutObject", "s3:DeleteObject"} for one in writing)
        rules = [
            rule
            for _, resource in resources(found)
            if resource["Type"] == "AWS::S3::Bucket"
            for rule in resource["Properties"].get("LifecycleConfiguration", {}).get("Rules", ())
            if rule.get("Prefix") == "training/"
        ]
        assert [rule["ExpirationInDays"] for rule in rules] == [days]


def test_guardduty_scans_photos_and_uploads_and_tags_them(everything: Stacks) -> None:
    (plan,) = everything["Maskdrop"].of("AWS::GuardDuty::MalwareProtectionPlan").values()
    assert plan["ProtectedResource"]["S3Bucket"]["ObjectPrefixes"] == ["inbox/", "uploads/"]
    assert plan["Actions"] == {"Tagging": {"Status": "ENABLED"}}


def test_the_bulk_endpoint_reads_scanned_objects_only_if_they_are_clean(everything: Stacks, on_cpu: Stacks) -> None:
    def reads(stacks: Stacks) -> list[dict[str, Any]]:
        (role,) = stacks[next(name for name in stacks if name.startswith("MaskdropBulk"))].of("AWS::IAM::Role").values()
        found = [one for policy in role["Policies"] for one in policy["PolicyDocument"]["Statement"]]
        return [one for one in found if one["Action"] == "s3:GetObject"]

    clean = {"StringEquals": {"s3:ExistingObjectTag/GuardDutyMalwareScanStatus": "NO_THREATS_FOUND"}}
    conditional = [one for one in reads(everything) if one.get("Condition") == clean]
    assert [len(one["Resource"]) for one in conditional] == [len(SCANNED)]
    for prefix in SCANNED:
        naming = [one for one in reads(everything) if f"/{prefix}*" in json.dumps(one["Resource"])]
        assert naming == conditional, prefix
    assert all("Condition" not in one for one in reads(on_cpu))


def test_only_the_scan_writes_its_tag(everything: Stacks) -> None:
    policies = everything["Maskdrop"].of("AWS::S3::BucketPolicy").values()
    denied = [
        one
        for policy in policies
        for one in policy["PolicyDocument"]["Statement"]
        if one["Effect"] == "Deny" and "s3:PutObjectTagging" in one["Action"]
    ]
    (one,) = denied
    assert one["Principal"] == {"AWS": "*"}
    assert one["Condition"]["ForAnyValue:StringEquals"] == {"s3:RequestObjectTagKeys": [TAG]}
    (role,) = one["Condition"]["ArnNotEquals"]["aws:PrincipalArn"]["Fn::GetAtt"][:1]
    assert role.startswith("MalwareScan")


def test_an_update_keeps_the_events_by_which_guardduty_learns_of_objects(everything: Stacks, on_cpu: Stacks) -> None:
    def notified(stacks: Stacks) -> list[Any]:
        buckets = stacks["Maskdrop"].of("AWS::S3::Bucket").values()
        return [one["NotificationConfiguration"] for one in buckets if "NotificationConfiguration" in one]

    (inbox,) = notified(everything)
    assert inbox["EventBridgeConfiguration"] == {"EventBridgeEnabled": True}
    assert inbox["QueueConfigurations"]
    assert all("EventBridgeConfiguration" not in one for one in notified(on_cpu))


def test_without_the_option_nothing_is_scanned(on_cpu: Stacks) -> None:
    assert "AWS::GuardDuty::MalwareProtectionPlan" not in {one["Type"] for _, one in resources(on_cpu)}
    assert "ObjectTagging" not in json.dumps([*statements_by_role(on_cpu).values()])

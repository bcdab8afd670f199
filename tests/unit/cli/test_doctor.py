"""The checks of `maskdrop doctor`, against responses that are checked with botocore's models."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError
from rich.console import Console
from typer.testing import CliRunner

from cli import doctor
from cli.app import app
from cli.checks import before, deployed, endpoints, examine, options
from cli.checks.account import CDK, Account, Level, Line
from infra.sources import container_digest, cpu_tag
from infra.stages import Stage
from local.account import client_in, region_of_environment
from tests.unit.cli.aws import Error, FakeAws, Response, denied, new_account, quotas, settings

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "operations.md"
ID = "111122223333"
STACK_ID = f"arn:aws:cloudformation:us-east-1:{ID}:stack/Maskdrop-dev/1"
CREATED = datetime(2026, 11, 29, tzinfo=UTC)
CONCURRENCY = "L-96300102"

Responses = Mapping[str, Response | Error]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without the Region of the machine."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)


def account(responses: Responses | None = None, **fields: Any) -> Account:
    """A new account with other responses, and a stage with other settings."""
    stage = Stage(**{"name": "dev", **fields})
    return Account(stage, "us-east-1", FakeAws({**new_account(), **(responses or {})}).client)


def check(lines: Callable[[Account], Iterator[Line]], responses: Responses | None = None, **fields: Any) -> Line:
    """The only line of a check."""
    (line,) = lines(account(responses, **fields))
    return line


def stacks(**statuses: str) -> dict[str, Response | Error]:
    """Stacks that exist, by prefix, with their status."""

    def described(request: dict[str, Any]) -> Any:
        status = statuses.get(request["StackName"].removesuffix("-dev"))
        if status is None:
            return Error("ValidationError", f"Stack with id {request['StackName']} does not exist")
        return {"Stacks": [{"StackName": request["StackName"], "CreationTime": CREATED, "StackStatus": status}]}

    return {"cloudformation.DescribeStacks": described, "cloudformation.DescribeStackEvents": {"StackEvents": []}}


ALL = dict.fromkeys(
    ("MaskdropImage", "Maskdrop", "MaskdropBulk", "MaskdropInteractive", "MaskdropAccount"), "CREATE_COMPLETE"
)


def with_resources(*resources: tuple[str, str]) -> dict[str, Response | Error]:
    """A deployed stage with resources: (type, physical ID). Each is on a page of its own."""

    def listed(request: dict[str, Any]) -> Mapping[str, Any]:
        number = int(request.get("NextToken", 0))
        kind, physical = resources[number]
        row = {
            "LogicalResourceId": f"Resource{number}",
            "PhysicalResourceId": physical,
            "ResourceType": kind,
            "LastUpdatedTimestamp": CREATED,
            "ResourceStatus": "CREATE_COMPLETE",
        }
        more = {"NextToken": str(number + 1)} if number + 1 < len(resources) else {}
        return {"StackResourceSummaries": [row], **more}

    return {**stacks(**ALL), "cloudformation.ListStackResources": listed}


def sagemaker(**serverless: tuple[int, int]) -> dict[str, Response | Error]:
    """Serverless endpoints by name: concurrency and memory in MB."""

    def config(request: dict[str, Any]) -> Mapping[str, Any]:
        concurrency, memory = serverless[request["EndpointConfigName"]]
        shape = {"MaxConcurrency": concurrency, "MemorySizeInMB": memory}
        return {
            "EndpointConfigName": request["EndpointConfigName"],
            "EndpointConfigArn": f"arn:aws:sagemaker:us-east-1:{ID}:endpoint-config/x",
            "ProductionVariants": [{"VariantName": "main", "ServerlessConfig": shape}],
            "CreationTime": CREATED,
        }

    return {
        "sagemaker.ListEndpoints": {"Endpoints": [listed(name.replace("_", "-")) for name in serverless]},
        "sagemaker.DescribeEndpoint": lambda request: {
            **described(request["EndpointName"]),
            "EndpointConfigName": request["EndpointName"].replace("-", "_"),
        },
        "sagemaker.DescribeEndpointConfig": config,
    }


def listed(name: str, status: str = "InService") -> dict[str, Any]:
    arn = f"arn:aws:sagemaker:us-east-1:{ID}:endpoint/{name}"
    times = {"CreationTime": CREATED, "LastModifiedTime": CREATED}
    return {"EndpointName": name, "EndpointArn": arn, "EndpointStatus": status, **times}


def described(name: str, status: str = "InService", **more: Any) -> dict[str, Any]:
    return {**listed(name, status), "EndpointConfigName": "config", **more}


def gpu_endpoint(name: str, count: int) -> dict[str, Response | Error]:
    """One endpoint on GPU instances."""
    variant = {"VariantName": "main", "CurrentInstanceCount": count}
    return {
        "sagemaker.ListEndpoints": {"Endpoints": [listed(name)]},
        "sagemaker.DescribeEndpoint": described(name, ProductionVariants=[variant]),
        "sagemaker.DescribeEndpointConfig": {
            "EndpointConfigName": "config",
            "EndpointConfigArn": f"arn:aws:sagemaker:us-east-1:{ID}:endpoint-config/x",
            "ProductionVariants": [{"VariantName": "main", "ModelName": "m", "InstanceType": "ml.g6.xlarge"}],
            "CreationTime": CREATED,
        },
    }


def price(usd: str) -> dict[str, Response | Error]:
    """A price of hosting in the form of the Price List."""
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": usd}}
    product = {"product": {}, "terms": {"OnDemand": {"A.B": {"priceDimensions": {"A.B.C": dimension}}}}}
    return {"pricing.GetProducts": {"PriceList": [json.dumps(product)]}}


# The whole report


def text_of(lines: list[Line]) -> str:
    console = Console(width=110, file=StringIO(), color_system=None)
    for part in doctor.report(lines):
        console.print(part, soft_wrap=True)
    return "\n".join(line.rstrip() for line in str(console.file.getvalue()).splitlines())  # type: ignore[attr-defined]


def test_the_page_shows_the_report_of_a_new_account() -> None:
    assert f"```\n{text_of(list(examine(account())))}\n```" in PAGE.read_text()


def test_only_the_bootstrap_is_missing_for_the_default_stage_in_a_new_account() -> None:
    failing = [line.name for line in examine(account()) if line.level == "fails the deploy"]
    assert failing == ["bootstrap"]


def test_a_gpu_stage_fails_in_a_new_account_for_its_quota() -> None:
    failing = [line.name for line in examine(account(price("1.127"), bulk="gpu")) if line.level == "fails the deploy"]
    assert failing == ["bootstrap", "ml.g6.xlarge instances"]


@pytest.mark.parametrize(
    ("operation", "permission", "name"),
    [
        ("ssm.GetParameter", "ssm:GetParameter", "bootstrap"),
        ("service-quotas.ListAWSDefaultServiceQuotas", "servicequotas:ListAWSDefaultServiceQuotas", "GPU mode"),
        ("lambda.GetAccountSettings", "lambda:GetAccountSettings", "Lambda concurrency"),
        ("cloudformation.DescribeStacks", "cloudformation:DescribeStacks", "stacks"),
        ("logs.DescribeLogGroups", "logs:DescribeLogGroups", "leftovers"),
    ],
)
def test_a_missing_permission_is_a_warning_that_names_it(operation: str, permission: str, name: str) -> None:
    lines = {line.name: line for line in examine(account({operation: denied(permission)}))}
    assert (lines[name].level, permission in lines[name].finding) == ("warning", True)
    assert permission in lines[name].remedy


def test_a_denial_without_an_action_names_the_operation() -> None:
    line = next(
        line for line in examine(account({"ssm.GetParameter": Error("AccessDenied", "")})) if line.name == "bootstrap"
    )
    assert "GetParameter" in line.finding


def test_an_unreachable_service_is_a_warning_and_the_other_checks_continue() -> None:
    aws = FakeAws(new_account())

    def client(service: str) -> Any:
        if service == "lambda":
            raise EndpointConnectionError(endpoint_url="https://lambda.example")
        return aws.client(service)

    lines = {line.name: line for line in examine(Account(Stage(name="dev"), "us-east-1", client))}
    assert (lines["Lambda concurrency"].level, lines["mail"].level) == ("warning", "warning")
    assert "lambda.example" in lines["Lambda concurrency"].finding
    assert "e-mail" in lines["mail"].finding


def test_no_check_writes() -> None:
    aws = FakeAws({**new_account(), **with_resources(("AWS::SNS::Topic", "arn")), **SOUND})
    list(examine(Account(Stage(name="dev"), "us-east-1", aws.client)))
    verbs = {name.partition(".")[2] for name, _ in aws.requests}
    assert all(verb.startswith(("Get", "List", "Describe", "BatchGet")) for verb in verbs)


# Region and credentials


@pytest.mark.parametrize(
    ("first", "second", "region"),
    [("eu-west-1", "us-east-1", "eu-west-1"), ("", "us-east-2", "us-east-2"), ("", "", "")],
)
def test_the_region_is_that_of_the_cdk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: str, second: str, region: str
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for name, value in (("AWS_REGION", first), ("AWS_DEFAULT_REGION", second)):
        if value:
            monkeypatch.setenv(name, value)
    assert region_of_environment() == region


def test_prices_are_read_where_the_price_list_is() -> None:
    assert client_in("ap-south-2", "pricing").meta.region_name == "us-east-1"
    assert client_in("ap-south-2", "sqs").meta.region_name == "ap-south-2"


def test_without_a_region_no_other_check_is_run() -> None:
    lines = list(examine(Account(Stage(name="dev"), "", FakeAws({}).client)))
    assert [(line.name, line.level) for line in lines] == [("Region", "fails the deploy")]
    assert lines[0].remedy.startswith("export AWS_REGION=")


def test_two_different_regions_in_the_environment_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert check(before.region).level == "warning"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert check(before.region).level == "ok"


def test_invalid_credentials_fail_the_deploy_and_no_other_check_is_run() -> None:
    lines = list(examine(account({"sts.GetCallerIdentity": Error("ExpiredToken", "The token has expired")})))
    assert [(line.name, line.level) for line in lines][1:] == [("credentials", "fails the deploy")]
    assert "expired" in lines[1].finding


def test_missing_credentials_fail_the_deploy() -> None:
    def client(_: str) -> Any:
        raise NoCredentialsError

    lines = list(examine(Account(Stage(name="dev"), "us-east-1", client)))
    assert lines[-1].level == "fails the deploy"
    assert lines[-1].finding == "No credentials are configured."
    assert "aws configure" in lines[-1].remedy


def test_an_unreachable_aws_is_not_reported_as_invalid_credentials() -> None:
    def client(_: str) -> Any:
        raise EndpointConnectionError(endpoint_url="https://sts.us-east1.amazonaws.com/")

    lines = list(examine(Account(Stage(name="dev"), "us-east1", client)))
    assert lines[-1].level == "fails the deploy"
    assert lines[-1].finding.startswith("AWS is not reachable")
    assert "us-east1" in lines[-1].remedy


# Bootstrap


def test_the_cdk_is_the_version_of_the_readme() -> None:
    assert f"{CDK} deploy" in (ROOT / "README.md").read_text()


def version(text: str) -> Responses:
    return {"ssm.GetParameter": {"Parameter": {"Value": text}}}


def test_a_new_bootstrap_stack_is_ok() -> None:
    assert check(before.bootstrap, version("30")).level == "ok"


def test_an_old_bootstrap_stack_fails_the_deploy() -> None:
    assert check(before.bootstrap, version("5")).level == "fails the deploy"
    assert check(before.bootstrap, version("6")).level == "ok"


def test_the_bootstrap_stack_of_the_qualifier_is_checked() -> None:
    line = check(before.bootstrap, qualifier="shop")
    assert "shop" in line.finding
    assert line.remedy == f"npx aws-cdk@2.1148.1 bootstrap aws://{ID}/us-east-1 --qualifier shop"


# Instances


@pytest.mark.parametrize(
    ("quota", "used", "level"),
    [(0, 0, "fails the deploy"), (1, 1, "fails the deploy"), (1, 0, "warning"), (2, 0, "ok"), (3, 1, "ok")],
)
def test_the_quota_must_allow_the_instances_besides_those_of_others(quota: int, used: int, level: Level) -> None:
    responses = {**quotas(ml_g6_xlarge=quota), **gpu_endpoint("another", used)}
    line = check(endpoints.instances, responses, bulk="gpu", bulk_max_instances=2)
    assert line.level == level
    if level != "ok":
        assert f"--quota-code L-D470D954 --desired-value {2 + used}" in line.remedy


def test_instances_of_the_stage_itself_do_not_count_twice() -> None:
    stage = Stage(name="dev", bulk="gpu")
    responses = {**quotas(ml_g6_xlarge=1), **gpu_endpoint(stage.bulk_endpoint, 1)}
    assert check(endpoints.instances, responses, bulk="gpu").level == "ok"


def test_a_real_time_endpoint_needs_an_instance_more() -> None:
    line = check(endpoints.instances, quotas(ml_g6_xlarge=1), bulk="gpu", interactive="realtime")
    assert line.level == "fails the deploy"
    assert "2 to 3" in line.finding


def test_the_cpu_mode_needs_cpu_instances() -> None:
    line = check(endpoints.instances, bulk="cpu")
    assert (line.name, line.level) == ("ml.c6i.xlarge instances", "fails the deploy")


def test_a_serverless_stage_needs_no_instances() -> None:
    assert list(endpoints.instances(account())) == []
    assert list(endpoints.instance_types(account())) == []


@pytest.mark.parametrize(
    ("quota", "usd", "level"),
    [(1, "1.127", "ok"), (1, "1.408", "warning"), (None, "1.127", "warning"), (None, "", "fails the deploy")],
)
def test_an_instance_type_has_a_quota_and_a_price_in_the_region(quota: int | None, usd: str, level: Level) -> None:
    responses = {**quotas(ml_g6_xlarge=quota), **(price(usd) if usd else {})}
    line = check(endpoints.instance_types, responses, bulk="gpu")
    assert line.level == level
    if usd == "1.408":
        assert line.remedy == "gpu_usd_per_hour = 1.408 in stages/dev.toml"


def test_the_price_list_is_filtered_by_region_instance_and_hosting() -> None:
    aws = FakeAws({**new_account(), **price("1.127")})
    list(endpoints.instance_types(Account(Stage(name="dev", bulk="gpu"), "eu-west-1", aws.client)))
    (request,) = [request for name, request in aws.requests if name == "pricing.GetProducts"]
    fields = {one["Field"]: one["Value"] for one in request["Filters"]}
    assert fields == {"regionCode": "eu-west-1", "instanceName": "ml.g6.xlarge", "component": "Hosting"}


@pytest.mark.parametrize(
    ("quota", "words", "remedy"),
    [
        (0, "not possible yet", "--desired-value 1"),
        (1, "allows", 'bulk = "gpu"'),
        (None, "no quota", "gpu_instance_type"),
    ],
)
def test_a_stage_in_another_mode_learns_whether_the_gpu_mode_is_possible(
    quota: int | None, words: str, remedy: str
) -> None:
    line = check(endpoints.gpu_mode, quotas(ml_g6_xlarge=quota))
    assert (line.level, words in line.finding, remedy in line.remedy) == ("ok", True, True)


# Serverless endpoints


@pytest.mark.parametrize(
    ("memory", "limit", "level"),
    [(3072, None, "ok"), (4096, None, "warning"), (4096, 3072, "fails the deploy"), (6144, 6144, "ok")],
)
def test_memory_above_3072_mb_needs_a_limit_that_aws_raised(memory: int, limit: int | None, level: Level) -> None:
    name = "Memory size in MB per serverless endpoint"
    responses: dict[str, Response | Error] = {}
    if limit:
        row = {"QuotaName": name, "QuotaCode": "L-1", "Value": float(limit)}
        responses["service-quotas.ListAWSDefaultServiceQuotas"] = {"Quotas": [row]}
        responses["service-quotas.GetServiceQuota"] = {"Quota": row}
    assert check(endpoints.serverless_memory, responses, serverless_memory_mb=memory).level == level


def test_an_endpoint_with_as_much_memory_shows_that_the_account_may_use_it() -> None:
    assert check(endpoints.serverless_memory, sagemaker(other=(1, 6144)), serverless_memory_mb=6144).level == "ok"


@pytest.mark.parametrize(("others", "level"), [((), "ok"), ((5,), "ok"), ((3, 3), "fails the deploy")])
def test_serverless_concurrency_is_shared_by_all_endpoints(others: tuple[int, ...], level: Level) -> None:
    responses = sagemaker(**{f"other_{number}": (value, 3072) for number, value in enumerate(others)})
    line = check(endpoints.serverless_concurrency, responses)
    assert line.level == level
    assert f"other serverless endpoints {sum(others)}" in line.finding
    if level != "ok":
        assert f"--quota-code {CONCURRENCY} --desired-value 11" in line.remedy


def test_the_serverless_endpoints_of_the_stage_do_not_count_twice() -> None:
    own = {"maskdrop_dev_bulk_serverless": (2, 3072), "maskdrop_dev_interactive_serverless": (3, 3072)}
    line = check(endpoints.serverless_concurrency, sagemaker(**own, other=(5, 3072)))
    assert line.level == "ok"


def test_an_unlisted_concurrency_quota_is_a_warning() -> None:
    assert check(endpoints.serverless_concurrency, quotas(Maximum_total=None)).level == "warning"


def test_a_stage_on_instances_uses_no_serverless_quota() -> None:
    used = account(bulk="gpu", interactive="off")
    assert [*endpoints.serverless_memory(used), *endpoints.serverless_concurrency(used)] == []


# Lambda and CodeBuild


@pytest.mark.parametrize(("allowed", "level"), [(10, "warning"), (200, "ok")])
def test_fewer_lambda_executions_than_the_stage_expects_are_a_warning(allowed: int, level: Level) -> None:
    responses = {"lambda.GetAccountSettings": settings(allowed)}
    line = check(before.lambda_concurrency, responses, lambda_concurrency=200)
    assert line.level == level
    if level == "warning":
        assert "--quota-code L-B99A9384 --desired-value 1000" in line.remedy


@pytest.mark.parametrize(
    ("allowed", "level"), [(10, "fails the deploy"), (104, "fails the deploy"), (105, "ok"), (1000, "ok")]
)
def test_a_reservation_leaves_at_least_100_executions(allowed: int, level: Level) -> None:
    responses = {"lambda.GetAccountSettings": settings(allowed)}
    lines = list(
        before.lambda_concurrency(
            account(responses, lambda_concurrency=105, reserved_concurrency={"api": 3, "sweep": 2})
        )
    )
    assert (lines[-1].name, lines[-1].level) == ("reserved concurrency", level)


def test_what_the_deployed_stage_reserves_counts_as_free() -> None:
    responses = {
        **with_resources(("AWS::Lambda::Function", "api")),
        "lambda.GetFunctionConcurrency": {"ReservedConcurrentExecutions": 5},
        "lambda.GetAccountSettings": settings(200, unreserved=195),
    }
    lines = list(before.lambda_concurrency(account(responses, lambda_concurrency=105, reserved_concurrency={"api": 5})))
    assert "195 unreserved" in lines[-1].finding


def builds(*statuses: str) -> dict[str, Response | Error]:
    rows = [
        {
            "id": f"build:{number}",
            "buildStatus": status,
            "environment": {
                "type": "LINUX_CONTAINER",
                "image": "x",
                "computeType": "BUILD_GENERAL1_MEDIUM",
            },
            "phases": [
                {"phaseType": "SUBMITTED", "phaseStatus": "SUCCEEDED"},
                {"phaseType": "BUILD", "phaseStatus": "FAILED"},
            ],
            "logs": {"deepLink": "https://logs.example/build"},
        }
        for number, status in enumerate(statuses)
    ]
    ids = {"ids": [row["id"] for row in rows]}
    return {
        "codebuild.ListBuilds": ids,
        "codebuild.ListBuildsForProject": ids,
        "codebuild.BatchGetBuilds": lambda request: {"builds": [row for row in rows if row["id"] in request["ids"]]},
    }


def test_a_quota_of_0_builds_fails_the_deploy() -> None:
    line = check(before.code_build, quotas(Concurrently_running=0))
    assert line.level == "fails the deploy"
    assert "--quota-code L-2DC20C30 --desired-value 1" in line.remedy


def test_the_quota_is_that_of_the_build_in_the_template() -> None:
    assert "Linux/Medium" in before.BUILDS
    assert "ComputeType.MEDIUM" in (ROOT / "infra" / "image.py").read_text()


def test_an_account_without_builds_may_be_refused_one() -> None:
    line = check(before.code_build)
    assert (line.level, "support" in line.remedy) == ("warning", True)


@pytest.mark.parametrize(("statuses", "level"), [(("SUCCEEDED",), "ok"), (("IN_PROGRESS", "SUCCEEDED"), "warning")])
def test_a_running_build_uses_the_quota(statuses: tuple[str, ...], level: Level) -> None:
    assert check(before.code_build, builds(*statuses)).level == level


def test_an_unlisted_build_quota_is_a_warning() -> None:
    assert check(before.code_build, quotas(Concurrently_running=None)).level == "warning"


# Bedrock


def bedrock(lifecycle: Mapping[str, Any] | None = None, **states: str) -> Responses:
    return {
        "bedrock.GetFoundationModelAvailability": {
            "modelId": "stability.stable-image-inpaint-v1:0",
            "agreementAvailability": {"status": states.get("agreement", "AVAILABLE")},
            "authorizationStatus": states.get("authorization", "AUTHORIZED"),
            "entitlementAvailability": states.get("entitlement", "AVAILABLE"),
            "regionAvailability": states.get("region", "AVAILABLE"),
        },
        "bedrock.GetFoundationModel": {
            "modelDetails": {
                "modelArn": "arn:aws:bedrock:us-east-1::foundation-model/stability.stable-image-inpaint-v1:0",
                "modelId": "stability.stable-image-inpaint-v1:0",
                "modelLifecycle": lifecycle or {"status": "ACTIVE"},
            }
        },
    }


@pytest.mark.parametrize(
    ("responses", "level", "words"),
    [
        (bedrock(), "ok", "may use"),
        (bedrock(region="NOT_AVAILABLE"), "fails the deploy", "does not have"),
        (
            {**bedrock(), "bedrock.GetFoundationModel": Error("ResourceNotFoundException")},
            "fails the deploy",
            "not offer the model any more",
        ),
        (bedrock(agreement="NOT_AVAILABLE"), "warning", "agreement NOT_AVAILABLE"),
        (bedrock(authorization="NOT_AUTHORIZED"), "warning", "authorization NOT_AUTHORIZED"),
        (bedrock({"status": "LEGACY", "endOfLifeTime": datetime(2027, 3, 1, tzinfo=UTC)}), "warning", "2027-03-01"),
    ],
)
def test_a_bedrock_model_is_accessible_and_current(responses: Responses, level: Level, words: str) -> None:
    line = check(before.bedrock_models, responses, editor="stability")
    assert (line.level, words in line.finding) == (level, True)


def test_a_stage_outside_the_regions_of_its_editor_is_named() -> None:
    assert check(before.bedrock_models, bedrock(), editor="titan").level == "ok"
    regional = check(before.bedrock_models, bedrock(region="NOT_AVAILABLE"), editor="nova")
    assert "us-east-1, eu-west-1, ap-northeast-1" in regional.finding


@pytest.mark.parametrize("editor", ["local", "off"])
def test_a_stage_without_a_bedrock_model_has_no_line(editor: str) -> None:
    assert list(before.bedrock_models(account(editor=editor))) == []


# Options


CERTIFICATE = f"arn:aws:acm:us-east-1:{ID}:certificate/1"
KEY = f"arn:aws:kms:us-east-1:{ID}:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.mark.parametrize(
    ("fields", "responses", "level"),
    [
        ({"weights": "s3://b/maskdrop/1/"}, {"s3.ListObjectsV2": {"KeyCount": 1}}, "ok"),
        ({"weights": "s3://b/maskdrop/1/"}, {"s3.ListObjectsV2": {"KeyCount": 0}}, "fails the deploy"),
        ({"weights": "s3://b/maskdrop/1/"}, {"s3.ListObjectsV2": Error("NoSuchBucket")}, "fails the deploy"),
        ({"domain": CERTIFICATE}, {"acm.DescribeCertificate": {"Certificate": {"Status": "ISSUED"}}}, "ok"),
        (
            {"domain": CERTIFICATE},
            {"acm.DescribeCertificate": {"Certificate": {"Status": "PENDING_VALIDATION"}}},
            "fails the deploy",
        ),
        ({"domain": CERTIFICATE.replace("us-east-1", "eu-west-1")}, {}, "fails the deploy"),
        ({"kms_key": KEY}, {"kms.DescribeKey": {"KeyMetadata": {"KeyId": "1", "KeyState": "Enabled"}}}, "ok"),
        (
            {"kms_key": KEY},
            {"kms.DescribeKey": {"KeyMetadata": {"KeyId": "1", "KeyState": "PendingDeletion"}}},
            "fails the deploy",
        ),
        ({"kms_key": KEY}, {"kms.DescribeKey": Error("NotFoundException")}, "fails the deploy"),
        ({"permissions_boundary": "limit"}, {"iam.GetPolicy": {"Policy": {}}}, "ok"),
        ({"permissions_boundary": "limit"}, {"iam.GetPolicy": Error("NoSuchEntity")}, "fails the deploy"),
    ],
)
def test_what_an_option_names_exists(fields: dict[str, Any], responses: Responses, level: Level) -> None:
    if "domain" in fields:
        fields = {"domain": {"name": "photos.example.com", "certificate": fields["domain"]}}
    line = check(options.options, responses, **fields)
    assert line.level == level
    assert bool(line.remedy) == (level != "ok")


# Mail and budget


def test_without_mail_nobody_is_notified() -> None:
    line = check(before.mail)
    assert (line.level, line.remedy) == ("warning", 'mail = "you@example.com" in stages/dev.toml')


def test_before_a_deploy_the_mail_only_has_to_be_set() -> None:
    assert check(before.mail, mail="ops@example.com").level == "ok"


@pytest.mark.parametrize(
    ("subscriptions", "level", "remedy"),
    [
        ([("ops@example.com", "arn:aws:sns:us-east-1:1:topic:2")], "ok", ""),
        ([("ops@example.com", "PendingConfirmation")], "warning", "aws sns subscribe"),
        ([("other@example.com", "arn:aws:sns:us-east-1:1:topic:2")], "warning", "cdk@2.1148.1 deploy"),
    ],
)
def test_the_mail_is_confirmed(subscriptions: list[tuple[str, str]], level: Level, remedy: str) -> None:
    rows = [{"Protocol": "email", "Endpoint": mail, "SubscriptionArn": arn} for mail, arn in subscriptions]
    responses = {
        **with_resources(("AWS::SNS::Topic", "arn:aws:sns:us-east-1:1:topic")),
        "sns.ListSubscriptionsByTopic": {"Subscriptions": rows},
    }
    line = check(before.mail, responses, mail="ops@example.com")
    assert (line.level, remedy in line.remedy) == (level, True)


NOTIFICATION = {
    "NotificationType": "ACTUAL",
    "ComparisonOperator": "GREATER_THAN",
    "Threshold": 50.0,
    "ThresholdType": "PERCENTAGE",
    "NotificationState": "OK",
}


@pytest.mark.parametrize(("subscriber", "level"), [("ops@example.com", "ok"), ("old@example.com", "warning")])
def test_the_budget_notifies_the_mail_of_the_stage(subscriber: str, level: Level) -> None:
    responses = {
        **with_resources(("AWS::Budgets::Budget", "maskdrop-dev")),
        "budgets.DescribeNotificationsForBudget": {"Notifications": [NOTIFICATION]},
        "budgets.DescribeSubscribersForNotification": {
            "Subscribers": [{"SubscriptionType": "EMAIL", "Address": subscriber}]
        },
    }
    assert check(deployed.budget, responses, mail="ops@example.com").level == level


@pytest.mark.parametrize(("status", "count"), [("Active", 0), ("Inactive", 1)])
def test_a_budget_of_the_stage_needs_an_active_cost_allocation_tag(status: str, count: int) -> None:
    tag = {"TagKey": "maskdrop:stage", "Type": "UserDefined", "Status": status}
    responses = {
        **with_resources(("AWS::Budgets::Budget", "maskdrop-dev")),
        "ce.ListCostAllocationTags": {"CostAllocationTags": [tag]},
    }
    lines = list(deployed.budget(account(responses, budget_scope="stage")))
    assert [line.level for line in lines] == ["warning"] * count


# The deployed stage


def test_deployed_stacks_are_ok() -> None:
    assert {line.level for line in deployed.stacks(account(stacks(**ALL)))} == {"ok"}


@pytest.mark.parametrize(
    ("status", "level", "remedy"),
    [
        ("ROLLBACK_COMPLETE", "warning", "deletes the failed stack"),
        ("UPDATE_ROLLBACK_COMPLETE", "warning", "deploy --all"),
        ("UPDATE_IN_PROGRESS", "warning", "wait"),
        ("UPDATE_ROLLBACK_FAILED", "fails the deploy", "aws cloudformation continue-update-rollback"),
        ("DELETE_FAILED", "fails the deploy", "--deletion-mode FORCE_DELETE_STACK"),
        ("CREATE_FAILED", "fails the deploy", "https://us-east-1.console.aws.amazon.com/cloudformation"),
    ],
)
def test_a_stack_in_another_state_has_its_remedy(status: str, level: Level, remedy: str) -> None:
    line = next(deployed.stacks(account(stacks(**{**ALL, "Maskdrop": status, "MaskdropImage": status}))))
    assert (line.level, remedy in line.remedy) == (level, True)


def test_a_failed_stack_names_the_first_cause() -> None:
    def event(resource: str, status: str, reason: str = "", physical: str = "x") -> dict[str, Any]:
        return {
            "StackId": STACK_ID,
            "EventId": resource + status,
            "StackName": "Maskdrop-dev",
            "LogicalResourceId": resource,
            "PhysicalResourceId": physical,
            "ResourceStatus": status,
            "ResourceStatusReason": reason,
            "Timestamp": CREATED,
        }

    events = [
        event("Maskdrop-dev", "ROLLBACK_COMPLETE", physical=STACK_ID),
        event("Table", "CREATE_FAILED", "Resource creation cancelled"),
        event("Queue", "CREATE_FAILED", "The queue exists already"),
        event("Maskdrop-dev", "CREATE_IN_PROGRESS", "User Initiated", physical=STACK_ID),
        event("Old", "DELETE_FAILED", "an earlier operation"),
    ]
    responses = {**stacks(Maskdrop="ROLLBACK_COMPLETE"), "cloudformation.DescribeStackEvents": {"StackEvents": events}}
    line = next(deployed.stacks(account(responses)))
    assert line.finding == "ROLLBACK_COMPLETE: Queue: The queue exists already"


def test_missing_stacks_are_named() -> None:
    lines = list(deployed.stacks(account(stacks(MaskdropImage="CREATE_COMPLETE", Maskdrop="CREATE_COMPLETE"))))
    assert lines[-1].level == "not checked"
    assert lines[-1].finding == "Not deployed: MaskdropBulk-dev, MaskdropInteractive-dev, MaskdropAccount-dev."


def test_a_stage_with_a_vpc_has_a_stack_more() -> None:
    lines = list(deployed.stacks(account(stacks(**ALL), vpc=True, bulk="gpu", interactive="off")))
    assert lines[-1].finding == "Not deployed: MaskdropNetwork-dev."


IMAGE = {"ecr.DescribeImages": {"imageDetails": [{"imageTags": [container_digest()]}]}}


@pytest.mark.parametrize(
    ("stage", "tags"),
    [
        (Stage(name="dev"), [cpu_tag(container_digest())]),
        (Stage(name="dev", bulk="gpu"), [cpu_tag(container_digest()), container_digest()]),
    ],
    ids=["serverless", "gpu"],
)
def test_the_images_of_this_version_exist(stage: Stage, tags: list[str]) -> None:
    aws = FakeAws({**new_account(), **IMAGE})
    (line,) = deployed.image(Account(stage, "us-east-1", aws.client))
    assert line.level == "ok"
    (request,) = [request for name, request in aws.requests if name == "ecr.DescribeImages"]
    assert request == {"repositoryName": "maskdrop-dev", "imageIds": [{"imageTag": tag} for tag in tags]}


@pytest.mark.parametrize("code", ["ImageNotFoundException", "RepositoryNotFoundException"])
def test_a_missing_image_is_built_by_the_next_deploy(code: str) -> None:
    assert check(deployed.image, {"ecr.DescribeImages": Error(code)}).level == "warning"


@pytest.mark.parametrize(
    ("status", "words"),
    [("FAILED", "FAILED in the phase BUILD"), ("TIMED_OUT", "TIMED_OUT"), ("IN_PROGRESS", "in progress")],
)
def test_a_failed_or_running_build_links_to_its_log(status: str, words: str) -> None:
    responses = {**with_resources(("AWS::CodeBuild::Project", "project")), **IMAGE, **builds(status, "SUCCEEDED")}
    line = list(deployed.image(account(responses)))[-1]
    assert (line.level, line.remedy) == ("warning", "https://logs.example/build")
    assert words in line.finding


def test_a_successful_build_has_no_line() -> None:
    responses = {**with_resources(("AWS::CodeBuild::Project", "project")), **IMAGE, **builds("SUCCEEDED", "FAILED")}
    assert [line.level for line in deployed.image(account(responses))] == ["ok"]


@pytest.mark.parametrize(
    ("response", "level", "words"),
    [
        (described("e", ProductionVariants=[{"VariantName": "main", "CurrentInstanceCount": 2}]), "ok", "2 instances"),
        (described("e", ProductionVariants=[{"VariantName": "main"}]), "ok", "serverless"),
        (described("e", "Creating"), "warning", "Creating"),
        (described("e", "Failed", FailureReason="No capacity"), "fails the deploy", "Failed: No capacity"),
        (described("e", "UpdateRollbackFailed"), "fails the deploy", "UpdateRollbackFailed"),
        (Error("ValidationException", 'Could not find endpoint "e".'), "warning", "does not exist"),
    ],
)
def test_an_endpoint_is_in_service(response: Any, level: Level, words: str) -> None:
    line = check(deployed.endpoints, {"sagemaker.DescribeEndpoint": response}, interactive="off")
    assert (line.name, line.level, words in line.finding) == ("maskdrop-dev-bulk-serverless", level, True)


def test_an_endpoint_of_an_earlier_mode_is_a_warning() -> None:
    names = ["maskdrop-dev-bulk-g6-xlarge", "maskdrop-dev-bulk-bulk-serverless", "maskdrop-dev-bulk-serverless"]
    left = [*(listed(name) for name in names), listed("maskdrop-dev-interactive-g5-2xlarge", "Deleting")]
    responses = {"sagemaker.ListEndpoints": {"Endpoints": left}, "sagemaker.DescribeEndpoint": described("e")}
    first, *others = deployed.endpoints(account(responses, interactive="off"))
    assert (first.name, first.level) == ("maskdrop-dev-bulk-g6-xlarge", "warning")
    assert "delete-endpoint --region us-east-1 --endpoint-name maskdrop-dev-bulk-g6-xlarge" in first.remedy
    assert [one.name for one in others] == ["maskdrop-dev-bulk-serverless"]


def test_a_failed_endpoint_links_to_its_log() -> None:
    response = {"sagemaker.DescribeEndpoint": described("e", "Failed")}
    line = check(deployed.endpoints, response, interactive="off")
    assert "log-group/$252Faws$252Fsagemaker$252FEndpoints$252Fmaskdrop-dev-bulk-serverless" in line.remedy


def queue(counts: dict[str, int], ages: dict[str, float]) -> dict[str, Response | Error]:
    """The queues `jobs` and `dead`, its dead-letter queue."""
    arn = f"arn:aws:sqs:us-east-1:{ID}:"

    def attributes(request: dict[str, Any]) -> Mapping[str, Any]:
        name = request["QueueUrl"].rpartition("/")[2]
        policy = {"deadLetterTargetArn": f"{arn}dead", "maxReceiveCount": 10}
        found = {"QueueArn": arn + name, "ApproximateNumberOfMessages": str(counts.get(name, 0))}
        return {"Attributes": found | ({"RedrivePolicy": json.dumps(policy)} if name == "jobs" else {})}

    def metrics(request: dict[str, Any]) -> Mapping[str, Any]:
        names = {
            one["Id"]: one["MetricStat"]["Metric"]["Dimensions"][0]["Value"] for one in request["MetricDataQueries"]
        }
        rows = [{"Id": key, "Values": [1.0, ages[name]] if name in ages else []} for key, name in names.items()]
        return {"MetricDataResults": rows}

    urls = [("AWS::SQS::Queue", f"https://sqs.us-east-1.amazonaws.com/{ID}/{name}") for name in ("jobs", "dead")]
    return {**with_resources(*urls), "sqs.GetQueueAttributes": attributes, "cloudwatch.GetMetricData": metrics}


SOUND = {
    **queue({}, {}),
    **IMAGE,
    "sagemaker.DescribeEndpoint": described("e", ProductionVariants=[{"VariantName": "main"}]),
}


def test_queues_without_dead_letters_and_old_messages_are_ok() -> None:
    line = check(deployed.queues, queue({"jobs": 3}, {"jobs": 60, "dead": 9999}))
    assert (line.level, line.finding) == ("ok", "2 queues, 3 messages, no dead letters.")


def test_dead_letters_are_a_warning() -> None:
    line = check(deployed.queues, queue({"dead": 2}, {}))
    assert (line.level, line.finding[:23]) == ("warning", "dead has 2 dead letters")


def test_an_old_message_is_a_warning() -> None:
    line = check(deployed.queues, queue({"jobs": 5}, {"jobs": 7200.0}))
    assert (line.level, "5 messages in jobs is 2:00:00 old" in line.finding) == ("warning", True)


# Leftovers


def test_names_that_a_destroyed_stage_left_fail_the_deploy() -> None:
    group = f"arn:aws:logs:us-east-1:{ID}:log-group:/maskdrop/dev/api:*"
    repository = f"arn:aws:ecr:us-east-1:{ID}:repository/maskdrop-dev"
    responses: Responses = {
        "logs.DescribeLogGroups": lambda request: {
            "logGroups": [{"arn": group}] if request["logGroupNamePrefix"] == "/maskdrop/dev/" else []
        },
        "ecr.DescribeRepositories": {"repositories": [{"repositoryArn": repository}]},
    }
    lines = list(deployed.leftovers(account(responses)))
    assert [(line.level, line.remedy) for line in lines] == [
        ("fails the deploy", "aws logs delete-log-group --region us-east-1 --log-group-name /maskdrop/dev/api"),
        ("fails the deploy", "aws ecr delete-repository --region us-east-1 --force --repository-name maskdrop-dev"),
    ]


@pytest.mark.parametrize(
    ("arn", "remedy"),
    [
        ("arn:aws:s3:::maskdrop-dev-inbox", "aws s3 rb --force s3://maskdrop-dev-inbox"),
        (
            f"arn:aws:dynamodb:us-east-1:{ID}:table/Jobs",
            "aws dynamodb delete-table --region us-east-1 --table-name Jobs",
        ),
        (f"arn:aws:events:us-east-1:{ID}:event-bus/maskdrop-dev", "https://us-east-1.console.aws.amazon.com/"),
    ],
)
def test_data_that_a_destroyed_stage_left_is_a_warning(arn: str, remedy: str) -> None:
    tagged = {"resourcegroupstaggingapi.GetResources": {"ResourceTagMappingList": [{"ResourceARN": arn}]}}
    line = check(deployed.leftovers, tagged)
    assert (line.level, line.remedy.startswith(remedy)) == ("warning", True)


@pytest.mark.parametrize("arn", [f"arn:aws:kms:us-east-1:{ID}:key/1", STACK_ID])
def test_a_key_pending_deletion_and_a_stack_are_no_leftovers(arn: str) -> None:
    tagged = {"resourcegroupstaggingapi.GetResources": {"ResourceTagMappingList": [{"ResourceARN": arn}]}}
    assert check(deployed.leftovers, tagged).level == "ok"


def test_api_keys_that_a_destroyed_stage_left_are_a_warning() -> None:
    keys = [
        {"id": "a1", "name": "shop", "tags": {"maskdrop:stage": "dev"}},
        {"id": "b2", "name": "other", "tags": {"maskdrop:stage": "prod"}},
        {"id": "c3", "name": "foreign"},
    ]
    line = check(deployed.leftovers, {"apigateway.GetApiKeys": {"items": keys}})
    assert (line.level, line.remedy) == ("warning", "aws apigateway delete-api-key --region us-east-1 --api-key a1")


def test_a_deployed_stage_has_no_leftovers() -> None:
    assert list(deployed.leftovers(account(stacks(Maskdrop="CREATE_COMPLETE")))) == []


def test_nothing_left_is_ok() -> None:
    assert check(deployed.leftovers).level == "ok"


# The command


def run(monkeypatch: pytest.MonkeyPatch, responses: Responses, *words: str) -> Any:
    aws = FakeAws(responses)
    monkeypatch.setattr(doctor, "account_of", lambda stage: Account(Stage(name=stage), "us-east-1", aws.client))
    return CliRunner().invoke(app, ["doctor", "--stage", "dev", *words])


def test_the_command_exits_1_when_a_line_fails_the_deploy(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, new_account())
    assert result.exit_code == 1
    assert "npx aws-cdk@2.1148.1 bootstrap" in result.output


def test_the_command_exits_0_with_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, {**new_account(), **version("30")})
    assert (result.exit_code, "warning" in result.output) == (0, True)


def test_json_has_every_line_with_its_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, new_account(), "--json")
    lines = json.loads(result.output)
    assert result.exit_code == 1
    assert {"name", "level", "finding", "remedy"} == set(lines[0])
    assert "bootstrap" in {line["name"] for line in lines if line["level"] == "fails the deploy"}


def test_an_unknown_stage_is_named() -> None:
    result = CliRunner().invoke(app, ["doctor", "--stage", "nowhere"])
    assert (result.exit_code, "'nowhere'" in result.output) == (1, True)


def test_without_a_running_stack_the_command_names_the_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MASKDROP_LOCAL_DIR", str(tmp_path))
    result = CliRunner().invoke(app, ["doctor"])
    assert (result.exit_code, "--stage" in result.output) == (3, True)


def test_the_report_is_readable_without_colour() -> None:
    text = text_of([Line(name="mail", level="warning", finding="No e-mail is set.", remedy="mail = …")])
    assert "│ mail  │ warning │ No e-mail is set. │" in text
    assert "\x1b" not in text

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import pytest

from lambdas.adapters.interactive import WAIT_S
from maskdrop.access import OPEN_PATHS
from maskdrop.flow import ANSWERS_PREFIX
from maskdrop.settings import Settings
from maskdrop.webhook import RETRY_S
from tests.infra.conftest import Template, synthesize

ROOT = Path(__file__).resolve().parents[2]

OUTPUTS = {
    "InboxBucket", "ResultsBucket", "JobsTable", "RegistryTable", "ApiUrl", "ApiId", "ApiStage", "UsagePlanId",
    "EndpointName", "EventBusName", "IntakeQueueUrl", "JobsQueueUrl", "ResultsQueueUrl",
}  # fmt: skip

FUNCTIONS = ("ingest", "record", "sweep", "dead_letters", "webhooks", "authorize", "api")


def target(reference: Any) -> str:
    """The logical id that a Ref or a GetAtt points at."""
    return str(reference["Ref"] if "Ref" in reference else reference["Fn::GetAtt"][0])


def model(template: Template, endpoint: str) -> dict[str, Any]:
    """The container of the model of "Bulk" or "Interactive"."""
    (found,) = [one for name, one in template.of("AWS::SageMaker::Model").items() if name.startswith(endpoint)]
    container: dict[str, Any] = found["PrimaryContainer"]
    return container


def tag(container: dict[str, Any]) -> str:
    return str(container["Image"]["Fn::Join"][1][-1])


def rights(template: Template, role: str) -> dict[str, str]:
    """Action -> the resources it is allowed on, as text."""
    found: dict[str, str] = {}
    for name, statement in statements(template):
        if name.startswith(role):
            for action in [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]:
                found[action] = found.get(action, "") + json.dumps(statement["Resource"])
    return found


def prefixes(resources: str) -> set[str]:
    """Of objects in buckets of ours, from what `rights` gives."""
    return set(re.findall(r'"/([a-z/]+)/\*"', resources))


def statements(template: Template) -> list[tuple[str, dict[str, Any]]]:
    """(logical id, statement) of every policy of a role."""
    found = [(name, one["PolicyDocument"]) for name, one in template.of("AWS::IAM::Policy").items()]
    for name, role in template.of("AWS::IAM::Role").items():
        found += [(name, policy["PolicyDocument"]) for policy in role.get("Policies", [])]
    return [(name, statement) for name, document in found for statement in document["Statement"]]


def test_a_message_stays_hidden_for_six_times_the_timeout_of_the_function_that_has_it(template: Template) -> None:
    queues, functions = template.of("AWS::SQS::Queue"), template.of("AWS::Lambda::Function")
    for mapping in template.of("AWS::Lambda::EventSourceMapping").values():
        queue, function = queues[target(mapping["EventSourceArn"])], functions[target(mapping["FunctionName"])]
        assert queue["VisibilityTimeout"] >= 6 * function["Timeout"] + mapping["MaximumBatchingWindowInSeconds"]


def test_every_queue_that_is_no_dead_letter_queue_has_one_and_every_queue_keeps_14_days(template: Template) -> None:
    queues = template.of("AWS::SQS::Queue")
    dead = {
        target(queue["RedrivePolicy"]["deadLetterTargetArn"]) for queue in queues.values() if "RedrivePolicy" in queue
    }
    assert len(dead) == 5
    assert {name for name, queue in queues.items() if "RedrivePolicy" not in queue} == dead
    assert {queue["MessageRetentionPeriod"] for queue in queues.values()} == {14 * 24 * 3600}
    assert all(queue["SqsManagedSseEnabled"] for queue in queues.values())


def test_every_dead_letter_queue_has_a_function_that_reads_it(template: Template) -> None:
    dead = {
        target(queue["RedrivePolicy"]["deadLetterTargetArn"])
        for queue in template.of("AWS::SQS::Queue").values()
        if "RedrivePolicy" in queue
    }
    read = {target(mapping["EventSourceArn"]) for mapping in template.of("AWS::Lambda::EventSourceMapping").values()}
    assert dead <= read


def test_one_message_may_fail_alone(template: Template) -> None:
    for mapping in template.of("AWS::Lambda::EventSourceMapping").values():
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert mapping["ScalingConfig"]["MaximumConcurrency"] >= 2


def test_every_bucket_is_closed_to_the_public_and_encrypted(template: Template) -> None:
    for bucket in template.of("AWS::S3::Bucket").values():
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
        assert bucket["BucketEncryption"]


@pytest.mark.parametrize(
    ("resource", "policy", "key"),
    [
        ("AWS::S3::Bucket", "AWS::S3::BucketPolicy", "Bucket"),
        ("AWS::SQS::Queue", "AWS::SQS::QueuePolicy", "Queues"),
        ("AWS::SNS::Topic", "AWS::SNS::TopicPolicy", "Topics"),
    ],
)
def test_every_bucket_queue_and_topic_refuses_plain_http(
    template: Template, resource: str, policy: str, key: str
) -> None:
    guarded = set()
    for properties in template.of(policy).values():
        denials = [one for one in properties["PolicyDocument"]["Statement"] if one["Effect"] == "Deny"]
        if {"Bool": {"aws:SecureTransport": "false"}} in [one["Condition"] for one in denials]:
            things = properties[key]
            guarded |= {target(thing) for thing in (things if isinstance(things, list) else [things])}
    assert guarded == set(template.of(resource))


def test_topics_are_encrypted(template: Template) -> None:
    assert all(topic["KmsMasterKeyId"] for topic in template.of("AWS::SNS::Topic").values())


def test_a_photo_in_the_inbox_is_announced_to_intake_once_s3_may_send_there(template: Template) -> None:
    inbox = template.body["Outputs"]["InboxBucket"]["Value"]["Ref"]
    intake = template.body["Outputs"]["IntakeQueueUrl"]["Value"]["Ref"]
    (announced,) = template.of("AWS::S3::Bucket")[inbox]["NotificationConfiguration"]["QueueConfigurations"]
    assert target(announced["Queue"]) == intake
    assert announced["Filter"]["S3Key"]["Rules"] == [{"Name": "prefix", "Value": "inbox/"}]
    (policy,) = [
        name for name, one in template.of("AWS::SQS::QueuePolicy").items() if target(one["Queues"][0]) == intake
    ]
    assert policy in template.body["Resources"][inbox]["DependsOn"]


def test_the_name_that_cloudformation_gives_the_inbox_is_one_that_the_intake_queue_lets_in(template: Template) -> None:
    intake = template.body["Outputs"]["IntakeQueueUrl"]["Value"]["Ref"]
    (policy,) = [one for one in template.of("AWS::SQS::QueuePolicy").values() if target(one["Queues"][0]) == intake]
    (allowed,) = [one for one in policy["PolicyDocument"]["Statement"] if one["Effect"] == "Allow"]
    pattern = allowed["Condition"]["ArnLike"]["aws:SourceArn"]["Fn::Join"][1][-1]
    # An unnamed bucket is called <stack>-<logical id>-<random>, in small letters.
    assert pattern == ":s3:::" + "Maskdrop-dev".lower() + "-*"
    assert allowed["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
    inbox = template.body["Outputs"]["InboxBucket"]["Value"]["Ref"]
    assert "BucketName" not in template.of("AWS::S3::Bucket")[inbox]


def test_the_endpoint_sleeps_at_zero_and_both_policies_are_there_that_it_needs(template: Template) -> None:
    (scaled,) = template.of("AWS::ApplicationAutoScaling::ScalableTarget").values()
    assert scaled["MinCapacity"] == 0
    policies = {one["PolicyType"]: one for one in template.of("AWS::ApplicationAutoScaling::ScalingPolicy").values()}
    assert set(policies) == {"TargetTrackingScaling", "StepScaling"}
    tracking = policies["TargetTrackingScaling"]["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["CustomizedMetricSpecification"]["MetricName"] == "ApproximateBacklogSizePerInstance"
    (wake,) = [
        name
        for name, one in template.of("AWS::ApplicationAutoScaling::ScalingPolicy").items()
        if one["PolicyType"] == "StepScaling"
    ]
    (alarm,) = [one for one in template.of("AWS::CloudWatch::Alarm").values() if one["AlarmActions"] == [{"Ref": wake}]]
    assert alarm["MetricName"] == "HasBacklogWithoutCapacity"


def test_the_endpoint_answers_where_the_functions_look_for_answers(template: Template) -> None:
    (config,) = [one for one in template.of("AWS::SageMaker::EndpointConfig").values() if "AsyncInferenceConfig" in one]
    output = config["AsyncInferenceConfig"]["OutputConfig"]
    results = template.body["Outputs"]["ResultsBucket"]["Value"]
    assert output["S3OutputPath"] == {"Fn::Join": ["", ["s3://", results, f"/{ANSWERS_PREFIX}"]]}
    topics = {target(topic) for topic in output["NotificationConfig"].values()}
    queue = template.body["Outputs"]["ResultsQueueUrl"]["Value"]["Ref"]
    heard = template.of("AWS::SNS::Subscription").values()
    to_queue = [one for one in heard if one["Protocol"] == "sqs"]
    assert {target(one["TopicArn"]) for one in to_queue} == topics
    assert {target(one["Endpoint"]) for one in to_queue} == {queue}
    assert all(one["RawMessageDelivery"] for one in to_queue)


def test_weights_of_ones_own_bucket_are_read_as_they_lie_there(template: Template, tmp_path: Path) -> None:
    own = synthesize(tmp_path, "dev", weights="s3://models/maskdrop/1/")["Maskdrop"]
    container = model(own, "Bulk")
    assert container["ModelDataSource"]["S3DataSource"] == {
        "S3Uri": "s3://models/maskdrop/1/", "S3DataType": "S3Prefix", "CompressionType": "None",
    }  # fmt: skip
    assert container["Environment"]["MODEL_WEIGHTS_DIR"] == "/opt/ml/model"
    allowed = rights(own, "BulkRole")
    assert ":s3:::models/maskdrop/1/*" in allowed["s3:GetObject"]
    assert ':s3:::models"' in allowed["s3:ListBucket"]
    assert "models" not in allowed["s3:PutObject"]
    assert "ModelDataSource" not in model(template, "Bulk")
    # A serverless endpoint is given none: SageMaker takes them in another form there.
    assert "ModelDataSource" not in model(own, "Interactive")
    assert "models" not in json.dumps(rights(own, "InteractiveRole"))


@pytest.mark.parametrize("weights", ["s3://models", "s3://models/", "s3://models/1", "models/1/", "s3:///1/"])
def test_a_prefix_that_sagemaker_would_refuse_stops_synth(tmp_path: Path, weights: str) -> None:
    with pytest.raises(ValueError, match="slash at its end"):
        synthesize(tmp_path, "dev", weights=weights)


def test_the_image_is_named_and_nothing_is_imported_from_another_stack(template: Template) -> None:
    assert "Fn::ImportValue" not in json.dumps(template.body)
    assert tag(model(template, "Bulk")).startswith("/maskdrop-dev:")


@pytest.mark.parametrize(("endpoint", "packages"), [("Bulk", ""), ("Interactive", "requirements.txt")])
def test_the_image_that_an_endpoint_runs_is_one_that_is_built(
    template: Template, stacks: dict[str, Template], endpoint: str, packages: str
) -> None:
    (built,) = stacks["MaskdropImage"].of("Custom::Image").values()
    (project,) = stacks["MaskdropImage"].of("AWS::CodeBuild::Project").values()
    name, _, version = tag(model(template, endpoint)).partition(":")
    assert name == "/maskdrop-dev"
    image = f'"$REPOSITORY:{version.replace(built["Tag"], "$TAG")}"'
    commands = json.loads(project["Source"]["BuildSpec"])["phases"]["build"]["commands"]
    assert f"docker push {image}" in commands
    (build,) = [command for command in commands if f"--tag {image}" in command]
    assert build.partition("PACKAGES=")[2].partition(" ")[0] == packages


def test_what_infra_writes_is_what_every_function_reads(template: Template) -> None:
    for function in template.of("AWS::Lambda::Function").values():
        variables = function["Environment"]["Variables"]
        filled = {name: value if isinstance(value, str) else target(value) for name, value in variables.items()}
        settings = Settings.from_env(filled)
        assert settings.to_env() == {name: value for name, value in filled.items() if name.startswith("MASKDROP_")}
        assert settings.inbox == template.body["Outputs"]["InboxBucket"]["Value"]["Ref"]
        assert settings.endpoint == template.body["Outputs"]["EndpointName"]["Value"]
        assert (settings.interactive, settings.interactive_mode) == ("maskdrop-dev-interactive", "serverless")


def test_the_template_knows_nothing_of_a_laptop(template: Template) -> None:
    text = json.dumps(template.body)
    assert "AWS_ENDPOINT" not in text
    assert "localhost" not in text
    assert "127.0.0.1" not in text


def test_every_handler_is_a_function_of_ours(template: Template) -> None:
    handlers = {function["Handler"] for function in template.of("AWS::Lambda::Function").values()}
    assert handlers == {f"lambdas.{name}.handler" for name in FUNCTIONS}
    for handler in handlers:
        module, _, name = handler.rpartition(".")
        found = importlib.util.find_spec(module)
        assert found
        assert f"def {name}(" in Path(str(found.origin)).read_text()


def test_functions_run_on_arm_with_a_python_that_is_kept_and_tell_what_they_do(template: Template) -> None:
    for function in template.of("AWS::Lambda::Function").values():
        assert function["Architectures"] == ["arm64"]
        assert function["Runtime"] == "python3.14"
        assert function["TracingConfig"] == {"Mode": "Active"}
        assert function["LoggingConfig"]["LogFormat"] == "JSON"
        service = function["Handler"].split(".")[1]
        assert function["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"] == f"maskdrop-{service}"


def test_a_role_names_what_it_may_touch(template: Template) -> None:
    nameless = {
        "xray:PutTraceSegments",
        "xray:PutTelemetryRecords",
        "ecr:GetAuthorizationToken",
        "cloudwatch:PutMetricData",
    }
    for name, statement in statements(template):
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not [action for action in actions if "*" in action], name
        if statement["Resource"] == "*":
            assert set(actions) <= nameless, name


@pytest.fixture(scope="module")
def realtime(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """With weights of one's own besides."""
    folder = tmp_path_factory.mktemp("realtime")
    return synthesize(folder, "dev", interactive="realtime", weights="s3://models/maskdrop/1/")["Maskdrop"]


def interactive(template: Template) -> dict[str, Any]:
    """The one variant of the interactive endpoint."""
    (config,) = [
        one for one in template.of("AWS::SageMaker::EndpointConfig").values() if "AsyncInferenceConfig" not in one
    ]
    (variant,) = config["ProductionVariants"]
    return dict(variant)


def test_one_picture_now_is_worked_by_processors_that_are_there_only_while_they_work(template: Template) -> None:
    variant = interactive(template)
    assert variant["ServerlessConfig"] == {"MemorySizeInMB": 6144, "MaxConcurrency": 10}
    assert "InstanceType" not in variant
    assert "MODEL_REQUIRE_GPU" not in model(template, "Interactive")["Environment"]


def test_in_real_time_a_gpu_is_always_there_and_more_follow_the_calls(realtime: Template) -> None:
    variant = interactive(realtime)
    assert (variant["InitialInstanceCount"], variant["InstanceType"]) == (1, "ml.g6.xlarge")
    assert variant["RoutingConfig"] == {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
    assert model(realtime, "Interactive") == model(realtime, "Bulk")
    (scaled,) = [
        one
        for one in realtime.of("AWS::ApplicationAutoScaling::ScalableTarget").values()
        if one["ResourceId"] == "endpoint/maskdrop-dev-interactive/variant/main"
    ]
    assert (scaled["MinCapacity"], scaled["MaxCapacity"]) == (1, 2)
    followed = [
        one["TargetTrackingScalingPolicyConfiguration"].get("PredefinedMetricSpecification")
        for one in realtime.of("AWS::ApplicationAutoScaling::ScalingPolicy").values()
        if one["PolicyType"] == "TargetTrackingScaling"
    ]
    assert {"PredefinedMetricType": "SageMakerVariantConcurrentRequestsPerModelHighResolution"} in followed


def test_switched_off_there_is_no_second_endpoint_and_the_functions_know(tmp_path: Path) -> None:
    template = synthesize(tmp_path, "dev", interactive="off")["Maskdrop"]
    assert len(template.of("AWS::SageMaker::Endpoint")) == 1
    assert "sagemaker:InvokeEndpoint" not in rights(template, "ApiRole")
    for function in template.of("AWS::Lambda::Function").values():
        variables = function["Environment"]["Variables"]
        assert "MASKDROP_INTERACTIVE" not in variables
        assert variables["MASKDROP_INTERACTIVE_MODE"] == "off"


def test_a_mode_that_there_is_not_stops_synth(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="serverless, realtime, off"):
        synthesize(tmp_path, "dev", interactive="always")


def test_the_bulk_endpoint_reads_photos_and_backgrounds_and_writes_results_alone(template: Template) -> None:
    allowed = rights(template, "BulkRole")
    assert prefixes(allowed["s3:GetObject"]) == {"inbox", "uploads", "backgrounds", "results", "bundles"}
    assert prefixes(allowed["s3:PutObject"]) == {"results", "bundles"}


def test_the_interactive_endpoint_reads_backgrounds_and_writes_large_results_and_nothing_else(
    template: Template, realtime: Template
) -> None:
    for one in (template, realtime):
        allowed = rights(one, "InteractiveRole")
        assert prefixes(allowed["s3:GetObject"]) == {"backgrounds", "uploads/backgrounds"}
        assert prefixes(allowed["s3:PutObject"]) == {"results/cutouts"}
        assert {action for action in allowed if action.startswith("s3:")} == {
            "s3:GetObject", "s3:PutObject", "s3:ListBucket",
        }  # fmt: skip


def test_bodies_pass_the_api_as_they_are_and_it_waits_for_one_picture_as_long_as_it_can(template: Template) -> None:
    (api,) = template.of("AWS::ApiGateway::RestApi").values()
    assert api["BinaryMediaTypes"] == ["*/*"]
    (function,) = [
        one for one in template.of("AWS::Lambda::Function").values() if one["Handler"] == "lambdas.api.handler"
    ]
    assert WAIT_S < function["Timeout"] <= 29


def test_ingest_may_not_read_pictures_and_api_may_delete_all_but_what_was_dropped(template: Template) -> None:
    assert not {action for action in rights(template, "IngestRole") if action.startswith("s3:Get")}
    api = rights(template, "ApiRole")
    assert {action for action in api if not action.startswith(("logs:", "xray:", "dynamodb:"))} == {
        "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "sqs:SendMessage",
        "sagemaker:InvokeEndpoint",
    }  # fmt: skip
    assert prefixes(api["s3:GetObject"]) == {"inbox", "uploads", "results"}
    assert prefixes(api["s3:PutObject"]) == {"uploads"}
    assert prefixes(api["s3:DeleteObject"]) == {"uploads", "results"}


def test_buckets_of_sources_are_readable_to_the_api_and_the_bulk_endpoint_alone(tmp_path: Path) -> None:
    own = synthesize(tmp_path, "dev", source_buckets="shop-photos archive", cors="https://a.example")["Maskdrop"]
    readers = {
        name.partition("Role")[0] for name, statement in statements(own) if "shop-photos" in json.dumps(statement)
    }
    assert readers == {"Api", "Bulk"}
    for role in ("ApiRole", "BulkRole"):
        allowed = rights(own, role)
        assert {action for action, on in allowed.items() if "archive" in on} == {"s3:GetObject", "s3:ListBucket"}
    for function in own.of("AWS::Lambda::Function").values():
        assert function["Environment"]["Variables"]["MASKDROP_SOURCE_BUCKETS"] == "shop-photos archive"
    rules = [
        one["CorsConfiguration"]["CorsRules"]
        for one in own.of("AWS::S3::Bucket").values()
        if "CorsConfiguration" in one
    ]
    assert [rule["AllowedOrigins"] for (rule,) in rules] == [["https://a.example"]] * 2


def test_a_bucket_of_sources_that_cannot_be_stops_synth(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="source_buckets"):
        synthesize(tmp_path, "dev", source_buckets="s3://photos")


def test_api_keeps_jobs_and_counts_calls_and_reads_no_keys(template: Template) -> None:
    jobs, registry = (template.body["Outputs"][f"{name}Table"]["Value"]["Ref"] for name in ("Jobs", "Registry"))
    on_jobs: set[str] = set()
    on_registry: dict[str, dict[str, set[str]]] = {}
    for name, statement in statements(template):
        text, actions = json.dumps(statement["Resource"]), statement["Action"]
        actions = set(actions if isinstance(actions, list) else [actions])
        if f'"{jobs}"' in text and name.startswith("ApiRole"):
            on_jobs |= actions
        if f'"{registry}"' in text:
            kinds = on_registry.setdefault(name.partition("Role")[0], {})
            for kind in statement["Condition"]["ForAllValues:StringEquals"]["dynamodb:LeadingKeys"]:
                kinds.setdefault(kind, set()).update(actions)
    assert on_jobs == {
        "dynamodb:GetItem", "dynamodb:Query", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem",
    }  # fmt: skip
    counts, reads_one, reads_all = (
        {"dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"}, {"dynamodb:GetItem"}, {"dynamodb:Query"},
    )  # fmt: skip
    keeps = {"dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:DeleteItem"}
    assert on_registry == {
        "Authorize": {"key": reads_one}, "Webhooks": {"key": reads_one}, "Ingest": {"preset": reads_all},
        "DeadLetters": {"preset": reads_all},
        "Api": {"window": counts, "usage": counts, "idempotency": keeps, "preset": reads_all},
    }  # fmt: skip


def test_the_bus_hands_on_only_jobs_with_a_webhook_and_loses_none(template: Template) -> None:
    (rule,) = [one for one in template.of("AWS::Events::Rule").values() if "EventPattern" in one]
    assert rule["EventPattern"] == {
        "source": ["maskdrop"], "detail": {"data": {"webhook": {"url": [{"exists": True}]}}},
    }  # fmt: skip
    (told,) = rule["Targets"]
    queue = template.of("AWS::SQS::Queue")[target(told["Arn"])]
    assert target(queue["RedrivePolicy"]["deadLetterTargetArn"]) == target(told["DeadLetterConfig"]["Arn"])
    assert queue["RedrivePolicy"]["maxReceiveCount"] == len(RETRY_S) + 1


def test_who_posts_webhooks_may_put_them_off_and_read_keys_and_nothing_else(template: Template) -> None:
    allowed = {
        action: statement
        for name, statement in statements(template)
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
        if name.startswith("WebhooksRole") and not action.startswith(("logs:", "xray:"))
    }
    assert set(allowed) == {
        "dynamodb:GetItem", "sqs:ReceiveMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueUrl",
        "sqs:DeleteMessage", "sqs:GetQueueAttributes",
    }  # fmt: skip
    assert allowed["dynamodb:GetItem"]["Condition"]["ForAllValues:StringEquals"] == {"dynamodb:LeadingKeys": ["key"]}


def test_no_host_is_trusted_unless_the_stage_says_so(template: Template, tmp_path: Path) -> None:
    def trusted(stack: Template) -> set[str]:
        functions = stack.of("AWS::Lambda::Function").values()
        return {one["Environment"]["Variables"].get("MASKDROP_TRUSTED_HOSTS", "") for one in functions}

    assert trusted(template) == {""}
    own = synthesize(tmp_path, "dev", trusted_hosts="images.corp hooks.corp")["Maskdrop"]
    assert trusted(own) == {"images.corp hooks.corp"}


@pytest.mark.parametrize("host", ["images.corp:8080", "Images.corp", "https://images.corp"])
def test_a_trusted_host_that_could_never_be_met_stops_synth(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValueError, match="trusted_hosts"):
        synthesize(tmp_path, "dev", trusted_hosts=host)


def test_the_tables_are_on_demand_recoverable_and_have_their_indexes(template: Template) -> None:
    tables = template.of("AWS::DynamoDB::Table")
    assert tables.keys() == {template.body["Outputs"][f"{name}Table"]["Value"]["Ref"] for name in ("Jobs", "Registry")}
    for table in tables.values():
        assert table["BillingMode"] == "PAY_PER_REQUEST"
        assert table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
        assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    keys = {
        index["IndexName"]: [key["AttributeName"] for key in index["KeySchema"]]
        for index in tables[template.body["Outputs"]["JobsTable"]["Value"]["Ref"]]["GlobalSecondaryIndexes"]
    }
    assert keys == {
        "by_state": ["state", "recency"],
        "by_source": ["source_key", "recency"],
        "by_owner": ["owner", "recency"],
    }


def methods(template: Template) -> dict[tuple[str, str], dict[str, Any]]:
    """(verb, path) -> the properties of its method."""
    resources = template.of("AWS::ApiGateway::Resource")

    def path(reference: Any) -> str:
        name = target(reference)
        return f"{path(resources[name]['ParentId'])}/{resources[name]['PathPart']}" if name in resources else ""

    found = template.of("AWS::ApiGateway::Method").values()
    return {(one["HttpMethod"], path(one["ResourceId"])): one for one in found}


def test_every_route_asks_for_a_key_or_a_signature_but_those_that_tell_nothing(template: Template) -> None:
    found = {route: method["AuthorizationType"] for route, method in methods(template).items()}
    assert found == {
        ("ANY", "/{proxy+}"): "CUSTOM",
        ("ANY", "/iam/{proxy+}"): "AWS_IAM",
        **{("GET", path): "NONE" for path in OPEN_PATHS},
    }


def test_the_usage_plan_counts_for_the_key_that_the_authorizer_names(template: Template) -> None:
    (api,) = template.of("AWS::ApiGateway::RestApi").values()
    assert api["ApiKeySourceType"] == "AUTHORIZER"
    assert methods(template)["ANY", "/{proxy+}"]["ApiKeyRequired"]
    (plan,) = template.of("AWS::ApiGateway::UsagePlan").values()
    assert set(plan["Throttle"]) == {"RateLimit", "BurstLimit"}
    assert plan["Quota"]["Period"] == "MONTH"


def test_the_authorizer_is_asked_at_every_call_wherever_the_key_is(template: Template) -> None:
    (authorizer,) = template.of("AWS::ApiGateway::Authorizer").values()
    assert (authorizer["Type"], authorizer["AuthorizerResultTtlInSeconds"]) == ("REQUEST", 0)
    assert not authorizer.get("IdentitySource")


def test_what_api_gateway_refuses_by_itself_is_an_error_to_our_clients_and_to_remove_bgs(template: Template) -> None:
    refusals = {one["ResponseType"]: one for one in template.of("AWS::ApiGateway::GatewayResponse").values()}
    assert refusals.keys() >= {"ACCESS_DENIED", "THROTTLED", "REQUEST_TOO_LARGE", "DEFAULT_4XX", "DEFAULT_5XX"}
    for refusal in refusals.values():
        text = refusal["ResponseTemplates"]["application/json"].replace("$context.error.messageString", '"said"')
        body = json.loads(text)
        assert set(body["error"]) == {"code", "message", "retryable"}
        (theirs,) = body["errors"]
        assert (theirs["code"], theirs["title"]) == (body["error"]["code"], body["error"]["message"])
        assert "$" not in text
    assert (refusals["ACCESS_DENIED"]["StatusCode"], refusals["REQUEST_TOO_LARGE"]["StatusCode"]) == ("403", "413")
    for kind in ("THROTTLED", "QUOTA_EXCEEDED"):
        wait = refusals[kind]["ResponseParameters"]["gatewayresponse.header.Retry-After"]
        assert int(wait.strip("'")) > 0


def test_pages_may_call_only_where_the_stage_says_so(template: Template, tmp_path: Path) -> None:
    assert "Access-Control" not in json.dumps(template.body)
    opened = synthesize(tmp_path, "dev", cors="https://a.example https://b.example")["Maskdrop"]
    assert methods(opened)["OPTIONS", "/{proxy+}"]["AuthorizationType"] == "NONE"
    for refusal in opened.of("AWS::ApiGateway::GatewayResponse").values():
        assert refusal["ResponseParameters"]["gatewayresponse.header.Access-Control-Allow-Origin"] == "'*'"
    for function in opened.of("AWS::Lambda::Function").values():
        assert function["Environment"]["Variables"]["MASKDROP_CORS_ORIGINS"] == "https://a.example https://b.example"


def test_a_firewall_is_there_only_for_a_stage_that_asks_and_lets_pictures_through(
    template: Template, tmp_path: Path
) -> None:
    assert "AWS::WAFv2" not in json.dumps(template.body)
    walled = synthesize(tmp_path, "dev", waf="true")["Maskdrop"]
    (acl,) = walled.of("AWS::WAFv2::WebACL").values()
    common, rate = acl["Rules"]
    counted = common["Statement"]["ManagedRuleGroupStatement"]["RuleActionOverrides"]
    assert {"Name": "SizeRestrictions_BODY", "ActionToUse": {"Count": {}}} in counted
    assert rate["Statement"]["RateBasedStatement"]["Limit"] == 50 * 300
    (on,) = walled.of("AWS::WAFv2::WebACLAssociation").values()
    assert "/restapis/" in json.dumps(on["ResourceArn"])


def test_the_stack_says_where_its_parts_are(template: Template) -> None:
    assert set(template.body["Outputs"]) == OUTPUTS


def test_every_alarm_but_the_one_that_wakes_the_endpoint_reaches_a_person(template: Template) -> None:
    mails = [one for one in template.of("AWS::SNS::Subscription").values() if one["Protocol"] == "email"]
    (person,) = [target(one["TopicArn"]) for one in mails]
    told = [one for one in template.of("AWS::CloudWatch::Alarm").values() if one["AlarmActions"] == [{"Ref": person}]]
    assert len(told) == len(template.of("AWS::CloudWatch::Alarm")) - 1


def test_every_alarm_has_a_row_in_the_operations_page(template: Template) -> None:
    """A row may be a pattern, such as `*Errors`."""
    page = (ROOT / "docs" / "operations.md").read_text().partition("| alarm |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `([\w*]+)` \|", page, re.MULTILINE)
    logical_ids = [name for name in template.of("AWS::CloudWatch::Alarm") if name.startswith("Alarms")]
    names = [name.removeprefix("Alarms")[:-8] for name in logical_ids]
    assert [name for name in names if not any(fnmatchcase(name, row) for row in rows)] == []
    assert [row for row in rows if not any(fnmatchcase(name, row) for name in names)] == []


def test_cloudwatch_may_publish_alarms_and_use_the_key_of_the_topic(template: Template) -> None:
    by_cloudwatch = {"Service": "cloudwatch.amazonaws.com"}
    open_to = [
        target(policy["Topics"][0])
        for policy in template.of("AWS::SNS::TopicPolicy").values()
        for one in policy["PolicyDocument"]["Statement"]
        if one["Effect"] == "Allow" and one["Principal"] == by_cloudwatch and one["Action"] == "sns:Publish"
    ]
    told = [
        target(one["TopicArn"]) for one in template.of("AWS::SNS::Subscription").values() if one["Protocol"] == "email"
    ]
    assert open_to == told
    (key,) = template.of("AWS::KMS::Key").values()
    assert by_cloudwatch in [one["Principal"] for one in key["KeyPolicy"]["Statement"]]


def test_s3_may_deliver_access_logs(template: Template) -> None:
    logged = {
        target(bucket["LoggingConfiguration"]["DestinationBucketName"])
        for bucket in template.of("AWS::S3::Bucket").values()
        if "LoggingConfiguration" in bucket
    }
    open_to = {
        target(policy["Bucket"])
        for policy in template.of("AWS::S3::BucketPolicy").values()
        for one in policy["PolicyDocument"]["Statement"]
        if one["Effect"] == "Allow" and one["Principal"] == {"Service": "logging.s3.amazonaws.com"}
    }
    assert len(logged) == 1
    assert logged == open_to


def test_one_dashboard_shows_it(template: Template) -> None:
    assert len(template.of("AWS::CloudWatch::Dashboard")) == 1


def test_the_budget_is_monthly_and_reaches_a_person(stacks: dict[str, Template]) -> None:
    (budget,) = stacks["MaskdropAccount"].of("AWS::Budgets::Budget").values()
    assert budget["Budget"]["TimeUnit"] == "MONTHLY"
    assert {one["Subscribers"][0]["Address"] for one in budget["NotificationsWithSubscribers"]} == {
        "operator@example.com"
    }


def test_the_same_tree_gives_the_same_template(template: Template, tmp_path: Path) -> None:
    again = synthesize(tmp_path, "dev")["Maskdrop"]
    assert again.body == template.body


def test_prod_keeps_what_dev_may_lose(template: Template, tmp_path: Path) -> None:
    prod = synthesize(tmp_path, "prod")["Maskdrop"]
    for stack, policy, protected in ((template, "Delete", False), (prod, "Retain", True)):
        kept = [
            one["DeletionPolicy"]
            for one in stack.body["Resources"].values()
            if one["Type"] in ("AWS::S3::Bucket", "AWS::DynamoDB::Table")
        ]
        assert kept == [policy] * 5
        for table in stack.of("AWS::DynamoDB::Table").values():
            assert table["DeletionProtectionEnabled"] is protected


def test_an_unacknowledged_finding_stops_synth(tmp_path: Path) -> None:
    from aws_cdk import Stack
    from aws_cdk import aws_s3 as s3

    from app import application

    app = application(outdir=str(tmp_path))
    s3.Bucket(cast(Stack, app.node.find_child("Maskdrop-dev")), "Careless")
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()
    assert "AwsSolutions-S10" in (tmp_path / "validation-report.json").read_text()


def test_the_container_is_built_from_the_pins_that_are_tested() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    def pins(path: str) -> list[str]:
        return [line for line in (ROOT / path).read_text().splitlines() if not line.startswith("#")]

    assert pins("sagemaker_model/requirements.txt") == extras["model"]
    assert pins("sagemaker_model/requirements-gpu.txt") == ["--requirement requirements.txt", *extras["gpu"]]
    beside_dev = {*extras["gpu"], *extras["export"], *extras["train"]} - {*extras["dev"]}
    assert pins("requirements-models.txt") == sorted(beside_dev)
    (torch,) = (pin for pin in extras["gpu"] if pin.startswith("torch=="))
    assert torch in pins("requirements-tflite.txt")  # it reads what torch has written

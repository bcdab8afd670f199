from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from infra.container import SWITCHED_OFF
from infra.firewall import COUNTED
from infra.stages import InvalidStage, Stage
from infra.trust import LIMITED
from lambdas.adapters.interactive import WAIT_S
from lambdas.connect import KEYS_ATTEMPTS, KEYS_CONNECT_S, KEYS_READ_S
from lambdas.http.dialects.removebg import TITLES
from local.autoscaling import targets
from local.simulation import System, bulk_target
from maskdrop.access import OPEN_PATHS
from maskdrop.flow import RESPONSES_PREFIX
from maskdrop.settings import Settings
from maskdrop.webhook import RETRY_S
from tests.infra.conftest import Template, synthesize

ROOT = Path(__file__).resolve().parents[2]

OUTPUTS = {
    "InboxBucket", "ResultsBucket", "JobsTable", "RegistryTable", "ApiUrl", "ApiId", "ApiStage", "UsagePlanId",
    "EndpointName", "EventBusName", "JobsQueueUrl", "ResultsQueueUrl", "BundlesQueueUrl", "EditsQueueUrl",
    "DeadLettersQueueUrl",
}  # fmt: skip

FUNCTIONS = ("ingest", "invoke", "edit", "record", "sweep", "dead_letters", "webhooks", "authorize", "api")


def target(reference: Any) -> str:
    """Returns the logical ID that a Ref or a GetAtt refers to."""
    return str(reference["Ref"] if "Ref" in reference else reference["Fn::GetAtt"][0])


def model(template: Template) -> dict[str, Any]:
    """Returns the container definition of the model of the stack of an endpoint."""
    (found,) = template.of("AWS::SageMaker::Model").values()
    container: dict[str, Any] = found["PrimaryContainer"]
    return container


def tag(container: dict[str, Any]) -> str:
    return str(container["Image"]["Fn::Join"][1][-1])


def permissions(template: Template, role: str) -> dict[str, str]:
    """Returns the resources, as JSON text, by action that a role allows."""
    found: dict[str, str] = {}
    for name, statement in statements(template):
        if name.startswith(role):
            for action in [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]:
                found[action] = found.get(action, "") + json.dumps(statement["Resource"])
    return found


def prefixes(resources: str) -> set[str]:
    """Returns the key prefixes in the resources of `permissions`."""
    return set(re.findall(r'"/([a-z/]+)/\*"', resources))


def statements(template: Template) -> list[tuple[str, dict[str, Any]]]:
    """Returns (logical ID, statement) of every role policy."""
    found: list[tuple[str, dict[str, Any]]] = []
    for name, resource in template.body["Resources"].items():
        if resource["Type"] == "AWS::IAM::Policy":
            found.append((name, resource["Properties"]["PolicyDocument"]))
        if resource["Type"] == "AWS::IAM::Role":
            found += [(name, policy["PolicyDocument"]) for policy in resource["Properties"].get("Policies", [])]
    assert found, "no policy in the template"
    return [(name, statement) for name, document in found for statement in document["Statement"]]


def test_the_visibility_timeout_is_at_least_six_times_the_function_timeout(template: Template) -> None:
    queues, functions = template.of("AWS::SQS::Queue"), template.of("AWS::Lambda::Function")
    for mapping in template.of("AWS::Lambda::EventSourceMapping").values():
        queue, function = queues[target(mapping["EventSourceArn"])], functions[target(mapping["FunctionName"])]
        assert queue["VisibilityTimeout"] >= 6 * function["Timeout"] + mapping.get("MaximumBatchingWindowInSeconds", 0)


def test_all_queues_have_the_same_dead_letter_queue_and_retain_messages_for_14_days(template: Template) -> None:
    queues = template.of("AWS::SQS::Queue")
    (dead,) = {
        target(queue["RedrivePolicy"]["deadLetterTargetArn"]) for queue in queues.values() if "RedrivePolicy" in queue
    }
    assert {name for name, queue in queues.items() if "RedrivePolicy" not in queue} == {dead}
    assert {queue["MessageRetentionPeriod"] for queue in queues.values()} == {14 * 24 * 3600}
    assert all(queue["SqsManagedSseEnabled"] for queue in queues.values())


def test_a_function_reads_the_dead_letter_queue_every_5_minutes(template: Template) -> None:
    """An event source would take 2 of 10 concurrent executions."""
    dead = template.body["Outputs"]["DeadLettersQueueUrl"]["Value"]["Ref"]
    read = {target(mapping["EventSourceArn"]) for mapping in template.of("AWS::Lambda::EventSourceMapping").values()}
    assert dead not in read
    (rule,) = [one for name, one in template.of("AWS::Events::Rule").items() if name.startswith("DeadLetters")]
    assert rule["ScheduleExpression"] == "rate(5 minutes)"
    assert target(rule["Targets"][0]["Arn"]).startswith("DeadLettersFunction")
    allowed = permissions(template, "DeadLettersRole")
    for action in ("sqs:ReceiveMessage", "sqs:DeleteMessage"):
        assert dead in allowed[action]


@pytest.mark.parametrize(
    ("options", "concurrency", "each"),
    [
        ({}, 10, 2),
        ({"bulk": "gpu"}, 10, 2),
        ({"lambda_concurrency": 20, "bulk_at_once": 6}, 20, 4),
        ({"lambda_concurrency": 100}, 100, 10),
        ({"lambda_concurrency": 1000, "bulk_at_once": 100}, 1000, 10),
    ],
)
def test_the_event_sources_leave_concurrent_executions_to_the_api(
    tmp_path: Path, options: dict[str, Any], concurrency: int, each: int
) -> None:
    template = synthesize(tmp_path, "dev", **options)["Maskdrop"]
    limits = {
        target(mapping["EventSourceArn"]).removeprefix("Queues")[:-8]: mapping["ScalingConfig"]["MaximumConcurrency"]
        for mapping in template.of("AWS::Lambda::EventSourceMapping").values()
    }
    assert limits.pop("Edits") == 2  # of those left to the API where there are only 10
    assert limits.pop("Bundles", 0) == (0 if options.get("bulk") else options.get("bulk_at_once", 2))
    assert limits == {"Jobs": each, "Results": each, "Webhooks": each}
    assert sum(limits.values()) + options.get("bulk_at_once", 2) <= concurrency - 2  # the API and its authorizer


def test_every_queue_consumer_reports_batch_item_failures(template: Template) -> None:
    for mapping in template.of("AWS::Lambda::EventSourceMapping").values():
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert mapping["ScalingConfig"]["MaximumConcurrency"] >= 2


def test_a_failed_or_throttled_scheduled_function_does_not_run_beside_the_next_one(template: Template) -> None:
    rules = [rule for rule in template.of("AWS::Events::Rule").values() if "ScheduleExpression" in rule]
    scheduled = {target["Arn"]["Fn::GetAtt"][0] for rule in rules for target in rule["Targets"]}
    assert len(scheduled) == 2
    limits = {
        one["FunctionName"]["Ref"]: (one["MaximumRetryAttempts"], one["MaximumEventAgeInSeconds"])
        for one in template.of("AWS::Lambda::EventInvokeConfig").values()
    }
    assert limits == dict.fromkeys(scheduled, (0, 300))


def test_every_bucket_blocks_public_access_and_is_encrypted(template: Template) -> None:
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
def test_every_bucket_queue_and_topic_denies_requests_without_tls(
    template: Template, resource: str, policy: str, key: str
) -> None:
    protected = set()
    for properties in template.of(policy).values():
        denials = [one for one in properties["PolicyDocument"]["Statement"] if one["Effect"] == "Deny"]
        if {"Bool": {"aws:SecureTransport": "false"}} in [one["Condition"] for one in denials]:
            references = properties[key]
            protected |= {target(one) for one in (references if isinstance(references, list) else [references])}
    assert protected == set(template.of(resource))


def test_topics_are_encrypted(template: Template) -> None:
    assert all(topic["KmsMasterKeyId"] for topic in template.of("AWS::SNS::Topic").values())


def test_the_inbox_notifies_the_jobs_queue_and_depends_on_its_policy(template: Template) -> None:
    inbox = template.body["Outputs"]["InboxBucket"]["Value"]["Ref"]
    jobs = template.body["Outputs"]["JobsQueueUrl"]["Value"]["Ref"]
    (notification,) = template.of("AWS::S3::Bucket")[inbox]["NotificationConfiguration"]["QueueConfigurations"]
    assert target(notification["Queue"]) == jobs
    assert notification["Filter"]["S3Key"]["Rules"] == [{"Name": "prefix", "Value": "inbox/"}]
    (policy,) = [name for name, one in template.of("AWS::SQS::QueuePolicy").items() if target(one["Queues"][0]) == jobs]
    assert policy in template.body["Resources"][inbox]["DependsOn"]


def test_the_policy_of_the_jobs_queue_matches_the_generated_name_of_the_inbox(template: Template) -> None:
    jobs = template.body["Outputs"]["JobsQueueUrl"]["Value"]["Ref"]
    (policy,) = [one for one in template.of("AWS::SQS::QueuePolicy").values() if target(one["Queues"][0]) == jobs]
    (allowed,) = [one for one in policy["PolicyDocument"]["Statement"] if one["Effect"] == "Allow"]
    pattern = allowed["Condition"]["ArnLike"]["aws:SourceArn"]["Fn::Join"][1][-1]
    # CloudFormation names an unnamed bucket <stack>-<logical ID>-<random>, in lower case.
    assert pattern == ":s3:::" + "Maskdrop-dev".lower() + "-*"
    assert allowed["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
    inbox = template.body["Outputs"]["InboxBucket"]["Value"]["Ref"]
    assert "BucketName" not in template.of("AWS::S3::Bucket")[inbox]


def test_the_bulk_endpoint_scales_to_zero_and_has_both_scaling_policies(on_gpu: dict[str, Template]) -> None:
    template = on_gpu["MaskdropBulk"]
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


def exported(template: Template, value: dict[str, str]) -> Any:
    """Returns the value that another stack exports and `value` imports."""
    outputs = template.body["Outputs"].values()
    (found,) = [one["Value"] for one in outputs if one.get("Export", {}).get("Name") == value["Fn::ImportValue"]]
    return found


def test_the_endpoint_writes_results_and_notifications_where_the_functions_read_them(
    on_gpu: dict[str, Template],
) -> None:
    template = on_gpu["Maskdrop"]
    (config,) = on_gpu["MaskdropBulk"].of("AWS::SageMaker::EndpointConfig").values()
    output = config["AsyncInferenceConfig"]["OutputConfig"]
    results = template.body["Outputs"]["ResultsBucket"]["Value"]
    prefix, bucket, path = output["S3OutputPath"]["Fn::Join"][1]
    assert (prefix, exported(template, bucket), path) == ("s3://", results, f"/{RESPONSES_PREFIX}")
    topics = {target(exported(template, topic)) for topic in output["NotificationConfig"].values()}
    queue = template.body["Outputs"]["ResultsQueueUrl"]["Value"]["Ref"]
    subscriptions = template.of("AWS::SNS::Subscription").values()
    to_queue = [one for one in subscriptions if one["Protocol"] == "sqs"]
    assert {target(one["TopicArn"]) for one in to_queue} == topics
    assert {target(one["Endpoint"]) for one in to_queue} == {queue}
    assert all(one["RawMessageDelivery"] for one in to_queue)


def test_endpoints_on_instances_read_custom_weights_uncompressed(
    stacks: dict[str, Template], on_gpu: dict[str, Template]
) -> None:
    for name in ("Bulk", "Interactive"):
        own = on_gpu[f"Maskdrop{name}"]
        container = model(own)
        assert container["ModelDataSource"]["S3DataSource"] == {
            "S3Uri": "s3://models/maskdrop/1/", "S3DataType": "S3Prefix", "CompressionType": "None",
        }  # fmt: skip
        assert container["Environment"]["MODEL_WEIGHTS_DIR"] == "/opt/ml/model"
        allowed = permissions(own, name)
        assert ":s3:::models/maskdrop/1/*" in allowed["s3:GetObject"]
        assert ':s3:::models"' in allowed["s3:ListBucket"]
        assert "models" not in allowed["s3:PutObject"]
        assert "ModelDataSource" not in model(stacks[f"Maskdrop{name}"])


@pytest.mark.parametrize("weights", ["s3://models", "s3://models/", "s3://models/1", "models/1/", "s3:///1/"])
def test_synthesis_fails_for_an_invalid_weights_prefix(tmp_path: Path, weights: str) -> None:
    with pytest.raises(InvalidStage, match="weights"):
        synthesize(tmp_path, "dev", weights=weights)


def test_the_application_imports_no_value_of_another_stack_and_endpoints_name_their_image(
    stacks: dict[str, Template],
) -> None:
    assert "Fn::ImportValue" not in json.dumps(stacks["Maskdrop"].body)
    for name in ("Bulk", "Interactive"):
        assert tag(model(stacks[f"Maskdrop{name}"])).startswith("/maskdrop-dev:")


@pytest.mark.parametrize("packages", ["", "requirements.txt"])
def test_the_build_pushes_the_image_of_every_endpoint(
    stacks: dict[str, Template], on_gpu: dict[str, Template], packages: str
) -> None:
    found = stacks if packages else on_gpu
    (built,) = found["MaskdropImage"].of("Custom::Image").values()
    (project,) = found["MaskdropImage"].of("AWS::CodeBuild::Project").values()
    name, _, version = tag(model(found["MaskdropBulk"])).partition(":")
    assert name == "/maskdrop-dev"
    image = f'"$REPOSITORY:{version.replace(built["Tag"], "$TAG")}"'
    commands = json.loads(project["Source"]["BuildSpec"])["phases"]["build"]["commands"]
    assert f"docker manifest inspect {image} > /dev/null 2>&1 || docker push {image}" in commands
    (build,) = [command for command in commands if f"--tag {image}" in command]
    assert build.partition("PACKAGES=")[2].partition(" ")[0] == packages


def test_every_function_reads_the_settings_that_infra_writes(template: Template) -> None:
    for function in template.functions:
        variables = function["Environment"]["Variables"]
        filled = {name: value if isinstance(value, str) else target(value) for name, value in variables.items()}
        settings = Settings.from_env(filled)
        assert settings.to_env() == {name: value for name, value in filled.items() if name.startswith("MASKDROP_")}
        assert settings.inbox == template.body["Outputs"]["InboxBucket"]["Value"]["Ref"]
        assert settings.endpoint == template.body["Outputs"]["EndpointName"]["Value"]
        assert (settings.interactive, settings.interactive_mode) == (
            "maskdrop-dev-interactive-serverless",
            "serverless",
        )


def test_the_template_contains_no_local_setting(template: Template) -> None:
    text = json.dumps(template.body)
    assert "AWS_ENDPOINT" not in text
    assert "localhost" not in text
    assert "127.0.0.1" not in text


def test_every_handler_exists_in_lambdas(template: Template) -> None:
    handlers = {function["Handler"] for function in template.functions}
    assert handlers == {f"lambdas.{name}.handler" for name in FUNCTIONS}
    for handler in handlers:
        module, _, name = handler.rpartition(".")
        found = importlib.util.find_spec(module)
        assert found
        assert f"def {name}(" in Path(str(found.origin)).read_text()


def test_functions_use_arm64_python_3_14_tracing_and_json_logs(template: Template) -> None:
    for function in template.functions:
        assert function["Architectures"] == ["arm64"]
        assert function["Runtime"] == "python3.14"
        assert function["TracingConfig"] == {"Mode": "Active"}
        assert function["LoggingConfig"]["LogFormat"] == "JSON"
        service = function["Handler"].split(".")[1]
        assert function["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"] == f"maskdrop-{service}"


def test_roles_name_actions_and_resources_without_wildcards(template: Template) -> None:
    without_resources = {
        "xray:PutTraceSegments",
        "xray:PutTelemetryRecords",
        "ecr:GetAuthorizationToken",
        "cloudwatch:PutMetricData",
    }
    for name, statement in statements(template):
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not [action for action in actions if "*" in action], name
        if statement["Resource"] == "*":
            assert set(actions) <= without_resources, name


def variant(template: Template) -> dict[str, Any]:
    """Returns the production variant in the stack of an endpoint."""
    (config,) = template.of("AWS::SageMaker::EndpointConfig").values()
    (found,) = config["ProductionVariants"]
    return dict(found)


@pytest.mark.parametrize(("name", "concurrency"), [("MaskdropBulk", 2), ("MaskdropInteractive", 3)])
def test_endpoints_are_serverless_on_cpus_by_default(stacks: dict[str, Template], name: str, concurrency: int) -> None:
    one = variant(stacks[name])
    assert one["ServerlessConfig"] == {"MemorySizeInMB": 3072, "MaxConcurrency": concurrency}
    assert "InstanceType" not in one
    assert "MODEL_REQUIRE_GPU" not in model(stacks[name])["Environment"]
    assert tag(model(stacks[name])).endswith("-cpu")


def test_an_endpoint_on_cpu_instances_scales_to_zero_without_the_image_and_the_settings_of_a_gpu(
    tmp_path: Path,
) -> None:
    bulk = synthesize(tmp_path, "dev", bulk="cpu")["MaskdropBulk"]
    one = variant(bulk)
    assert one["InstanceType"] == "ml.c6i.xlarge"
    assert "InferenceAmiVersion" not in one
    assert tag(model(bulk)).endswith("-cpu")
    assert model(bulk)["Environment"]["MODEL_DEVICE"] == "cpu"
    assert "MODEL_REQUIRE_GPU" not in model(bulk)["Environment"]
    (scaled,) = bulk.of("AWS::ApplicationAutoScaling::ScalableTarget").values()
    assert scaled["MinCapacity"] == 0


def test_a_realtime_endpoint_keeps_one_gpu_instance_and_scales_with_concurrent_requests(
    on_gpu: dict[str, Template],
) -> None:
    realtime = on_gpu["MaskdropInteractive"]
    one = variant(realtime)
    assert (one["InitialInstanceCount"], one["InstanceType"]) == (1, "ml.g6.xlarge")
    assert one["RoutingConfig"] == {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
    assert model(realtime) == model(on_gpu["MaskdropBulk"])
    (scaled,) = realtime.of("AWS::ApplicationAutoScaling::ScalableTarget").values()
    assert (scaled["MinCapacity"], scaled["MaxCapacity"]) == (1, 2)
    assert scaled["ResourceId"] == "endpoint/maskdrop-dev-interactive-g6-xlarge/variant/main"
    (policy,) = realtime.of("AWS::ApplicationAutoScaling::ScalingPolicy").values()
    assert policy["TargetTrackingScalingPolicyConfiguration"]["PredefinedMetricSpecification"] == {
        "PredefinedMetricType": "SageMakerVariantConcurrentRequestsPerModelHighResolution"
    }


def test_an_update_keeps_the_number_of_instances_and_is_rolled_back_when_requests_fail(
    on_gpu: dict[str, Template],
) -> None:
    for name, replaced in (("MaskdropBulk", False), ("MaskdropInteractive", True)):
        (endpoint,) = on_gpu[name].of("AWS::SageMaker::Endpoint").values()
        assert endpoint["RetainAllVariantProperties"]
        # A quota of one instance leaves no room for a second set of instances.
        assert ("DeploymentConfig" in endpoint) is replaced
    (alarm,) = endpoint["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]
    assert target(alarm["AlarmName"]) in on_gpu["MaskdropInteractive"].of("AWS::CloudWatch::Alarm")


def test_with_interactive_off_there_is_no_interactive_endpoint_and_functions_receive_the_mode(tmp_path: Path) -> None:
    stacks = synthesize(tmp_path, "dev", interactive="off")
    (resource,) = stacks["MaskdropInteractive"].body["Resources"].values()
    assert resource["Type"] == "AWS::CloudFormation::WaitConditionHandle"
    assert "sagemaker:InvokeEndpoint" not in permissions(stacks["Maskdrop"], "ApiRole")
    for function in stacks["Maskdrop"].functions:
        variables = function["Environment"]["Variables"]
        assert "MASKDROP_INTERACTIVE" not in variables
        assert variables["MASKDROP_INTERACTIVE_MODE"] == "off"


def test_the_application_exports_the_same_values_in_every_mode(
    stacks: dict[str, Template], on_gpu: dict[str, Template]
) -> None:
    """CloudFormation refuses to remove an export that the stack of an endpoint still imports."""
    exports = [
        {name for name, one in found["Maskdrop"].body["Outputs"].items() if "Export" in one}
        for found in (stacks, on_gpu)
    ]
    assert exports[0] == exports[1]


def test_the_bulk_endpoint_reads_photos_and_backgrounds_and_writes_only_results(
    stacks: dict[str, Template], on_gpu: dict[str, Template]
) -> None:
    for one in (stacks, on_gpu):
        allowed = permissions(one["MaskdropBulk"], "Bulk")
        assert prefixes(allowed["s3:GetObject"]) == {
            "inbox", "uploads", "backgrounds", "results", "bundles/in", "edits",
        }  # fmt: skip
        assert prefixes(allowed["s3:PutObject"]) == {
            "results", "edits", "bundles/out", "bundles/failed", "bundles/started",
        }  # fmt: skip


def test_the_interactive_endpoint_reads_only_backgrounds_and_writes_only_large_results(
    stacks: dict[str, Template], on_gpu: dict[str, Template]
) -> None:
    for one in (stacks, on_gpu):
        allowed = permissions(one["MaskdropInteractive"], "Interactive")
        assert prefixes(allowed["s3:GetObject"]) == {"backgrounds", "uploads/backgrounds"}
        assert prefixes(allowed["s3:PutObject"]) == {"results/cutouts"}
        assert {action for action in allowed if action.startswith("s3:")} == {
            "s3:GetObject", "s3:PutObject", "s3:ListBucket",
        }  # fmt: skip


def test_the_api_treats_every_body_as_binary_and_its_timeout_covers_a_synchronous_request(template: Template) -> None:
    (api,) = template.of("AWS::ApiGateway::RestApi").values()
    assert api["BinaryMediaTypes"] == ["*/*"]
    (function,) = [one for one in template.functions if one["Handler"] == "lambdas.api.handler"]
    assert WAIT_S < function["Timeout"] <= 29


def test_ingest_cannot_read_images_and_the_api_cannot_delete_photos_of_the_inbox(template: Template) -> None:
    assert not {action for action in permissions(template, "IngestRole") if action.startswith("s3:Get")}
    api = permissions(template, "ApiRole")
    assert {action for action in api if not action.startswith(("logs:", "xray:", "dynamodb:"))} == {
        "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "sqs:SendMessage",
        "sagemaker:InvokeEndpoint",
    }  # fmt: skip
    assert prefixes(api["s3:GetObject"]) == {"inbox", "uploads", "results"}
    assert prefixes(api["s3:PutObject"]) == {"uploads"}
    assert prefixes(api["s3:DeleteObject"]) == {"uploads", "results", "edits"}


def test_only_the_api_and_the_bulk_endpoint_can_read_source_buckets(tmp_path: Path) -> None:
    found = synthesize(tmp_path, "dev", source_buckets=["shop-photos/2026/", "archive"], cors=["https://a.example"])
    own = found["Maskdrop"]
    readers = {
        name.partition("Role")[0]
        for stack in (own, found["MaskdropBulk"], found["MaskdropInteractive"])
        for name, statement in statements(stack)
        if "shop-photos" in json.dumps(statement)
    }
    assert readers == {"Api", "BulkServerless"}
    for stack, role in ((own, "ApiRole"), (found["MaskdropBulk"], "BulkServerlessRole")):
        allowed = permissions(stack, role)
        assert {action for action, on in allowed.items() if "archive" in on} == {"s3:GetObject", "s3:ListBucket"}
        assert ":s3:::shop-photos/2026/*" in allowed["s3:GetObject"]
        assert ":s3:::shop-photos/*" not in allowed["s3:GetObject"]
    for function in own.functions:
        assert function["Environment"]["Variables"]["MASKDROP_SOURCE_BUCKETS"] == "shop-photos/2026/ archive"
    rules = [
        one["CorsConfiguration"]["CorsRules"]
        for one in own.of("AWS::S3::Bucket").values()
        if "CorsConfiguration" in one
    ]
    assert [rule["AllowedOrigins"] for (rule,) in rules] == [["https://a.example"]] * 2


def test_synthesis_fails_for_an_invalid_source_bucket(tmp_path: Path) -> None:
    with pytest.raises(InvalidStage, match="source_buckets"):
        synthesize(tmp_path, "dev", source_buckets=["s3://photos"])


def test_the_permissions_of_the_api_on_tables_exclude_api_keys(template: Template) -> None:
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
            # ForAllValues is true for a request without partition keys, such as a scan.
            assert statement["Condition"]["Null"] == {"dynamodb:LeadingKeys": "false"}
            for kind in statement["Condition"]["ForAllValues:StringEquals"]["dynamodb:LeadingKeys"]:
                kinds.setdefault(kind, set()).update(actions)
    assert on_jobs == {
        "dynamodb:GetItem", "dynamodb:Query", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem",
    }  # fmt: skip
    counts, reads_one, reads_all = (
        {"dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"}, {"dynamodb:GetItem"}, {"dynamodb:Query"},
    )  # fmt: skip
    keeps = {"dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:DeleteItem"}
    puts = {"dynamodb:PutItem", "dynamodb:DeleteItem"}
    assert on_registry == {
        "Authorize": {"key": reads_one},
        "Webhooks": {"secret": reads_one, "slot": puts, "receiver": counts | puts},
        "Ingest": {"preset": reads_all, "valve": keeps | reads_all},
        "DeadLetters": {"preset": reads_all, "valve": keeps},
        "Record": {"valve": keeps}, "Sweep": {"valve": reads_one},
        "Edit": {**dict.fromkeys(("edit", "usage", "circuit"), counts | keeps), "cap": reads_one},
        "Api": {
            "window": counts, "usage": counts, "idempotency": keeps, "preset": reads_all,
            "slot": puts, "cap": reads_one,
        },
    }  # fmt: skip


def test_the_webhook_rule_matches_only_jobs_with_a_webhook_and_has_a_dead_letter_queue(template: Template) -> None:
    (rule,) = [one for one in template.of("AWS::Events::Rule").values() if "EventPattern" in one]
    assert rule["EventPattern"] == {
        "source": ["maskdrop"], "detail": {"data": {"webhook": {"url": [{"exists": True}]}}},
    }  # fmt: skip
    (rule_target,) = rule["Targets"]
    queue = template.of("AWS::SQS::Queue")[target(rule_target["Arn"])]
    assert target(queue["RedrivePolicy"]["deadLetterTargetArn"]) == target(rule_target["DeadLetterConfig"]["Arn"])
    assert queue["RedrivePolicy"]["maxReceiveCount"] == len(RETRY_S) + 1


def test_the_webhooks_role_can_only_use_its_queue_and_read_secrets(template: Template) -> None:
    allowed: dict[str, list[Any]] = {}
    for name, statement in statements(template):
        if name.startswith("WebhooksRole"):
            actions = statement["Action"]
            for action in actions if isinstance(actions, list) else [actions]:
                allowed.setdefault(action, []).append(statement)
    assert {action for action in allowed if not action.startswith(("logs:", "xray:"))} == {
        "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem",
        "sqs:ReceiveMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueUrl", "sqs:DeleteMessage",
        "sqs:GetQueueAttributes", "sqs:SendMessage",
    }  # fmt: skip
    reads = [one["Condition"]["ForAllValues:StringEquals"] for one in allowed["dynamodb:GetItem"]]
    assert reads == [{"dynamodb:LeadingKeys": ["secret"]}, {"dynamodb:LeadingKeys": ["receiver"]}]
    assert (
        len({json.dumps(one["Resource"]) for name in allowed if name.startswith("sqs:") for one in allowed[name]}) == 1
    )


def test_events_reach_the_webhooks_queue_in_the_message_group_of_their_owner(template: Template) -> None:
    (rule,) = [one for one in template.of("AWS::Events::Rule").values() if "webhook" in json.dumps(one)]
    assert [target["SqsParameters"] for target in rule["Targets"]] == [{"MessageGroupId": "$.detail.delivery.group"}]


def test_services_assume_roles_for_this_account_alone(stacks: dict[str, Template], on_gpu: dict[str, Template]) -> None:
    limited: set[str] = set()
    for template in (*stacks.values(), *on_gpu.values()):
        for resource in template.body["Resources"].values():
            if resource["Type"] != "AWS::IAM::Role":
                continue
            for statement in resource["Properties"]["AssumeRolePolicyDocument"]["Statement"]:
                service = statement["Principal"].get("Service", "")
                if service in LIMITED:
                    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
                    limited.add(service)
                else:
                    assert service in ("lambda.amazonaws.com", "apigateway.amazonaws.com"), statement
    assert {"sagemaker.amazonaws.com", "codebuild.amazonaws.com"} <= limited


def test_the_authorizer_has_executions_of_its_own_where_the_account_can_reserve_them() -> None:
    assert Stage(name="dev").reserved == {}
    assert Stage(name="dev", lambda_concurrency=119).reserved == {}
    assert Stage(name="dev", lambda_concurrency=120).reserved == {"authorize": 20}
    own = Stage(name="dev", lambda_concurrency=200, reserved_concurrency={"api": 50, "authorize": 5})
    assert own.reserved == {"api": 50, "authorize": 5}


def test_one_owner_may_use_a_part_of_the_executions(template: Template) -> None:
    (api,) = [one for one in template.functions if one["Handler"] == "lambdas.api.handler"]
    limits = ("FETCHES", "CALLS", "WEBHOOKS")
    found = [api["Environment"]["Variables"][f"MASKDROP_{name}_AT_ONCE"] for name in limits]
    assert found == ["2", "8", "1"]
    large = Stage(name="dev", lambda_concurrency=1000)
    assert (large.fetches_at_once, large.calls_at_once, large.webhooks_at_once) == (100, 500, 3)


def test_no_host_is_trusted_by_default(template: Template, tmp_path: Path) -> None:
    def trusted(stack: Template) -> set[str]:
        return {one["Environment"]["Variables"].get("MASKDROP_TRUSTED_HOSTS", "") for one in stack.functions}

    assert trusted(template) == {""}
    own = synthesize(tmp_path, "dev", trusted_hosts=["images.corp", "hooks.corp"])["Maskdrop"]
    assert trusted(own) == {"images.corp hooks.corp"}


@pytest.mark.parametrize("host", ["images.corp:8080", "Images.corp", "https://images.corp"])
def test_synthesis_fails_for_an_invalid_trusted_host(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidStage, match="trusted_hosts"):
        synthesize(tmp_path, "dev", trusted_hosts=[host])


def test_the_tables_have_on_demand_billing_point_in_time_recovery_ttl_and_indexes(template: Template) -> None:
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
        "by_owner": ["owner", "recency"],
    }


def methods(template: Template) -> dict[tuple[str, str], dict[str, Any]]:
    """Returns the properties of every method by (HTTP method, path)."""
    resources = template.of("AWS::ApiGateway::Resource")

    def path(reference: Any) -> str:
        name = target(reference)
        return f"{path(resources[name]['ParentId'])}/{resources[name]['PathPart']}" if name in resources else ""

    found = template.of("AWS::ApiGateway::Method").values()
    return {(one["HttpMethod"], path(one["ResourceId"])): one for one in found}


def test_every_route_except_the_public_ones_requires_a_key_or_a_signature(template: Template) -> None:
    found = {route: method["AuthorizationType"] for route, method in methods(template).items()}
    assert found == {
        ("ANY", "/{proxy+}"): "CUSTOM",
        ("ANY", "/iam/{proxy+}"): "AWS_IAM",
        **{("GET", path): "NONE" for path in OPEN_PATHS},
    }


def test_the_usage_plan_counts_requests_by_the_key_of_the_authorizer(template: Template) -> None:
    (api,) = template.of("AWS::ApiGateway::RestApi").values()
    assert api["ApiKeySourceType"] == "AUTHORIZER"
    assert methods(template)["ANY", "/{proxy+}"]["ApiKeyRequired"]
    (plan,) = template.of("AWS::ApiGateway::UsagePlan").values()
    assert set(plan["Throttle"]) == {"RateLimit", "BurstLimit"}
    assert plan["Quota"]["Period"] == "MONTH"


def test_one_key_cannot_use_the_requests_of_all_callers(template: Template) -> None:
    (plan,) = template.of("AWS::ApiGateway::UsagePlan").values()
    (stage,) = template.of("AWS::ApiGateway::Stage").values()
    (all_callers,) = stage["MethodSettings"]
    assert plan["Throttle"]["RateLimit"] * 2 <= all_callers["ThrottlingRateLimit"]
    assert plan["Throttle"]["BurstLimit"] * 2 <= all_callers["ThrottlingBurstLimit"]


def test_the_authorizer_runs_for_every_request_without_caching(template: Template) -> None:
    (authorizer,) = template.of("AWS::ApiGateway::Authorizer").values()
    assert (authorizer["Type"], authorizer["AuthorizerResultTtlInSeconds"]) == ("REQUEST", 0)
    assert not authorizer.get("IdentitySource")


def test_errors_of_api_gateway_have_the_forms_of_both_dialects(template: Template) -> None:
    responses = {one["ResponseType"]: one for one in template.of("AWS::ApiGateway::GatewayResponse").values()}
    assert responses.keys() >= {"ACCESS_DENIED", "THROTTLED", "REQUEST_TOO_LARGE", "DEFAULT_4XX", "DEFAULT_5XX"}
    for response in responses.values():
        text = response["ResponseTemplates"]["application/json"].replace("$context.error.messageString", '"text"')
        body = json.loads(text)
        assert set(body["error"]) == {"code", "message", "retryable"}
        (removebg,) = body["errors"]
        code, message = body["error"]["code"], body["error"]["message"]
        vendor_title = TITLES.get(code)
        assert (removebg["code"], removebg["title"]) == (code, vendor_title or message)
        assert removebg["detail"] == (message if vendor_title else "")
        assert "$" not in text
    assert (responses["ACCESS_DENIED"]["StatusCode"], responses["REQUEST_TOO_LARGE"]["StatusCode"]) == ("403", "413")


@pytest.mark.parametrize("kind", ["AUTHORIZER_FAILURE", "AUTHORIZER_CONFIGURATION_ERROR", "INTEGRATION_FAILURE"])
def test_a_function_that_is_throttled_or_fails_to_authorize_is_503(template: Template, kind: str) -> None:
    responses = {one["ResponseType"]: one for one in template.of("AWS::ApiGateway::GatewayResponse").values()}
    assert responses[kind]["StatusCode"] == "503"
    assert json.loads(responses[kind]["ResponseTemplates"]["application/json"])["error"]["code"] == "overloaded"


def test_every_retryable_error_of_api_gateway_has_retry_after(template: Template) -> None:
    for response in template.of("AWS::ApiGateway::GatewayResponse").values():
        retryable = '"retryable": true' in response["ResponseTemplates"]["application/json"]
        retry_after = response.get("ResponseParameters", {}).get("gatewayresponse.header.Retry-After", "")
        assert retry_after.strip("'").isdecimal() == retryable


def test_no_response_of_api_gateway_may_be_cached_or_read_as_another_type(template: Template) -> None:
    for response in template.of("AWS::ApiGateway::GatewayResponse").values():
        headers = response["ResponseParameters"]
        assert headers["gatewayresponse.header.Cache-Control"] == "'no-store'"
        assert headers["gatewayresponse.header.X-Content-Type-Options"] == "'nosniff'"


def test_the_authorizer_gives_up_before_its_timeout(template: Template) -> None:
    """A timeout would end the execution environment, and the next request would wait for a cold start."""
    (function,) = [one for one in template.functions if one["Handler"] == "lambdas.authorize.handler"]
    assert KEYS_ATTEMPTS == 2
    pause_s = 1  # before the second attempt botocore's standard mode waits at most 1 s
    assert KEYS_ATTEMPTS * (KEYS_CONNECT_S + KEYS_READ_S) + pause_s < function["Timeout"]


def test_cors_is_off_by_default_and_allows_the_origins_of_the_stage(template: Template, tmp_path: Path) -> None:
    assert "Access-Control" not in json.dumps(template.body)
    opened = synthesize(tmp_path, "dev", cors=["https://a.example", "https://b.example"])["Maskdrop"]
    assert methods(opened)["OPTIONS", "/{proxy+}"]["AuthorizationType"] == "NONE"
    for response in opened.of("AWS::ApiGateway::GatewayResponse").values():
        assert response["ResponseParameters"]["gatewayresponse.header.Access-Control-Allow-Origin"] == "'*'"
    for function in opened.functions:
        assert function["Environment"]["Variables"]["MASKDROP_CORS_ORIGINS"] == "https://a.example https://b.example"


def test_waf_is_off_by_default_and_only_counts_rules_that_valid_requests_match(
    template: Template, tmp_path: Path
) -> None:
    assert "AWS::WAFv2" not in json.dumps(template.body)
    protected = synthesize(tmp_path, "dev", waf=True)["Maskdrop"]
    (acl,) = protected.of("AWS::WAFv2::WebACL").values()
    common, rate = acl["Rules"]
    counted = common["Statement"]["ManagedRuleGroupStatement"]["RuleActionOverrides"]
    assert {one["Name"]: one["ActionToUse"] for one in counted} == {
        f"{name}_{part}": {"Count": {}}
        for name, part in (
            ("NoUserAgent", "HEADER"), ("SizeRestrictions", "QUERYSTRING"), ("SizeRestrictions", "BODY"),
            ("CrossSiteScripting", "BODY"), ("GenericLFI", "BODY"), ("GenericRFI", "BODY"),
            ("GenericRFI", "QUERYARGUMENTS"),
        )
    }  # fmt: skip
    assert rate["Statement"]["RateBasedStatement"]["Limit"] == 50 * 300
    (association,) = protected.of("AWS::WAFv2::WebACLAssociation").values()
    assert "/restapis/" in json.dumps(association["ResourceArn"])


def test_every_rule_of_waf_that_only_counts_is_documented() -> None:
    page = (ROOT / "docs" / "security.md").read_text().partition("## AWS WAF")[2].partition("\n## ")[0]
    assert {*re.findall(r"`(\w+_[A-Z]+)`", page)} == {*COUNTED}


def test_the_stack_has_its_outputs(template: Template) -> None:
    assert {name for name, one in template.body["Outputs"].items() if "Export" not in one} == OUTPUTS


def test_the_url_of_the_api_has_no_slash_at_the_end(template: Template) -> None:
    """Callers append "/v1/…"; API Gateway returns 403 for two slashes."""
    last = template.body["Outputs"]["ApiUrl"]["Value"]["Fn::Join"][1][-1]
    assert isinstance(last, dict), f"the URL ends with {last!r} instead of the name of the stage"


def test_cloudwatch_can_publish_to_the_alarm_topic_and_use_its_key(template: Template) -> None:
    by_cloudwatch = {"Service": "cloudwatch.amazonaws.com"}
    open_to = [
        target(policy["Topics"][0])
        for policy in template.of("AWS::SNS::TopicPolicy").values()
        for one in policy["PolicyDocument"]["Statement"]
        if one["Effect"] == "Allow" and one["Principal"] == by_cloudwatch and one["Action"] == "sns:Publish"
    ]
    alarm_topics = [
        target(one["TopicArn"]) for one in template.of("AWS::SNS::Subscription").values() if one["Protocol"] == "email"
    ]
    assert open_to == alarm_topics
    (key,) = template.of("AWS::KMS::Key").values()
    assert by_cloudwatch in [one["Principal"] for one in key["KeyPolicy"]["Statement"]]


def test_there_is_one_dashboard(template: Template) -> None:
    assert len(template.of("AWS::CloudWatch::Dashboard")) == 1


def test_the_budget_is_monthly_and_sends_email(stacks: dict[str, Template]) -> None:
    (budget,) = stacks["MaskdropAccount"].of("AWS::Budgets::Budget").values()
    assert budget["Budget"]["TimeUnit"] == "MONTHLY"
    assert {one["Subscribers"][0]["Address"] for one in budget["NotificationsWithSubscribers"]} == {
        "operator@example.com"
    }


def test_synthesis_is_reproducible(template: Template, tmp_path: Path) -> None:
    again = synthesize(tmp_path, "dev")["Maskdrop"]
    assert again.body == template.body


def test_prod_keeps_buckets_and_tables_except_after_a_failed_creation_and_dev_deletes_them_with_their_content(
    template: Template, tmp_path: Path
) -> None:
    prod = synthesize(tmp_path, "prod")["Maskdrop"]
    for stack, policy, emptied in ((template, "Delete", 3), (prod, "RetainExceptOnCreate", 0)):
        resources = stack.body["Resources"].values()
        kept = [
            one["DeletionPolicy"] for one in resources if one["Type"] in ("AWS::S3::Bucket", "AWS::DynamoDB::Table")
        ]
        assert kept == [policy] * 5
        assert len([one for one in resources if one["Type"] == "Custom::S3AutoDeleteObjects"]) == emptied
        # A protected table could not be deleted after a failed creation.
        for table in stack.of("AWS::DynamoDB::Table").values():
            assert not table.get("DeletionProtectionEnabled")


def test_synthesis_fails_for_an_unacknowledged_cdk_nag_finding(tmp_path: Path) -> None:
    from aws_cdk import Stack
    from aws_cdk import aws_s3 as s3

    from app import application

    app = application(outdir=str(tmp_path))
    s3.Bucket(cast(Stack, app.node.find_child("Maskdrop-dev")), "Careless")
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()
    assert "AwsSolutions-S10" in (tmp_path / "validation-report.json").read_text()


def test_the_requirements_files_match_the_extras_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]

    def pins(path: str) -> list[str]:
        return [line for line in (ROOT / path).read_text().splitlines() if not line.startswith("#")]

    assert pins("sagemaker_model/serving/requirements.txt") == extras["model"]
    assert {*extras["model"]} <= {*project["dependencies"]} <= {*pins("requirements.txt")}
    assert {*extras["infra"], *extras["local"]} <= {*pins("requirements.txt")} <= {*pins("requirements-dev.txt")}
    assert pins("sagemaker_model/serving/requirements-gpu.txt") == ["--requirement requirements.txt", *extras["gpu"]]
    not_in_dev = {*extras["gpu"], *extras["export"], *extras["train"]} - {*extras["dev"]}
    assert pins("requirements-models.txt") == sorted(not_in_dev)
    assert pins("requirements-torchvision.txt") == extras["mask-rcnn"]
    (torch,) = (pin for pin in extras["gpu"] if pin.startswith("torch=="))
    assert torch in pins("requirements-tflite.txt")  # the converter reads files that torch wrote


def test_a_container_that_switches_off_an_optimisation_raises_an_alarm(on_gpu: dict[str, Template]) -> None:
    alarms = on_gpu["Maskdrop"].of("AWS::CloudWatch::Alarm").values()
    watched = {one["MetricName"] for one in alarms if one.get("Namespace") == "Maskdrop"}
    for name in ("Bulk", "Interactive"):
        (counted,) = on_gpu[f"Maskdrop{name}"].of("AWS::Logs::MetricFilter").values()
        assert counted["FilterPattern"] == f'"{SWITCHED_OFF}"'
        (metric,) = counted["MetricTransformations"]
        assert (metric["MetricNamespace"], metric["MetricValue"]) == ("Maskdrop", "1")
        assert metric["MetricName"] in watched


def test_infra_counts_the_log_line_that_the_container_writes() -> None:
    """Parses the module, because importing it needs torch."""
    text = (ROOT / "sagemaker_model" / "engines" / "verification.py").read_text()
    assert f'SWITCHED_OFF = "{SWITCHED_OFF}"' in text


def test_the_simulation_of_maskdrop_plan_has_the_policies_and_batches_of_the_template(
    on_gpu: dict[str, Template],
) -> None:
    (deployed,) = (
        target for target in targets(on_gpu["MaskdropBulk"].body).values() if "bulk" in target.endpoint
    )  # fmt: skip
    planned = bulk_target(deployed.maximum)
    for kind in ("tracking", "steps"):
        assert [replace(policy, name="") for policy in getattr(planned, kind)] == [
            replace(policy, name="") for policy in getattr(deployed, kind)
        ]
    assert (planned.minimum, planned.maximum) == (deployed.minimum, deployed.maximum)
    (config,) = on_gpu["MaskdropBulk"].of("AWS::SageMaker::EndpointConfig").values()
    system = System(images_per_second=1.0, target=planned)
    asynchronous = config["AsyncInferenceConfig"]["ClientConfig"]["MaxConcurrentInvocationsPerInstance"]
    assert system.concurrency == asynchronous
    sources = on_gpu["Maskdrop"].of("AWS::Lambda::EventSourceMapping").values()
    batches = {(one["BatchSize"], one.get("MaximumBatchingWindowInSeconds")) for one in sources}
    assert (system.batch_max, 1) in batches
    assert (system.notifications_max, system.record_window_s) in batches

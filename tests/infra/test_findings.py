"""One test or more for each finding of the review of the first deployment: A1 to A9 and B1 to B10. The rules that they
use are tested in the other files of this folder."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from infra import stages
from lambdas import ingest, record, sweep
from lambdas.adapters.jobs import SHARDS
from maskdrop.flow import admit
from maskdrop.job import dropped
from tests.fakes import NOW, World, a_source
from tests.infra.account import names, order, quotas, updates
from tests.infra.account.assembly import Assembly

ROOT = Path(__file__).resolve().parents[2]

Variants = dict[str, Assembly]


def serverless_variants(assembly: Assembly) -> list[dict[str, Any]]:
    configs = assembly.of("AWS::SageMaker::EndpointConfig")
    found = [variant for one in configs for variant in one.properties["ProductionVariants"]]
    return [one["ServerlessConfig"] for one in found if "ServerlessConfig" in one]


def test_a1_the_default_stage_uses_at_most_the_serverless_memory_of_a_new_account(variants: Variants) -> None:
    memory = [one["MemorySizeInMB"] for one in serverless_variants(variants["dev"])]
    assert memory
    assert max(memory) <= 3072


def test_a2_the_default_stage_needs_no_gpu_and_no_quota(variants: Variants) -> None:
    assert quotas.exceeded([variants["dev"]], quotas.NEW_ACCOUNT) == []
    text = json.dumps(variants["dev"].templates)
    assert "InstanceType" not in text
    assert "MODEL_REQUIRE_GPU" not in text


@pytest.mark.parametrize("name", ["dev", "gpu", "cpu", "realtime", "everything"])
def test_a2_a_refused_endpoint_rolls_back_no_table_bucket_or_api(variants: Variants, name: str) -> None:
    kept = {"AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::ApiGateway::RestApi", "AWS::SQS::Queue"}
    assembly = variants[name]
    with_endpoint = {one.stack for one in assembly.of("AWS::SageMaker::Endpoint")}
    assert with_endpoint
    assert [str(one) for one in assembly.of(*kept) if one.stack in with_endpoint] == []
    application = assembly.stack("Maskdrop")
    assert assembly.dependencies[application] & with_endpoint == set()


def test_a2_a_cpu_endpoint_runs_the_cpu_image_without_gpu_settings(variants: Variants) -> None:
    assembly = variants["cpu"]
    (endpoint,) = assembly.of("AWS::SageMaker::Endpoint")
    (variant,) = updates.config(assembly, endpoint).properties["ProductionVariants"]
    container = updates.model(assembly, endpoint)["PrimaryContainer"]
    assert not quotas.is_gpu(variant["InstanceType"])
    assert "InferenceAmiVersion" not in variant
    assert "MODEL_REQUIRE_GPU" not in container["Environment"]
    assert json.dumps(container["Image"]).count("-cpu") == 1


@pytest.mark.parametrize("name", ["dev", "prod", "everything"])
def test_a3_a_failed_first_deployment_leaves_nothing_that_blocks_the_next(variants: Variants, name: str) -> None:
    left = updates.left_by_a_failed_creation(variants[name])
    # One role for all APIs of the account: deleting it would end the logs of other APIs.
    assert [one for one in left if "AWS::ApiGateway::Account" not in one and "CloudWatchRole" not in one] == []


def test_a3_no_repository_of_a_deleted_stage_blocks_its_name(variants: Variants) -> None:
    for repository in variants["prod"].of("AWS::ECR::Repository"):
        assert repository.body["DeletionPolicy"] == "Delete" or "RepositoryName" not in repository.properties


@pytest.mark.parametrize(("old", "new"), [("gpu", "realtime"), ("realtime", "off"), ("off", "serverless")])
def test_a4_the_mode_of_the_interactive_endpoint_changes_and_rolls_back(variants: Variants, old: str, new: str) -> None:
    for one, other in ((old, new), (new, old)):
        refused = [
            str(change) for change in updates.update(variants[one], variants[other]) if change.effect == "refused"
        ]
        assert refused == []


def test_a5_the_instance_type_changes_and_rolls_back(variants: Variants) -> None:
    for old, new in (("realtime", "other_gpu"), ("other_gpu", "realtime")):
        refused = [str(change) for change in updates.update(variants[old], variants[new]) if change.effect == "refused"]
        assert refused == []


def test_a6_two_serverless_stages_share_the_concurrency_of_a_new_account(variants: Variants) -> None:
    stages = [variants["dev"], variants["serverless"]]
    assert sum(one["MaxConcurrency"] for stage in stages for one in serverless_variants(stage)) <= 10


@pytest.mark.parametrize("name", ["dev", "prod", "everything"])
def test_a7_a_stage_can_be_deployed_to_two_regions(variants: Variants, name: str) -> None:
    both = [variants[name], variants[name].in_region("eu-west-1")]
    assert names.collisions(both, "account") == []


def test_a8_the_steps_of_the_first_deployment_install_the_command_before_they_use_it() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    steps = page[page.index("\n## Deploy") :]
    first_use = re.search(r"^(?:\$ )?maskdrop ", steps, re.MULTILINE)
    assert first_use
    assert re.search(r"^.*pip install .*--editable \.", steps[: first_use.start()], re.MULTILINE)


def messages(world: World) -> dict[str, Any]:
    """An SQS event with the job messages in the queue, which it empties."""
    bodies = [body for body, _ in world.queue.sent]
    world.queue.sent.clear()
    return {"Records": [{"messageId": str(index), "body": body} for index, body in enumerate(bodies)]}


def test_a9_an_outage_of_two_days_fails_no_waiting_photo() -> None:
    """The endpoint has no capacity: it deletes every bundle after 6 hours, and no container receives one."""
    world = World()
    job = dropped(a_source(), NOW)
    admit([job], world.settings, world.services, NOW)
    for hour in range(6, 54, 6):
        now = NOW + timedelta(hours=hour)
        bundle, uri = world.endpoint.submitted[-1]
        expired = {
            "invocationStatus": "Expired", "inferenceId": bundle, "failureReason": "The request expired.",
            "requestParameters": {"inputLocation": uri},
        }  # fmt: skip
        record.process(sqs_event(json.dumps(expired)), world.settings, world.services, now)
        waiting = world.jobs.get(job.id)
        assert waiting
        assert waiting.state == "queued", waiting.error
        ingest.process(messages(world), world.settings, world.services, now + timedelta(minutes=15))
    assert len(world.endpoint.submitted) == 9


def test_a9_an_outage_without_notifications_fails_no_waiting_photo() -> None:
    world = World()
    job = dropped(a_source(), NOW)
    admit([job], world.settings, world.services, NOW)
    for hour in range(7, 56, 7):
        now = NOW + timedelta(hours=hour)
        sweep.process(world.settings, world.services, now)
        waiting = world.jobs.get(job.id)
        assert waiting
        assert waiting.state == "queued", waiting.error
        ingest.process(messages(world), world.settings, world.services, now + timedelta(minutes=15))


def test_a9_the_intake_stops_at_an_hour_of_work() -> None:
    world = World()
    waiting = [dropped(a_source(f"inbox/default/{number}.jpg"), NOW) for number in range(200)]
    settings = replace(world.settings, backlog_max=100)
    admit(waiting, settings, world.services, NOW)
    assert sum(len(bundle.items) for bundle in world.bundles()) <= 100 + settings.bundle_max


def test_a9_failed_jobs_are_retried_in_bulk() -> None:
    from typer.main import get_command

    from cli.app import app

    assert "redrive" in vars(get_command(app))["commands"]


@pytest.mark.parametrize("name", ["gpu", "realtime", "cpu"])
def test_b1_an_update_keeps_the_number_of_running_instances(variants: Variants, name: str) -> None:
    old = variants[name]
    (tag,) = {one.properties["Tag"] for one in old.of("Custom::Image")}
    changes = updates.update(old, old.edited(tag, "0123456789abcdef"))
    assert [str(one) for one in changes if one.effect == "loses"] == []
    assert [one for one in changes if "AWS::SageMaker::Endpoint)" in one.resource]


@pytest.mark.parametrize("name", ["gpu", "realtime"])
def test_b1_an_update_of_an_endpoint_on_instances_rolls_back_by_alarms(variants: Variants, name: str) -> None:
    for endpoint in variants[name].of("AWS::SageMaker::Endpoint"):
        if updates.kind(variants[name], endpoint) != "serverless":
            assert endpoint.properties["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]


def test_b2_no_option_is_lost_by_omitting_a_context_option(variants: Variants, tmp_path: Path) -> None:
    from app import application

    context = {"waf": "true", "mail": "ops@example.com", "cors": "*", "weights": "s3://models/1/"}
    application(outdir=str(tmp_path), context={"stage": "dev", **context}).synth()
    assert Assembly.read(tmp_path).templates == variants["dev"].templates


def test_b2_the_file_of_a_stage_has_every_option(variants: Variants) -> None:
    text = json.dumps(variants["everything"].templates)
    for value in ("operator@example.com", "https://shop.example", "images.corp", "models/maskdrop/1/", "WebACL"):
        assert value in text, value


def test_b3_a_deployment_without_mail_prints_a_warning() -> None:
    from tests.infra.account.variants import FOLDER

    manifest = json.loads((FOLDER / "dev" / "manifest.json").read_text())
    text = json.dumps([one.get("metadata", {}) for one in manifest["artifacts"].values()])
    texts = [path.read_text() for path in (FOLDER / "dev").glob("*.metadata.json")]
    assert re.search(r"aws:cdk:warning[^}]*mail", " ".join([text, *texts]))


def own_metrics(assembly: Assembly) -> set[str]:
    """The metrics of the namespaces that start with Maskdrop, which alarms read."""
    found = set()
    for alarm in assembly.of("AWS::CloudWatch::Alarm"):
        stats = [one.get("MetricStat", {}).get("Metric", {}) for one in alarm.properties.get("Metrics", [])]
        found |= {
            json.dumps(one, sort_keys=True)
            for one in (*stats, alarm.properties)
            if one.get("Namespace", "").startswith("Maskdrop")
        }
    assert found
    return found


def test_b4_an_error_of_one_stage_raises_no_alarm_of_another(variants: Variants) -> None:
    assert own_metrics(variants["dev"]) & own_metrics(variants["prod"]) == set()


@pytest.mark.parametrize("name", ["dev", "serverless", "gpu"])
def test_b5_a_bucket_that_is_deleted_with_the_stack_is_emptied(variants: Variants, name: str) -> None:
    assembly = variants[name]
    emptied = {one.properties["BucketName"] for one in assembly.of("Custom::S3AutoDeleteObjects")}
    deleted = [one for one in assembly.of("AWS::S3::Bucket") if one.body["DeletionPolicy"] == "Delete"]
    assert len(deleted) >= 3
    assert [str(one) for one in deleted if assembly.physical_id(*one.node) not in emptied] == []


def test_b6_the_queues_start_no_more_executions_than_a_new_account_has(variants: Variants) -> None:
    assert quotas.event_source_concurrency([variants["dev"]]) <= 10


def alarmed(assembly: Assembly, metric: str) -> list[dict[str, Any]]:
    """Dimensions of the alarms on a metric."""
    found = []
    for alarm in assembly.of("AWS::CloudWatch::Alarm"):
        stats = [one.get("MetricStat", {}).get("Metric", {}) for one in alarm.properties.get("Metrics", [])]
        found += [
            {item["Name"]: item["Value"] for item in one.get("Dimensions", [])}
            for one in (*stats, alarm.properties)
            if one.get("MetricName") == metric
        ]
    return found


def test_b7_an_alarm_watches_the_age_of_every_queue(variants: Variants) -> None:
    assembly = variants["dev"]
    watched = {one["QueueName"] for one in alarmed(assembly, "ApproximateAgeOfOldestMessage")}
    assert {assembly.name(*one.node) for one in assembly.of("AWS::SQS::Queue")} - watched == set()


def test_b7_alarms_watch_webhooks_interactive_throttles_and_table_throttles(variants: Variants) -> None:
    assembly = variants["dev"]
    assert alarmed(assembly, "WebhooksGivenUp")
    tables = {one["TableName"] for name in THROTTLES for one in alarmed(assembly, name)}
    assert {assembly.name(*one.node) for one in assembly.of("AWS::DynamoDB::Table")} - tables == set()
    assert alarmed(assembly, "CutoutsRefused")


THROTTLES = ("ThrottledRequests", "ReadThrottleEvents", "WriteThrottleEvents")


def test_b8_base_images_are_pinned_and_contain_no_cuda() -> None:
    """The GPU image gets the libraries of CUDA with torch; the CPU image has none."""
    files = sorted((ROOT / "sagemaker_model" / "serving").glob("Dockerfile*"))
    bases = [line.split()[1] for path in files for line in path.read_text().splitlines() if line.startswith("FROM ")]
    external = [base for base in bases if ":" in base or "/" in base]
    assert external
    assert [base for base in external if not re.search(r"@sha256:[0-9a-f]{64}$", base)] == []
    assert [base for base in external if re.search("cu1|cuda", base)] == []


def test_b8_images_are_built_without_provenance(variants: Variants) -> None:
    (project,) = variants["dev"].of("AWS::CodeBuild::Project")
    commands = json.loads(project.properties["Source"]["BuildSpec"])["phases"]["build"]["commands"]
    builds = [one for one in commands if re.search(r"docker (buildx )?build ", one)]
    assert builds
    assert [one for one in builds if "--provenance=false" not in one] == []


def test_b9_the_build_waits_for_the_policies_of_its_roles(variants: Variants) -> None:
    build = order.Order("the build is denied", order.policies_before_build)
    assert [*build.pairs(variants["dev"])]
    assert order.violations(variants["dev"], [build]) == []


def test_b10_every_queue_has_a_consumer(variants: Variants) -> None:
    """An event source, or a function that receives by itself."""
    for name in ("dev", "gpu"):
        assembly = variants[name]
        consumed = [one.raw["EventSourceArn"] for one in assembly.of("AWS::Lambda::EventSourceMapping")]
        for policy in assembly.of("AWS::IAM::Policy"):
            statements = policy.raw["PolicyDocument"]["Statement"]
            consumed += [one["Resource"] for one in statements if "sqs:ReceiveMessage" in one["Action"]]
        text = json.dumps(consumed)
        assert [str(one) for one in assembly.of("AWS::SQS::Queue") if f'"{one.logical_id}"' not in text] == []


def test_b10_the_execution_log_of_the_api_has_a_retention_and_exists_before_the_api_writes(variants: Variants) -> None:
    pairs = [*order.execution_log_before_stage(variants["dev"])]
    assert pairs
    assert all(group.properties["RetentionInDays"] for _, group in pairs)
    rule = order.Order("API Gateway creates it", order.execution_log_before_stage)
    assert order.violations(variants["dev"], [rule]) == []


@pytest.mark.parametrize("name", ["dev", "prod", "everything"])
def test_b10_the_record_of_a_job_is_not_kept_longer_than_its_result(variants: Variants, name: str) -> None:
    assembly = variants[name]
    days = [
        rule["ExpirationInDays"]
        for bucket in assembly.of("AWS::S3::Bucket")
        for rule in bucket.properties.get("LifecycleConfiguration", {"Rules": []})["Rules"]
        if rule.get("Prefix") == "results/"
    ]
    (results,) = days
    application = [one for one in assembly.of("AWS::Lambda::Function") if "lambdas." in one.properties["Handler"]]
    kept = {int(one.properties["Environment"]["Variables"].get("MASKDROP_KEEP_DAYS", 90)) for one in application}
    assert max(kept) <= results


def test_b10_the_price_of_an_instance_is_an_option_of_the_stage(variants: Variants) -> None:
    prices = {
        updates.model(variants[name], endpoint)["PrimaryContainer"]["Environment"].get("MODEL_USD_PER_HOUR")
        for name in ("realtime", "other_gpu")
        for endpoint in variants[name].of("AWS::SageMaker::Endpoint")
    }
    assert len(prices - {None}) == 2


def test_b10_the_firewall_counts_requests_without_a_user_agent_and_with_a_long_query(variants: Variants) -> None:
    (acl,) = variants["waf"].of("AWS::WAFv2::WebACL")
    counted = {
        override["Name"]
        for rule in acl.properties["Rules"]
        for override in rule["Statement"].get("ManagedRuleGroupStatement", {}).get("RuleActionOverrides", [])
        if "Count" in override["ActionToUse"]
    }
    assert {"NoUserAgent_HEADER", "SizeRestrictions_QUERYSTRING"} <= counted


@pytest.mark.parametrize("name", ["dev", "gpu", "cpu", "realtime"])
def test_b10_every_model_names_its_region(variants: Variants, name: str) -> None:
    assembly = variants[name].in_region("eu-west-1")
    models = assembly.of("AWS::SageMaker::Model")
    assert models
    for one in models:
        assert one.properties["PrimaryContainer"]["Environment"].get("AWS_DEFAULT_REGION") == "eu-west-1"


def test_b10_a_service_uses_a_key_for_this_account_only(variants: Variants) -> None:
    for name in ("dev", "gpu"):
        statements = [
            statement
            for key in variants[name].of("AWS::KMS::Key")
            for statement in key.properties["KeyPolicy"]["Statement"]
            if "Service" in statement["Principal"]
        ]
        assert statements
        for one in statements:
            assert "aws:SourceAccount" in json.dumps(one.get("Condition", {})), one


def test_b10_source_buckets_can_be_limited_to_a_prefix(variants: Variants) -> None:
    text = json.dumps([one.properties for one in variants["everything"].of("AWS::IAM::Policy", "AWS::IAM::Role")])
    assert "arn:aws:s3:::archive/2026/*" in text
    assert "arn:aws:s3:::archive/*" not in text


def test_b10_the_writes_of_the_largest_stage_fit_in_the_partitions_of_the_index_by_state() -> None:
    """A partition takes 1,000 write units a second (DynamoDB developer guide). A job enters a state and leaves it: 2
    writes of at most 2 KB, 2 units each."""
    for name in stages.names():
        assert 4 * stages.load(name).backlog_max / stages.BACKLOG_S <= 1000 * SHARDS, name


def sqs_event(body: str) -> dict[str, Any]:
    """An SQS event with one message."""
    return {"Records": [{"messageId": "1", "body": body, "eventSource": "aws:sqs", "receiptHandle": "r"}]}

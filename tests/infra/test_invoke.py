"""The function `invoke` and its queue exist only where the endpoint `bulk` is serverless."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra import stages
from lambdas.adapters.endpoint import RESPONSE_S
from tests.infra.conftest import Template, synthesize
from tests.infra.test_stack import permissions, prefixes, target


@pytest.fixture(scope="module")
def serverless(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return synthesize(tmp_path_factory.mktemp("cdk.out"), "dev")["Maskdrop"]


def environments(template: Template) -> list[dict[str, Any]]:
    """Returns the environments of our functions; the template also has functions of the CDK."""
    functions = template.of("AWS::Lambda::Function").values()
    found = [one["Environment"]["Variables"] for one in functions if one["Handler"].startswith("lambdas.")]
    assert found
    return found


def test_invoke_takes_one_bundle_at_a_time_from_its_queue(serverless: Template) -> None:
    [(queue, mapping)] = [
        (target(one["EventSourceArn"]), one)
        for one in serverless.of("AWS::Lambda::EventSourceMapping").values()
        if target(one["FunctionName"]).startswith("Invoke")
    ]
    assert queue.startswith("QueuesBundles")
    assert mapping["BatchSize"] == 1
    assert mapping["ScalingConfig"]["MaximumConcurrency"] == stages.Stage(name="dev").bulk_at_once
    function = serverless.of("AWS::Lambda::Function")[target(mapping["FunctionName"])]
    assert function["Timeout"] > RESPONSE_S
    assert serverless.of("AWS::SQS::Queue")[queue]["VisibilityTimeout"] == 6 * function["Timeout"] + 60


def test_invoke_may_only_read_bundles_invoke_the_endpoint_and_notify(serverless: Template) -> None:
    allowed = permissions(serverless, "Invoke")
    assert "endpoint/maskdrop-dev-bulk-serverless" in allowed["sagemaker:InvokeEndpoint"]
    assert prefixes(allowed["s3:GetObject"]) == {"bundles/in"}
    assert prefixes(allowed["s3:PutObject"]) == {"bundles/out"}
    assert "QueuesBundles" in allowed["sqs:SendMessage"]
    assert "QueuesResults" in allowed["sqs:SendMessage"]
    assert {action for action in allowed if action.startswith(("dynamodb", "events"))} == set()


def test_ingest_sends_bundles_to_the_queue_instead_of_the_endpoint(serverless: Template) -> None:
    allowed = permissions(serverless, "Ingest")
    assert "QueuesBundles" in allowed["sqs:SendMessage"]
    assert "sagemaker:InvokeEndpointAsync" not in allowed


def test_every_function_gets_the_urls_of_both_queues(serverless: Template) -> None:
    for variables in environments(serverless):
        assert "QueuesBundles" in json.dumps(variables["MASKDROP_BUNDLES_QUEUE_URL"])
        assert "QueuesResults" in json.dumps(variables["MASKDROP_RESULTS_QUEUE_URL"])


def test_an_asynchronous_endpoint_has_no_queue_of_bundles(tmp_path_factory: pytest.TempPathFactory) -> None:
    template = synthesize(tmp_path_factory.mktemp("cdk.out"), "dev", bulk="gpu")["Maskdrop"]
    text = json.dumps(template.body)
    assert "QueuesBundles" not in text
    assert "lambdas.invoke" not in text
    assert "sagemaker:InvokeEndpointAsync" in permissions(template, "Ingest")
    assert not [variables for variables in environments(template) if "MASKDROP_BUNDLES_QUEUE_URL" in variables]

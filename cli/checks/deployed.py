"""Checks of what a stage has: its stacks, images, endpoints, queues and budget, and what a destroyed stage left."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from botocore.exceptions import ClientError

from cli.checks.account import NETWORK, STACKS, Account, Level, Line
from infra.sources import container_digest, cpu_tag
from infra.stages import BACKLOG_S, STAGE_TAG

QUEUE_AGE_S = 2 * BACKLOG_S
"""Age of the oldest message of a queue that is reported, in seconds: the highest threshold of the alarms on queues."""

DELETE = {
    "s3": "aws s3 rb --force s3://{name}",
    "dynamodb": "aws dynamodb delete-table --region {region} --table-name {name}",
    "logs": "aws logs delete-log-group --region {region} --log-group-name {name}",
    "ecr": "aws ecr delete-repository --region {region} --force --repository-name {name}",
    "apigateway": "aws apigateway delete-api-key --region {region} --api-key {name}",
}
"""Command that deletes a resource, by the service in its ARN."""

NOT_LEFT = {"logs", "ecr", "kms", "cloudformation"}
"""Services whose tagged resources are no leftovers: log groups and repositories are found by name, the keys of a
deleted stack are pending deletion, and stacks are checked themselves."""


def stacks(account: Account) -> Iterator[Line]:
    """The stacks of the stage can be updated. Names those that are not deployed."""
    for name, stack in account.stacks.items():
        status = stack["StackStatus"]
        level, remedy = _stack_state(account, name, status)
        finding = f"{status}."
        if level != "ok" and not status.endswith("IN_PROGRESS"):
            reason = _first_failure(account, name) or stack.get("StackStatusReason", "")
            finding = f"{status}: {reason}" if reason else finding
        yield Line(name=name, level=level, finding=finding, remedy=remedy)
    expected = [prefix for prefix in STACKS if prefix != NETWORK or account.stage.vpc]
    names = [f"{prefix}-{account.stage.name}" for prefix in expected]
    missing = [name for name in names if name not in account.stacks]
    if missing and not account.local:
        finding = f"Not deployed: {', '.join(missing)}."
        yield Line(name="stacks", level="not checked", finding=finding, remedy=account.deploy)


def _stack_state(account: Account, name: str, status: str) -> tuple[Level, str]:
    """Returns the level of a status of CloudFormation, and its remedy."""
    arguments = f"--region {account.region} --stack-name {name}"
    match status:
        case "CREATE_COMPLETE" | "UPDATE_COMPLETE" | "IMPORT_COMPLETE":
            return "ok", ""
        case "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" | "REVIEW_IN_PROGRESS":
            return "warning", f"correct the cause, then (the CDK deletes the failed stack first)\n{account.deploy}"
        case "UPDATE_ROLLBACK_COMPLETE" | "IMPORT_ROLLBACK_COMPLETE":
            return "warning", f"correct the cause, then\n{account.deploy}"
        case "UPDATE_ROLLBACK_FAILED":
            return (
                "fails the deploy",
                f"correct the cause, then\naws cloudformation continue-update-rollback {arguments}",
            )
        case "DELETE_FAILED":
            return "fails the deploy", f"aws cloudformation delete-stack {arguments} --deletion-mode FORCE_DELETE_STACK"
        case _ if status.endswith("IN_PROGRESS"):
            return "warning", f"wait: {account.console('cloudformation/home')}"
        case _:
            return "fails the deploy", account.console("cloudformation/home")


def _first_failure(account: Account, name: str) -> str:
    """Returns the cause of the last failed operation of a stack: its earliest failure that is no cancellation."""
    cause = ""
    for event in account.pages("cloudformation", "describe_stack_events", "StackEvents", StackName=name):
        status, reason = event.get("ResourceStatus", ""), event.get("ResourceStatusReason", "")
        if status.endswith("_FAILED") and "cancelled" not in reason:
            cause = f"{event['LogicalResourceId']}: {reason}"
        begun = status in ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS")
        if begun and event.get("PhysicalResourceId") == event["StackId"]:
            break
    return cause


def image(account: Account) -> Iterator[Line]:
    """The images of this version exist, and the last build succeeded."""
    name, tag = "image", container_digest()
    tags = [cpu_tag(tag), *([tag] if account.stage.uses_gpu else [])]
    try:
        which = {"repositoryName": account.stage.repository, "imageIds": [{"imageTag": one} for one in tags]}
        account.client("ecr").describe_images(**which)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("ImageNotFoundException", "RepositoryNotFoundException"):
            raise
        finding = f"The image of this version ({' or '.join(tags)}) does not exist; the next deploy builds it."
        yield Line(name=name, level="warning", finding=finding, remedy=account.deploy)
    else:
        yield Line(name=name, level="ok", finding=f"The image of this version exists ({', '.join(tags)}).")
    build = _last_build(account)
    if build and build["buildStatus"] in ("FAILED", "FAULT", "TIMED_OUT"):
        finding = f"The last build, {build['id']}, ended as {build['buildStatus']} in the phase {_phase(build)}."
        remedy = build.get("logs", {}).get("deepLink") or account.console("codesuite/codebuild/builds")
        yield Line(name="image build", level="warning", finding=finding, remedy=remedy)
    elif build and build["buildStatus"] == "IN_PROGRESS":
        finding = f"{build['id']} is in progress."
        remedy = build.get("logs", {}).get("deepLink", "")
        yield Line(name="image build", level="warning", finding=finding, remedy=remedy)


def _last_build(account: Account) -> dict[str, Any] | None:
    for project in account.resources(f"MaskdropImage-{account.stage.name}", "AWS::CodeBuild::Project").values():
        client = account.client("codebuild")
        if ids := client.list_builds_for_project(projectName=project, sortOrder="DESCENDING").get("ids"):
            build: dict[str, Any] = client.batch_get_builds(ids=ids[:1])["builds"][0]
            return build
    return None


def _phase(build: dict[str, Any]) -> str:
    failed = [one["phaseType"] for one in build.get("phases", []) if one.get("phaseStatus") not in (None, "SUCCEEDED")]
    return str(failed[0] if failed else build.get("currentPhase", "unknown"))


def endpoints(account: Account) -> Iterator[Line]:
    """The endpoints of the stage are in service, and none of an earlier mode is left."""
    names = [name for name in (account.stage.bulk_endpoint, account.stage.interactive_endpoint) if name]
    yield from _earlier_endpoints(account, names)
    for name in names:
        try:
            endpoint = account.client("sagemaker").describe_endpoint(EndpointName=name)
        except ClientError as error:
            if "Could not find" not in str(error):
                raise
            finding = "The endpoint does not exist."
            yield Line(name=name, level="warning", finding=finding, remedy=account.deploy)
            continue
        status, reason = endpoint["EndpointStatus"], endpoint.get("FailureReason", "")
        group = quote(quote(f"/aws/sagemaker/Endpoints/{name}", safe=""), safe="").replace("%25", "$25")
        log = account.console(f"cloudwatch/home?region={account.region}#logsV2:log-groups/log-group/{group}")
        if status == "InService":
            counts = [one.get("CurrentInstanceCount") for one in endpoint.get("ProductionVariants", [])]
            running = "serverless" if None in counts else f"{sum(counts)} instances"
            yield Line(name=name, level="ok", finding=f"In service, {running}.")
        elif status in ("Failed", "UpdateRollbackFailed", "OutOfService"):
            finding = f"{status}: {reason}" if reason else f"{status}."
            remedy = f"read the log: {log}\ndelete the stack of the endpoint, then\n{account.deploy}"
            yield Line(name=name, level="fails the deploy", finding=finding, remedy=remedy)
        else:
            yield Line(name=name, level="warning", finding=f"{status}.", remedy=f"wait; log: {log}")


def _earlier_endpoints(account: Account, current: list[str]) -> Iterator[Line]:
    """SageMaker refuses to delete an endpoint while it scales. After three attempts, CloudFormation leaves the endpoint
    behind, and its instances keep running."""
    prefix = f"maskdrop-{account.stage.name}-"
    kind = r"(serverless|(?!bulk|interactive)[a-z0-9]+-\w+)"  # not of a stage "<name>-bulk"
    for one in account.pages("sagemaker", "list_endpoints", "Endpoints", NameContains=prefix):
        name = one["EndpointName"]
        ours = re.fullmatch(rf"{prefix}(bulk|interactive)-{kind}", name)
        if ours and name not in current and one["EndpointStatus"] != "Deleting":
            remedy = f"aws sagemaker delete-endpoint --region {account.region} --endpoint-name {name}"
            finding = f"{one['EndpointStatus']}, of an earlier mode of the stage. Its instances cost money."
            yield Line(name=name, level="warning", finding=finding, remedy=f"after a deploy: {remedy}")


def queues(account: Account) -> Iterator[Line]:
    """No dead-letter queue has messages, and no queue has an old one."""
    urls = account.resources(account.app_stack, "AWS::SQS::Queue").values()
    queues = [_attributes(account, url) for url in urls]
    policies = [json.loads(one["RedrivePolicy"]) for one in queues if "RedrivePolicy" in one]
    dead = {policy["deadLetterTargetArn"] for policy in policies}
    ages = _ages(account, [_name(one) for one in queues])
    total = sum(int(one["ApproximateNumberOfMessages"]) for one in queues)
    sound = True
    for one in queues:
        count, age = int(one["ApproximateNumberOfMessages"]), ages.get(_name(one), 0)
        page = account.console(f"sqs/v3/home?region={account.region}#/queues/{quote(one['Url'], safe='')}")
        if one["QueueArn"] in dead and count:
            finding = f"{_name(one)} has {count} dead letters; the function dead_letters reads them every 5 minutes."
            remedy = f"read the log /maskdrop/{account.stage.name}/dead_letters\nqueue: {page}"
        elif one["QueueArn"] not in dead and age >= QUEUE_AGE_S:
            finding = f"The oldest of {count} messages in {_name(one)} is {timedelta(seconds=round(age))} old."
            remedy = f"read the alarms and the logs /maskdrop/{account.stage.name}/\nqueue: {page}"
        else:
            continue
        sound = False
        yield Line(name="queues", level="warning", finding=finding, remedy=remedy)
    if sound:
        yield Line(name="queues", level="ok", finding=f"{len(queues)} queues, {total} messages, no dead letters.")


def _attributes(account: Account, url: str) -> dict[str, str]:
    response = account.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    return {**response["Attributes"], "Url": url}


def _name(queue: dict[str, str]) -> str:
    return queue["QueueArn"].rpartition(":")[2]


def _ages(account: Account, names: list[str]) -> dict[str, float]:
    """Returns the greatest age of the oldest message in the last 15 minutes by queue name, in seconds."""
    queries = [
        {
            "Id": f"age{number}",
            "MetricStat": {
                "Metric": {
                    "Namespace": "AWS/SQS",
                    "MetricName": "ApproximateAgeOfOldestMessage",
                    "Dimensions": [{"Name": "QueueName", "Value": name}],
                },
                "Period": 300,
                "Stat": "Maximum",
            },
        }
        for number, name in enumerate(names)
    ]
    if not queries:
        return {}
    now = datetime.now(UTC)
    window = {"StartTime": now - timedelta(minutes=15), "EndTime": now}
    results = account.pages("cloudwatch", "get_metric_data", "MetricDataResults", MetricDataQueries=queries, **window)
    return {names[int(one["Id"].removeprefix("age"))]: max(one.get("Values") or [0.0]) for one in results}


def budget(account: Account) -> Iterator[Line]:
    """The budget notifies the e-mail address of the stage, and its cost-allocation tag is active."""
    stage = account.stage
    owner = {"AccountId": account.identity["Account"]}
    names = account.resources(f"MaskdropAccount-{stage.name}", "AWS::Budgets::Budget").values()
    for name in names if stage.mail else ():
        which = owner | {"BudgetName": name}
        subscribers = {
            one["Address"]
            for notification in account.pages("budgets", "describe_notifications_for_budget", "Notifications", **which)
            for one in account.pages(
                "budgets",
                "describe_subscribers_for_notification",
                "Subscribers",
                **which,
                Notification={key: value for key, value in notification.items() if key != "NotificationState"},
            )
        }
        if stage.mail in subscribers:
            yield Line(name="budget", level="ok", finding=f"{name} notifies {stage.mail}.")
        else:
            finding = f"{name} does not notify {stage.mail}."
            yield Line(name="budget", level="warning", finding=finding, remedy=account.deploy)
    if names and stage.budget_scope == "stage":
        tags = account.client("ce").list_cost_allocation_tags(TagKeys=[STAGE_TAG])["CostAllocationTags"]
        if all(tag["Status"] != "Active" for tag in tags):
            finding = "The cost-allocation tag maskdrop:stage is not active: the budget counts no costs."
            remedy = "https://console.aws.amazon.com/billing/home#/tags (a new tag appears there within a day)"
            yield Line(name="budget", level="warning", finding=finding, remedy=remedy)


def leftovers(account: Account) -> Iterator[Line]:
    """A destroyed stage left no resources that cost money or have a name that the next deploy needs."""
    stage = account.stage
    if account.stacks:
        return
    found = 0
    for arn in _fixed_names(account):
        found += 1
        finding = f"{arn} is left of a deleted stack. CloudFormation cannot create what exists."
        yield Line(name="leftover", level="fails the deploy", finding=finding, remedy=_delete(account, arn))
    tagged = account.pages(
        "resourcegroupstaggingapi",
        "get_resources",
        "ResourceTagMappingList",
        TagFilters=[{"Key": STAGE_TAG, "Values": [stage.name]}],
    )
    for arn in (one["ResourceARN"] for one in tagged):
        if arn.split(":")[2] not in NOT_LEFT:
            found += 1
            finding = f"{arn} is left of a deleted stack. It keeps its data and its costs."
            yield Line(name="leftover", level="warning", finding=finding, remedy=_delete(account, arn))
    for key in account.pages("apigateway", "get_api_keys", "items"):
        if key.get("tags", {}).get(STAGE_TAG) == stage.name:
            found += 1
            finding = f"The API key {key['name']!r} ({key['id']}) is left of a deleted stack."
            remedy = DELETE["apigateway"].format(name=key["id"], region=account.region)
            yield Line(name="leftover", level="warning", finding=finding, remedy=remedy)
    if not found:
        yield Line(name="leftovers", level="ok", finding=f"No resources of an earlier stage {stage.name}.")


def _fixed_names(account: Account) -> Iterator[str]:
    """Yields the ARNs of existing resources whose names the templates fix: log groups and the repository."""
    stage = account.stage.name
    for prefix in (f"/maskdrop/{stage}/", f"/aws/sagemaker/Endpoints/maskdrop-{stage}-"):
        for group in account.pages("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=prefix):
            yield group["arn"].removesuffix(":*")
    try:
        response = account.client("ecr").describe_repositories(repositoryNames=[account.stage.repository])
    except ClientError as error:
        if error.response["Error"]["Code"] != "RepositoryNotFoundException":
            raise
    else:
        yield from (one["repositoryArn"] for one in response["repositories"])


def _delete(account: Account, arn: str) -> str:
    """Returns the command that deletes a resource, or the console page that lists it."""
    _, _, service, _, _, resource = arn.split(":", 5)
    if service not in DELETE:
        return f"https://{account.region}.console.aws.amazon.com/resource-groups/tag-editor/find-resources"
    name = resource.partition("log-group:")[2] or resource.partition("/")[2] or resource
    return DELETE[service].format(name=name, region=account.region)

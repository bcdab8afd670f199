"""Checks of what a deploy needs: credentials, bootstrap, quotas of Lambda and CodeBuild, mail, names that are free."""

from __future__ import annotations

import os
from collections.abc import Iterator

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.exceptions import ConnectionError as NoConnection

from cli.checks.account import CDK, Account, Line
from infra.stages import UNRESERVED_MIN
from maskdrop.edit import EDITORS

BOOTSTRAP_VERSION = 6
"""Oldest bootstrap stack that the templates accept: the rule CheckBootstrapVersion that CDK writes into them."""

QUALIFIER = "hnb659fds"
"""Qualifier of a bootstrap stack without `--qualifier`."""

BUILDS = "Concurrently running builds for Linux/Medium environment"
"""Name of the quota of CodeBuild for the environment in infra/image.py."""


def region(account: Account) -> Iterator[Line]:
    """The Region is configured, and once."""
    others = {os.environ[name] for name in ("AWS_REGION", "AWS_DEFAULT_REGION") if os.environ.get(name)}
    if not account.region:
        finding = "No Region is configured."
        yield Line(name="Region", level="fails the deploy", finding=finding, remedy="export AWS_REGION=us-east-1")
    elif len(others) > 1 and not account.local:
        yield Line(
            name="Region",
            level="warning",
            finding=f"AWS_REGION and AWS_DEFAULT_REGION differ: {' and '.join(sorted(others))}. This command and the "
            f"CDK use {account.region}; other programs may use the other Region.",
            remedy="unset AWS_DEFAULT_REGION",
        )
    else:
        yield Line(name="Region", level="ok", finding=f"{account.region}.")


def credentials(account: Account) -> Iterator[Line]:
    """The credentials are valid."""
    try:
        identity = account.identity
    except NoConnection as error:
        yield Line(
            name="credentials",
            level="fails the deploy",
            finding=f"AWS is not reachable: {error}",
            remedy=f"check the network, a proxy, and the name of the Region: {account.region}",
        )
        return
    except (BotoCoreError, ClientError) as error:
        missing = isinstance(error, NoCredentialsError)
        yield Line(
            name="credentials",
            level="fails the deploy",
            finding="No credentials are configured." if missing else f"AWS does not accept the credentials: {error}",
            remedy="aws configure sso\nthen export AWS_PROFILE=…, or AWS_ACCESS_KEY_ID=… and AWS_SECRET_ACCESS_KEY=…",
        )
        return
    yield Line(name="credentials", level="ok", finding=f"Account {identity['Account']}, {identity['Arn']}.")


def bootstrap(account: Account) -> Iterator[Line]:
    """The CDK's bootstrap stack of the stage's qualifier exists and is new enough."""
    qualifier = account.stage.qualifier or QUALIFIER
    option = f" --qualifier {qualifier}" if account.stage.qualifier else ""
    remedy = f"{CDK} bootstrap aws://{account.identity['Account']}/{account.region}{option}"
    try:
        parameter = account.client("ssm").get_parameter(Name=f"/cdk-bootstrap/{qualifier}/version")["Parameter"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ParameterNotFound":
            raise
        finding = f"The CDK is not bootstrapped in {account.region} with the qualifier {qualifier}."
        yield Line(name="bootstrap", level="fails the deploy", finding=finding, remedy=remedy)
        return
    version = int(parameter["Value"])
    if version < BOOTSTRAP_VERSION:
        finding = f"The bootstrap stack has version {version}; the templates need {BOOTSTRAP_VERSION}."
        yield Line(name="bootstrap", level="fails the deploy", finding=finding, remedy=remedy)
    else:
        yield Line(name="bootstrap", level="ok", finding=f"Version {version}, qualifier {qualifier}.")


def lambda_concurrency(account: Account) -> Iterator[Line]:
    """The account allows the concurrent Lambda executions of the stage and its reservations."""
    name, stage = "Lambda concurrency", account.stage
    limits = account.client("lambda").get_account_settings()["AccountLimit"]
    allowed = limits["ConcurrentExecutions"]
    if allowed < stage.lambda_concurrency:
        finding = f"The account allows {allowed} concurrent executions; the stage expects {stage.lambda_concurrency}."
        remedy = f"lambda_concurrency = {allowed} in {account.file}"
        if not account.local and (quota := account.quota("lambda", "Concurrent executions")):
            remedy = f"{account.increase(quota, max(1000, stage.lambda_concurrency))}\nor {remedy}"
        yield Line(name=name, level="warning", finding=f"{finding} Functions will be throttled.", remedy=remedy)
    else:
        finding = f"The account allows {allowed} concurrent executions; the stage uses {stage.lambda_concurrency}."
        yield Line(name=name, level="ok", finding=finding)

    if not stage.reserved_concurrency:
        return
    name, wanted = "reserved concurrency", sum(stage.reserved_concurrency.values())
    rest = limits["UnreservedConcurrentExecutions"] + _reserved(account) - wanted
    finding = f"The reservations of the stage ({wanted}) leave {rest} unreserved executions to the account."
    if rest < UNRESERVED_MIN:
        finding += f" Lambda rejects fewer than {UNRESERVED_MIN}."
        page = account.console("servicequotas/home/services/lambda/quotas")
        remedy = f"lower [reserved_concurrency] in {account.file}\nor request a higher Lambda quota: {page}"
        yield Line(name=name, level="fails the deploy", finding=finding, remedy=remedy)
    else:
        yield Line(name=name, level="ok", finding=finding)


def _reserved(account: Account) -> int:
    """Returns the executions that are reserved for the functions of the deployed stage."""
    client = account.client("lambda")
    functions = account.resources(account.app_stack, "AWS::Lambda::Function").values()
    reservations = [client.get_function_concurrency(FunctionName=function) for function in functions]
    return sum(one.get("ReservedConcurrentExecutions", 0) for one in reservations)


def code_build(account: Account) -> Iterator[Line]:
    """CodeBuild can start the build of the images."""
    name = "CodeBuild"
    quota = account.quota("codebuild", BUILDS)
    if quota is None:
        finding = f"Service Quotas does not list {BUILDS!r} in {account.region}."
        remedy = account.console("servicequotas/home/services/codebuild/quotas")
        yield Line(name=name, level="warning", finding=finding, remedy=remedy)
        return
    ids: list[str] = account.client("codebuild").list_builds(sortOrder="DESCENDING").get("ids", [])
    builds = account.client("codebuild").batch_get_builds(ids=ids)["builds"] if ids else []
    running = sum(
        one["buildStatus"] == "IN_PROGRESS" and one["environment"]["computeType"] == "BUILD_GENERAL1_MEDIUM"
        for one in builds
    )
    finding = f"{quota.value:g} concurrent builds (Linux/Medium); {running} running."
    if quota.value < 1:
        remedy = account.increase(quota, 1)
        yield Line(name=name, level="fails the deploy", finding=finding, remedy=remedy)
    elif running >= quota.value:
        remedy = f"wait for the builds: {account.console('codesuite/codebuild/builds')}"
        yield Line(name=name, level="warning", finding=finding, remedy=remedy)
    elif not ids:
        finding += " No build has run here yet: AWS rejects builds of some new accounts in spite of the quota."
        remedy = 'if the deploy fails with "Cannot have more than 0 builds in queue", open a case: ' + SUPPORT
        yield Line(name=name, level="warning", finding=finding, remedy=remedy)
    else:
        yield Line(name=name, level="ok", finding=finding)


SUPPORT = "https://support.console.aws.amazon.com/support/home#/case/create?issueType=service-limit-increase"
"""Console page that opens a support case about a limit."""


def bedrock_models(account: Account) -> Iterator[Line]:
    """The model of the stage's editor exists in the Region, may be used and is not at the end of its life."""
    editor = EDITORS[account.stage.editor]
    for model in (editor.model,) if editor.model else ():
        client = account.client("bedrock")
        name = f"Bedrock {model}"
        access = client.get_foundation_model_availability(modelId=model)
        if account.region not in editor.regions or access["regionAvailability"] != "AVAILABLE":
            finding = (
                f"{account.region} does not have the model. Regions that may have it: {', '.join(editor.regions)}."
            )
            remedy = f"another Region, or another editor in {account.file}"
            yield Line(name=name, level="fails the deploy", finding=finding, remedy=remedy)
            continue
        try:
            details = client.get_foundation_model(modelIdentifier=model)["modelDetails"]
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("ResourceNotFoundException", "ValidationException"):
                raise
            finding = f"Bedrock does not offer the model any more: {error.response['Error']['Message']}"
            yield Line(name=name, level="fails the deploy", finding=finding, remedy=f"another editor in {account.file}")
            continue
        states = {
            "agreement": (access["agreementAvailability"]["status"], "AVAILABLE"),
            "authorization": (access["authorizationStatus"], "AUTHORIZED"),
            "entitlement": (access["entitlementAvailability"], "AVAILABLE"),
        }
        missing = [f"{key} {state}" for key, (state, wanted) in states.items() if state != wanted]
        lifecycle = details.get("modelLifecycle", {})
        if missing:
            finding = f"The account may not use the model: {', '.join(missing)}."
            remedy = account.console("bedrock/home#/modelaccess")
            yield Line(name=name, level="warning", finding=finding, remedy=remedy)
        elif lifecycle.get("status") == "LEGACY":
            end = f"{lifecycle['endOfLifeTime']:%Y-%m-%d}" if "endOfLifeTime" in lifecycle else "a date to be announced"
            finding = f"The model is legacy: it ends on {end}."
            yield Line(name=name, level="warning", finding=finding, remedy=f"another editor in {account.file}")
        else:
            yield Line(name=name, level="ok", finding="The account may use the model.")


def mail(account: Account) -> Iterator[Line]:
    """Somebody gets the alarms and the notifications of the budget."""
    stage = account.stage
    if not stage.mail:
        finding = "No e-mail is set: alarms and the budget notify nobody."
        yield Line(name="mail", level="warning", finding=finding, remedy=f'mail = "you@example.com" in {account.file}')
        return
    topics = account.resources(account.app_stack, "AWS::SNS::Topic").values()
    if not topics:
        finding = f"{stage.mail} gets alarms and budget notifications. AWS sends a mail that has to be confirmed."
        yield Line(name="mail", level="ok", finding=finding)
        return
    subscriptions = {
        topic: one["SubscriptionArn"]
        for topic in topics
        for one in account.pages("sns", "list_subscriptions_by_topic", "Subscriptions", TopicArn=topic)
        if (one["Protocol"], one["Endpoint"]) == ("email", stage.mail)
    }
    pending = [topic for topic, arn in subscriptions.items() if arn == "PendingConfirmation"]
    if not subscriptions:
        finding = f"{stage.mail} is not subscribed to the alarms."
        yield Line(name="mail", level="warning", finding=finding, remedy=account.deploy)
    elif pending:
        finding = f"{stage.mail} has not confirmed its subscription to the alarms."
        remedy = (
            f"confirm the link in the mail of AWS; this sends it again:\naws sns subscribe --region {account.region} "
            f"--topic-arn {pending[0]} --protocol email --notification-endpoint {stage.mail}"
        )
        yield Line(name="mail", level="warning", finding=finding, remedy=remedy)
    else:
        yield Line(name="mail", level="ok", finding=f"{stage.mail} gets the alarms.")

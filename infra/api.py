"""The REST API: a regional API Gateway in front of `lambdas/api.py`, with `authorize` as its Lambda authorizer."""

from __future__ import annotations

import json
from typing import cast

from aws_cdk import Aws, Duration, RemovalPolicy
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.authorize import Authorize
from infra.domain import TLS_POLICY, ApiDomain
from infra.firewall import Firewall
from infra.function import Function
from infra.jobs_table import BY_OWNER, BY_STATE
from infra.nag import acknowledge
from infra.retention import log_group
from infra.shared import SharedResources
from maskdrop.access import IAM_PREFIX, OPEN_PATHS
from maskdrop.edit import EDITS_PREFIX
from maskdrop.errors import (
    AuthFailed,
    DeadlineExceeded,
    FileTooLarge,
    Internal,
    MaskdropError,
    Overloaded,
    RateLimitExceeded,
)
from maskdrop.job import INBOX_PREFIX, RESULTS_PREFIX, UPLOADS_PREFIX
from maskdrop.review import TRAINING_PREFIX

TIMEOUT_S = 29
"""Seconds that API Gateway waits for the function. A synchronous request takes up to 25 of them."""

SOON = {"Retry-After": "5"}
"""Headers of a retryable error. As in lambdas/http/routes.py, 5 s: a function that was throttled is free by then."""

BUSY = "The API is overloaded: the request was not processed. Retry it after `Retry-After` seconds."

INVALID_KEY = "The API key is missing, unknown or revoked."

TOO_LARGE = (
    "The request is too large. Upload the image (POST /v1/uploads), then create a job from it (POST /v1/jobs), or use "
    "`maskdrop serve` or the door stack, which accept requests of up to 22 MB."
)

GATEWAY_RESPONSES: dict[str, tuple[type[MaskdropError], str, dict[str, str]]] = {
    "ACCESS_DENIED": (AuthFailed, INVALID_KEY, {}),
    "UNAUTHORIZED": (AuthFailed, INVALID_KEY, {}),
    "INVALID_API_KEY": (AuthFailed, INVALID_KEY, {}),
    "MISSING_AUTHENTICATION_TOKEN": (
        AuthFailed,
        "This URL does not exist, or it requires an AWS signature (Signature Version 4).",
        {},
    ),
    "INVALID_SIGNATURE": (AuthFailed, "The AWS signature does not match this request.", {}),
    "EXPIRED_TOKEN": (AuthFailed, "The credentials that signed this request have expired.", {}),
    "THROTTLED": (RateLimitExceeded, "Too many requests. Retry after 1 second.", {"Retry-After": "1"}),
    "QUOTA_EXCEEDED": (RateLimitExceeded, "The request quota of this month is exhausted.", {"Retry-After": "3600"}),
    "REQUEST_TOO_LARGE": (FileTooLarge, TOO_LARGE, {}),
    "INTEGRATION_TIMEOUT": (DeadlineExceeded, f"The request took longer than {TIMEOUT_S} seconds. Retry it.", SOON),
    # The authorizer raised an error or timed out, or Lambda throttled it (public reports name both types).
    "AUTHORIZER_FAILURE": (Overloaded, BUSY, SOON),
    "AUTHORIZER_CONFIGURATION_ERROR": (Overloaded, BUSY, SOON),
    "INTEGRATION_FAILURE": (Overloaded, BUSY, SOON),  # Lambda throttled the function
}
"""Errors that API Gateway returns without calling the function: response type -> error class, message, headers. The
remaining types use DEFAULT_4XX and DEFAULT_5XX, each of which covers several statuses."""


VENDOR_TITLES = {
    AuthFailed.code: "API Key invalid",
    RateLimitExceeded.code: "Rate limit exceeded",
    FileTooLarge.code: "File too large",
}
"""Error code -> title in remove.bg's form of an error, as in lambdas/http/dialects/removebg.py."""


class Api(Function):
    """The API function, its routes and its permissions. The usage plan limits the requests of each key."""

    def __init__(self, scope: Construct, construct_id: str, *, shared: SharedResources, authorize: Authorize) -> None:
        super().__init__(scope, construct_id, name="api", shared=shared, memory_mb=1024, timeout_s=TIMEOUT_S)
        stage = shared.stage
        self.rest = apigateway.RestApi(
            self,
            "Rest",
            rest_api_name=f"maskdrop-{stage.name}",
            # Every type is binary: API Gateway decodes a response whose first Accept type is listed, and returns the
            # base64 text to a client that accepts another first. */* matches any header, or none.
            binary_media_types=["*/*"],
            api_key_source_type=apigateway.ApiKeySourceType.AUTHORIZER,
            endpoint_types=[apigateway.EndpointType.REGIONAL],
            cloud_watch_role=True,
            cloud_watch_role_removal_policy=RemovalPolicy.RETAIN,  # one role for the whole account
            deploy_options=apigateway.StageOptions(
                stage_name=stage.name,
                access_log_destination=apigateway.LogGroupLogDestination(self._access_log(shared)),
                access_log_format=apigateway.AccessLogFormat.json_with_standard_fields(
                    caller=False,
                    http_method=True,
                    ip=True,
                    protocol=True,
                    request_time=True,
                    resource_path=True,
                    response_length=True,
                    status=True,
                    user=False,
                ),
                logging_level=apigateway.MethodLoggingLevel.ERROR,
                metrics_enabled=True,
                throttling_rate_limit=stage.requests_per_second,
                throttling_burst_limit=stage.burst,
                tracing_enabled=True,
            ),
        )
        # Callers append "/v1/…": the URL of the CDK ends with a slash, and API Gateway knows no path with two.
        host = f"{self.rest.rest_api_id}.execute-api.{Aws.REGION}.{Aws.URL_SUFFIX}"
        self.url = f"https://{host}/{self.rest.deployment_stage.stage_name}"
        self.rest.node.try_remove_child("Endpoint")  # an output that CDK adds; the stack defines its own
        resource = cast(apigateway.CfnRestApi, self.rest.node.default_child)
        resource.security_policy = TLS_POLICY
        resource.endpoint_access_mode = "STRICT"
        self._keep_execution_log(shared)
        self._routes(shared, authorize)
        self._gateway_responses(shared)
        self.usage_plan = self._usage_plan(shared)
        if stage.waf:
            Firewall(self, "Firewall", stage=stage, api=self.rest)
        # The URL of API Gateway keeps working, so that callers can move to the domain name one by one.
        self.domain = ApiDomain(self, "Domain", domain=stage.domain, api=self.rest) if stage.domain else None
        for index in (BY_STATE, BY_OWNER):
            self.allow("dynamodb:Query", on=shared.jobs.index_arn(index))
        shared.registry.allow(
            self.role, "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", kinds=["window", "usage"]
        )
        shared.registry.allow(self.role, "dynamodb:GetItem", kinds=["cap"])
        shared.registry.allow(self.role, "dynamodb:PutItem", "dynamodb:DeleteItem", kinds=["slot"])
        shared.registry.allow(self.role, "dynamodb:Query", kinds=["preset"])
        if shared.interactive:
            self.allow("sagemaker:InvokeEndpoint", on=shared.interactive.arn)
        self._allow_jobs(shared)
        self._acknowledge(waf=stage.waf)

    def _access_log(self, shared: SharedResources) -> logs.LogGroup:
        return log_group(self, "AccessLog", stage=shared.stage, name=f"/maskdrop/{shared.stage.name}/api-access")

    def _keep_execution_log(self, shared: SharedResources) -> None:
        """Creates the log group to which API Gateway writes its errors. API Gateway would create one that never
        expires and that outlives the API."""
        name = f"API-Gateway-Execution-Logs_{self.rest.rest_api_id}/{shared.stage.name}"
        group = log_group(self, "ExecutionLog", stage=shared.stage, name=name)
        self.rest.deployment_stage.node.add_dependency(group)

    def _routes(self, shared: SharedResources, authorize: Authorize) -> None:
        """Sends every route to the function; the routes differ in authorization. API Gateway prefers the most specific
        route, so the public ones take precedence over {proxy+}."""
        integration = apigateway.LambdaIntegration(self.function, allow_test_invoke=False)
        authorizer = apigateway.RequestAuthorizer(
            self,
            "Keys",
            handler=authorize.function,
            # A key is in one of two headers. API Gateway requires every identity source, and a cache needs one.
            identity_sources=[],
            results_cache_ttl=Duration.seconds(0),
        )
        proxy = self.rest.root.add_resource("{proxy+}")
        # The usage plan counts only if a key is required; the authorizer returns the name of the key.
        proxy.add_method(
            "ANY",
            integration,
            api_key_required=True,
            authorizer=authorizer,
            authorization_type=apigateway.AuthorizationType.CUSTOM,
        )
        iam_proxy = self.rest.root.resource_for_path(f"{IAM_PREFIX}/{{proxy+}}")
        iam_proxy.add_method("ANY", integration, authorization_type=apigateway.AuthorizationType.IAM)
        for path in OPEN_PATHS:
            self.rest.root.resource_for_path(path).add_method("GET", integration)
        if shared.stage.cors:  # a preflight request has no key
            proxy.add_method("OPTIONS", integration)

    def _allow_jobs(self, shared: SharedResources) -> None:
        """Allows creating, reading, retrying, reviewing and deleting jobs.

        Of a source, the function reads only version and size, and presigns its URL. It cannot delete photos under
        inbox/, nor read training records.
        """
        items = ("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem")
        self.allow(*items, on=shared.jobs.table.table_arn)
        shared.registry.allow(
            self.role, "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:DeleteItem", kinds=["idempotency"]
        )
        for queue in shared.stage_queues:
            self.allow("sqs:SendMessage", on=queue)
        inbox, results, sources = shared.storage.inbox, shared.storage.results, shared.storage.sources
        self.allow_objects(
            "s3:GetObject", "s3:PutObject", "s3:DeleteObject", on=inbox.arn_for_objects(f"{UPLOADS_PREFIX}*")
        )
        self.allow_objects("s3:GetObject", "s3:DeleteObject", on=results.arn_for_objects(f"{RESULTS_PREFIX}*"))
        if shared.queues.edits:
            self.allow_objects("s3:DeleteObject", on=results.arn_for_objects(f"{EDITS_PREFIX}*"))
        if shared.stage.keep_corrections_days:
            training = results.arn_for_objects(f"{TRAINING_PREFIX}*")
            self.allow_objects("s3:PutObject", "s3:DeleteObject", on=training)
        for readable in (inbox.arn_for_objects(f"{INBOX_PREFIX}*"), *shared.storage.source_objects):
            self.allow_objects("s3:GetObject", on=readable)
        for bucket in (inbox, results, *sources):  # without it, S3 returns 403 for a missing object
            self.allow("s3:ListBucket", on=bucket.bucket_arn)

    def _gateway_responses(self, shared: SharedResources) -> None:
        """Defines error bodies that serve both dialects, since API Gateway cannot distinguish paths here.

        `error` has the form of /v1, `errors` that of remove.bg.
        """
        # Any origin may read the errors: they contain no secrets.
        always = {"Cache-Control": "'no-store'", "X-Content-Type-Options": "'nosniff'"}
        always |= {"Access-Control-Allow-Origin": "'*'"} if shared.stage.cors else {}
        for kind, (error, message, headers) in GATEWAY_RESPONSES.items():
            self.rest.add_gateway_response(
                kind,
                type=apigateway.ResponseType.of(kind),
                status_code=str(error.status),
                response_headers=always | _quoted(headers),
                templates={"application/json": _body(error.code, json.dumps(message), retryable=error.retryable)},
            )
        defaults = {
            "DEFAULT_4XX": _body("bad_request", "$context.error.messageString", retryable=False),
            "DEFAULT_5XX": _body(Internal.code, '"Server error. Retry the request."', retryable=True),
        }
        for kind, body in defaults.items():
            self.rest.add_gateway_response(
                kind,
                type=apigateway.ResponseType.of(kind),
                response_headers=always | (_quoted(SOON) if kind == "DEFAULT_5XX" else {}),
                templates={"application/json": body},
            )

    def _usage_plan(self, shared: SharedResources) -> apigateway.UsagePlan:
        """Limits the requests of each key before a function is invoked. `maskdrop keys create` adds keys to it."""
        stage = shared.stage
        return self.rest.add_usage_plan(
            "Plan",
            # Half of what all callers may send together: one key cannot use it up.
            throttle=apigateway.ThrottleSettings(
                rate_limit=max(1, stage.requests_per_second // 2), burst_limit=max(1, stage.burst // 2)
            ),
            quota=apigateway.QuotaSettings(limit=stage.requests_per_month, period=apigateway.Period.MONTH),
            api_stages=[apigateway.UsagePlanPerApiStage(api=self.rest, stage=self.rest.deployment_stage)],
        )

    def _acknowledge(self, *, waf: bool) -> None:
        acknowledge(
            self.rest,
            "AwsSolutions-APIG4",
            "Every route requires an API key or an AWS signature, except the public ones: health, the OpenAPI document "
            "and, with CORS, preflight requests.",
        )
        acknowledge(self.rest, "AwsSolutions-COG4", "As APIG4: API keys, not a Cognito user pool.")
        acknowledge(
            self.rest, "AwsSolutions-APIG2", "The function validates requests: it defines the routes and their errors."
        )
        if not waf:
            acknowledge(self.rest, "AwsSolutions-APIG3", "WAF costs $7 a month idle: a stage enables it with waf=true.")
        role = cast(Construct, self.rest.node.find_child("CloudWatchRole"))
        acknowledge(
            role,
            "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/"
            "AmazonAPIGatewayPushToCloudWatchLogs]",
            "API Gateway requires this policy once per account and rejects a smaller one.",
        )


def _quoted(headers: dict[str, str]) -> dict[str, str]:
    """Returns headers as API Gateway's mapping expressions: a literal is in single quotes."""
    return {name: f"'{value}'" for name, value in headers.items()}


def _body(code: str, message: str, *, retryable: bool) -> str:
    """Returns the mapping template of an error response. JSON without "$" or "#" is a valid mapping template.

    message: a JSON string, or a variable of API Gateway that expands to one.
    """
    error = f'{{"code": "{code}", "message": {message}, "retryable": {json.dumps(retryable)}}}'
    title, detail = (f'"{VENDOR_TITLES[code]}"', message) if code in VENDOR_TITLES else (message, '""')
    return f'{{"error": {error}, "errors": [{{"title": {title}, "code": "{code}", "detail": {detail}}}]}}'

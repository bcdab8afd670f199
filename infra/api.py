"""`lambdas/api.py` behind API Gateway: REST, regional. `authorize` says whose a call is, the function has routes."""

from __future__ import annotations

import json
from typing import cast

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.authorize import Authorize
from infra.firewall import Firewall
from infra.function import Function
from infra.jobs_table import BY_OWNER, BY_STATE
from infra.nag import acknowledge
from infra.parts import Parts
from maskdrop.access import IAM_PREFIX, OPEN_PATHS
from maskdrop.errors import AuthFailed, DeadlineExceeded, FileTooLarge, Internal, MaskdropError, RateLimitExceeded
from maskdrop.job import INBOX_PREFIX, RESULTS_PREFIX, UPLOADS_PREFIX

TIMEOUT_S = 29
"""As long as API Gateway waits: one image now may wait for 25 seconds."""

BAD_KEY = "The API key is missing, unknown or revoked."

TOO_LARGE = "The request is too large. Upload the image (POST /v1/uploads), then make a job of it (POST /v1/jobs)."

REFUSALS: dict[str, tuple[type[MaskdropError], str, dict[str, str]]] = {
    "ACCESS_DENIED": (AuthFailed, BAD_KEY, {}),
    "UNAUTHORIZED": (AuthFailed, BAD_KEY, {}),
    "INVALID_API_KEY": (AuthFailed, BAD_KEY, {}),
    "MISSING_AUTHENTICATION_TOKEN": (AuthFailed, "There is nothing at this address without a signature of AWS's.", {}),
    "INVALID_SIGNATURE": (AuthFailed, "The signature of AWS's is not right for this request.", {}),
    "EXPIRED_TOKEN": (AuthFailed, "The credentials that signed this request are over.", {}),
    "THROTTLED": (RateLimitExceeded, "Too many calls at once.", {"Retry-After": "1"}),
    "QUOTA_EXCEEDED": (RateLimitExceeded, "The calls of this month are used up.", {"Retry-After": "3600"}),
    "REQUEST_TOO_LARGE": (FileTooLarge, TOO_LARGE, {}),
    "INTEGRATION_TIMEOUT": (DeadlineExceeded, "It took too long.", {}),
}
"""What API Gateway answers by itself: its response type -> our error, its message, headers. For the rest there are
DEFAULT_4XX and DEFAULT_5XX, which stand for many statuses."""


class Api(Function):
    """Routes and what they need; who may call them how often is told by the usage plan of their key."""

    def __init__(self, scope: Construct, construct_id: str, *, parts: Parts, authorize: Authorize) -> None:
        super().__init__(scope, construct_id, name="api", parts=parts, memory_mb=1024, timeout_s=TIMEOUT_S)
        stage = parts.stage
        self.rest = apigateway.RestApi(
            self,
            "Rest",
            rest_api_name=f"maskdrop-{stage.name}",
            # All there are: what is not listed comes back in base64, by the first Accept of a caller, often "*/*".
            binary_media_types=["*/*"],
            api_key_source_type=apigateway.ApiKeySourceType.AUTHORIZER,
            endpoint_types=[apigateway.EndpointType.REGIONAL],
            cloud_watch_role=True,
            cloud_watch_role_removal_policy=RemovalPolicy.RETAIN,  # one for the whole account, whoever deployed it
            deploy_options=apigateway.StageOptions(
                stage_name=stage.name,
                access_log_destination=apigateway.LogGroupLogDestination(self._access_log(parts)),
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
        self.rest.node.try_remove_child("Endpoint")  # an output of CDK's own; the stack writes ours
        resource = cast(apigateway.CfnRestApi, self.rest.node.default_child)
        resource.security_policy = "SecurityPolicy_TLS13_1_2_PFS_PQ_2025_09"  # TLS 1.3 and 1.2 with forward secrecy
        resource.endpoint_access_mode = "STRICT"
        self._routes(parts, authorize)
        self._refusals(parts)
        self.plan = self._plan(parts)
        if stage.waf:
            Firewall(self, "Firewall", stage=stage, api=self.rest)
        for index in (BY_STATE, BY_OWNER):
            self.allow("dynamodb:Query", on=parts.jobs.index_arn(index))
        parts.registry.allow(
            self.role, "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", kinds=["window", "usage"]
        )
        parts.registry.allow(self.role, "dynamodb:Query", kinds=["preset"])
        if parts.interactive:
            self.allow("sagemaker:InvokeEndpoint", on=parts.interactive.arn)
        self._allow_jobs(parts)
        self._acknowledge(waf=stage.waf)

    def _access_log(self, parts: Parts) -> logs.LogGroup:
        return logs.LogGroup(
            self,
            "AccessLog",
            log_group_name=f"/maskdrop/{parts.stage.name}/api-access",
            retention=parts.stage.keep_logs,
            removal_policy=RemovalPolicy.DESTROY,
        )

    def _routes(self, parts: Parts, authorize: Authorize) -> None:
        """Everything goes to the function; what differs is who may come. API Gateway takes the most particular route,
        so the open ones go before the one for all the rest."""
        answer = apigateway.LambdaIntegration(self.function, allow_test_invoke=False)
        keys = apigateway.RequestAuthorizer(
            self,
            "Keys",
            handler=authorize.function,
            # A key comes in one of two headers. Every identity source would have to be there, and a cache needs one.
            identity_sources=[],
            results_cache_ttl=Duration.seconds(0),
        )
        everything = self.rest.root.add_resource("{proxy+}")
        # The key is required so that the usage plan counts: its name comes from the authorizer.
        everything.add_method(
            "ANY",
            answer,
            api_key_required=True,
            authorizer=keys,
            authorization_type=apigateway.AuthorizationType.CUSTOM,
        )
        signed = self.rest.root.resource_for_path(f"{IAM_PREFIX}/{{proxy+}}")
        signed.add_method("ANY", answer, authorization_type=apigateway.AuthorizationType.IAM)
        for path in OPEN_PATHS:
            self.rest.root.resource_for_path(path).add_method("GET", answer)
        if parts.stage.cors:  # a browser asks first, and without a key
            everything.add_method("OPTIONS", answer)

    def _allow_jobs(self, parts: Parts) -> None:
        """To make, tell, try anew and remove them. Of a source the function asks no more than its version and size;
        what was dropped it cannot delete."""
        items = ("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem")
        self.allow(*items, on=parts.jobs.table.table_arn)
        parts.registry.allow(
            self.role, "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:DeleteItem", kinds=["idempotency"]
        )
        self.allow("sqs:SendMessage", on=parts.queues.jobs.queue_arn)
        inbox, results, sources = parts.storage.inbox, parts.storage.results, parts.storage.sources
        self.allow_objects(
            "s3:GetObject", "s3:PutObject", "s3:DeleteObject", on=inbox.arn_for_objects(f"{UPLOADS_PREFIX}*")
        )
        self.allow_objects("s3:GetObject", "s3:DeleteObject", on=results.arn_for_objects(f"{RESULTS_PREFIX}*"))
        for readable in (inbox.arn_for_objects(f"{INBOX_PREFIX}*"), *(one.arn_for_objects("*") for one in sources)):
            self.allow_objects("s3:GetObject", on=readable)
        for bucket in (inbox, results, *sources):  # without it, S3 says 403 for an object that is not there
            self.allow("s3:ListBucket", on=bucket.bucket_arn)

    def _refusals(self, parts: Parts) -> None:
        """API Gateway cannot tell one path from another here, so that every client finds its own: `error` is ours,
        `errors` is remove.bg's."""
        open_to_pages = {"Access-Control-Allow-Origin": "'*'"} if parts.stage.cors else {}  # they tell no secrets
        for kind, (error, message, headers) in REFUSALS.items():
            self.rest.add_gateway_response(
                kind,
                type=apigateway.ResponseType.of(kind),
                status_code=str(error.status),
                response_headers=open_to_pages | {name: f"'{value}'" for name, value in headers.items()},
                templates={"application/json": _body(error.code, json.dumps(message), retryable=error.retryable)},
            )
        others = {
            "DEFAULT_4XX": _body("bad_request", "$context.error.messageString", retryable=False),
            "DEFAULT_5XX": _body(Internal.code, '"A fault of ours."', retryable=True),
        }
        for kind, body in others.items():
            self.rest.add_gateway_response(
                kind,
                type=apigateway.ResponseType.of(kind),
                response_headers=open_to_pages,
                templates={"application/json": body},
            )

    def _plan(self, parts: Parts) -> apigateway.UsagePlan:
        """What a key may do before anything of ours runs. `maskdrop keys create` puts keys on it."""
        stage = parts.stage
        return self.rest.add_usage_plan(
            "Plan",
            throttle=apigateway.ThrottleSettings(rate_limit=stage.requests_per_second, burst_limit=stage.burst),
            quota=apigateway.QuotaSettings(limit=stage.requests_per_month, period=apigateway.Period.MONTH),
            api_stages=[apigateway.UsagePlanPerApiStage(api=self.rest, stage=self.rest.deployment_stage)],
        )

    def _acknowledge(self, *, waf: bool) -> None:
        acknowledge(
            self.rest,
            "AwsSolutions-APIG4",
            "Every route asks for a key of ours or a signature of AWS's, but those that tell nothing: health, the "
            "description of the API and, where pages may call it, a browser's question whether they may.",
        )
        acknowledge(self.rest, "AwsSolutions-COG4", "As APIG4: keys of our own, not a Cognito user pool.")
        acknowledge(
            self.rest, "AwsSolutions-APIG2", "The function checks requests: it knows the routes and their errors."
        )
        if not waf:
            acknowledge(self.rest, "AwsSolutions-APIG3", "WAF costs $7 a month idle: a stage has it that asks for it.")
        role = cast(Construct, self.rest.node.find_child("CloudWatchRole"))
        acknowledge(
            role,
            "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/"
            "AmazonAPIGatewayPushToCloudWatchLogs]",
            "The policy that API Gateway asks for, once in an account; a smaller one is refused.",
        )


def _body(code: str, message: str, *, retryable: bool) -> str:
    """message: as JSON. The text is a mapping template, which JSON without a "$" or "#" is as well."""
    error = f'{{"code": "{code}", "message": {message}, "retryable": {json.dumps(retryable)}}}'
    return f'{{"error": {error}, "errors": [{{"title": {message}, "code": "{code}", "detail": ""}}]}}'

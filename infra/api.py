"""`lambdas/api.py` behind API Gateway: REST, regional, metered by API keys."""

from __future__ import annotations

from typing import cast

from aws_cdk import RemovalPolicy
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.function import Function
from infra.jobs_table import BY_STATE
from infra.nag import acknowledge
from infra.parts import Parts
from maskdrop.job import RESULTS_PREFIX, UPLOADS_PREFIX

TIMEOUT_S = 29
"""As long as API Gateway waits: one picture now may wait for 25 seconds."""


class Api(Function):
    """Routes and what they need; who may call them how often is told by the usage plan of their key."""

    def __init__(self, scope: Construct, construct_id: str, *, parts: Parts) -> None:
        super().__init__(scope, construct_id, name="api", parts=parts, memory_mb=1024, timeout_s=TIMEOUT_S)
        stage = parts.stage
        self.rest = apigateway.RestApi(
            self,
            "Rest",
            rest_api_name=f"maskdrop-{stage.name}",
            # All there are: what is not listed comes back in base64, by the first Accept of a caller, often "*/*".
            binary_media_types=["*/*"],
            endpoint_types=[apigateway.EndpointType.REGIONAL],
            cloud_watch_role=True,
            cloud_watch_role_removal_policy=RemovalPolicy.RETAIN,  # one for the whole account, whoever deployed it
            default_method_options=apigateway.MethodOptions(api_key_required=True),
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
        self._routes()
        self.key = self._key(parts)
        self.allow("dynamodb:GetItem", on=parts.jobs.table.table_arn)
        self.allow("dynamodb:Query", on=parts.jobs.index_arn(BY_STATE))
        self.allow_objects("s3:GetObject", on=parts.storage.results.arn_for_objects(f"{RESULTS_PREFIX}*"))
        self._allow_cutouts(parts)
        self._acknowledge()

    def _access_log(self, parts: Parts) -> logs.LogGroup:
        return logs.LogGroup(
            self,
            "AccessLog",
            log_group_name=f"/maskdrop/{parts.stage.name}/api-access",
            retention=parts.stage.keep_logs,
            removal_policy=RemovalPolicy.DESTROY,
        )

    def _routes(self) -> None:
        answer = apigateway.LambdaIntegration(self.function, allow_test_invoke=False)
        validator = self.rest.add_request_validator(
            "Validator", validate_request_parameters=True, validate_request_body=True
        )
        v1 = self.rest.root.add_resource("v1")
        v1.add_resource("health").add_method("GET", answer, api_key_required=False, request_validator=validator)
        v1.add_resource("cutouts").add_method("POST", answer, request_validator=validator)
        jobs = v1.add_resource("jobs")
        jobs.add_method(
            "GET",
            answer,
            request_parameters={f"method.request.querystring.{name}": False for name in ("state", "limit", "cursor")},
            request_validator=validator,
        )
        jobs.add_resource("{id}").add_method(
            "GET", answer, request_parameters={"method.request.path.id": True}, request_validator=validator
        )

    def _allow_cutouts(self, parts: Parts) -> None:
        """One picture now, or the job that it becomes."""
        if parts.interactive:
            self.allow("sagemaker:InvokeEndpoint", on=parts.interactive.arn)
        self.allow_objects("s3:PutObject", on=parts.storage.inbox.arn_for_objects(f"{UPLOADS_PREFIX}*"))
        self.allow("dynamodb:PutItem", on=parts.jobs.table.table_arn)
        self.allow("sqs:SendMessage", on=parts.queues.jobs.queue_arn)

    def _key(self, parts: Parts) -> apigateway.IApiKey:
        stage = parts.stage
        key = self.rest.add_api_key("Key", description=f"The first key of maskdrop-{stage.name}")
        plan = self.rest.add_usage_plan(
            "Plan",
            throttle=apigateway.ThrottleSettings(rate_limit=stage.requests_per_second, burst_limit=stage.burst),
            quota=apigateway.QuotaSettings(limit=stage.requests_per_month, period=apigateway.Period.MONTH),
            api_stages=[apigateway.UsagePlanPerApiStage(api=self.rest, stage=self.rest.deployment_stage)],
        )
        plan.add_api_key(key)
        return key

    def _acknowledge(self) -> None:
        acknowledge(
            self.rest,
            "AwsSolutions-APIG4",
            "A key is asked for by every route but /v1/health, which tells nothing. Sign-in is the account owner's "
            "choice and stands before this API.",
        )
        acknowledge(self.rest, "AwsSolutions-COG4", "As APIG4: API keys, not a Cognito user pool.")
        acknowledge(self.rest, "AwsSolutions-APIG3", "WAF costs $9 a month idle and belongs in a stack of its own.")
        role = cast(Construct, self.rest.node.find_child("CloudWatchRole"))
        acknowledge(
            role,
            "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/"
            "AmazonAPIGatewayPushToCloudWatchLogs]",
            "The policy that API Gateway asks for, once in an account; a smaller one is refused.",
        )

"""The optional door: `maskdrop serve` on Fargate behind a load balancer, for requests above API Gateway's 4 MB.

callers ──► Application Load Balancer ──► tasks in public subnets ──► the registry of the stage (DynamoDB)

The tasks process images themselves, without SageMaker. There is no NAT: a task has a public IP address of its own, and
its security group accepts only the load balancer. Jobs, uploads and edits stay with the API of the stage.
"""

from __future__ import annotations

import json
from typing import cast

from aws_cdk import Aws, CfnOutput, CrossStackReferences, Duration, ReferenceStrength
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from constructs import Construct

from infra.nag import acknowledge, acknowledge_wildcard
from infra.network import own_account
from infra.registry import Registry
from infra.retention import log_group
from infra.runbooks import runbook_link
from infra.sources import cpu_tag
from infra.stage_stack import StageStack
from infra.stages import Door, Stage

PATHS = (
    *("/v1.0/removebg", "/v1.0/account", "/v1.0/alpha-channel-base64", "/available-credit", "/v1/remove-background"),
    *("/api/remove", "/detect-airplane", "/invocations"),
    *("/v1/cutouts", "/v1/masks", "/v1/detections", "/v1/engines", "/v1/presets"),
    *("/v1/health", "/v1/openapi.json", "/v1/docs"),
)
"""Paths that the door serves: those that need no job, and no file that another task has stored."""

VALUES_MAX = 5
"""Maximum number of values in the conditions of a rule of a load balancer."""

PORT = 8080

REQUEST_S = 120
"""Seconds for one request: the default of `maskdrop serve`. The load balancer waits a little longer."""

DRAIN_S = 60
"""Seconds in which a task that is replaced may finish its requests, counted from its removal from the load balancer."""

STOP_S = 90
"""Seconds from SIGTERM to SIGKILL; the maximum of Fargate is 120."""

START_S = 120
"""Seconds in which a new task may fail its health checks: it loads the engines in about 20."""

CPU_TARGET = 60
"""Average use of the vCPUs, in percent, above which another task starts. It takes about a minute."""

NOT_FOUND = {
    "error": {
        "code": "not_found",
        "message": "This URL serves synchronous requests only; use ApiUrl of the stage for jobs, uploads and edits.",
        "retryable": False,
    }
}

TLS = elb.SslPolicy.TLS13_RES
"""TLS 1.3 and 1.2 with forward secrecy."""

FIVE_MINUTES = Duration.minutes(5)


class DoorStack(StageStack):
    """A VPC, a load balancer and a service with `min_tasks` to `max_tasks` tasks.

    The references to other stacks are weak: turning the door off changes no other stack. CloudFormation keeps this
    stack until you delete it.

    stage: with the option `door`. topic: that of the alarms.
    """

    def __init__(self, scope: Construct, *, stage: Stage, image_tag: str, registry: Registry, topic: sns.Topic) -> None:
        super().__init__(scope, "MaskdropDoor", stage=stage, description="HTTP API on Fargate for large images")
        CrossStackReferences.of(self).consume(ReferenceStrength.WEAK)
        door = cast(Door, stage.door)
        self._stage, self._door, self._registry = stage, door, registry
        vpc = self._vpc()
        balancer = self._balancer(vpc)
        service = self._service(vpc, image_tag)
        service.connections.allow_from(balancer, ec2.Port.tcp(PORT), "Requests of the load balancer")
        balancer.connections.allow_to(service, ec2.Port.tcp(PORT), "Requests to the tasks")
        target = self._listen(balancer, service)
        scaling = service.auto_scale_task_count(min_capacity=door.min_tasks, max_capacity=door.max_tasks)
        scaling.scale_on_cpu_utilization("FollowCpu", target_utilization_percent=CPU_TARGET)
        self._alarms(balancer, target, topic)
        scheme = "https" if door.certificate else "http"
        host = door.name or balancer.load_balancer_dns_name
        for name, value in {"DoorUrl": f"{scheme}://{host}", "DoorHost": balancer.load_balancer_dns_name}.items():
            CfnOutput(self, f"Output{name}", value=value).override_logical_id(name)

    def _vpc(self) -> ec2.Vpc:
        flow_logs = log_group(self, "FlowLogs", stage=self._stage, name=f"/maskdrop/{self._stage.name}/door-network")
        vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr("10.1.0.0/22"),
            max_azs=2,
            nat_gateways=0,
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="Public", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=24, map_public_ip_on_launch=False
                )
            ],
            flow_logs={
                "Rejected": ec2.FlowLogOptions(
                    destination=ec2.FlowLogDestination.to_cloud_watch_logs(flow_logs),
                    traffic_type=ec2.FlowLogTrafficType.REJECT,
                )
            },
        )
        vpc.add_gateway_endpoint("DynamoDb", service=ec2.GatewayVpcEndpointAwsService.DYNAMODB).add_to_policy(
            own_account()
        )
        return vpc

    def _balancer(self, vpc: ec2.Vpc) -> elb.ApplicationLoadBalancer:
        group = ec2.SecurityGroup(
            self, "Callers", vpc=vpc, description="Load balancer: requests of callers", allow_all_outbound=False
        )
        port = 443 if self._door.certificate else 80
        for source in self._door.sources:
            group.add_ingress_rule(ec2.Peer.ipv4(source), ec2.Port.tcp(port), "Callers of the API")
        balancer = elb.ApplicationLoadBalancer(
            self,
            "Balancer",
            vpc=vpc,
            internet_facing=True,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC),
            security_group=group,
            idle_timeout=Duration.seconds(REQUEST_S + 10),
            drop_invalid_header_fields=True,
        )
        acknowledge(
            balancer, "AwsSolutions-ELB2", "Each request is in the log of its task, with path and key ID, not its body."
        )
        if "0.0.0.0/0" in self._door.sources:
            acknowledge(
                group, "AwsSolutions-EC23", "A public API: every request needs an API key. `sources` limits callers."
            )
        return balancer

    def _service(self, vpc: ec2.Vpc, image_tag: str) -> ecs.FargateService:
        stage, door = self._stage, self._door
        group = log_group(self, "Logs", stage=stage, name=f"/maskdrop/{stage.name}/door")
        task = ecs.FargateTaskDefinition(
            self,
            "Task",
            cpu=1024 * door.vcpus,
            memory_limit_mib=1024 * door.memory_gb,
            runtime_platform=ecs.RuntimePlatform(
                cpu_architecture=ecs.CpuArchitecture.X86_64, operating_system_family=ecs.OperatingSystemFamily.LINUX
            ),
        )
        repository = ecr.Repository.from_repository_name(self, "Repository", stage.repository)
        task.add_container(
            "Server",
            image=ecs.ContainerImage.from_ecr_repository(repository, cpu_tag(image_tag)),
            command=["serve-api"],
            environment=self._environment(),
            logging=ecs.LogDrivers.aws_logs(stream_prefix="door", log_group=group),
            port_mappings=[ecs.PortMapping(container_port=PORT)],
            stop_timeout=Duration.seconds(STOP_S),
        )
        acknowledge(task, "AwsSolutions-ECS2", "The variables are names and limits; the tasks need no secret.")
        role = cast(iam.Role, task.task_role)
        counts = ("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem")
        self._registry.allow(role, "dynamodb:GetItem", kinds=["key", "cap"])
        self._registry.allow(role, *counts, kinds=["window", "usage"])
        self._registry.allow(role, "dynamodb:PutItem", "dynamodb:DeleteItem", kinds=["slot"])
        self._registry.allow(role, "dynamodb:Query", kinds=["preset"])
        acknowledge_wildcard(
            task.obtain_execution_role(), "*", "ecr:GetAuthorizationToken has no resource-level permissions."
        )
        cluster = ecs.Cluster(self, "Cluster", vpc=vpc, container_insights_v2=ecs.ContainerInsights.DISABLED)
        acknowledge(cluster, "AwsSolutions-ECS4", "Container Insights is billed by metric; the alarms need none of it.")
        tasks = ec2.SecurityGroup(
            self,
            "Tasks",
            vpc=vpc,
            description="Tasks: HTTPS to AWS and to the hosts of images",
            allow_all_outbound=False,
        )
        for port in (443, *((80,) if stage.http_sources else ())):
            tasks.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(port), "AWS services, and image URLs of requests")
        return ecs.FargateService(
            self,
            "Service",
            cluster=cluster,
            task_definition=task,
            security_groups=[tasks],
            assign_public_ip=True,  # instead of a NAT gateway, which costs $33 a month
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC),
            min_healthy_percent=100,
            max_healthy_percent=200,
            circuit_breaker=ecs.DeploymentCircuitBreaker(enable=True, rollback=True),
            health_check_grace_period=Duration.seconds(START_S),
        )

    def _environment(self) -> dict[str, str]:
        stage, door = self._stage, self._door
        url = f"https://{door.name}" if door.name else ""
        return {
            "AWS_DEFAULT_REGION": Aws.REGION,
            "MODEL_DEVICE": "cpu",
            "MODEL_WORKERS": str(door.vcpus),
            **({"MODEL_NON_COMMERCIAL": "1"} if stage.non_commercial else {}),
            "SERVE_HOST": "0.0.0.0",  # noqa: S104  the load balancer reaches the task from outside
            "SERVE_PORT": str(PORT),
            "SERVE_DATA": "/var/lib/maskdrop",
            "SERVE_KEEP_DAYS": "1",
            "SERVE_REQUEST_S": str(REQUEST_S),
            "SERVE_DRAIN_S": str(DRAIN_S),
            "SERVE_REGISTRY": self._registry.table.table_name,
            "SERVE_TRUSTED_HOSTS": " ".join(stage.trusted_hosts),
            "SERVE_HTTP_SOURCES": str(int(stage.http_sources)),
            "SERVE_CORS_ORIGINS": " ".join(stage.cors),
            **({"SERVE_PUBLIC_URL": url} if url else {}),
        }

    def _listen(self, balancer: elb.ApplicationLoadBalancer, service: ecs.FargateService) -> elb.ApplicationTargetGroup:
        """Forwards PATHS to the tasks; responds with 404 to others."""
        certificate = self._door.certificate
        listener = balancer.add_listener(
            "Listener",
            port=443 if certificate else 80,
            protocol=elb.ApplicationProtocol.HTTPS if certificate else elb.ApplicationProtocol.HTTP,
            certificates=[elb.ListenerCertificate.from_arn(certificate)] if certificate else None,
            ssl_policy=TLS if certificate else None,
            open=False,
            default_action=elb.ListenerAction.fixed_response(
                404, content_type="application/json", message_body=json.dumps(NOT_FOUND)
            ),
        )
        target = elb.ApplicationTargetGroup(
            self,
            "Server",
            vpc=balancer.vpc,
            port=PORT,
            protocol=elb.ApplicationProtocol.HTTP,
            targets=[service],
            deregistration_delay=Duration.seconds(DRAIN_S),
            load_balancing_algorithm_type=elb.TargetGroupLoadBalancingAlgorithmType.LEAST_OUTSTANDING_REQUESTS,
            health_check=elb.HealthCheck(
                path="/v1/health",
                interval=Duration.seconds(15),
                timeout=Duration.seconds(10),
                healthy_threshold_count=2,
                unhealthy_threshold_count=4,
            ),
        )
        for number, start in enumerate(range(0, len(PATHS), VALUES_MAX), 1):
            listener.add_action(
                f"Paths{number}",
                priority=number,
                conditions=[elb.ListenerCondition.path_patterns([*PATHS[start : start + VALUES_MAX]])],
                action=elb.ListenerAction.forward([target]),
            )
        return target

    def _alarms(
        self, balancer: elb.ApplicationLoadBalancer, target: elb.ApplicationTargetGroup, topic: sns.Topic
    ) -> None:
        log = f"Its log: aws logs tail /maskdrop/{self._stage.name}/door --since 1h."
        operator = cloudwatch.ComparisonOperator
        faults = cloudwatch.MathExpression(
            expression="FILL(tasks, 0) + FILL(balancer, 0)",
            using_metrics={
                "tasks": target.metrics.http_code_target(
                    elb.HttpCodeTarget.TARGET_5XX_COUNT, statistic="Sum", period=FIVE_MINUTES
                ),
                "balancer": balancer.metrics.http_code_elb(
                    elb.HttpCodeElb.ELB_5XX_COUNT, statistic="Sum", period=FIVE_MINUTES
                ),
            },
            label="5xx responses",
            period=FIVE_MINUTES,
        )
        healthy = target.metrics.healthy_host_count(statistic="Minimum", period=Duration.minutes(1))
        alarms = (
            cloudwatch.Alarm(
                self,
                "Faults",
                alarm_description=f"The door returns 5xx responses. {log} {runbook_link('DoorFaults')}",
                metric=faults,
                threshold=3,
                evaluation_periods=1,
                comparison_operator=operator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
                treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            ),
            cloudwatch.Alarm(
                self,
                "Down",
                alarm_description=f"No task of the door is healthy for 5 minutes. {log} {runbook_link('DoorDown')}",
                metric=healthy,
                threshold=1,
                evaluation_periods=5,
                comparison_operator=operator.LESS_THAN_THRESHOLD,
                treat_missing_data=cloudwatch.TreatMissingData.BREACHING,
            ),
        )
        for alarm in alarms:
            alarm.add_alarm_action(actions.SnsAction(topic))

"""The VPC of a stage with `vpc = true`: no internet access, only endpoints of AWS services."""

from __future__ import annotations

from aws_cdk import Aws
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.retention import log_group
from infra.stage_stack import StageStack
from infra.stages import Stage
from maskdrop.edit import EDITORS

SERVICES = {
    "Sqs": ec2.InterfaceVpcEndpointAwsService.SQS,
    "SageMakerRuntime": ec2.InterfaceVpcEndpointAwsService.SAGEMAKER_RUNTIME,
    "Events": ec2.InterfaceVpcEndpointAwsService.EVENTBRIDGE,
}
"""Services that the functions in the VPC call, besides S3 and DynamoDB. Each costs $0.01 an hour in each of two
Availability Zones, $14.60 a month (us-east-1, autumn 2026). Lambda and SageMaker deliver logs, metrics and traces, poll
the queues and pull the image outside the VPC."""

REKOGNITION = {"Rekognition": ec2.InterfaceVpcEndpointAwsService.REKOGNITION}
"""The service that the containers call in a stage with `rekognition`, at the same price."""

BEDROCK = {"BedrockRuntime": ec2.InterfaceVpcEndpointAwsService.BEDROCK_RUNTIME}
"""The service that `edit` calls in a stage whose editor is a model on Amazon Bedrock, at the same price."""

LAMBDA_INTERFACES = [
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
]
SAGEMAKER_INTERFACES = [
    "ec2:CreateNetworkInterface",
    "ec2:CreateNetworkInterfacePermission",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
]
"""What the roles of functions and of endpoints need to connect to a VPC (Lambda and SageMaker developer guides)."""


class NetworkStack(StageStack):
    """A VPC with an isolated subnet in each of two Availability Zones.

    A stack of its own: after `vpc` is turned off it stays until you delete it, because the other stacks import from it.
    """

    def __init__(self, scope: Construct, *, stage: Stage) -> None:
        super().__init__(scope, "MaskdropNetwork", stage=stage, description="VPC without internet access")
        flow_logs = log_group(self, "FlowLogs", stage=stage, name=f"/maskdrop/{stage.name}/network")
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr("10.0.0.0/22"),
            max_azs=2,
            nat_gateways=0,
            subnet_configuration=[
                ec2.SubnetConfiguration(name="Isolated", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=24)
            ],
            flow_logs={
                "Rejected": ec2.FlowLogOptions(
                    destination=ec2.FlowLogDestination.to_cloud_watch_logs(flow_logs),
                    traffic_type=ec2.FlowLogTrafficType.REJECT,
                )
            },
        )
        for name, gateway in {
            "S3": ec2.GatewayVpcEndpointAwsService.S3,
            "DynamoDb": ec2.GatewayVpcEndpointAwsService.DYNAMODB,
        }.items():
            self.vpc.add_gateway_endpoint(name, service=gateway).add_to_policy(own_account())
        self.functions = self._group("Functions", "Functions: HTTPS to the endpoints of AWS services")
        self.containers = self._group("Containers", "Endpoints: HTTPS to S3")
        services = ec2.SecurityGroup(
            self,
            "Services",
            vpc=self.vpc,
            description="Interface endpoints: HTTPS from the functions",
            allow_all_outbound=False,
        )
        services.add_ingress_rule(self.functions, ec2.Port.tcp(443), "HTTPS from the functions")
        if stage.rekognition:
            services.add_ingress_rule(self.containers, ec2.Port.tcp(443), "HTTPS from the endpoints")
        for name, service in _services(stage).items():
            self.vpc.add_interface_endpoint(name, service=service, open=False, security_groups=[services])

    def _group(self, name: str, description: str) -> ec2.SecurityGroup:
        """Creates a security group without ingress. Gateway endpoints have public IP addresses, so that egress is
        limited by the routes: there is none to the internet."""
        group = ec2.SecurityGroup(self, name, vpc=self.vpc, description=description, allow_all_outbound=False)
        group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "HTTPS, to endpoints of AWS services")
        return group


def _services(stage: Stage) -> dict[str, ec2.InterfaceVpcEndpointAwsService]:
    """Services with an interface endpoint. That of Bedrock exists only where the editor of the stage is a model."""
    return {
        **SERVICES,
        **(REKOGNITION if stage.rekognition else {}),
        **(BEDROCK if EDITORS[stage.editor].model else {}),
    }


def own_account() -> iam.PolicyStatement:
    """Allows requests to buckets and tables of this account only: data cannot leave through an endpoint."""
    return iam.PolicyStatement(
        actions=["*"],
        principals=[iam.AnyPrincipal()],
        resources=["*"],
        conditions={"StringEquals": {"aws:ResourceAccount": Aws.ACCOUNT_ID}},
    )

"""The domain name of the API, for a stage with `domain`."""

from __future__ import annotations

from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_route53 as route53
from constructs import Construct

from infra.stages import Domain

TLS_POLICY = "SecurityPolicy_TLS13_1_2_PFS_PQ_2025_09"
"""TLS 1.3 and 1.2 with forward secrecy, for the API and its domain name."""


class ApiDomain(Construct):
    """Serves a stage of the API at https://<name>, without the name of the stage in the path.

    With a hosted zone, adds the alias record.
    """

    def __init__(self, scope: Construct, construct_id: str, *, domain: Domain, api: apigateway.RestApi) -> None:
        super().__init__(scope, construct_id)
        self.url = f"https://{domain.name}"
        name = apigateway.CfnDomainName(
            self,
            "Name",
            domain_name=domain.name,
            endpoint_access_mode="STRICT",
            endpoint_configuration=apigateway.CfnDomainName.EndpointConfigurationProperty(types=["REGIONAL"]),
            regional_certificate_arn=domain.certificate,
            security_policy=TLS_POLICY,
        )
        apigateway.CfnBasePathMapping(
            self,
            "Root",
            domain_name=name.ref,
            rest_api_id=api.rest_api_id,
            stage=api.deployment_stage.stage_name,
        )
        if domain.zone:
            route53.CfnRecordSet(
                self,
                "Alias",
                name=domain.name,
                type="A",
                hosted_zone_id=domain.zone,
                alias_target=route53.CfnRecordSet.AliasTargetProperty(
                    dns_name=name.attr_regional_domain_name, hosted_zone_id=name.attr_regional_hosted_zone_id
                ),
            )

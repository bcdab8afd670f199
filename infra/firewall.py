"""AWS WAF in front of the API, for a stage with waf=true. Costs $5 a month, $1 per rule and month, and $0.60 per
million requests (us-east-1, autumn 2026)."""

from __future__ import annotations

from aws_cdk import Stack
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_wafv2 as wafv2
from constructs import Construct

from infra.stages import Stage

COUNTED = {
    "NoUserAgent_HEADER": "programs and devices call the API without the header User-Agent",
    "SizeRestrictions_QUERYSTRING": "a prompt, or the presigned URL of GET /api/remove, can exceed 2,048 bytes",
    "SizeRestrictions_BODY": "an image exceeds 8 KB",
    "CrossSiteScripting_BODY": "an image contains the byte patterns by chance, or markup in its metadata",
    "GenericLFI_BODY": "the metadata of an image contain file paths",
    "GenericRFI_BODY": "a body contains the URL of a source or webhook",
    "GenericRFI_QUERYARGUMENTS": "GET /api/remove has the URL of a source, whose host may be an IP address",
}
"""Rules of AWSManagedRulesCommonRuleSet that only count here: rule -> the valid request that it would block. The others
block, since no valid request matches them: it has no cookies, scripts or paths of the instance metadata service in its
URL or query, and its path is short and ends in no file extension of configuration files."""

WINDOW_S = 300
"""Window of the rate-based rule, in seconds."""


class Firewall(Construct):
    """The common rule set of AWS, and a rate limit per IP address: `requests_per_second` averaged over 5 minutes."""

    def __init__(self, scope: Construct, construct_id: str, *, stage: Stage, api: apigateway.RestApi) -> None:
        super().__init__(scope, construct_id)
        common = wafv2.CfnWebACL.StatementProperty(
            managed_rule_group_statement=wafv2.CfnWebACL.ManagedRuleGroupStatementProperty(
                vendor_name="AWS",
                name="AWSManagedRulesCommonRuleSet",
                rule_action_overrides=[
                    wafv2.CfnWebACL.RuleActionOverrideProperty(
                        name=name, action_to_use=wafv2.CfnWebACL.RuleActionProperty(count={})
                    )
                    for name in COUNTED
                ],
            )
        )
        rate = wafv2.CfnWebACL.StatementProperty(
            rate_based_statement=wafv2.CfnWebACL.RateBasedStatementProperty(
                aggregate_key_type="IP",
                limit=stage.requests_per_second * WINDOW_S,
                evaluation_window_sec=WINDOW_S,
            )
        )
        rules = [
            wafv2.CfnWebACL.RuleProperty(
                name="Common",
                priority=0,
                statement=common,
                override_action=wafv2.CfnWebACL.OverrideActionProperty(none={}),
                visibility_config=_visibility("Common"),
            ),
            wafv2.CfnWebACL.RuleProperty(
                name="Rate",
                priority=1,
                statement=rate,
                action=wafv2.CfnWebACL.RuleActionProperty(block={}),
                visibility_config=_visibility("Rate"),
            ),
        ]
        acl = wafv2.CfnWebACL(
            self,
            "Acl",
            scope="REGIONAL",
            default_action=wafv2.CfnWebACL.DefaultActionProperty(allow={}),
            visibility_config=_visibility("Api"),
            rules=rules,
        )
        arn = f"arn:{Stack.of(self).partition}:apigateway:{Stack.of(self).region}::/restapis/{api.rest_api_id}"
        wafv2.CfnWebACLAssociation(
            self, "OnApi", resource_arn=f"{arn}/stages/{api.deployment_stage.stage_name}", web_acl_arn=acl.attr_arn
        )


def _visibility(name: str) -> wafv2.CfnWebACL.VisibilityConfigProperty:
    return wafv2.CfnWebACL.VisibilityConfigProperty(
        cloud_watch_metrics_enabled=True, metric_name=name, sampled_requests_enabled=True
    )

"""The optional stack of the web console: CloudFront in front of a private bucket, the API and the images."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from infra.console import STRIP_FOLDER
from infra.stages import Console, Stage
from maskdrop.console import FILE_HEADERS, HEADERS
from tests.infra.account.assembly import Assembly, Resource

Variants = dict[str, Assembly]

CERTIFICATE = "arn:aws:acm:us-east-1:123456789012:certificate/1"


def of(variants: Variants, name: str, kind: str) -> list[Resource]:
    return [one for one in variants[name].of(kind) if one.stack.startswith("MaskdropWeb-")]


def distribution(variants: Variants, name: str = "web") -> dict[str, Any]:
    (found,) = of(variants, name, "AWS::CloudFront::Distribution")
    config = found.raw["DistributionConfig"]
    assert isinstance(config, dict)
    return config


def origins(variants: Variants) -> dict[str, dict[str, Any]]:
    return {one["Id"]: one for one in distribution(variants)["Origins"]}


def headers_policy(variants: Variants, behavior: dict[str, Any]) -> dict[str, Any]:
    """The response headers of a behavior of the distribution."""
    policies = {one.logical_id: one for one in of(variants, "web", "AWS::CloudFront::ResponseHeadersPolicy")}
    config = policies[behavior["ResponseHeadersPolicyId"]["Ref"]].properties["ResponseHeadersPolicyConfig"]
    assert isinstance(config, dict)
    return config


def test_the_console_is_off_by_default() -> None:
    assert Stage(name="dev").web is None


def test_the_console_is_in_no_stage_that_does_not_ask_for_it(variants: Variants) -> None:
    for name in ("dev", "prod", "door"):
        assert not [stack for stack in variants[name].templates if "Web" in stack]


def test_the_console_changes_no_resource_of_the_other_stacks(variants: Variants) -> None:
    """CloudFormation can add and remove it without touching the API; the references are outputs without an export."""
    for stack, template in variants["serverless"].templates.items():
        with_console = variants["web"].templates[stack]
        assert with_console["Resources"] == template["Resources"], stack
        exports = [one for one in with_console.get("Outputs", {}).values() if "Export" in one]
        assert exports == [one for one in template.get("Outputs", {}).values() if "Export" in one]


def test_only_the_distribution_reads_the_private_bucket(variants: Variants) -> None:
    default = distribution(variants)["DefaultCacheBehavior"]
    site = origins(variants)[default["TargetOriginId"]]
    assert "OriginAccessControlId" in site
    assert default["ViewerProtocolPolicy"] == "redirect-to-https"
    (control,) = of(variants, "web", "AWS::CloudFront::OriginAccessControl")
    assert control.properties["OriginAccessControlConfig"]["SigningBehavior"] == "always"

    (bucket,) = of(variants, "web", "AWS::S3::Bucket")
    assert set(bucket.properties["PublicAccessBlockConfiguration"].values()) == {True}
    (policy,) = of(variants, "web", "AWS::S3::BucketPolicy")
    allowed = [one for one in policy.raw["PolicyDocument"]["Statement"] if one["Effect"] == "Allow"]
    (reading,) = allowed
    assert (reading["Action"], reading["Principal"]) == ("s3:GetObject", {"Service": "cloudfront.amazonaws.com"})
    assert "AWS:SourceArn" in reading["Condition"]["StringEquals"]


def test_every_file_has_the_headers_that_the_other_servers_send(variants: Variants) -> None:
    behavior = distribution(variants)["DefaultCacheBehavior"]
    config = headers_policy(variants, behavior)
    security = config["SecurityHeadersConfig"]
    found = {one["Header"]: one["Value"] for one in config["CustomHeadersConfig"]["Items"]} | {
        "Content-Security-Policy": security["ContentSecurityPolicy"]["ContentSecurityPolicy"],
        "Referrer-Policy": security["ReferrerPolicy"]["ReferrerPolicy"],
        "X-Content-Type-Options": "nosniff" if security["ContentTypeOptions"]["Override"] else "",
        "X-Frame-Options": security["FrameOptions"]["FrameOption"],
    }
    assert found == HEADERS
    assert security["StrictTransportSecurity"]["AccessControlMaxAgeSec"] >= 365 * 24 * 3600


def test_stored_files_have_the_headers_of_a_sandbox(variants: Variants) -> None:
    """The caller of an upload chooses its type: an SVG would run on the origin that keeps the API key."""
    behaviors = [one for one in distribution(variants)["CacheBehaviors"] if one["PathPattern"].startswith("/files/")]
    assert len(behaviors) == 2
    for behavior in behaviors:
        security = headers_policy(variants, behavior)["SecurityHeadersConfig"]
        assert security["ContentSecurityPolicy"] == {
            "ContentSecurityPolicy": FILE_HEADERS["Content-Security-Policy"],
            "Override": True,
        }
        assert "sandbox" in FILE_HEADERS["Content-Security-Policy"]
        assert security["ContentTypeOptions"] == {"Override": True}


def test_api_and_images_are_on_the_same_origin_and_not_cached(variants: Variants) -> None:
    behaviors = {one["PathPattern"]: one for one in distribution(variants)["CacheBehaviors"]}
    assert set(behaviors) == {"/v1/*", "/files/inbox/*", "/files/results/*"}
    for behavior in behaviors.values():
        assert behavior["CachePolicyId"] == "4135ea2d-6df8-44a3-9df3-4b5a84be39ad", "Managed-CachingDisabled"
        assert behavior["OriginRequestPolicyId"] == "b689b0a8-53d0-40ab-baf2-68738e2966ac", "AllViewerExceptHostHeader"
        assert behavior["ViewerProtocolPolicy"] == "https-only"
        assert "POST" in behavior["AllowedMethods"]
        origin = origins(variants)[behavior["TargetOriginId"]]
        assert origin["CustomOriginConfig"]["OriginProtocolPolicy"] == "https-only"
        assert "OriginAccessControlId" not in origin, "S3 accepts one signature only"
    assert origins(variants)[behaviors["/v1/*"]["TargetOriginId"]]["OriginPath"] == "/shop"


@pytest.mark.parametrize(
    ("path", "stripped"),
    [
        ("/files/inbox/", "/"),
        ("/files/results/results/jobs/1/a%20b.png", "/results/jobs/1/a%20b.png"),
        ("/files/other/a", "/files/other/a"),
    ],
)
def test_a_presigned_url_reaches_s3_with_the_path_that_was_signed(path: str, stripped: str) -> None:
    found = re.search(r"replace\(/(.+)/, \"\"\)", STRIP_FOLDER)
    assert found
    assert re.sub(found[1].replace(r"\/", "/"), "", path) == stripped


def test_a_stage_can_have_a_domain_name_and_access_logs(variants: Variants) -> None:
    config = distribution(variants, "everything")
    assert config["Aliases"] == ["console.example.com"]
    assert config["ViewerCertificate"]["MinimumProtocolVersion"] == "TLSv1.2_2021"
    assert "Logging" in config
    assert "Logging" not in distribution(variants)
    assert {one.properties["Type"] for one in of(variants, "everything", "AWS::Route53::RecordSet")} == {"A", "AAAA"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "console.example.com"}, "belong together"),
        ({"zone": "Z1"}, "zone needs name"),
        ({"certificate": CERTIFICATE.replace("us-east-1", "eu-central-1"), "name": "a.example"}, "pattern"),
    ],
)
def test_options_that_do_not_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Console(**options)


def test_the_files_and_the_configuration_are_uploaded_and_revalidated(variants: Variants) -> None:
    (upload,) = of(variants, "web", "Custom::CDKBucketDeployment")
    assert upload.raw["SystemMetadata"]["cache-control"] == "no-cache"
    assert upload.raw["DistributionId"]
    assert len(upload.raw["SourceObjectKeys"]) == 2, "web/ and config.json"

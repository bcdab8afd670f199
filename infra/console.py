"""The optional web console: CloudFront in front of a private bucket with `web/`, the API and the images of jobs.

browser ──► CloudFront ──┬─ default           ──► S3, with origin access control
                         ├─ /v1/*             ──► API Gateway, not cached
                         └─ /files/{inbox,results}/*  ──► S3 of the stage, by presigned URLs and forms, not cached

The browser calls one origin only, so that the Content-Security-Policy names no other one and S3 needs no CORS rules.
"""

from __future__ import annotations

from typing import Any, cast

from aws_cdk import (
    AssetHashType,
    Aws,
    CfnOutput,
    CrossStackReferences,
    DefaultStackSynthesizer,
    Duration,
    ReferenceStrength,
    RemovalPolicy,
)
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudfront_origins as origins
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_deployment as deployment
from constructs import Construct

from infra.api import TIMEOUT_S, Api
from infra.nag import acknowledge, acknowledge_wildcard
from infra.retention import log_group
from infra.sources import ROOT, digest
from infra.stage_stack import StageStack
from infra.stages import Console, Stage
from infra.storage import Storage
from maskdrop.console import CACHE_CONTROL, CONFIG, FILE_HEADERS, HEADERS, config, has_preview

WEB = ROOT / "web"

FILES = "/files"
"""Path of the images of jobs. It is followed by the name of the bucket in FOLDERS."""

FOLDERS = ("inbox", "results")

STRIP_FOLDER = """function handler(event) {
  event.request.uri = event.request.uri.replace(/^\\/files\\/(inbox|results)(?=\\/)/, "");
  return event.request;
}
"""
"""CloudFront function: removes the folder from the path, which the signature of a presigned URL does not cover."""

OWN_HEADERS = {
    "Content-Security-Policy",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "Referrer-Policy",
}
"""Headers of `maskdrop.console` for which CloudFront has an option of its own, and refuses a custom header."""

UPLOAD_FINDINGS = (
    "AwsSolutions-L1",
    "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole]",
    "Serverless-LambdaLatestVersion",
    "Serverless-LambdaTracing",
    "Serverless-LambdaDLQ",
    *(f"AwsSolutions-IAM5[Action::s3:{name}*]" for name in ("Abort", "DeleteObject", "GetBucket", "GetObject", "List")),
    "AwsSolutions-IAM5[Resource::*]",  # cloudfront:CreateInvalidation
)
"""Findings about the function that uploads `web/`: it is a part of the CDK."""

HSTS_DAYS = 365

CLOUDFRONT_ZONE = "Z2FDTNDATAQYW2"
"""Route 53 hosted zone of all distributions (AWS General Reference, "Amazon CloudFront endpoints")."""


class ConsoleStack(StageStack):
    """The distribution, its bucket and the upload of `web/`, which happens when the stack is deployed.

    The references to other stacks are weak: turning the console off changes no other stack. CloudFormation keeps this
    stack until you delete it.

    stage: with the option `web`. api, storage: those of the stage.
    """

    def __init__(self, scope: Construct, *, stage: Stage, api: Api, storage: Storage) -> None:
        super().__init__(scope, "MaskdropWeb", stage=stage, description="web console")
        CrossStackReferences.of(self).consume(ReferenceStrength.WEAK)
        self._stage, self._options = stage, cast(Console, stage.web)
        buckets = {"inbox": storage.inbox, "results": storage.results}
        site = self._bucket("Site")
        distribution = self._distribution(site, api, buckets)
        self._record(distribution)
        hosts = {f"https://{buckets[name].bucket_name}.s3.{Aws.REGION}.{Aws.URL_SUFFIX}/": name for name in FOLDERS}
        files = {prefix: f"{FILES}/{name}/" for prefix, name in hosts.items()}
        self._upload(site, distribution, self._config(files))
        host = self._options.name or distribution.distribution_domain_name
        for name, value in {"WebUrl": f"https://{host}/", "WebHost": distribution.distribution_domain_name}.items():
            CfnOutput(self, f"Output{name}", value=value).override_logical_id(name)

    def _bucket(self, name: str, *, acl: bool = False) -> s3.Bucket:
        """Creates a bucket whose content can be made again. acl: for CloudFront's logs, which need an ACL."""
        bucket = s3.Bucket(
            self,
            name,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            object_ownership=(
                s3.ObjectOwnership.BUCKET_OWNER_PREFERRED if acl else s3.ObjectOwnership.BUCKET_OWNER_ENFORCED
            ),
            lifecycle_rules=[s3.LifecycleRule(expiration=Duration.days(90))] if acl else None,
            removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE if acl else RemovalPolicy.DESTROY,
        )
        acknowledge(bucket, "AwsSolutions-S1", "The files of the console are public; the logs are those of CloudFront.")
        return bucket

    def _distribution(self, site: s3.Bucket, api: Api, buckets: dict[str, s3.Bucket]) -> cloudfront.Distribution:
        options = self._options
        private: dict[str, Any] = {
            "viewer_protocol_policy": cloudfront.ViewerProtocolPolicy.HTTPS_ONLY,
            "allowed_methods": cloudfront.AllowedMethods.ALLOW_ALL,
            "cache_policy": cloudfront.CachePolicy.CACHING_DISABLED,
            "origin_request_policy": cloudfront.OriginRequestPolicy.ALL_VIEWER_EXCEPT_HOST_HEADER,
        }
        strip = cloudfront.Function(
            self,
            "StripFolder",
            code=cloudfront.FunctionCode.from_inline(STRIP_FOLDER),
            runtime=cloudfront.FunctionRuntime.JS_2_0,
        )
        association = cloudfront.FunctionAssociation(
            function=strip, event_type=cloudfront.FunctionEventType.VIEWER_REQUEST
        )
        safe = self._file_headers()
        # Not S3BucketOrigin: it would add a signature of its own to a URL that is signed already.
        files = {
            f"{FILES}/{name}/*": cloudfront.BehaviorOptions(
                origin=self._https(buckets[name].bucket_regional_domain_name),
                function_associations=[association],
                response_headers_policy=safe,
                **private,
            )
            for name in FOLDERS
        }
        gateway = self._https(
            f"{api.rest.rest_api_id}.execute-api.{Aws.REGION}.{Aws.URL_SUFFIX}", path=f"/{self._stage.name}"
        )
        distribution = cloudfront.Distribution(
            self,
            "Distribution",
            comment=f"maskdrop-{self._stage.name}: web console",
            default_root_object="index.html",
            default_behavior=cloudfront.BehaviorOptions(
                origin=origins.S3BucketOrigin.with_origin_access_control(site),
                viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.REDIRECT_TO_HTTPS,
                response_headers_policy=self._headers(),
            ),
            additional_behaviors={"/v1/*": cloudfront.BehaviorOptions(origin=gateway, **private), **files},
            http_version=cloudfront.HttpVersion.HTTP2_AND_3,
            price_class=cloudfront.PriceClass.PRICE_CLASS_100,
            minimum_protocol_version=cloudfront.SecurityPolicyProtocol.TLS_V1_2_2021,
            domain_names=[options.name] if options.name else None,
            certificate=self._certificate(),
            log_bucket=self._bucket("Logs", acl=True) if options.logs else None,
        )
        acknowledge(distribution, "AwsSolutions-CFR1", "A console for users in any country.")
        acknowledge(distribution, "AwsSolutions-CFR2", "The files are public; the API has its own limits, and `waf`.")
        if not options.logs:
            acknowledge(distribution, "AwsSolutions-CFR3", "A stage enables access logs with logs=true.")
        if not options.name:
            acknowledge(distribution, "AwsSolutions-CFR4", "The certificate of cloudfront.net allows no other policy.")
        return distribution

    def _https(self, host: str, path: str | None = None) -> origins.HttpOrigin:
        return origins.HttpOrigin(
            host,
            origin_path=path,
            protocol_policy=cloudfront.OriginProtocolPolicy.HTTPS_ONLY,
            origin_ssl_protocols=[cloudfront.OriginSslPolicy.TLS_V1_2],
            read_timeout=Duration.seconds(TIMEOUT_S + 1),
        )

    def _config(self, files: dict[str, str]) -> str:
        return config(preview=has_preview(WEB), files=files, corrections_days=self._stage.keep_corrections_days)

    def _headers(self) -> cloudfront.ResponseHeadersPolicy:
        """The headers of `maskdrop.console`, and that browsers use HTTPS for this host only."""
        others = [
            cloudfront.ResponseCustomHeader(header=name, value=value, override=True)
            for name, value in HEADERS.items()
            if name not in OWN_HEADERS
        ]
        return cloudfront.ResponseHeadersPolicy(
            self,
            "Headers",
            comment=f"maskdrop-{self._stage.name}: headers of the web console",
            custom_headers_behavior=cloudfront.ResponseCustomHeadersBehavior(custom_headers=others),
            security_headers_behavior=cloudfront.ResponseSecurityHeadersBehavior(
                content_security_policy=cloudfront.ResponseHeadersContentSecurityPolicy(
                    content_security_policy=HEADERS["Content-Security-Policy"], override=True
                ),
                content_type_options=cloudfront.ResponseHeadersContentTypeOptions(override=True),
                frame_options=cloudfront.ResponseHeadersFrameOptions(
                    frame_option=cloudfront.HeadersFrameOption.DENY, override=True
                ),
                referrer_policy=cloudfront.ResponseHeadersReferrerPolicy(
                    referrer_policy=cloudfront.HeadersReferrerPolicy.NO_REFERRER, override=True
                ),
                strict_transport_security=cloudfront.ResponseHeadersStrictTransportSecurity(
                    access_control_max_age=Duration.days(HSTS_DAYS), override=True
                ),
            ),
        )

    def _file_headers(self) -> cloudfront.ResponseHeadersPolicy:
        """The headers of stored files, whose type the caller of an upload chose."""
        return cloudfront.ResponseHeadersPolicy(
            self,
            "FileHeaders",
            comment=f"maskdrop-{self._stage.name}: headers of stored files",
            security_headers_behavior=cloudfront.ResponseSecurityHeadersBehavior(
                content_security_policy=cloudfront.ResponseHeadersContentSecurityPolicy(
                    content_security_policy=FILE_HEADERS["Content-Security-Policy"], override=True
                ),
                content_type_options=cloudfront.ResponseHeadersContentTypeOptions(override=True),
            ),
        )

    def _certificate(self) -> acm.ICertificate | None:
        arn = self._options.certificate
        return acm.Certificate.from_certificate_arn(self, "Certificate", arn) if arn else None

    def _record(self, distribution: cloudfront.Distribution) -> None:
        """With a hosted zone, adds the alias records, for IPv4 and IPv6."""
        for kind in ("A", "AAAA") if self._options.zone else ():
            route53.CfnRecordSet(
                self,
                f"Alias{kind}",
                name=self._options.name,
                type=kind,
                hosted_zone_id=self._options.zone,
                alias_target=route53.CfnRecordSet.AliasTargetProperty(
                    dns_name=distribution.distribution_domain_name, hosted_zone_id=CLOUDFRONT_ZONE
                ),
            )

    def _upload(self, site: s3.Bucket, distribution: cloudfront.Distribution, settings: str) -> None:
        """Copies `web/` and CONFIG to the bucket, deletes other files there, and invalidates the cache."""
        content = digest([path for path in sorted(WEB.rglob("*")) if path.is_file()])
        group = log_group(self, "UploadLogs", stage=self._stage, name=f"/maskdrop/{self._stage.name}/console-upload")
        deployment.BucketDeployment(
            self,
            "Upload",
            destination_bucket=site,
            sources=[
                deployment.Source.asset(
                    str(WEB), exclude=["tsconfig.json"], asset_hash=content, asset_hash_type=AssetHashType.CUSTOM
                ),
                deployment.Source.data(CONFIG, settings),
            ],
            cache_control=[deployment.CacheControl.from_string(CACHE_CONTROL)],
            distribution=distribution,
            log_group=group,
            memory_limit=512,
            retain_on_delete=False,  # empties the bucket before CloudFormation deletes it
        )
        function = next(one for one in self.node.children if one.node.id.startswith("Custom::CDKBucketDeployment"))
        for rule in UPLOAD_FINDINGS:
            acknowledge(function, rule, "The function of the CDK, with its runtime, policy and permissions.")
        bootstrap = f"cdk-{self._stage.qualifier or DefaultStackSynthesizer.DEFAULT_QUALIFIER}"
        assets = f"arn:<AWS::Partition>:s3:::{bootstrap}-assets-<AWS::AccountId>-<AWS::Region>/*"
        for resource in (site.arn_for_objects("*"), assets):
            acknowledge_wildcard(function, resource, "The files of the console, and the assets of the CDK.")

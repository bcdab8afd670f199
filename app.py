"""The CDK application: `cdk deploy --all -c stage=prod -c mail=ops@example.com`, or `python app.py` to synthesize."""

from __future__ import annotations

from dataclasses import replace

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks, ServerlessChecks

from infra.account import AccountStack
from infra.bundle import container_digest
from infra.image import ImageStack
from infra.stack import MaskdropStack
from infra.stages import STAGES

FLAGS = {
    # S3 delivers access logs under a bucket policy. The alternative needs ACLs, which the buckets disable.
    "@aws-cdk/aws-s3:serverAccessLogsUseBucketPolicy": True,
}


def application(*, outdir: str | None = None, context: dict[str, str] | None = None) -> cdk.App:
    """Defines the stacks of the stage that the context names; cdk-nag checks them during synthesis.

    outdir: output folder; None: the folder in CDK_OUTDIR.
    """
    app = cdk.App(outdir=outdir, context={**FLAGS, **(context or {})})
    get = app.node.try_get_context
    name = get("stage") or "dev"
    if name not in STAGES:
        raise ValueError(f"The context option stage must be one of {', '.join(STAGES)}; got {name!r}.")
    stage = STAGES[name]
    stage = replace(stage, mail=get("mail"), weights=get("weights"))
    stage = replace(stage, cors=get("cors") or stage.cors, waf=get("waf") == "true" or stage.waf)
    stage = replace(stage, interactive=get("interactive") or stage.interactive)
    stage = replace(stage, trusted_hosts=get("trusted_hosts") or stage.trusted_hosts)
    stage = replace(stage, source_buckets=get("source_buckets") or stage.source_buckets)
    tag = container_digest()
    image = ImageStack(app, stage=stage, image_tag=tag)
    MaskdropStack(app, stage=stage, image_tag=tag).add_stack_dependency(image)
    AccountStack(app, stage=stage)
    cdk.Tags.of(app).add("maskdrop:stage", stage.name)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app), ServerlessChecks(app))
    return app


if __name__ == "__main__":
    application().synth()

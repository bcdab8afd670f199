"""The CDK application: `cdk deploy --all -c stage=prod -c mail=you@example.com`, or plainly `python app.py`."""

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
    # Access logs are delivered under a bucket policy; the older way needs ACLs, which are switched off.
    "@aws-cdk/aws-s3:serverAccessLogsUseBucketPolicy": True,
}


def application(*, outdir: str | None = None, context: dict[str, str] | None = None) -> cdk.App:
    """The stacks of the stage that the context names, checked by cdk-nag as they are synthesized.

    outdir: where to write them; None: where CDK_OUTDIR says.
    """
    app = cdk.App(outdir=outdir, context={**FLAGS, **(context or {})})
    told = app.node.try_get_context
    stage = STAGES[told("stage") or "dev"]
    stage = replace(stage, mail=told("mail"), weights=told("weights"))
    stage = replace(stage, cors=told("cors") or stage.cors, waf=told("waf") == "true" or stage.waf)
    stage = replace(stage, interactive=told("interactive") or stage.interactive)
    stage = replace(stage, trusted_hosts=told("trusted_hosts") or stage.trusted_hosts)
    stage = replace(stage, source_buckets=told("source_buckets") or stage.source_buckets)
    tag = container_digest()
    image = ImageStack(app, stage=stage, image_tag=tag)
    MaskdropStack(app, stage=stage, image_tag=tag).add_stack_dependency(image)
    AccountStack(app, stage=stage)
    cdk.Tags.of(app).add("maskdrop:stage", stage.name)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app), ServerlessChecks(app))
    return app


if __name__ == "__main__":
    application().synth()

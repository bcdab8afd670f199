"""The CDK application: `cdk deploy --all -c stage=prod`, or `python app.py` to synthesize."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks, ServerlessChecks

from infra import stages
from infra.account import AccountStack
from infra.bulk import BulkStack
from infra.console import ConsoleStack
from infra.door import DoorStack
from infra.encryption import encrypt
from infra.image import ImageStack
from infra.interactive import InteractiveStack
from infra.network import NetworkStack
from infra.sources import container_digest
from infra.stack import MaskdropStack

REFERENCES = "@aws-cdk/core:defaultCrossStackReferences"
"""How a stack reads values of another one. "strong": by exports, so that CloudFormation deletes neither a bucket nor a
topic that an endpoint uses. Without a value the CDK prints a warning."""


def application(
    *, outdir: str | None = None, context: dict[str, str] | None = None, folder: Path = stages.FOLDER
) -> cdk.App:
    """Defines the stacks of the stage that the context names; cdk-nag checks them during synthesis.

    outdir: output folder; None: the folder in CDK_OUTDIR.
    folder: folder of the stage files.
    """
    app = cdk.App(outdir=outdir, context={REFERENCES: "strong", **(context or {})})
    stage = stages.load(app.node.try_get_context("stage") or "dev", folder)
    stages.check_region(stage, os.environ.get("CDK_DEFAULT_REGION", ""))  # `cdk deploy` sets it
    tag = container_digest()
    image = ImageStack(app, stage=stage, image_tag=tag)
    network = NetworkStack(app, stage=stage) if stage.vpc else None
    main = MaskdropStack(app, stage=stage, network=network)
    storage, notifications = main.shared.storage, main.shared.notifications
    interactive = InteractiveStack(app, stage=stage, storage=storage, image_tag=tag, network=network)
    bulk = BulkStack(app, stage=stage, storage=storage, notifications=notifications, image_tag=tag, network=network)
    for endpoint in (interactive, bulk):
        endpoint.add_stack_dependency(image)
    # `cdk deploy --all` stops at a stack that fails. Most likely that is `bulk`, for a lack of GPUs: it comes last.
    for earlier in (AccountStack(app, stage=stage), interactive):
        bulk.add_stack_dependency(earlier)
    if stage.door:
        door = DoorStack(
            app,
            stage=stage,
            image_tag=tag,
            registry=main.shared.registry,
            topic=main.alarms.topic,
        )
        for needed in (image, main):
            door.add_stack_dependency(needed)
        bulk.add_stack_dependency(door)
    if stage.web:
        console = ConsoleStack(app, stage=stage, api=main.api, storage=storage)
        console.add_stack_dependency(main)
        bulk.add_stack_dependency(console)
    encrypt(app, stage)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app), ServerlessChecks(app))
    return app


if __name__ == "__main__":
    try:
        application().synth()
    except stages.InvalidStage as error:
        sys.exit(str(error))

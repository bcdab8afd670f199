"""Base of every stack: its name, and what a stage demands of all resources."""

from __future__ import annotations

from aws_cdk import Aspects, DefaultStackSynthesizer, PermissionsBoundary, Stack, Tags
from constructs import Construct

from infra.stages import Stage
from infra.trust import LimitTrust


class StageStack(Stack):
    """A stack `<purpose>-<stage>` with the tags, the permissions boundary and the bootstrap qualifier of the stage."""

    def __init__(self, scope: Construct, purpose: str, *, stage: Stage, description: str) -> None:
        boundary = stage.permissions_boundary
        super().__init__(
            scope,
            f"{purpose}-{stage.name}",
            description=f"Maskdrop: {description}",
            permissions_boundary=PermissionsBoundary.from_name(boundary) if boundary else None,
            synthesizer=DefaultStackSynthesizer(
                generate_bootstrap_version_rule=False, qualifier=stage.qualifier or None
            ),
        )
        Aspects.of(self).add(LimitTrust())
        # CDK writes them into the template and passes them to CloudFormation, which tags what the template cannot.
        for key, value in stage.all_tags.items():
            Tags.of(self).add(key, value)

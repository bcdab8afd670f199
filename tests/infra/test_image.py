"""The image stack, by itself: what it leaves behind, what the build waits for, and what the build runs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from infra import stages
from infra.image import MEDIA_TYPE
from infra.sources import cpu_tag
from tests.infra.conftest import Template


@pytest.fixture(scope="module", params=["dev", "prod"])
def image_stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Template:
    from aws_cdk import App

    from infra.image import ImageStack

    folder = tmp_path_factory.mktemp("cdk.out")
    app = App(outdir=str(folder))
    ImageStack(app, stage=stages.load(request.param), image_tag="0123")
    app.synth()
    return Template(json.loads((folder / f"MaskdropImage-{request.param}.template.json").read_text()), folder)


def one(template: Template, resource_type: str) -> dict[str, Any]:
    """Returns the resource with its attributes, such as DependsOn."""
    (found,) = (one for one in template.body["Resources"].values() if one["Type"] == resource_type)
    return dict(found)


def commands(template: Template, phase: str) -> list[str]:
    specification = json.loads(one(template, "AWS::CodeBuild::Project")["Properties"]["Source"]["BuildSpec"])
    return list(specification["phases"][phase]["commands"])


def test_a3_a_failed_first_deploy_and_destroy_leave_nothing_with_a_fixed_name(image_stack: Template) -> None:
    for name, resource in image_stack.body["Resources"].items():
        kept = {resource.get("DeletionPolicy"), resource.get("UpdateReplacePolicy")} - {None, "Delete"}
        assert not kept, f"{name} would block the next deployment"
    repository = one(image_stack, "AWS::ECR::Repository")["Properties"]
    assert repository["EmptyOnDelete"] is True, "a repository with images is not deleted otherwise"


def test_every_log_group_has_a_retention(image_stack: Template) -> None:
    assert all(group["RetentionInDays"] for group in image_stack.of("AWS::Logs::LogGroup").values())


def test_b9_the_build_starts_after_the_policy_of_its_role(image_stack: Template) -> None:
    role = one(image_stack, "AWS::CodeBuild::Project")["Properties"]["ServiceRole"]["Fn::GetAtt"][0]
    policies = {
        name
        for name, policy in image_stack.of("AWS::IAM::Policy").items()
        if {"Ref": role} in policy["Roles"] and "ecr:PutImage" in json.dumps(policy)
    }
    assert policies, "the policy that lets the build push"
    assert policies <= set(one(image_stack, "Custom::Image").get("DependsOn", ()))


def test_the_starter_is_invoked_after_the_policy_of_its_role(image_stack: Template) -> None:
    starter = one(image_stack, "AWS::Lambda::Function")
    policies = {
        name
        for name, policy in image_stack.of("AWS::IAM::Policy").items()
        if {"Ref": starter["Properties"]["Role"]["Fn::GetAtt"][0]} in policy["Roles"]
    }
    assert policies
    assert policies <= set(starter.get("DependsOn", ()))


def test_the_build_ends_while_cloudformation_waits_even_if_it_was_queued(image_stack: Template) -> None:
    project = one(image_stack, "AWS::CodeBuild::Project")["Properties"]
    waits_s = int(one(image_stack, "Custom::Image")["Properties"]["ServiceTimeout"])
    assert waits_s <= 3600, "the maximum of CloudFormation"
    assert (project["QueuedTimeoutInMinutes"] + project["TimeoutInMinutes"]) * 60 < waits_s


@pytest.fixture
def tags(image_stack: Template) -> list[str]:
    """The tags of the images that the build of this stage pushes, as shell text."""
    pushes = (one.partition('|| docker push "$REPOSITORY:')[2] for one in commands(image_stack, "build"))
    return [one.removesuffix('"') for one in pushes if one]


def test_the_gpu_image_is_built_only_for_a_stage_with_gpu_instances(image_stack: Template, tags: list[str]) -> None:
    built = one(image_stack, "Custom::Image")["Properties"]
    assert [tag.replace("$TAG", built["Tag"]) for tag in tags] == built["Tags"]
    gpu = "prod" in one(image_stack, "AWS::ECR::Repository")["Properties"]["RepositoryName"]
    assert tags == [cpu_tag("$TAG"), "$TAG"] if gpu else [cpu_tag("$TAG")]


def test_b8_each_image_is_built_without_attestations_and_oci_manifests(image_stack: Template, tags: list[str]) -> None:
    for tag in tags:
        (build,) = (one for one in commands(image_stack, "build") if f'--tag "$REPOSITORY:{tag}"' in one)
        assert {"--provenance=false", "--sbom=false"} <= set(build.split())
        assert "type=image,oci-mediatypes=false" in build
        assert ("PACKAGES=requirements.txt" in build) == (tag != "$TAG"), "CUDA is in the GPU image only"


@pytest.mark.parametrize(
    ("media_type", "accepted"),
    [
        (MEDIA_TYPE, True),
        ("application/vnd.oci.image.manifest.v1+json", False),
        ("application/vnd.oci.image.index.v1+json", False),
    ],
)
def test_b8_the_build_fails_if_sagemaker_would_refuse_the_pushed_manifest(
    image_stack: Template, tags: list[str], tmp_path: Path, media_type: str, accepted: bool
) -> None:
    aws = tmp_path / "aws"
    aws.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho {media_type}\n')
    aws.chmod(0o755)
    checks = [one for one in commands(image_stack, "build") if "describe-images" in one]
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "REPOSITORY": "0.dkr.ecr.r.amazonaws.com/maskdrop-dev", "TAG": "0123"}
    for check in checks:
        done = subprocess.run(["sh", "-c", check], env=env, check=False, capture_output=True, text=True)  # noqa: S603, S607
        assert (done.returncode == 0) == accepted
        assert (MEDIA_TYPE in done.stdout) != accepted, "the log says what SageMaker accepts"
    calls = (tmp_path / "calls").read_text().splitlines()
    pushed = [tag.replace("$TAG", "0123") for tag in tags]
    assert [call.split("--query")[0] for call in calls] == [
        f"ecr describe-images --repository-name maskdrop-dev --image-ids imageTag={tag} " for tag in pushed
    ]

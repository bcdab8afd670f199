"""The container image, built by CodeBuild during deployment: no local Docker is needed."""

from __future__ import annotations

from pathlib import Path

from aws_cdk import ArnFormat, Aws, CustomResource, Duration, RemovalPolicy
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.bundle import container_source
from infra.nag import acknowledge, acknowledge_wildcard
from infra.retention import log_group
from infra.sources import cpu_tag
from infra.stage_stack import StageStack
from infra.stages import Stage

QUEUE_MINUTES = 15
"""Time in minutes that the build may wait for another build of the account to end. The quota of concurrent builds is 1
in a new account."""

BUILD_MINUTES = 40
"""Timeout of the build in minutes. Estimated: 4 minutes for the CPU image, 15 with the GPU image and its 2.9 GB of
packages."""

RESPONSE_MINUTES = 60
"""Time in minutes that CloudFormation waits for the build: its maximum."""

MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
"""Media type of the manifests that SageMaker accepts. It refuses OCI manifests and image indexes in CreateModel."""

RESPOND = (
    """jq -n --arg status "$1" '{Status: $status, Reason: ("See the log of build " + env.CODEBUILD_BUILD_ID), """
    "PhysicalResourceId: env.PHYSICAL_ID, StackId: env.STACK_ID, RequestId: env.REQUEST_ID, "
    """LogicalResourceId: env.LOGICAL_ID}' | curl --fail --silent --show-error -X PUT -H "Content-Type:" """
    """--data-binary @- "$RESPONSE_URL\""""
)
"""Shell command that sends the outcome of the build, SUCCESS or FAILED, to CloudFormation."""


def build_commands(tag: str, option: str = "") -> list[str]:
    """Returns the shell commands that build an image, push it, and fail if SageMaker would refuse its manifest.

    tag: shell text. option: further option of `docker build`.
    """
    return [
        # With attestations the image would be an index. The option of --output is for Docker's newer image store.
        f"docker build --provenance=false --sbom=false --output type=image,oci-mediatypes=false {option} "
        f'--file sagemaker_model/serving/Dockerfile --tag "$REPOSITORY:{tag}" .',
        # The tag exists if an earlier build was interrupted after its push; it cannot be pushed again.
        f'docker manifest inspect "$REPOSITORY:{tag}" > /dev/null 2>&1 || docker push "$REPOSITORY:{tag}"',
        f'test {MEDIA_TYPE} = "$(aws ecr describe-images --repository-name "${{REPOSITORY#*/}}" '
        f"--image-ids imageTag={tag} --query 'imageDetails[0].imageManifestMediaType' --output text)\" "
        f'|| {{ echo "SageMaker accepts only manifests of the type {MEDIA_TYPE}"; false; }}',
    ]


class ImageStack(StageStack):
    """The ECR repository `maskdrop-<stage>` and the build of its images.

    They are the CPU variant of `image_tag`, and `image_tag` itself if an endpoint of the stage runs on a GPU.
    """

    def __init__(self, scope: Construct, *, stage: Stage, image_tag: str) -> None:
        super().__init__(scope, "MaskdropImage", stage=stage, description="container image of the endpoints")
        repository = ecr.Repository(
            self,
            "Repository",
            repository_name=stage.repository,
            image_scan_on_push=True,
            image_tag_mutability=ecr.TagMutability.IMMUTABLE,  # the tag is a digest of the image's source
            lifecycle_rules=[ecr.LifecycleRule(max_image_count=20)],
            removal_policy=RemovalPolicy.DESTROY,  # an image can be built again; a retained name blocks the next deploy
            empty_on_delete=True,
        )
        project = self._project(repository, stage)
        images = CustomResource(
            self,
            "Image",
            resource_type="Custom::Image",
            service_token=self._starter(project, repository, stage).function_arn,
            properties={
                "Project": project.project_name,
                "Repository": repository.repository_name,
                "Tag": image_tag,
                "Tags": [cpu_tag(image_tag), *([image_tag] if stage.uses_gpu else [])],
                "MediaType": MEDIA_TYPE,
            },
            service_timeout=Duration.minutes(RESPONSE_MINUTES),
        )
        images.node.add_dependency(project.node.find_child("Role"))  # and its policy, without which no build can push

    def _project(self, repository: ecr.Repository, stage: Stage) -> codebuild.Project:
        source = container_source(self, "Source")
        build_log = self._log_group("build", stage)
        project = codebuild.Project(
            self,
            "Build",
            source=codebuild.Source.s3(bucket=source.bucket, path=source.s3_object_key),
            environment=codebuild.BuildEnvironment(
                build_image=codebuild.LinuxBuildImage.STANDARD_7_0,
                compute_type=codebuild.ComputeType.MEDIUM,
                privileged=True,
            ),
            environment_variables={
                "REGISTRY": codebuild.BuildEnvironmentVariable(
                    value=f"{Aws.ACCOUNT_ID}.dkr.ecr.{Aws.REGION}.{Aws.URL_SUFFIX}"
                ),
                "REPOSITORY": codebuild.BuildEnvironmentVariable(value=repository.repository_uri),
            },
            build_spec=codebuild.BuildSpec.from_object(
                {
                    "version": "0.2",
                    "phases": {
                        "build": {
                            "commands": [
                                'aws ecr get-login-password | docker login --username AWS --password-stdin "$REGISTRY"',
                                *build_commands(cpu_tag("$TAG"), "--build-arg PACKAGES=requirements.txt"),
                                *(build_commands("$TAG") if stage.uses_gpu else []),
                            ]
                        },
                        "post_build": {
                            "commands": [
                                f"respond() {{ {RESPOND}; }}; "
                                'if [ "$CODEBUILD_BUILD_SUCCEEDING" = 1 ]; then respond SUCCESS; '
                                "else respond FAILED; fi"
                            ]
                        },
                    },
                }
            ),
            logging=codebuild.LoggingOptions(cloud_watch=codebuild.CloudWatchLoggingOptions(log_group=build_log)),
            grant_report_group_permissions=False,
            queued_timeout=Duration.minutes(QUEUE_MINUTES),
            timeout=Duration.minutes(BUILD_MINUTES),
        )
        repository.grant_pull_push(project)
        repository.grant(project, "ecr:DescribeImages")
        acknowledge(
            project, "AwsSolutions-CB3", "Docker inside CodeBuild needs privileged mode; the source is this repository."
        )
        acknowledge(project, "AwsSolutions-CB4", "The only artefact is the image, which ECR encrypts.")
        for action in ("GetObject", "GetBucket", "List"):
            acknowledge(project, f"AwsSolutions-IAM5[Action::s3:{action}*]", "Granted by CDK on one zip: the source.")
        arn = self.format_arn(
            service="logs",
            resource="log-group",
            resource_name=f"/aws/codebuild/{project.project_name}:*",
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )
        acknowledge_wildcard(project, arn, "Granted by CDK on the log group of the project.")
        acknowledge_wildcard(project, "*", "GetAuthorizationToken has no resource-level permissions.")
        return project

    def _starter(self, project: codebuild.Project, repository: ecr.Repository, stage: Stage) -> lambda_.Function:
        start_log = self._log_group("start-build", stage)
        role = iam.Role(self, "StarterRole", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        start_log.grant_write(role)
        role.add_to_policy(iam.PolicyStatement(actions=["codebuild:StartBuild"], resources=[project.project_arn]))
        repository.grant(role, "ecr:DescribeImages")
        starter = lambda_.Function(
            self,
            "Starter",
            architecture=lambda_.Architecture.ARM_64,
            code=lambda_.Code.from_inline(Path(__file__).with_name("start_build.py").read_text()),
            handler="index.handler",
            log_group=start_log,
            memory_size=256,
            role=role,
            runtime=lambda_.Runtime.PYTHON_3_14,
            timeout=Duration.seconds(30),
            tracing=lambda_.Tracing.ACTIVE,
        )
        starter.node.add_dependency(role.node.find_child("DefaultPolicy"))
        for rule in ("LambdaDLQ", "LambdaAsyncFailureDestination", "LambdaLatestVersion"):
            acknowledge(
                starter, f"Serverless-{rule}", "CloudFormation invokes it once per deployment and waits for it."
            )
        acknowledge_wildcard(role, "*", "X-Ray has no resource-level permissions.")
        return starter

    def _log_group(self, name: str, stage: Stage) -> logs.LogGroup:
        construct_id = f"{name.title().replace('-', '')}Logs"
        return log_group(self, construct_id, stage=stage, name=f"/maskdrop/{stage.name}/{name}")

"""The container image, built by CodeBuild during deployment: no local Docker is needed."""

from __future__ import annotations

from pathlib import Path

from aws_cdk import ArnFormat, Aws, CustomResource, Duration, RemovalPolicy, Stack
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.bundle import container_source
from infra.nag import acknowledge, acknowledge_wildcard
from infra.retention import log_group
from infra.stages import Stage


def cpu_tag(image_tag: str) -> str:
    """Returns the tag of the CPU image: the files of `image_tag` without torch and the CUDA libraries."""
    return f"{image_tag}-cpu"


BUILD_MINUTES = 55
"""Timeout of the build in minutes. A build takes about 20 minutes (estimated), for 3 GB of packages. CloudFormation
waits for at most one hour."""

RESPOND = (
    """jq -n --arg status "$1" '{Status: $status, Reason: ("See the log of build " + env.CODEBUILD_BUILD_ID), """
    "PhysicalResourceId: env.PHYSICAL_ID, StackId: env.STACK_ID, RequestId: env.REQUEST_ID, "
    """LogicalResourceId: env.LOGICAL_ID}' | curl --fail --silent --show-error -X PUT -H "Content-Type:" """
    """--data-binary @- "$RESPONSE_URL\""""
)
"""Shell command that sends the outcome of the build, SUCCESS or FAILED, to CloudFormation."""


class ImageStack(Stack):
    """The ECR repository `maskdrop-<stage>` and the build of its two images: `image_tag` and its CPU variant."""

    def __init__(self, scope: Construct, *, stage: Stage, image_tag: str) -> None:
        super().__init__(scope, f"MaskdropImage-{stage.name}", description="Maskdrop: container image of the endpoints")
        repository = ecr.Repository(
            self,
            "Repository",
            repository_name=f"maskdrop-{stage.name}",
            image_scan_on_push=True,
            image_tag_mutability=ecr.TagMutability.MUTABLE,  # an interrupted build may push the same tag again
            lifecycle_rules=[ecr.LifecycleRule(max_image_count=20)],
            removal_policy=RemovalPolicy.DESTROY,  # an image can be built again; a retained name blocks the next deploy
            empty_on_delete=True,
        )
        project = self._project(repository, stage)
        CustomResource(
            self,
            "Image",
            resource_type="Custom::Image",
            service_token=self._starter(project, stage).function_arn,
            properties={"Project": project.project_name, "Tag": image_tag},
            service_timeout=Duration.minutes(BUILD_MINUTES + 5),
        )

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
                                'docker build --file sagemaker_model/serving/Dockerfile --tag "$REPOSITORY:$TAG" .',
                                'docker push "$REPOSITORY:$TAG"',
                                # Built in every mode of the interactive endpoint: a change of mode needs no build.
                                "docker build --file sagemaker_model/serving/Dockerfile "
                                f'--build-arg PACKAGES=requirements.txt --tag "$REPOSITORY:{cpu_tag("$TAG")}" .',
                                f'docker push "$REPOSITORY:{cpu_tag("$TAG")}"',
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
            timeout=Duration.minutes(BUILD_MINUTES),
        )
        repository.grant_pull_push(project)
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

    def _starter(self, project: codebuild.Project, stage: Stage) -> lambda_.Function:
        start_log = self._log_group("start-build", stage)
        role = iam.Role(self, "StarterRole", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        start_log.grant_write(role)
        role.add_to_policy(iam.PolicyStatement(actions=["codebuild:StartBuild"], resources=[project.project_arn]))
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
        starter.node.add_dependency(role)
        for rule in ("LambdaDLQ", "LambdaAsyncFailureDestination", "LambdaLatestVersion"):
            acknowledge(
                starter, f"Serverless-{rule}", "CloudFormation invokes it once per deployment and waits for it."
            )
        acknowledge_wildcard(role, "*", "X-Ray has no resource-level permissions.")
        return starter

    def _log_group(self, name: str, stage: Stage) -> logs.LogGroup:
        construct_id = f"{name.title().replace('-', '')}Logs"
        return log_group(self, construct_id, stage=stage, name=f"/maskdrop/{stage.name}/{name}")

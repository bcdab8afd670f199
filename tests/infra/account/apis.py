"""The API requests behind each CloudFormation type. A property without a row has the name of an API member."""

from __future__ import annotations

from tests.infra.account.shapes import Api

WITHOUT_API = {
    "Custom::*": "a function of the stack handles it",
    "AWS::CDK::Metadata": "no service",
    "AWS::CloudFormation::CustomResource": "a function of the stack handles it",
    "AWS::CloudFormation::WaitConditionHandle": "CloudFormation itself",
    "AWS::CloudFront::Distribution": "a list of the API is an object with its length; cfn-lint checks the properties",
    "AWS::CloudFront::ResponseHeadersPolicy": "as a distribution",
}
"""Types without an API: why."""

STACK = "resource of CloudFormation alone"

APIS = {
    "AWS::ApiGateway::Account": Api(
        service="apigateway", operation="UpdateAccount", omitted={"CloudWatchRoleArn": "a patch operation"}
    ),
    "AWS::ApiGateway::Authorizer": Api(
        service="apigateway", operation="CreateAuthorizer", moved={"AuthType": "authType"}, generated=("name",)
    ),
    "AWS::ApiGateway::BasePathMapping": Api(
        service="apigateway", operation="CreateBasePathMapping", generated=("restApiId",)
    ),
    "AWS::ApiGateway::Deployment": Api(service="apigateway", operation="CreateDeployment"),
    "AWS::ApiGateway::DomainName": Api(service="apigateway", operation="CreateDomainName"),
    "AWS::ApiGateway::GatewayResponse": Api(service="apigateway", operation="PutGatewayResponse"),
    "AWS::ApiGateway::Method": Api(
        service="apigateway",
        operation="PutMethod",
        moved={
            "Integration": "PutIntegration",
            "Integration.IntegrationHttpMethod": "PutIntegration.integrationHttpMethod",
            "Integration.IntegrationResponses": "*PutIntegrationResponse",
            "MethodResponses": "*PutMethodResponse",
        },
        generated=("httpMethod", "resourceId", "restApiId"),
    ),
    "AWS::ApiGateway::Resource": Api(service="apigateway", operation="CreateResource"),
    "AWS::ApiGateway::RestApi": Api(
        service="apigateway", operation="CreateRestApi", moved={"ApiKeySourceType": "apiKeySource"}, json=("Policy",)
    ),
    "AWS::ApiGateway::Stage": Api(
        service="apigateway",
        operation="CreateStage",
        omitted={"AccessLogSetting": "a patch operation", "MethodSettings": "a patch operation"},
    ),
    "AWS::ApiGateway::UsagePlan": Api(
        service="apigateway", operation="CreateUsagePlan", moved={"UsagePlanName": "name"}, generated=("name",)
    ),
    "AWS::ApplicationAutoScaling::ScalableTarget": Api(
        service="application-autoscaling", operation="RegisterScalableTarget"
    ),
    "AWS::ApplicationAutoScaling::ScalingPolicy": Api(
        service="application-autoscaling",
        operation="PutScalingPolicy",
        omitted={"ScalingTargetId": "stands for ResourceId, ScalableDimension and ServiceNamespace"},
        generated=("ResourceId", "ScalableDimension", "ServiceNamespace"),
    ),
    "AWS::Budgets::Budget": Api(service="budgets", operation="CreateBudget", generated=("AccountId",)),
    "AWS::CloudFront::Function": Api(
        service="cloudfront",
        operation="CreateFunction",
        omitted={"AutoPublish": "PublishFunction, without parameters", "Tags": "an object with a list"},
    ),
    "AWS::CloudFront::OriginAccessControl": Api(service="cloudfront", operation="CreateOriginAccessControl"),
    "AWS::CloudWatch::Alarm": Api(service="cloudwatch", operation="PutMetricAlarm", generated=("AlarmName",)),
    "AWS::CloudWatch::CompositeAlarm": Api(
        service="cloudwatch", operation="PutCompositeAlarm", generated=("AlarmName",)
    ),
    "AWS::CloudWatch::Dashboard": Api(service="cloudwatch", operation="PutDashboard", generated=("DashboardName",)),
    "AWS::CodeBuild::Project": Api(service="codebuild", operation="CreateProject", generated=("name",)),
    "AWS::DynamoDB::Table": Api(
        service="dynamodb",
        operation="CreateTable",
        moved={
            "PointInTimeRecoverySpecification": "UpdateContinuousBackups.PointInTimeRecoverySpecification",
            "TimeToLiveSpecification": "UpdateTimeToLive.TimeToLiveSpecification",
            "SSESpecification.SSEEnabled": "Enabled",
            "ContributorInsightsSpecification": "UpdateContributorInsights",
        },
        omitted={"ContributorInsightsSpecification.Enabled": "the member is an action: ENABLE or DISABLE"},
        generated=("TableName", "ContributorInsightsAction"),
    ),
    "AWS::EC2::InternetGateway": Api(
        service="ec2", operation="CreateInternetGateway", omitted={"Tags": "TagSpecifications"}
    ),
    "AWS::EC2::Route": Api(service="ec2", operation="CreateRoute"),
    "AWS::EC2::VPCGatewayAttachment": Api(service="ec2", operation="AttachInternetGateway"),
    "AWS::ECS::Cluster": Api(service="ecs", operation="CreateCluster", moved={"ClusterSettings": "settings"}),
    "AWS::ECS::Service": Api(service="ecs", operation="CreateService", generated=("serviceName",)),
    "AWS::ECS::TaskDefinition": Api(service="ecs", operation="RegisterTaskDefinition"),
    "AWS::ElasticLoadBalancingV2::Listener": Api(service="elbv2", operation="CreateListener"),
    "AWS::ElasticLoadBalancingV2::ListenerRule": Api(service="elbv2", operation="CreateRule"),
    "AWS::ElasticLoadBalancingV2::LoadBalancer": Api(
        service="elbv2",
        operation="CreateLoadBalancer",
        moved={"LoadBalancerAttributes": "ModifyLoadBalancerAttributes.Attributes"},
        generated=("Name", "LoadBalancerArn"),
    ),
    "AWS::ElasticLoadBalancingV2::TargetGroup": Api(
        service="elbv2",
        operation="CreateTargetGroup",
        moved={
            "TargetGroupAttributes": "ModifyTargetGroupAttributes.Attributes",
            "Targets": "*RegisterTargets.Targets",
        },
        generated=("Name", "TargetGroupArn"),
    ),
    "AWS::EC2::RouteTable": Api(service="ec2", operation="CreateRouteTable", omitted={"Tags": "TagSpecifications"}),
    "AWS::EC2::SecurityGroup": Api(
        service="ec2",
        operation="CreateSecurityGroup",
        moved={
            "GroupDescription": "Description",
            "SecurityGroupEgress": "*AuthorizeSecurityGroupEgress",
            "SecurityGroupIngress": "*AuthorizeSecurityGroupIngress",
        },
        omitted={
            "Tags": "TagSpecifications",
            "SecurityGroupEgress.Description": "part of a range",
            "SecurityGroupIngress.Description": "part of a range",
        },
        generated=("GroupName", "GroupId"),
    ),
    "AWS::EC2::SecurityGroupEgress": Api(
        service="ec2",
        operation="AuthorizeSecurityGroupEgress",
        omitted={"Description": "part of a range", "DestinationSecurityGroupId": "part of a pair of groups"},
    ),
    "AWS::EC2::SecurityGroupIngress": Api(
        service="ec2",
        operation="AuthorizeSecurityGroupIngress",
        omitted={"Description": "part of a range", "SourceSecurityGroupId": "part of a pair of groups"},
    ),
    "AWS::EC2::Subnet": Api(
        service="ec2",
        operation="CreateSubnet",
        moved={"MapPublicIpOnLaunch": "ModifySubnetAttribute.MapPublicIpOnLaunch.Value"},
        omitted={"Tags": "TagSpecifications"},
        generated=("SubnetId",),
    ),
    "AWS::EC2::SubnetRouteTableAssociation": Api(service="ec2", operation="AssociateRouteTable"),
    "AWS::EC2::VPC": Api(
        service="ec2",
        operation="CreateVpc",
        moved={
            "EnableDnsHostnames": "ModifyVpcAttribute.EnableDnsHostnames.Value",
            "EnableDnsSupport": "ModifyVpcAttribute.EnableDnsSupport.Value",
        },
        omitted={"Tags": "TagSpecifications"},
        generated=("VpcId",),
    ),
    "AWS::EC2::VPCEndpoint": Api(
        service="ec2", operation="CreateVpcEndpoint", json=("PolicyDocument",), omitted={"Tags": "TagSpecifications"}
    ),
    "AWS::EC2::FlowLog": Api(
        service="ec2",
        operation="CreateFlowLogs",
        moved={"ResourceId": "ResourceIds[]"},
        omitted={"Tags": "TagSpecifications"},
    ),
    "AWS::ECR::Repository": Api(
        service="ecr",
        operation="CreateRepository",
        moved={"LifecyclePolicy": "PutLifecyclePolicy"},
        omitted={"EmptyOnDelete": STACK},
        generated=("repositoryName",),
    ),
    "AWS::Events::EventBus": Api(service="events", operation="CreateEventBus"),
    "AWS::Events::Rule": Api(
        service="events",
        operation="PutRule",
        moved={"Targets": "PutTargets.Targets"},
        json=("EventPattern",),
        generated=("Name", "Rule"),
    ),
    "AWS::GuardDuty::MalwareProtectionPlan": Api(service="guardduty", operation="CreateMalwareProtectionPlan"),
    "AWS::IAM::ManagedPolicy": Api(
        service="iam",
        operation="CreatePolicy",
        moved={"ManagedPolicyName": "PolicyName", "Roles": "*AttachRolePolicy.RoleName"},
        json=("PolicyDocument",),
        generated=("PolicyName", "PolicyArn"),
    ),
    "AWS::IAM::Policy": Api(
        service="iam",
        operation="PutRolePolicy",
        moved={"Roles": "*AttachRolePolicy.RoleName"},
        json=("PolicyDocument",),
        generated=("RoleName", "PolicyArn"),
    ),
    "AWS::IAM::Role": Api(
        service="iam",
        operation="CreateRole",
        moved={"ManagedPolicyArns": "*AttachRolePolicy.PolicyArn", "Policies": "*PutRolePolicy"},
        json=("AssumeRolePolicyDocument", "Policies.PolicyDocument"),
        generated=("RoleName",),
    ),
    "AWS::KMS::Alias": Api(service="kms", operation="CreateAlias"),
    "AWS::KMS::Key": Api(
        service="kms",
        operation="CreateKey",
        moved={
            "KeyPolicy": "Policy",
            "Tags.Key": "TagKey",
            "Tags.Value": "TagValue",
            "PendingWindowInDays": "ScheduleKeyDeletion.PendingWindowInDays",
        },
        json=("KeyPolicy",),
        omitted={"EnableKeyRotation": "the operation EnableKeyRotation, without a value"},
        generated=("KeyId",),
    ),
    "AWS::Lambda::Alias": Api(service="lambda", operation="CreateAlias"),
    "AWS::Lambda::EventInvokeConfig": Api(service="lambda", operation="PutFunctionEventInvokeConfig"),
    "AWS::Lambda::EventSourceMapping": Api(service="lambda", operation="CreateEventSourceMapping"),
    "AWS::Lambda::Function": Api(
        service="lambda",
        operation="CreateFunction",
        moved={"ReservedConcurrentExecutions": "PutFunctionConcurrency.ReservedConcurrentExecutions"},
        generated=("FunctionName",),
    ),
    "AWS::Lambda::LayerVersion": Api(service="lambda", operation="PublishLayerVersion", generated=("LayerName",)),
    "AWS::Lambda::Permission": Api(service="lambda", operation="AddPermission", generated=("StatementId",)),
    "AWS::Lambda::Version": Api(service="lambda", operation="PublishVersion"),
    "AWS::Logs::LogGroup": Api(
        service="logs",
        operation="CreateLogGroup",
        moved={"RetentionInDays": "PutRetentionPolicy.retentionInDays"},
        generated=("logGroupName",),
    ),
    "AWS::Logs::MetricFilter": Api(service="logs", operation="PutMetricFilter", generated=("filterName",)),
    "AWS::Route53::RecordSet": Api(
        service="route53",
        operation="ResourceRecordSet",  # a shape: the item of a change batch
        omitted={"HostedZoneId": "of the request around it", "HostedZoneName": "of the request around it"},
        generated=("AliasTarget.EvaluateTargetHealth",),
    ),
    "AWS::S3::Bucket": Api(
        service="s3",
        operation="CreateBucket",
        moved={
            "BucketName": "Bucket",
            "BucketEncryption": "PutBucketEncryption.ServerSideEncryptionConfiguration",
            "BucketEncryption.ServerSideEncryptionConfiguration": "Rules",
            "BucketEncryption.ServerSideEncryptionConfiguration.ServerSideEncryptionByDefault": (
                "ApplyServerSideEncryptionByDefault"
            ),
            "CorsConfiguration": "PutBucketCors.CORSConfiguration",
            "CorsConfiguration.CorsRules.MaxAge": "MaxAgeSeconds",
            "CorsConfiguration.CorsRules.ExposedHeaders": "ExposeHeaders",
            "LifecycleConfiguration": "PutBucketLifecycleConfiguration.LifecycleConfiguration",
            "LifecycleConfiguration.Rules.ExpirationInDays": "Expiration.Days",
            "LifecycleConfiguration.Rules.ExpiredObjectDeleteMarker": "Expiration.ExpiredObjectDeleteMarker",
            "LifecycleConfiguration.Rules.Prefix": "Filter.Prefix",
            "LoggingConfiguration": "PutBucketLogging.BucketLoggingStatus.LoggingEnabled",
            "LoggingConfiguration.DestinationBucketName": "TargetBucket",
            "LoggingConfiguration.LogFilePrefix": "TargetPrefix",
            "NotificationConfiguration": "PutBucketNotificationConfiguration.NotificationConfiguration",
            "NotificationConfiguration.QueueConfigurations.Event": "Events[]",
            "NotificationConfiguration.QueueConfigurations.Queue": "QueueArn",
            "NotificationConfiguration.QueueConfigurations.Filter.S3Key": "Key",
            "NotificationConfiguration.QueueConfigurations.Filter.S3Key.Rules": "FilterRules",
            "OwnershipControls": "PutBucketOwnershipControls.OwnershipControls",
            "PublicAccessBlockConfiguration": "PutPublicAccessBlock.PublicAccessBlockConfiguration",
            "Tags": "PutBucketTagging.Tagging.TagSet",
            "VersioningConfiguration": "PutBucketVersioning.VersioningConfiguration",
        },
        omitted={
            "NotificationConfiguration.EventBridgeConfiguration.EventBridgeEnabled": "the empty member stands for true"
        },
        generated=("Bucket",),
    ),
    "AWS::S3::BucketPolicy": Api(
        service="s3", operation="PutBucketPolicy", moved={"PolicyDocument": "Policy"}, json=("PolicyDocument",)
    ),
    "AWS::SNS::Subscription": Api(
        service="sns",
        operation="Subscribe",
        moved={
            name: f"Attributes.{name}"
            for name in ("RawMessageDelivery", "RedrivePolicy", "FilterPolicy", "FilterPolicyScope", "DeliveryPolicy")
        },
        json=("RedrivePolicy", "FilterPolicy", "DeliveryPolicy"),
        omitted={"Region": "the Region of the request"},
    ),
    "AWS::SNS::Topic": Api(
        service="sns",
        operation="CreateTopic",
        moved={
            "TopicName": "Name",
            **{name: f"Attributes.{name}" for name in ("KmsMasterKeyId", "TracingConfig", "DisplayName")},
        },
        generated=("Name",),
    ),
    "AWS::SNS::TopicPolicy": Api(
        service="sns",
        operation="SetTopicAttributes",
        moved={"PolicyDocument": "AttributeValue", "Topics": "*SetTopicAttributes.TopicArn"},
        json=("PolicyDocument",),
        generated=("AttributeName", "TopicArn"),
    ),
    "AWS::SQS::Queue": Api(
        service="sqs",
        operation="CreateQueue",
        moved={
            name: f"Attributes.{name}"
            for name in (
                "DelaySeconds",
                "KmsDataKeyReusePeriodSeconds",
                "KmsMasterKeyId",
                "MaximumMessageSize",
                "MessageRetentionPeriod",
                "ReceiveMessageWaitTimeSeconds",
                "RedrivePolicy",
                "SqsManagedSseEnabled",
                "VisibilityTimeout",
            )
        },
        json=("RedrivePolicy",),
        generated=("QueueName",),
    ),
    "AWS::SQS::QueuePolicy": Api(
        service="sqs",
        operation="SetQueueAttributes",
        moved={"PolicyDocument": "Attributes.Policy", "Queues": "*SetQueueAttributes.QueueUrl"},
        json=("PolicyDocument",),
        generated=("QueueUrl", "Attributes"),
    ),
    "AWS::SageMaker::Endpoint": Api(
        service="sagemaker",
        operation="CreateEndpoint",
        moved={
            "RetainAllVariantProperties": "UpdateEndpoint.RetainAllVariantProperties",
            "ExcludeRetainedVariantProperties": "UpdateEndpoint.ExcludeRetainedVariantProperties",
            "RetainDeploymentConfig": "UpdateEndpoint.RetainDeploymentConfig",
        },
        generated=("EndpointName", "EndpointConfigName"),
    ),
    "AWS::SageMaker::EndpointConfig": Api(
        service="sagemaker", operation="CreateEndpointConfig", generated=("EndpointConfigName",)
    ),
    "AWS::SageMaker::Model": Api(service="sagemaker", operation="CreateModel", generated=("ModelName",)),
    "AWS::WAFv2::WebACL": Api(service="wafv2", operation="CreateWebACL", generated=("Name",)),
    "AWS::WAFv2::WebACLAssociation": Api(service="wafv2", operation="AssociateWebACL"),
}
"""CloudFormation type -> its requests."""

"""Plays an AWS account: checks synthesized stacks against the documented rules of the services, without an account.

variants      the stages of the tests, synthesized once
assembly      the resources of a synthesized stage, with resolved references
shapes, apis  the request that CloudFormation sends for each resource, checked against botocore's models
quotas        quotas of a new account, and fixed limits of the services
updates       the effect of a deployment over another one: in place, replacement, refused
metrics       dimensions with which services publish the metrics that alarms and the dashboard read
order         the order in which CloudFormation creates resources
names         resource names that must be unique in an account or a Region
permissions   IAM statements, evaluated for the calls that the local stack recorded in calls.json
"""

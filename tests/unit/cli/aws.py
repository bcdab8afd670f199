"""A fake of AWS for checks: real botocore clients whose responses are given, and checked against botocore's models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import botocore.session
from botocore.validate import validate_parameters

Response = Mapping[str, Any] | Callable[[dict[str, Any]], Any]
"""A response, an Error, or a function that returns one of them for the parameters of a request."""


@cache
def session() -> botocore.session.Session:
    """One session for all tests, because it caches the models of services."""
    return botocore.session.Session()


class Error(Exception):
    """An error that a service returns."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message)
        self.code, self.message = code, message


class FakeAws:
    """Returns `responses`, by service and operation as in "sts.GetCallerIdentity". Other operations fail the test.

    botocore checks the names and types in requests; this class checks those in responses.
    """

    def __init__(self, responses: Mapping[str, Response | Error], region: str = "us-east-1") -> None:
        self.responses, self.region = responses, region
        self.requests: list[tuple[str, dict[str, Any]]] = []

    def client(self, service: str) -> Any:
        client = session().create_client(
            service, region_name=self.region, aws_access_key_id="test", aws_secret_access_key="test"
        )

        def remember(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
            context["parameters"] = dict(params)

        def respond(model: Any, context: dict[str, Any], **_: Any) -> tuple[Any, Any]:
            name, request = f"{service}.{model.name}", context["parameters"]
            self.requests.append((name, request))
            assert name in self.responses, f"The check calls {name}, for which the test has no response."
            response = self.responses[name]
            response = response(request) if callable(response) else response
            if isinstance(response, Error):
                error = {"Code": response.code, "Message": response.message}
                return SimpleNamespace(status_code=400), {"Error": error, "ResponseMetadata": {}}
            validate_parameters(response, model.output_shape)
            return SimpleNamespace(status_code=200), {**response, "ResponseMetadata": {}}

        client.meta.events.register("before-parameter-build", remember)
        client.meta.events.register("before-call", cast(Any, respond))
        return client


def denied(action: str) -> Error:
    """The error of a missing permission, in the words of IAM."""
    who = "arn:aws:iam::111122223333:user/ops"
    return Error("AccessDeniedException", f"User: {who} is not authorized to perform: {action} on resource: *")


QUOTAS = {
    ("sagemaker", "ml.g6.xlarge for endpoint usage"): ("L-D470D954", 0.0),
    ("sagemaker", "ml.c6i.xlarge for endpoint usage"): ("L-5F6A7B8C", 0.0),
    ("sagemaker", "Maximum total concurrency that can be allocated across all serverless endpoints"): (
        "L-96300102",
        10.0,
    ),
    ("lambda", "Concurrent executions"): ("L-B99A9384", 1000.0),
    ("codebuild", "Concurrently running builds for Linux/Medium environment"): ("L-2DC20C30", 1.0),
}
"""Quotas of a new account: (service, name) -> (code, default value). The code of the CPU instance is invented."""


def quotas(**values: float | None) -> dict[str, Response | Error]:
    """Responses of Service Quotas: the default values of QUOTAS, or applied `values` by a part of the name with "_" for
    other characters. None: the quota is not listed."""

    def changed(name: str) -> tuple[bool, float | None]:
        for part, value in values.items():
            if part in "".join(char if char.isalnum() else "_" for char in name):
                return True, value
        return False, None

    def listed(request: dict[str, Any]) -> Mapping[str, Any]:
        rows = [
            {"ServiceCode": service, "QuotaName": name, "QuotaCode": code, "Value": value}
            for (service, name), (code, value) in QUOTAS.items()
            if service == request["ServiceCode"] and changed(name) != (True, None)
        ]
        # A page for each quota: what reads the first page only finds no second quota.
        start = int(request.get("NextToken", 0))
        more = {"NextToken": str(start + 1)} if start + 1 < len(rows) else {}
        return {"Quotas": rows[start : start + 1], **more}

    def applied(request: dict[str, Any]) -> Any:
        (name,) = [name for (_, name), (code, _) in QUOTAS.items() if code == request["QuotaCode"]]
        is_changed, value = changed(name)
        if not is_changed:
            return Error("NoSuchResourceException", "The request failed because the specified quota does not exist.")
        return {"Quota": {"QuotaName": name, "QuotaCode": request["QuotaCode"], "Value": value}}

    return {"service-quotas.ListAWSDefaultServiceQuotas": listed, "service-quotas.GetServiceQuota": applied}


def new_account() -> dict[str, Response | Error]:
    """Responses of an account in which nothing was ever created, as users report it: 0 GPU instances, 10 concurrent
    Lambda executions, 10 concurrent serverless requests, 3,072 MB, no bootstrap stack."""
    return {
        "sts.GetCallerIdentity": {"Account": "111122223333", "Arn": "arn:aws:iam::111122223333:user/ops"},
        "ssm.GetParameter": Error("ParameterNotFound"),
        **quotas(),
        "sagemaker.ListEndpoints": {"Endpoints": []},
        "pricing.GetProducts": {"PriceList": []},
        "lambda.GetAccountSettings": settings(10),
        "codebuild.ListBuilds": {},
        "cloudformation.DescribeStacks": lambda request: Error(
            "ValidationError", f"Stack with id {request['StackName']} does not exist"
        ),
        "logs.DescribeLogGroups": {"logGroups": []},
        "ecr.DescribeRepositories": Error("RepositoryNotFoundException"),
        "resourcegroupstaggingapi.GetResources": {"ResourceTagMappingList": []},
        "apigateway.GetApiKeys": {"items": []},
    }


def settings(concurrent: int, unreserved: int | None = None) -> dict[str, Any]:
    """The response of lambda.GetAccountSettings."""
    rest = concurrent if unreserved is None else unreserved
    return {"AccountLimit": {"ConcurrentExecutions": concurrent, "UnreservedConcurrentExecutions": rest}}

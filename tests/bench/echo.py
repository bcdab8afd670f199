"""Deploys an API to the emulator whose function only returns bytes, to measure the emulator's own time."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

from local.config import REGION, LocalConfig
from local.connect import client

NAME = "bench-echo"

# It prints a line because MiniStack waits 45 ms longer for a function without a log.
FUNCTION = """
import base64, os
BODIES = {}
def handler(event, context):
    count = int(event["queryStringParameters"]["bytes"])
    if count not in BODIES:
        BODIES[count] = base64.b64encode(os.urandom(count)).decode()
    print("done")
    headers = {"Content-Type": "image/png"}
    return {"statusCode": 200, "headers": headers, "body": BODIES[count], "isBase64Encoded": True}
"""


@contextmanager
def echo(config: LocalConfig) -> Iterator[str]:
    """Deploys the API; yields its URL, which requires the query parameter `bytes`."""
    functions, gateway = client(config, "lambda"), client(config, "apigateway")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as code:
        code.writestr("echo.py", FUNCTION)
    function = functions.create_function(
        FunctionName=NAME,
        Runtime="python3.14",
        Role="arn:aws:iam::000000000000:role/bench",
        Handler="echo.handler",
        Code={"ZipFile": packed.getvalue()},
        MemorySize=1024,
    )
    api = gateway.create_rest_api(name=NAME, binaryMediaTypes=["*/*"])["id"]
    try:
        (root,) = gateway.get_resources(restApiId=api)["items"]
        target = {"restApiId": api, "resourceId": root["id"], "httpMethod": "ANY"}
        gateway.put_method(**target, authorizationType="NONE")
        path = f"2015-03-31/functions/{function['FunctionArn']}/invocations"
        uri = f"arn:aws:apigateway:{REGION}:lambda:path/{path}"
        gateway.put_integration(**target, type="AWS_PROXY", integrationHttpMethod="POST", uri=uri)
        gateway.create_deployment(restApiId=api, stageName="bench")
        yield f"{config.endpoint_url}/restapis/{api}/bench/_user_request_/"
    finally:
        gateway.delete_rest_api(restApiId=api)
        functions.delete_function(FunctionName=NAME)

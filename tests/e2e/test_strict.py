"""Tests the strict mode: every part uses its own IAM role of the template, with enforced policies, over TLS."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx2
import psutil
import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from local import processes, stack
from local.config import ROOT, STRICT, LocalConfig, LocalError
from local.connect import assume_role, client, tls_verify
from local.deploy import ACCOUNT
from maskdrop.job import Source, Webhook, dropped
from maskdrop.options import Options
from maskdrop.wire import JobMessage
from tests.ai import RunningAi
from tests.e2e.conftest import Running, environment, new_calls, started_stack, wait_until
from tests.e2e.test_bot import process_chat
from tests.e2e.test_cutouts import grainy
from tests.e2e.test_drop_folder import created
from tests.e2e.test_jobs import a_job
from tests.e2e.test_keys import signed
from tests.e2e.test_webhooks import a_key, job_with_webhook, submit, verified
from tests.web import served

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="the strict mode needs the program openssl")

AGES_AGO = "2000-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def strict(request: pytest.FixtureRequest) -> Iterator[Running]:
    variables = environment(ROOT / ".local" / f"e2e-{os.getpid()}-strict")
    with started_stack(LocalConfig.from_env({**variables, STRICT: "1"}), request.session) as running:
        yield running


def test_a_dropped_photo_is_processed_with_the_deployed_roles(strict: Running, photo: bytes) -> None:
    job_id = strict.put(photo)
    job = strict.wait_for_end([job_id])[job_id]
    assert job.state == "done", job.error
    job_data = strict.images.job(job_id)
    assert job_data
    assert job_data["state"] == "done"
    response = get(strict, job_data["result"]["url"])
    assert job.result
    assert response.content == strict.object(job.result.bucket, job.result.key)


def test_a_presigned_url_works_only_unmodified_and_while_the_api_role_can_read(strict: Running, photo: bytes) -> None:
    job_id = strict.put(photo)
    strict.wait_for_end([job_id])
    job_data = strict.images.job(job_id)
    assert job_data
    url = job_data["result"]["url"]
    assert get(strict, url).status_code == 200
    assert get(strict, url.partition("?")[0]).status_code == 403
    assert get(strict, url.replace("X-Amz-Expires=", "X-Amz-Expires=1")).status_code == 403
    with without(strict, "ApiRole", "s3:GetObject"):
        assert get(strict, url).status_code == 403
    assert get(strict, url).status_code == 200


def test_a_synchronous_request_returns_200_303_and_202_with_the_deployed_roles(strict: Running, photo: bytes) -> None:
    def post(body: bytes, **query: str) -> httpx2.Response:
        return strict.images.http.post(
            "/v1/cutouts", content=body, headers={"Content-Type": "image/jpeg"}, params=query, timeout=60
        )

    assert post(photo).status_code == 200
    large = post(grainy(photo))
    assert large.status_code == 303, large.text
    assert len(get(strict, large.headers["location"]).content) == large.json()["result"]["bytes"]
    later = post(photo, engine="sam")
    assert later.status_code == 202, later.text
    job = strict.wait_for_end([later.json()["id"]])[later.json()["id"]]
    assert job.error
    assert job.error.code == "unknown_engine"  # the image was read, and the engine is not installed


def test_the_api_creates_retries_and_deletes_jobs_with_the_deployed_roles(strict: Running, photo: bytes) -> None:
    http, verify = strict.images.http, tls_verify(strict.config.ca_bundle)
    good, bad = (a_job(http, body, verify) for body in (photo, b"This is no image."))
    finished = strict.wait_for_end([good["id"], bad["id"]])
    assert [finished[job["id"]].state for job in (good, bad)] == ["done", "failed"]
    assert http.post(f"/v1/jobs/{bad['id']}/retry").status_code == 202
    with without(strict, "ApiRole", "s3:DeleteObject"):
        assert http.delete(f"/v1/jobs/{good['id']}").status_code == 503
    assert http.delete(f"/v1/jobs/{good['id']}").status_code == 204
    assert http.get(f"/v1/jobs/{good['id']}").status_code == 404
    gone = http.post("/v1/jobs", json={"source": {name: good["source"][name] for name in ("bucket", "key")}})
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "source_missing")


def test_an_edit_is_made_retried_and_deleted_with_the_deployed_roles(strict: Running, photo: bytes) -> None:
    http, headers = strict.images.http, {"Content-Type": "image/png"}
    created = http.post("/v1/edits", content=photo, headers=headers, params={"edit": "white studio"})
    assert created.status_code == 202, created.text
    job = strict.wait_for_end([created.json()["id"]])[created.json()["id"]]
    assert (job.state, len(job.results)) == ("done", 1), job.error
    assert http.delete(f"/v1/jobs/{job.id}").status_code == 204
    with strict.presets({"beaches": Options.from_json({"task": "replace", "edit": "a beach"})}):
        failed_id = strict.put(photo, f"beaches/{uuid.uuid4().hex}.png")
        for _ in range(2):
            failed = strict.wait_for_end([failed_id])[failed_id]
            assert failed.error
            assert (failed.stage, failed.error.code) == ("edit", "text_not_supported")
            assert http.post(f"/v1/jobs/{failed_id}/retry").status_code == 202
        strict.wait_for_end([failed_id])


def test_the_function_edit_finishes_a_job_after_its_permission_to_write_is_restored(
    strict: Running, photo: bytes
) -> None:
    client(strict.config, "sqs").set_queue_attributes(
        QueueUrl=strict.edits_queue_url, Attributes={"VisibilityTimeout": "2"}
    )
    with without(strict, "EditRole", "s3:PutObject"):
        before = calls(strict, "edit")
        created = a_job(
            strict.images.http, photo, tls_verify(strict.config.ca_bundle), task="replace", edit="white studio"
        )
        wait_until(lambda: calls(strict, "edit") > before + 1, "a second delivery")
    job = strict.wait_for_end([created["id"]])[created["id"]]
    assert (job.state, len(job.results)) == ("done", 1), job.error


def test_labels_are_found_and_segmented_with_the_deployed_roles(strict: Running, two_people: bytes) -> None:
    headers, query = {"Content-Type": "image/png"}, {"prompt": '{"label": "face"}', "instances": "each"}
    response = strict.images.http.post("/v1/masks", content=two_people, headers=headers, params=query, timeout=60)
    assert response.status_code == 200, response.text
    urls = [one["result"]["url"] for one in response.json()["results"]]
    assert [get(strict, url).status_code for url in urls] == [200, 200]
    ai = RunningAi(strict.config)
    ai.control(labels={"Visor": [[0.34, 0.12, 0.21, 0.24, 98.0]]}).raise_for_status()
    query = {"prompt": '{"label": "visor"}'}
    found = strict.images.http.post("/v1/detections", content=two_people, headers=headers, params=query, timeout=60)
    assert [one["label"] for one in found.json()["detections"]] == ["visor"]
    verify = tls_verify(strict.config.ca_bundle)
    created = a_job(strict.images.http, two_people, verify, task="detect", prompt={"label": "visor"})
    job = strict.wait_for_end([created["id"]])[created["id"]]
    assert job.state == "done", job.error


def test_the_api_creates_a_job_once_for_an_idempotency_key(strict: Running, photo: bytes) -> None:
    http, bucket, key = strict.images.http, strict.stack.inbox, f"inbox/default/{uuid.uuid4().hex}.jpg"
    request, headers = {"source": {"bucket": bucket, "key": key}}, {"Idempotency-Key": uuid.uuid4().hex}
    assert http.post("/v1/jobs", json=request, headers=headers).status_code == 404
    strict.images.s3.put_object(Bucket=bucket, Key=key, Body=photo)
    responses = [http.post("/v1/jobs", json=request, headers=headers) for _ in range(2)]
    assert [one.status_code for one in responses] == [202, 202], responses[0].text
    assert len({one.json()["id"] for one in responses}) == 1


def test_a_job_with_a_deleted_source_fails_as_source_missing(strict: Running, photo: bytes) -> None:
    with strict.model_suspended():
        job_id = strict.put(photo)
        wait_until(lambda: strict.jobs.get(job_id) is not None, "the job")
        job = strict.jobs.get(job_id)
        assert job
        strict.images.s3.delete_object(Bucket=job.source.bucket, Key=job.source.key, VersionId=job.source.version_id)
    job = strict.wait_for_end([job_id])[job_id]
    assert job.error
    assert (job.state, job.error.code) == ("failed", "source_missing")


def test_an_invalid_image_fails_with_its_error_code(strict: Running) -> None:
    job_id = strict.put(b"This is no image.")
    job = strict.wait_for_end([job_id])[job_id]
    assert job.error
    assert (job.state, job.error.code) == ("failed", "unsupported_format")


@pytest.mark.parametrize(
    ("name", "action", "queue", "state"),
    [
        ("ingest", "dynamodb:PutItem", "jobs_queue_url", None),
        ("record", "dynamodb:UpdateItem", "results_queue_url", "submitted"),
    ],
)
def test_a_function_that_lost_a_permission_finishes_the_job_after_it_is_restored(
    strict: Running, photo: bytes, name: str, action: str, queue: str, state: str | None
) -> None:
    wait_until(strict.queues_empty, "empty queues")
    # Otherwise the message is redelivered only after six times the function's timeout.
    client(strict.config, "sqs").set_queue_attributes(
        QueueUrl=getattr(strict.stack, queue), Attributes={"VisibilityTimeout": "2"}
    )
    with without(strict, f"{name.title()}Role", action):
        before = calls(strict, name)
        job_id = strict.put(photo)
        wait_until(lambda: calls(strict, name) > before + 1, "a second delivery")
        job = strict.jobs.get(job_id)
        assert (job.state if job else None) == state
    assert strict.wait_for_end([job_id])[job_id].state == "done"


def test_sweep_retries_a_job_whose_result_could_not_be_written(strict: Running, photo: bytes) -> None:
    with without(strict, r"Bulk\w+Role", "s3:PutObject"):
        job_id = strict.put(photo)
        emulator_log = processes.log_file("sagemaker", strict.config.state)
        wait_until(lambda: "could not notify" in emulator_log.read_text(), "the denied write")
    job = strict.jobs.get(job_id)
    assert job
    assert job.state == "submitted"
    with pytest.raises(ClientError, match="404"):
        strict.images.s3.head_object(
            Bucket=strict.stack.results, Key=f"results/{job.source.key.removeprefix('inbox/')}.png"
        )

    client(strict.config, "dynamodb").update_item(
        TableName=strict.stack.table,
        Key={"id": {"S": job_id}},
        UpdateExpression="SET recency = :ages_ago",
        ExpressionAttributeValues={":ages_ago": {"S": AGES_AGO}},
    )
    assert invoke(strict, "SweepFunction", {}) == {"moved": 1}
    # No container could mark the bundle as started: the attempt does not count, and the message waits for 15 minutes.
    strict.send(strict.stack.jobs_queue_url, JobMessage(job_id, attempts=0).to_body())
    job = strict.wait_for_end([job_id])[job_id]
    assert (job.state, job.attempts) == ("done", 1)


def test_sweep_fails_without_permission_to_query_the_index(strict: Running) -> None:
    with without(strict, "SweepRole", "dynamodb:Query"):
        response = invoke(strict, "SweepFunction", {})
    assert "AccessDenied" in response["errorMessage"]


def test_a_readable_dead_letter_fails_its_job_and_an_unreadable_one_is_logged(strict: Running) -> None:
    source = Source(strict.stack.inbox, "inbox/default/dead.jpg", "1", 1)
    dead = physical(strict, "QueuesDead")
    strict.send(dead, "no JSON")
    strict.send(dead, json.dumps({"Records": [created(source)]}))
    assert invoke(strict, "DeadLettersFunction", {}) == {"deleted": 2, "failed": 0}
    job = strict.jobs.get(dropped(source, datetime.now(UTC)).id)
    assert job
    assert job.error
    assert (job.state, job.error.code) == ("failed", "gave_up")
    wait_until(lambda: "unreadable dead letter" in strict.log("dead_letters"), "the log line of the unreadable message")


def test_dead_letters_keeps_a_message_that_it_cannot_record(strict: Running) -> None:
    source = Source(strict.stack.inbox, "inbox/default/as-dead.jpg", "1", 1)
    strict.send(physical(strict, "QueuesDead"), json.dumps({"Records": [created(source)]}))
    with without(strict, "DeadLettersRole", "dynamodb:PutItem"):
        assert invoke(strict, "DeadLettersFunction", {}) == {"deleted": 0, "failed": 1}
    assert strict.jobs.get(dropped(source, datetime.now(UTC)).id) is None


def test_a_webhook_is_delivered_with_the_deployed_roles(strict: Running, photo: bytes) -> None:
    with served({"/hook": b"HTTP/1.1 204 Taken\r\n\r\n"}) as receiver:
        webhook = Webhook(f"http://localhost:{receiver.port}/hook", a_key(strict))
        submit(strict, job_with_webhook(strict, photo, webhook))
        wait_until(lambda: bool(receiver.requests), "the post")
    ((head, body),) = receiver.requests
    assert verified(head, body)["type"] == "job.done"


def test_the_api_returns_503_without_permission_to_read_the_table(strict: Running) -> None:
    path = f"/v1/jobs/{'0' * 32}"
    assert strict.images.http.get(path).status_code == 404
    with without(strict, "ApiRole", "dynamodb:GetItem"):
        assert strict.images.http.get(path).status_code == 503
    assert strict.images.http.get(path).status_code == 404


def test_an_error_of_the_authorizer_returns_503(strict: Running) -> None:
    with without(strict, "AuthorizeRole", "dynamodb:GetItem"):
        response = strict.images.http.get("/v1/jobs")
        assert (response.status_code, response.json()["error"]["code"]) == (503, "overloaded")
    assert strict.images.http.get("/v1/jobs").status_code == 200


def test_a_signed_request_needs_permission_to_invoke_the_api(strict: Running) -> None:
    iam = client(strict.config, "iam")
    trusted = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}}
    role = iam.create_role(RoleName="machine", AssumeRolePolicyDocument=json.dumps({"Statement": [trusted]}))["Role"]
    keys = assume_role(strict.config, role["Arn"])
    credentials = Credentials(keys["access_key"], keys["secret_key"], keys["token"])
    # The emulator returns its own message; API Gateway uses the gateway response ACCESS_DENIED.
    assert signed(strict, strict.images.http, "/iam/v1/usage", credentials).status_code == 403

    statement = {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": "*"}
    iam.put_role_policy(RoleName="machine", PolicyName="call", PolicyDocument=json.dumps({"Statement": [statement]}))
    response = signed(strict, strict.images.http, "/iam/v1/usage", credentials)
    assert (response.status_code, response.json()["owner"]) == (200, f"iam:arn:aws:sts::{ACCOUNT}:assumed-role/machine")
    assert signed(strict, strict.images.http, "/iam/v1/jobs", credentials).json()["jobs"] == []

    forged = Credentials(credentials.access_key, "not the secret", credentials.token)
    response = signed(strict, strict.images.http, "/iam/v1/usage", forged)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "auth_failed")


def test_requests_without_tls_are_denied(strict: Running, photo: bytes) -> None:
    with pytest.raises(httpx2.TransportError):
        httpx2.get(strict.stack.endpoint_url.replace("https", "http"), trust_env=False)
    # A proxy that was reached without TLS sets X-Forwarded-Proto; the policies of buckets and queues check it.
    s3 = client(strict.config, "s3", role=lambda: arn(strict, r"Bulk\w+Role"))
    sqs = client(strict.config, "sqs", role=lambda: arn(strict, "SweepRole"))
    message = JobMessage("0" * 32, attempts=0).to_body()  # the job does not exist
    s3.put_object(Bucket=strict.stack.results, Key="results/by-tls.png", Body=photo)
    sqs.send_message(QueueUrl=strict.stack.jobs_queue_url, MessageBody=message)
    for service in (s3, sqs):
        service.meta.events.register("before-send", forwarded_as_http)
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.put_object(Bucket=strict.stack.results, Key="results/plain.png", Body=photo)
    with pytest.raises(ClientError, match="AccessDenied"):
        sqs.send_message(QueueUrl=strict.stack.jobs_queue_url, MessageBody=message)


def test_the_emulator_still_needs_a_separate_permission_for_message_batches(strict: Running) -> None:
    """If this fails, the workaround `allow_batches` is obsolete."""
    iam, sqs = client(strict.config, "iam"), client(strict.config, "sqs")
    url = sqs.create_queue(QueueName="batches")["QueueUrl"]
    statement = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": "*"}
    trusted = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com"}}
    role = iam.create_role(RoleName="sender", AssumeRolePolicyDocument=json.dumps({"Statement": [trusted]}))["Role"]
    iam.put_role_policy(RoleName="sender", PolicyName="send", PolicyDocument=json.dumps({"Statement": [statement]}))
    sender = client(strict.config, "sqs", role=lambda: role["Arn"])
    sender.send_message(QueueUrl=url, MessageBody="one")
    with pytest.raises(ClientError, match="AccessDenied"):
        sender.send_message_batch(QueueUrl=url, Entries=[{"Id": "0", "MessageBody": "one of ten"}])


def test_only_three_ports_are_open(strict: Running) -> None:
    config = strict.config
    programs = (processes.find(name, config.state) for name in ("emulator", "sagemaker", "model"))
    listening = {
        connection.laddr
        for process in programs
        if process
        for one in [process, *process.children(recursive=True)]
        for connection in one.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {("127.0.0.1", port) for port in (config.aws_port, config.sagemaker_port, config.model_port)}


def test_the_mode_of_a_running_stack_cannot_be_changed(strict: Running) -> None:
    with pytest.raises(LocalError, match="make down"):
        stack.up(replace(strict.config, strict=False))
    assert stack.find(strict.config) == strict.stack


def test_the_bot_processes_a_chat_with_its_role(strict: Running, photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    process_chat(strict, photo, monkeypatch)


def test_the_calls_of_the_roles_are_those_that_tests_compare_with_the_policies(strict: Running) -> None:
    """If this fails, record the calls: MASKDROP_RECORD_CALLS=1 python -m pytest tests/e2e/test_strict.py"""
    assert new_calls(strict) == set()


@contextmanager
def without(running: Running, role: str, action: str) -> Iterator[None]:
    """Removes every statement that allows `action` from the policies of a role."""
    iam = client(running.config, "iam")
    name = physical(running, role)
    policies = {
        policy: iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]
    }
    try:
        removed = 0
        for policy, document in policies.items():
            left = [statement for statement in document["Statement"] if action not in statement["Action"]]
            removed += len(document["Statement"]) - len(left)
            iam.put_role_policy(
                RoleName=name, PolicyName=policy, PolicyDocument=json.dumps({**document, "Statement": left})
            )
        assert removed, f"{role} does not have {action}"
        yield
    finally:
        for policy, document in policies.items():
            iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=json.dumps(document))


def physical(running: Running, logical: str) -> str:
    """Returns the physical id of a resource. logical: pattern of its logical id without the hash that CDK appends."""
    cloudformation = client(running.config, "cloudformation")
    [found] = [
        one["PhysicalResourceId"]
        for name in running.config.stacks
        for one in cloudformation.describe_stack_resources(StackName=name)["StackResources"]
        if re.fullmatch(f"{logical}[0-9A-F]{{8}}", one["LogicalResourceId"])
    ]
    return str(found)


def arn(running: Running, role: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:role/{physical(running, role)}"


def invoke(running: Running, function: str, event: dict[str, Any]) -> Any:
    """Invokes a function and returns its response or error."""
    name = physical(running, function)
    return json.load(client(running.config, "lambda").invoke(FunctionName=name, Payload=json.dumps(event))["Payload"])


def calls(running: Running, function: str) -> int:
    """Returns the number of finished invocations of a function."""
    return running.log(function).count("REPORT RequestId")


def get(running: Running, url: str) -> httpx2.Response:
    return httpx2.get(url, verify=tls_verify(running.config.ca_bundle), trust_env=False)


def forwarded_as_http(request: Any, **_: Any) -> None:
    request.headers["X-Forwarded-Proto"] = "http"

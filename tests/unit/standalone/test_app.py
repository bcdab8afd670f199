from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from lambdas.http.page import page
from lambdas.http.routes import RETRY_AFTER_S
from maskdrop.catalog import DEFAULT_ENGINE
from maskdrop.errors import StorageUnavailable, TableUnavailable
from maskdrop.job import Job
from maskdrop.settings import InvalidSettings
from standalone.app import create_app
from standalone.database import Database, FolderInUse, locked
from standalone.files import RESERVED, Files
from standalone.jobs import SqliteJobs
from standalone.keys import create_key, list_keys, revoke_key
from standalone.registry import SqliteRegistry
from standalone.settings import ServeSettings
from tests.unit.sagemaker_model.engines.fake_engine import Half
from tests.unit.standalone.conftest import JPEG, MODEL, Start

IMAGE = {"Content-Type": "image/jpeg"}


def pixels(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


def code(response: Response) -> tuple[int, str]:
    return response.status_code, str(response.json()["error"]["code"])


def finished(client: TestClient, job_id: str) -> dict[str, Any]:
    """Returns a job once it has ended; fails after 20 s."""
    for _ in range(400):
        job: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()
        if job["finished_at"]:
            return job
        threading.Event().wait(0.05)
    raise AssertionError(f"The job is {job['state']}.")


@pytest.mark.parametrize(
    ("path", "files"),
    [("/v1/cutouts", "image"), ("/v1.0/removebg", "image_file"), ("/api/remove", "file"), ("/v1/masks", "image")],
)
def test_every_form_with_an_image_gets_its_result_as_bytes(start: Start, path: str, files: str) -> None:
    response = start().post(path, files={files: ("photo.jpg", JPEG, "image/jpeg")})
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png"), response.text
    assert pixels(response.content).shape[:2] == (30, 40)
    assert response.headers["content-length"] == str(len(response.content))


def test_concurrent_requests_get_their_own_responses(start: Start) -> None:
    client = start()
    names = ["png", "webp", "jpg"] * 8

    def kind(name: str) -> str:
        return client.post(f"/v1/cutouts?format={name}", content=JPEG, headers=IMAGE).headers["content-type"]

    with ThreadPoolExecutor(12) as pool:
        kinds = list(pool.map(kind, names))
    assert kinds == [{"png": "image/png", "webp": "image/webp", "jpg": "image/jpeg"}[name] for name in names]


def test_a_request_without_accept_has_none_in_its_event(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[dict[str, Any]] = []

    def process(event: dict[str, Any], *_: object) -> dict[str, Any]:
        events.append(event)
        return {"statusCode": 204, "body": None, "isBase64Encoded": False, "multiValueHeaders": {}}

    monkeypatch.setattr("standalone.gateway.process", process)
    client = start()
    request = client.build_request("POST", "/v1.0/removebg?a=1&a=2&b=", content=b"body")
    del request.headers["accept"]
    client.send(request)
    (event,) = events
    assert "accept" not in event["headers"]
    assert (event["queryStringParameters"], event["body"]) == ({"a": "2", "b": ""}, b"body")
    assert event["multiValueQueryStringParameters"] == {"a": ["1", "2"], "b": [""]}


def test_a_22_mb_body_is_accepted(start: Start) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2400, 3000, 3), dtype=np.uint8)
    photo = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    assert len(photo) > 8_000_000
    photo += b"\0" * (22_000_000 - len(photo))
    response = start().post("/v1.0/removebg", files={"image_file": ("photo.jpg", photo, "image/jpeg")})
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png"), response.text


def test_a_body_above_the_limit_is_refused_before_it_is_read(start: Start) -> None:
    client = start(image_bytes=100_000)
    large = bytes(ServeSettings(data=Path(), image_bytes=100_000).body_bytes + 1)
    assert code(client.post("/v1/cutouts", content=large, headers=IMAGE)) == (413, "file_too_large")
    assert code(client.post("/v1/cutouts", content=iter([large]), headers=IMAGE)) == (413, "file_too_large")
    refused = client.post("/v1.0/removebg", content=large, headers=IMAGE)
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (400, "file_too_large")
    assert "connection" not in refused.headers  # the client sends the rest before it reads the response
    waiting = client.post("/v1/cutouts", content=large, headers=IMAGE | {"Expect": "100-continue"})
    assert (*code(waiting), waiting.headers["connection"]) == (413, "file_too_large", "close")
    form = client.post("/v1/files/inbox", content=large, headers={"Content-Type": "multipart/form-data; boundary=a"})
    assert code(form) == (413, "file_too_large")


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/v1/cutouts", "/v1/files/inbox"])
async def test_a_request_that_the_end_of_the_drain_cancels_gets_a_503(start: Start, path: str) -> None:
    headers = [(b"host", b"127.0.0.1")]
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    scope["app"] = start().app
    sent: list[dict[str, Any]] = []
    waits = asyncio.Event()

    async def receive() -> dict[str, Any]:
        waits.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    task = asyncio.create_task(scope["app"](scope, receive, send))
    await waits.wait()
    task.cancel()
    await task
    assert sent[0]["status"] == 503
    assert json.loads(sent[1]["body"])["error"]["retryable"] is True


@pytest.mark.anyio
async def test_a_body_without_a_key_is_not_read(start: Start) -> None:
    app = start(no_auth=False).app
    scope = {"type": "http", "method": "POST", "path": "/v1/cutouts", "query_string": b"", "headers": [], "app": app}
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent[0]["status"] == 403


def test_a_chunked_body_counts_towards_the_bytes_of_all_requests(start: Start) -> None:
    engine = Half(hold=None)
    client = start(engine, requests_bytes=2 * len(JPEG))
    engine.hold = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/cutouts", content=JPEG, headers=IMAGE)
        assert engine.entered.acquire(timeout=20)
        refused = client.post("/v1/cutouts", content=iter([bytes(len(JPEG)), bytes(1)]), headers=IMAGE)
        engine.hold.set()
        assert first.result().status_code == 200
    assert code(refused) == (503, "queue_full")
    assert client.post("/v1/cutouts", content=iter([JPEG]), headers=IMAGE).status_code == 200


def test_head_gets_the_headers_of_get(start: Start) -> None:
    client = start()
    for path in ("/v1/health", "/v1/engines"):
        head = client.head(path)
        assert (head.status_code, head.headers["content-type"]) == (200, "application/json")


def test_a_second_server_on_the_folder_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with locked(tmp_path / "data"), pytest.raises(FolderInUse, match="Another server"), locked(tmp_path / "data"):
        pass
    with locked(tmp_path / "data"):
        Database(tmp_path / "data").close()  # the commands of keys need no lock


def test_the_database_works_again_after_a_failed_commit(tmp_path: Path) -> None:
    database = Database(tmp_path)
    registry = SqliteRegistry(database)

    def fail() -> None:
        with database.transaction() as connection:
            connection.execute("COMMIT")  # as SQLite ends a transaction on a full disk
            raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(TableUnavailable, match="disk is full"):
        fail()
    registry.put("preset", "a", {})
    assert registry.get("preset", "a") == {}


def test_requests_above_the_queue_are_refused_with_retry_after(start: Start) -> None:
    engine = Half(hold=None)
    client = start(engine, requests_max=1)
    engine.hold = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/cutouts", content=JPEG, headers=IMAGE)
        assert engine.entered.acquire(timeout=20)
        second = client.post("/v1/cutouts", content=JPEG, headers=IMAGE)
        health = client.get("/v1/health")
        engine.hold.set()
        assert first.result().status_code == 200
    assert code(second) == (503, "queue_full")
    assert second.headers["retry-after"] == str(RETRY_AFTER_S)
    assert health.status_code == 200, "a load balancer must not replace a busy server"


def test_a_request_that_waits_too_long_ends_with_504(start: Start) -> None:
    engine = Half()
    client = start(engine, request_s=0.2)
    engine.hold = threading.Event()
    response = client.post("/v1/cutouts", content=JPEG, headers=IMAGE)
    engine.hold.set()
    assert code(response) == (504, "deadline_exceeded")


def test_an_unexpected_error_hides_its_details(start: Start) -> None:
    engine = Half()
    client = start(engine)
    engine.error = RuntimeError("/secret/path")
    response = client.post("/v1/cutouts", content=JPEG, headers=IMAGE)
    assert code(response) == (500, "internal")
    assert "secret" not in response.text


def test_several_results_have_urls_that_expire(start: Start) -> None:
    client = start()
    edit = client.post("/v1/edits?edit=studio%20white", content=JPEG, headers=IMAGE)
    assert edit.status_code == 202
    job = finished(client, edit.json()["id"])
    assert job["state"] == "done", job
    url = urlsplit(job["result"]["url"])
    assert client.get(f"{url.path}?{url.query}").headers["content-type"] == "image/png"
    assert code(client.get(f"{url.path}?{url.query}0")) == (403, "not_allowed")
    assert code(client.get(url.path)) == (403, "not_allowed")


def test_jobs_survive_a_restart(start: Start, tmp_path: Path) -> None:
    engine = Half()
    client = start(engine)
    form = client.post("/v1/uploads", json={"name": "a.jpg", "content_type": "image/jpeg"}).json()
    target = urlsplit(form["url"]).path
    assert client.post(target, data=form["fields"], files={"file": JPEG}).status_code == 204
    tampered = {**form["fields"], "key": "uploads/other"}
    assert client.post(target, data=tampered, files={"file": JPEG}).status_code == 403
    engine.hold = threading.Event()
    job = client.post("/v1/jobs", json={"source": {"upload": form["upload"]}}).json()
    assert engine.entered.acquire(timeout=20)
    waiting = Job.from_json({**client.get(f"/v1/jobs/{job['id']}").json(), "id": "a" * 32, "state": "queued"})
    assert SqliteJobs(Database(tmp_path)).claim(replace(waiting, bundle="", attempts=0))
    again = start()  # another server on the same folder, as after a crash
    for job_id in (job["id"], waiting.id):
        done = finished(again, job_id)
        assert (done["state"], done["subject"]["box"]) == ("done", [0, 0, 20, 30])
    engine.hold.set()


def test_a_key_gives_access_until_it_is_revoked(start: Start, tmp_path: Path) -> None:
    client = start(no_auth=False)
    registry = SqliteRegistry(Database(tmp_path))  # `maskdrop keys`, beside the server
    text, key = create_key(registry, "shop", rate=2)
    assert key.scope == "all"
    assert list(list_keys(registry)) == list(registry.list("key"))
    assert text not in json.dumps(registry.list("key"))
    assert code(client.post("/v1/cutouts", content=JPEG, headers=IMAGE)) == (403, "auth_failed")
    bearer = client.post("/v1/cutouts", content=JPEG, headers={**IMAGE, "Authorization": f"Bearer {text}"})
    assert (bearer.status_code, bearer.headers["x-ratelimit-remaining"]) == (200, "1")
    usage = client.get("/v1/usage", headers={"X-Api-Key": text}).json()
    assert (usage["owner"], usage["pictures"]) == (key.id, 1)
    limited = client.get("/v1.0/account", headers={"X-Api-Key": text})
    assert limited.status_code == 429
    assert int(limited.headers["retry-after"]) > 0
    revoke_key(registry, key.id)
    assert code(client.get("/v1/engines", headers={"X-Api-Key": text})) == (403, "auth_failed")


def test_metrics_need_a_key_of_scope_all(start: Start, tmp_path: Path) -> None:
    client = start(no_auth=False)
    registry = SqliteRegistry(Database(tmp_path))
    (everything, _), (own, _) = create_key(registry, "operator"), create_key(registry, "shop")
    client.post("/v1/cutouts", content=JPEG, headers={**IMAGE, "X-Api-Key": own})
    client.get("/v1/jobs/0123456789", headers={"X-Api-Key": own})
    client.get("/anything", headers={"X-Api-Key": own})
    assert client.get("/metrics").status_code == client.get("/metrics", headers={"X-Api-Key": own}).status_code == 403
    text = client.get("/metrics", headers={"Authorization": f"Bearer {everything}"}).text
    assert 'maskdrop_requests_total{method="POST",path="/v1/cutouts",status="200"} 1.0' in text
    assert 'maskdrop_requests_total{method="GET",path="/v1/jobs/{id}",status="404"} 1.0' in text
    assert 'maskdrop_requests_total{method="other",path="other",status="404"} 1.0' in text
    assert "maskdrop_stage_seconds_bucket" in text


@pytest.mark.parametrize("path", ["/v1/health", "/v1/docs", "/v1/openapi.json", "/ping", "/console/"])
def test_open_pages_need_no_key(start: Start, path: str) -> None:
    assert start(no_auth=False).get(path).status_code == 200


def test_the_server_is_ready_while_other_engines_still_warm_up(start: Start) -> None:
    other = Half(hold=threading.Event())
    client = start(others={"portrait": other})
    assert client.get("/ping").status_code == 200
    assert other.entered.acquire(timeout=60)  # the warm-up of the other engine has begun
    assert client.post("/v1/cutouts", content=JPEG, headers=IMAGE).status_code == 200
    assert other.hold is not None
    other.hold.set()
    assert client.post("/v1/cutouts?engine=portrait", content=JPEG, headers=IMAGE).status_code == 200


def test_another_engine_that_fails_does_not_stop_the_server(start: Start) -> None:
    other = Half(error=RuntimeError("no network"))
    client = start(others={"portrait": other})
    assert other.entered.acquire(timeout=60)
    assert client.post("/v1/cutouts", content=JPEG, headers=IMAGE).status_code == 200
    assert client.post("/v1/cutouts?engine=portrait", content=JPEG, headers=IMAGE).status_code == 500


@pytest.mark.parametrize(("accepted", "encoding"), [("gzip, br", "gzip"), ("identity", None)])
def test_the_page_of_the_api_is_compressed_where_the_client_accepts_it(
    start: Start, accepted: str, encoding: str | None
) -> None:
    response = start().get("/v1/docs", headers={"Accept-Encoding": accepted})
    assert response.headers.get("content-encoding") == encoding
    assert response.text == page()


def test_errors_have_the_format_of_the_dialect(start: Start) -> None:
    client = start(no_auth=False)
    assert client.post("/v1.0/removebg").json()["errors"][0]["code"] == "auth_failed"
    assert "detail" in client.post("/api/remove").json()
    assert code(start().get("/nothing")) == (404, "not_found")
    assert code(start().put("/v1/cutouts")) == (405, "method_not_allowed")


def test_an_image_in_json_has_the_same_limit_as_a_file(start: Start) -> None:
    encoded = base64.b64encode(JPEG).decode()
    response = start(image_bytes=len(JPEG)).post("/v1/cutouts", json={"image_base64": encoded})
    assert response.status_code == 200, response.text
    smaller = start(image_bytes=len(JPEG) - 1).post("/v1/cutouts", json={"image_base64": encoded})
    assert code(smaller) == (413, "file_too_large")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])  # noqa: S104 - refused
def test_a_server_without_keys_listens_on_this_machine_only(host: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="--anyone"):
        create_app(ServeSettings(data=tmp_path, host=host, no_auth=True), MODEL, {})
    ServeSettings(data=tmp_path, host=host, no_auth=True, anyone=True).check()
    ServeSettings(data=tmp_path, host=host).check()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_hosts_need_no_key(host: str, tmp_path: Path) -> None:
    ServeSettings(data=tmp_path, host=host, no_auth=True).check()


def test_settings_are_read_from_the_environment() -> None:
    env = {"SERVE_PORT": "9000", "SERVE_DATA": "/data", "SERVE_NO_AUTH": "1", "PATH": "/bin"}
    assert ServeSettings.from_env(env) == ServeSettings(port=9000, data=Path("/data"), no_auth=True)
    with pytest.raises(InvalidSettings, match=r"SERVE_REQUESTS_MAX must be a whole number; got 'many'"):
        ServeSettings.from_env({"SERVE_REQUESTS_MAX": "many"})


def test_expired_files_and_records_are_deleted(tmp_path: Path) -> None:
    from standalone.files import Files

    now = [time.time()]
    files = Files(tmp_path, Database(tmp_path), clock=lambda: now[0])
    files.write("results", "a.png", b"1", "image/png", {})
    now[0] += 100
    files.write("results", "b.png", b"2", "image/png", {})
    assert files.delete_older(50) == 1
    assert files.head("results", "a.png") is None
    assert not files.path("results", "a.png").exists()
    assert files.read("results", "b.png") == b"2"


def test_an_engine_without_weights_is_listed_as_unavailable_and_refused_at_once(start: Start) -> None:
    client = start()
    available = {one["name"]: one["available"] for one in client.get("/v1/engines").json()["engines"]}
    assert {name for name, known in available.items() if known} == {"auto", "labels"}
    assert None not in available.values()
    response = client.post("/v1/jobs", json={"source": {"url": "https://a.example/1.jpg"}, "engine": "sam"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unknown_engine")


def test_a_server_that_stops_finishes_the_jobs_in_progress(tmp_path: Path) -> None:
    engine = Half()
    settings = ServeSettings(data=tmp_path, no_auth=True)
    with TestClient(create_app(settings, MODEL, {DEFAULT_ENGINE["cutout"]: engine}), base_url=settings.url) as client:
        form = client.post("/v1/uploads", json={"name": "a.jpg", "content_type": "image/jpeg"}).json()
        client.post(urlsplit(form["url"]).path, data=form["fields"], files={"file": JPEG})
        while engine.entered.acquire(blocking=False):
            pass
        engine.hold = threading.Event()
        job = client.post("/v1/jobs", json={"source": {"upload": form["upload"]}}).json()
        assert engine.entered.acquire(timeout=20)
        threading.Timer(0.2, engine.hold.set).start()
    stored = SqliteJobs(Database(tmp_path)).get(job["id"])
    assert stored
    assert stored.state == "done"


def test_files_leave_room_on_the_disk_for_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(tmp_path, Database(tmp_path))
    free = RESERVED + 100
    monkeypatch.setattr("standalone.files.disk_usage", lambda _: SimpleNamespace(free=free))
    assert files.write("results", "a", bytes(100), "image/png", {})
    with pytest.raises(StorageUnavailable, match="No space left"):
        files.write("results", "b", bytes(101), "image/png", {})
    assert files.head("results", "b") is None


def test_a_server_without_keys_refuses_other_web_pages_and_host_names(start: Start) -> None:
    client = start()
    assert client.get("/v1/jobs").status_code == 200
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
        assert client.get("/v1/jobs", headers=headers).status_code == 403
    behind_a_proxy = start(anyone=True, data=client.app.state.server.settings.data / "other")  # type: ignore[attr-defined]
    assert behind_a_proxy.get("/v1/jobs", headers={"Host": "images.corp"}).status_code == 200

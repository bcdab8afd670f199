from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from maskdrop.background import BackgroundImage
from maskdrop.catalog import DEFAULT_ENGINE
from maskdrop.errors import NotAllowed, StorageUnavailable
from maskdrop.job import Source
from maskdrop.options import Options
from maskdrop.output import Output
from maskdrop.prompt import Prompts
from maskdrop.wire import (
    CUSTOM_ATTRIBUTES,
    CUSTOM_ATTRIBUTES_MAX,
    STARTED_PREFIX,
    Bundle,
    BundleResponse,
    Destination,
    Item,
)
from sagemaker_model.engines.base import Alpha
from sagemaker_model.engines.verification import Comparison, Difference, EngineUnavailable
from sagemaker_model.imaging import arrays
from sagemaker_model.serving.runtime import in_flight_max
from sagemaker_model.serving.server import BUNDLE_BYTES_MAX, RETRY_AFTER_S, create_app
from sagemaker_model.settings import ServerSettings
from tests.unit.sagemaker_model.engines.fake_engine import Half
from tests.unit.sagemaker_model.serving.fake_storage import FakeStorage

DEFAULT = DEFAULT_ENGINE["cutout"]

SETTINGS = ServerSettings(device="cpu", workers=2, queue_max=4, max_bytes=100_000, deadline_s=30)
JPEG = cv2.imencode(".jpg", np.full((30, 40, 3), 90, np.uint8))[1].tobytes()


@contextmanager
def running(engine: Half, storage: FakeStorage | None = None, **changes: object) -> Iterator[TestClient]:
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    with TestClient(create_app(settings, {DEFAULT: engine}, lambda: storage or FakeStorage())) as client:
        while engine.entered.acquire(blocking=False):
            pass  # consumes the calls of the warm-up
        yield client


def send(client: TestClient, body: bytes = JPEG, **options: object) -> Response:
    headers = {"Content-Type": "image/jpeg", CUSTOM_ATTRIBUTES: json.dumps(options)}
    return client.post("/invocations", content=body, headers=headers)


def bundle(client: TestClient, *items: Item) -> BundleResponse:
    response = client.post(
        "/invocations", content=Bundle("b", items).to_bytes(), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 200, response.text
    return BundleResponse.from_bytes(response.content)


def item(number: int, storage: FakeStorage, body: bytes = JPEG) -> Item:
    key = f"inbox/{number}.jpg"
    stored = storage.put("inbox", key, body)
    return Item(
        f"job-{number}",
        Source("inbox", key, stored.etag),
        Destination("results", f"results/{number}.jpg.png"),
        Options(),
    )


def decoded(data: bytes) -> np.ndarray:
    """Returns the pixels of an image file, as stored."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


def npy(array: np.ndarray) -> bytes:
    to = io.BytesIO()
    np.save(to, array)
    return to.getvalue()


def error_code(response: Response) -> str:
    return str(response.json()["error"]["code"])


def test_an_image_is_returned_as_a_cut_out_with_facts_in_the_header() -> None:
    with running(Half()) as client:
        response = send(client)
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    assert decoded(response.content).shape == (30, 40, 4)
    about = json.loads(response.headers[CUSTOM_ATTRIBUTES])
    assert (about["width"], about["height"], about["engine"], about["device"]) == (40, 30, DEFAULT, "cpu")
    assert about["subject"]["box"] == [0, 0, 20, 30]
    assert set(about["timings"]) == {"decode", "predict", "refine", "foreground", "layout", "encode"}
    assert len(response.headers[CUSTOM_ATTRIBUTES]) <= CUSTOM_ATTRIBUTES_MAX


def test_the_options_of_the_header_are_applied() -> None:
    with running(Half()) as client:
        response = send(client, output={"format": "webp", "channels": "alpha"})
    assert response.headers["content-type"] == "image/webp"


OVERFLOW = {"bucket": "results", "key": "results/cutouts/1.png", "bytes_max": 50}


def test_a_result_above_the_overflow_limit_is_written_to_s3_once() -> None:
    storage = FakeStorage()
    with running(Half(), storage) as client:
        whole = send(client)
        responses = [send(client, overflow=OVERFLOW) for _ in range(2)]  # a client that retries
    _, body = storage.objects["results", "results/cutouts/1.png"]
    assert (body, storage.writes) == (whole.content, 1)
    for response in responses:
        assert response.status_code == 200
        result = response.json()["result"]
        assert (result["bucket"], result["key"], result["bytes"]) == ("results", "results/cutouts/1.png", len(body))
        assert (result["width"], result["height"], result["sha256"]) == (40, 30, hashlib.sha256(body).hexdigest())
        assert json.loads(response.headers[CUSTOM_ATTRIBUTES])["subject"]["box"] == [0, 0, 20, 30]


def test_a_result_within_the_overflow_limit_is_returned_and_not_written() -> None:
    storage = FakeStorage()
    with running(Half(), storage) as client:
        response = send(client, overflow={**OVERFLOW, "bytes_max": len(send(client).content)})
    assert response.headers["content-type"] == "image/png"
    assert storage.objects == {}


def test_an_overflow_that_cannot_be_written_is_an_error() -> None:
    class Broken(FakeStorage):
        def write(self, *_: object) -> bool:
            raise StorageUnavailable("S3 returned the error SlowDown.")

    with running(Half(), Broken()) as client:
        response = send(client, overflow=OVERFLOW)
    assert (response.status_code, error_code(response)) == (503, "storage_unavailable")


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ('{"overflow": {"bucket": "b"}}', "invalid_options"),
        ("{", "invalid_options"),
        ("[1]", "invalid_options"),
        ("[" * 1000, "invalid_options"),
        ('{"engine": "none"}', "unknown_engine"),
        ('{"output": {"format": "bmp"}}', "invalid_options"),
        ('{"task":"' + "x" * 1024 + '"}', "invalid_options"),
    ],
)
def test_invalid_options_are_refused(header: str, code: str) -> None:
    with running(Half()) as client:
        response = client.post(
            "/invocations", content=JPEG, headers={"Content-Type": "image/jpeg", CUSTOM_ATTRIBUTES: header}
        )
    assert (response.status_code, error_code(response)) == (400, code)


def test_a_prompt_that_the_engine_cannot_use_is_refused() -> None:
    header = json.dumps({"engine": "portrait", "prompt": {"box": [0, 0, 1, 1]}})
    with running(Half()) as client:
        response = client.post(
            "/invocations", content=JPEG, headers={"Content-Type": "image/jpeg", CUSTOM_ATTRIBUTES: header}
        )
    assert (response.status_code, error_code(response)) == (422, "invalid_prompt")


def test_an_invalid_image_is_refused_with_its_status_and_without_a_traceback() -> None:
    with running(Half()) as client:
        response = send(client, b"no image")
    assert (response.status_code, error_code(response)) == (415, "unsupported_format")
    assert response.json()["error"]["retryable"] is False
    assert "Traceback" not in response.text


def test_an_unsupported_content_type_is_refused() -> None:
    with running(Half()) as client:
        response = client.post("/invocations", content=b"a=b", headers={"Content-Type": "text/plain"})
    assert (response.status_code, error_code(response)) == (415, "unsupported_format")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("kind", "limit"), [("image/jpeg", SETTINGS.max_bytes), ("application/json", BUNDLE_BYTES_MAX)]
)
def test_a_body_above_the_limit_is_refused_before_it_is_read(kind: str, limit: int, chunked: bool) -> None:
    sent = 0

    def parts() -> Iterator[bytes]:
        nonlocal sent
        while sent < 4 * limit:
            sent += 50_000
            yield b"x" * 50_000

    headers = {"Content-Type": kind}
    with running(Half()) as client:
        content = parts() if chunked else b"x" * (limit + 1)
        response = client.post("/invocations", content=content, headers=headers)
    assert (response.status_code, error_code(response)) == (413, "file_too_large")
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize("body", [JPEG, npy(np.full((30, 40, 3), 90, np.uint8))], ids=["file", "array"])
@pytest.mark.parametrize("accept", ["*/*", "application/x-npy", "image/png;q=0.5, Application/X-NPY"])
@pytest.mark.parametrize("channels", ["rgba", "alpha"])
def test_arrays_and_files_are_accepted_and_returned_in_every_combination(
    body: bytes, accept: str, channels: str
) -> None:
    headers = {
        "Content-Type": "image/jpeg" if body == JPEG else arrays.CONTENT_TYPE,
        "Accept": accept,
        CUSTOM_ATTRIBUTES: json.dumps({"output": {"channels": channels}}),
    }
    with running(Half()) as client:
        response = client.post("/invocations", content=body, headers=headers)
    if accept == "*/*":
        assert response.headers["content-type"] == "image/png"
        found = decoded(response.content)
    else:
        assert response.headers["content-type"] == arrays.CONTENT_TYPE
        found = np.load(io.BytesIO(response.content), allow_pickle=False)
    assert found.dtype == np.uint8
    assert found.shape == ((30, 40) if channels == "alpha" else (30, 40, 4))
    alpha = found if channels == "alpha" else found[..., 3]
    assert alpha[:, :10].min() == 255
    assert alpha[:, 30:].max() == 0
    assert json.loads(response.headers[CUSTOM_ATTRIBUTES])["subject"]["box"] == [0, 0, 20, 30]


def test_an_array_may_have_more_bytes_than_a_file_but_not_more_pixels() -> None:
    changes: dict[str, Any] = {"max_bytes": 1000, "max_pixels": 10_000}
    headers = {"Content-Type": arrays.CONTENT_TYPE}
    with running(Half(), **changes) as client:
        fits = client.post("/invocations", content=npy(np.zeros((100, 100, 3), np.uint8)), headers=headers)
        pixels = client.post("/invocations", content=npy(np.zeros((101, 100, 3), np.uint8)), headers=headers)
        body = client.post("/invocations", content=npy(np.zeros((140, 100, 3), np.uint8)), headers=headers)
    assert fits.status_code == 200
    assert (pixels.status_code, error_code(pixels)) == (413, "resolution_too_high")
    assert (body.status_code, error_code(body)) == (413, "file_too_large")


def test_an_unknown_error_of_the_engine_is_internal_and_hides_its_message() -> None:
    engine = Half()
    with running(engine) as client:
        engine.error = RuntimeError("secret")
        response = send(client)
        page = client.get("/metrics").text
    assert (response.status_code, error_code(response)) == (500, "internal")
    assert "secret" not in response.text
    assert f'maskdrop_pictures_total{{engine="{DEFAULT}",outcome="internal"}} 1.0' in page


def test_the_server_does_not_start_if_its_engine_fails_on_the_first_image() -> None:
    with pytest.raises(RuntimeError, match="broken"), running(Half(error=RuntimeError("broken"))):
        pass


def test_a_full_server_refuses_at_once_and_accepts_images_again_later() -> None:
    engine = Half()
    with running(engine, workers=1, queue_max=2) as client, ThreadPoolExecutor(2) as pool:
        engine.hold = threading.Event()
        waiting = [pool.submit(send, client) for _ in range(2)]
        assert engine.entered.acquire(timeout=60)
        wait_until(lambda: "maskdrop_queue_pictures 2.0" in client.get("/metrics").text)
        refused = send(client)
        assert client.get("/ping").status_code == 200
        engine.hold.set()
        assert [response.result().status_code for response in waiting] == [200, 200]
        assert send(client).status_code == 200
    assert (refused.status_code, error_code(refused)) == (503, "queue_full")
    assert refused.headers["retry-after"] == str(RETRY_AFTER_S)
    assert refused.json()["error"]["retryable"] is True


def test_an_idle_server_accepts_a_bundle_longer_than_its_queue() -> None:
    storage = FakeStorage()
    with running(Half(), storage, queue_max=1) as client:
        response = bundle(client, *(item(n, storage) for n in range(20)))
    assert all(outcome.result for outcome in response.outcomes)


def test_a_stuck_image_times_out_and_the_server_is_not_ready_until_its_worker_ends() -> None:
    engine = Half()
    with running(engine, workers=1, deadline_s=0.2) as client:
        engine.hold = threading.Event()
        late = send(client)
        assert (late.status_code, error_code(late)) == (504, "deadline_exceeded")
        assert client.get("/ping").status_code == 503
        assert "maskdrop_workers_stuck 1.0" in client.get("/metrics").text
        assert error_code(send(client)) == "deadline_exceeded"  # all workers are stuck
        engine.hold.set()
        wait_until(lambda: client.get("/ping").status_code == 200)
        engine.hold = None
        assert send(client).status_code == 200


def test_a_bundle_returns_an_outcome_for_every_item_in_order_even_if_some_fail() -> None:
    storage = FakeStorage()
    items = [
        item(0, storage),
        item(1, storage, b"no image"),
        replace(item(2, storage), source=Source("inbox", "inbox/none.jpg")),
        replace(item(3, storage), source=Source("inbox", "inbox/3.jpg", "old")),
        item(4, storage, b""),
        item(5, storage),
    ]
    with running(Half(), storage, usd_per_hour=1.5) as client:
        response = bundle(client, *items)
    assert [outcome.id for outcome in response.outcomes] == [i.id for i in items]
    codes = [outcome.error.code if outcome.error else "" for outcome in response.outcomes]
    assert codes == ["", "unsupported_format", "source_missing", "source_replaced", "empty_file", ""]
    assert (response.bundle, response.device, response.usd_per_hour) == ("b", "cpu", 1.5)
    assert {"read", "decode", "predict", "encode", "write"} <= set(response.outcomes[0].timings)
    assert set(storage.objects) >= {("results", "results/0.jpg.png"), ("results", "results/5.jpg.png")}


def test_a_bundle_that_is_sent_twice_is_written_once_with_the_same_outcome() -> None:
    storage, engine = FakeStorage(), Half()
    with running(engine, storage) as client:
        first, second = (bundle(client, item(0, storage)) for _ in range(2))
    assert storage.writes == 2  # the result, and the mark of the bundle
    assert first.outcomes[0].result == second.outcomes[0].result


MARK = ("results", f"{STARTED_PREFIX}b")


def test_a_bundle_is_marked_as_started_before_its_first_image_is_processed() -> None:
    storage, engine = FakeStorage(), Half()
    with running(engine, storage, workers=1) as client, ThreadPoolExecutor(1) as pool:
        engine.hold = threading.Event()
        sent = pool.submit(bundle, client, item(0, storage))
        assert engine.entered.acquire(timeout=60)
        assert storage.objects[MARK][1] == b""
        engine.hold.set()
        assert sent.result().outcomes[0].result


def test_a_bundle_that_a_full_server_refuses_is_not_marked_as_started() -> None:
    storage, engine = FakeStorage(), Half()
    body = Bundle("b", (item(0, storage), item(1, storage))).to_bytes()
    with running(engine, workers=1, queue_max=2) as client, ThreadPoolExecutor(1) as pool:
        engine.hold = threading.Event()
        waiting = pool.submit(send, client)
        assert engine.entered.acquire(timeout=60)
        refused = client.post("/invocations", content=body, headers={"Content-Type": "application/json"})
        engine.hold.set()
        assert waiting.result().status_code == 200
    assert (refused.status_code, error_code(refused)) == (503, "queue_full")
    assert MARK not in storage.objects


def test_a_bundle_that_cannot_be_marked_as_started_is_processed(caplog: pytest.LogCaptureFixture) -> None:
    class Unmarked(FakeStorage):
        def write(self, bucket: str, key: str, *rest: Any) -> bool:
            if key.startswith(STARTED_PREFIX):
                raise NotAllowed("The model server has no permission for this object.")
            return super().write(bucket, key, *rest)

    storage = Unmarked()
    with running(Half(), storage) as client:
        assert bundle(client, item(0, storage)).outcomes[0].result
    assert "bundle b is processed without the mark" in caplog.text


def about(response: Response) -> Any:
    return json.loads(response.headers[CUSTOM_ATTRIBUTES])


@pytest.mark.parametrize(
    ("form", "kind"), [("jpg", "image/jpeg"), ("zip", "application/zip"), ("webp", "image/webp"), ("png", "image/png")]
)
def test_every_format_has_its_content_type(form: str, kind: str) -> None:
    with running(Half()) as client:
        assert send(client, output={"format": form}).headers["content-type"] == kind


def test_size_and_place_refer_to_the_result_and_the_box_to_the_source() -> None:
    with running(Half()) as client:
        response = send(client, output={"crop": "5px", "background": "red"})
    image = decoded(response.content)
    found = about(response)
    assert image.shape == (found["height"], found["width"], 4) == (40, 32, 4), (
        "20 columns, 2 of the soft edge, and 5 on each side"
    )
    assert (found["subject"]["box"], found["place"]) == ([0, 0, 20, 30], [5, 5, 25, 35])
    assert (image[:5] == (0, 0, 255, 255)).all()


def test_arrays_and_files_have_the_same_layout() -> None:
    output = {"crop": "3px", "scale": "70%", "background": "81d4fa"}
    with running(Half()) as client:
        file = send(client, output=output)
        array = client.post(
            "/invocations",
            content=JPEG,
            headers={
                "Content-Type": "image/jpeg",
                "Accept": arrays.CONTENT_TYPE,
                CUSTOM_ATTRIBUTES: json.dumps({"output": output}),
            },
        )
    drawn = decoded(file.content)
    assert np.array_equal(np.load(io.BytesIO(array.content)), cv2.cvtColor(drawn, cv2.COLOR_BGRA2RGBA))


def test_outside_the_region_of_interest_all_is_background() -> None:
    with running(Half()) as client:
        response = send(client, output={"roi": "10% 0 100% 50%", "channels": "alpha"})
    matte = decoded(response.content)
    assert about(response)["subject"]["box"] == [4, 0, 20, 15]
    assert matte[15:].max() == matte[:, :4].max() == 0


@pytest.mark.parametrize(
    ("output", "code", "status"),
    [
        ({"roi": "0 0 41px 30px"}, "roi_exceeds_bounds", 422),
        ({"roi": "50% 0 50% 100%"}, "roi_region_empty", 422),
        ({"roi": "50%"}, "invalid_options", 400),
        ({"crop": "500px"}, "resolution_too_high", 413),
        ({"background": {"bucket": "b", "key": "none"}}, "invalid_background", 422),
        ({"background": {"bucket": "b", "key": "text"}}, "invalid_background", 422),
        ({"background": {"bucket": "b", "key": "empty"}}, "invalid_background", 422),
    ],
)
def test_outputs_that_do_not_fit_the_image_are_refused(output: dict[str, object], code: str, status: int) -> None:
    storage = FakeStorage()
    storage.put("b", "text", b"no image")
    storage.put("b", "empty", b"")
    with running(Half(), storage, max_pixels=200_000) as client:
        response = send(client, output=output)
    assert (response.status_code, error_code(response)) == (status, code)


def test_a_background_image_is_read_from_s3_for_single_images_and_bundles() -> None:
    storage = FakeStorage()
    blue = cv2.imencode(".png", np.full((60, 80, 3), (250, 20, 10), np.uint8))[1].tobytes()
    storage.put("b", "blue.png", blue)
    output = Output(background=BackgroundImage("b", "blue.png"))
    with running(Half(), storage) as client:
        single = send(client, output=output.to_json()).content
        outcome = bundle(client, replace(item(0, storage), options=Options(output=output))).outcomes[0]
    drawn = decoded(single)
    assert (drawn[:, 25:] == (250, 20, 10, 255)).all()
    assert outcome.result is not None
    assert storage.objects["results", "results/0.jpg.png"][1] == single


def test_a_background_that_cannot_be_read_is_a_retryable_error() -> None:
    storage = FakeStorage()
    with running(Half(), storage) as client:
        storage.broken = StorageUnavailable("S3 is out of reach.")
        response = send(client, output={"background": {"bucket": "b", "key": "k"}})
    assert (response.status_code, error_code(response)) == (503, "storage_unavailable")


def test_an_unknown_error_is_internal_and_retryable_for_its_item_only() -> None:
    storage, engine = FakeStorage(), Half()
    with running(engine, storage) as client:
        engine.error = RuntimeError("secret")
        outcome = bundle(client, item(0, storage)).outcomes[0]
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.retryable) == ("internal", True)
    assert "secret" not in outcome.error.message


@pytest.mark.parametrize("error", [StorageUnavailable("S3 is out of reach."), NotAllowed("No.")])
def test_an_error_of_the_storage_is_the_error_of_the_item(error: StorageUnavailable | NotAllowed) -> None:
    storage = FakeStorage()
    work = item(0, storage)
    storage.broken = error
    with running(Half(), storage) as client:
        assert bundle(client, work).outcomes[0].error == error.info


def test_a_bundle_reads_only_as_many_images_as_are_in_flight() -> None:
    storage, engine = FakeStorage(), Half()
    with running(engine, storage, queue_max=64) as client, ThreadPoolExecutor(1) as pool:
        engine.hold = threading.Event()
        response = pool.submit(bundle, client, *(item(n, storage) for n in range(40)))
        wait_until(lambda: storage.reads >= in_flight_max(SETTINGS.workers))
        client.get("/ping")
        hold = storage.reads
        engine.hold.set()
        assert all(outcome.result for outcome in response.result().outcomes)
    assert hold == in_flight_max(SETTINGS.workers)


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"bundle":"b","items":[{}]}', base64.b64encode(b"x")])
def test_an_invalid_bundle_is_refused(body: bytes) -> None:
    with running(Half()) as client:
        response = client.post("/invocations", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, error_code(response)) == (400, "invalid_options")


def test_metrics_count_images_and_their_stages() -> None:
    with running(Half()) as client:
        send(client)
        send(client, b"no image")
        page = client.get("/metrics").text
    assert f'maskdrop_pictures_total{{engine="{DEFAULT}",outcome="done"}} 1.0' in page
    assert f'maskdrop_pictures_total{{engine="{DEFAULT}",outcome="unsupported_format"}} 1.0' in page
    assert 'maskdrop_stage_seconds_count{stage="predict"} 1.0' in page
    assert 'maskdrop_device_info{device="cpu"} 1.0' in page
    assert "process_resident_memory_bytes" in page
    assert "maskdrop_queue_pictures 0.0" in page


def test_the_alpha_output_is_the_alpha_of_the_cut_out() -> None:
    with running(Half()) as client:
        rgba, alpha = (send(client, output=Output(channels=kind).to_json()).content for kind in ("rgba", "alpha"))
    read = [decoded(data) for data in (rgba, alpha)]
    assert np.array_equal(read[0][..., 3], read[1])


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "the condition is not met after 60 s"


@dataclass
class Batched(Half):
    """Half as a batched engine, which records the sizes of its batches."""

    sizes: list[int] = field(default_factory=list)
    warm_ups: list[int] = field(default_factory=list)
    prepared: int = 0
    comparisons: tuple[Comparison, ...] = ()

    def warm_up(self, batch_max: int) -> tuple[Comparison, ...]:
        self.warm_ups.append(batch_max)
        return self.comparisons

    def prepare(self, rgb: np.ndarray, prompts: Prompts) -> np.ndarray:
        self.prepared += 1
        return np.zeros((3, 4, 8), np.float32)

    def infer(self, batch: list[np.ndarray]) -> list[Alpha]:
        self.sizes.append(len(batch))
        return [super(Batched, self).predict(one, ()) for one in batch]

    def finish(self, output: Alpha, rgb: np.ndarray, prompts: Prompts) -> Alpha:
        return output


def test_on_a_gpu_the_engine_is_warmed_up_before_the_first_image() -> None:
    engine = Batched()
    with running(engine, device="cuda", batch_max=4) as client:
        assert client.get("/ping").status_code == 200
    assert engine.warm_ups == [4]


def test_an_error_in_warm_up_stops_the_server() -> None:
    class Unready(Batched):
        def warm_up(self, batch_max: int) -> tuple[Comparison, ...]:
            raise RuntimeError("no kernel image is available")

    with pytest.raises(RuntimeError, match="no kernel image"), running(Unready(), device="cuda"):
        pass


def test_an_optimisation_that_differs_is_a_warning_and_a_metric(caplog: pytest.LogCaptureFixture) -> None:
    tolerance = Difference(0.25, 0.02)
    on, off = (
        Comparison("half", Difference(0.1, 0.01), tolerance),
        Comparison("graph", Difference(0.7, 0.01), tolerance),
    )
    with running(Batched(comparisons=(on, off)), device="cuda") as client:
        metrics = client.get("/metrics").text
        assert send(client).status_code == 200
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning == (
        f"optimisation switched off: graph of the engine {DEFAULT}: "
        "the largest difference is 0.7 (mean 0.01), the tolerance 0.25 (mean 0.02)"
    )
    assert f'maskdrop_optimisation{{engine="{DEFAULT}",optimisation="half"}} 1.0' in metrics
    assert f'maskdrop_optimisation{{engine="{DEFAULT}",optimisation="graph"}} 0.0' in metrics
    assert f'maskdrop_engine_available{{engine="{DEFAULT}"}} 1.0' in metrics


def test_an_engine_that_is_wrong_in_float32_is_unavailable_and_the_others_are_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")

    class Wrong(Batched):
        def warm_up(self, batch_max: int) -> tuple[Comparison, ...]:
            raise EngineUnavailable("The network returns NaN.")

    engines = {"modnet": Wrong(), DEFAULT: Batched()}
    settings = replace(SETTINGS, device="cuda")
    with TestClient(create_app(settings, engines, FakeStorage)) as client:
        assert client.get("/ping").status_code == 200
        refused, done = send(client, engine="modnet"), send(client)
        metrics = client.get("/metrics").text
    assert done.status_code == 200
    assert (refused.status_code, error_code(refused)) == (503, "engine_unavailable")
    message = "The engine 'modnet' is unavailable on this server. The network returns NaN."
    assert refused.json()["error"]["message"] == message
    assert "engine switched off: modnet: The network returns NaN." in caplog.text
    assert 'maskdrop_engine_available{engine="modnet"} 0.0' in metrics
    assert f"ready on device cuda: {DEFAULT};" in caplog.text


def test_on_the_cpu_the_engine_is_not_warmed_up() -> None:
    engine = Batched()
    with running(engine):
        pass
    assert engine.warm_ups == engine.sizes == []


def test_on_a_gpu_the_images_of_several_requests_share_a_batch() -> None:
    engine = Batched()
    with running(engine, device="cuda", workers=8, queue_max=8) as client, ThreadPoolExecutor(8) as pool:
        engine.hold, engine.prepared = threading.Event(), 0
        first = pool.submit(send, client)
        assert engine.entered.acquire(timeout=60)
        rest = [pool.submit(send, client) for _ in range(5)]
        wait_until(lambda: engine.prepared == 6)
        client.get("/metrics")  # after this response, the event loop has queued the prepared images
        engine.sizes.clear()
        engine.hold.set()
        responses = [one.result() for one in (first, *rest)]
    assert {response.status_code for response in responses} == {200}
    assert json.loads(responses[0].headers[CUSTOM_ATTRIBUTES])["device"] == "cuda"
    assert sum(engine.sizes) == 5
    assert max(engine.sizes) > 1


def test_an_engine_that_is_not_installed_fails_its_image_only() -> None:
    storage = FakeStorage()
    with running(Half(), storage) as client:
        alone = send(client, engine="modnet")
        absent, present = (replace(item(1, storage), options=Options(engine="modnet")), item(2, storage))
        refused, done = bundle(client, absent, present).outcomes
    assert alone.status_code == 400
    assert alone.json()["error"]["code"] == "unknown_engine"
    assert f"it has: {DEFAULT}" in alone.json()["error"]["message"]
    assert refused.error is not None
    assert refused.error.code == "unknown_engine"
    assert done.error is None

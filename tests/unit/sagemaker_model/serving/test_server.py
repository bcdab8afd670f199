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

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from maskdrop.catalog import DEFAULT_ENGINE
from maskdrop.errors import NotAllowed, StorageUnavailable
from maskdrop.job import Source
from maskdrop.options import Options
from maskdrop.output import BackgroundImage, Output
from maskdrop.prompt import Prompts
from maskdrop.wire import CUSTOM_ATTRIBUTES, CUSTOM_ATTRIBUTES_MAX, Answer, Bundle, Destination, Item
from sagemaker_model.engines.base import Alpha
from sagemaker_model.imaging import arrays
from sagemaker_model.serving.runtime import in_flight
from sagemaker_model.serving.server import BUNDLE_BYTES_MAX, RETRY_AFTER_S, app
from sagemaker_model.settings import ServerSettings
from tests.unit.sagemaker_model.engines.fake_engine import Half
from tests.unit.sagemaker_model.serving.fake_storage import FakeStorage

DEFAULT = DEFAULT_ENGINE["cutout"]

SETTINGS = ServerSettings(device="cpu", workers=2, queue_max=4, max_bytes=100_000, deadline_s=30)
JPEG = cv2.imencode(".jpg", np.full((30, 40, 3), 90, np.uint8))[1].tobytes()


@contextmanager
def running(engine: Half, storage: FakeStorage | None = None, **changes: object) -> Iterator[TestClient]:
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    with TestClient(app(settings, {DEFAULT: engine}, lambda: storage or FakeStorage())) as client:
        while engine.entered.acquire(blocking=False):
            pass  # the warm-up's
        yield client


def send(client: TestClient, body: bytes = JPEG, **options: object) -> object:
    headers = {"Content-Type": "image/jpeg", CUSTOM_ATTRIBUTES: json.dumps(options)}
    return client.post("/invocations", content=body, headers=headers)


def bundle(client: TestClient, *items: Item) -> Answer:
    answer = client.post(
        "/invocations", content=Bundle("b", items).to_bytes(), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 200, answer.text
    return Answer.from_bytes(answer.content)


def item(number: int, storage: FakeStorage, body: bytes = JPEG) -> Item:
    key = f"inbox/{number}.jpg"
    stored = storage.put("inbox", key, body)
    return Item(
        f"job-{number}",
        Source("inbox", key, stored.etag),
        Destination("results", f"results/{number}.jpg.png"),
        Options(),
    )


def npy(array: np.ndarray) -> bytes:
    to = io.BytesIO()
    np.save(to, array)
    return to.getvalue()


def error_code(answer: object) -> str:
    return str(answer.json()["error"]["code"])  # type: ignore[attr-defined]


def test_one_picture_comes_back_as_a_cut_out_with_what_was_found() -> None:
    with running(Half()) as client:
        answer = send(client)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED).shape == (30, 40, 4)
    about = json.loads(answer.headers[CUSTOM_ATTRIBUTES])
    assert (about["width"], about["height"], about["engine"], about["device"]) == (40, 30, DEFAULT, "cpu")
    assert about["subject"]["box"] == [0, 0, 20, 30]
    assert set(about["timings"]) == {"decode", "predict", "refine", "foreground", "layout", "encode"}
    assert len(answer.headers[CUSTOM_ATTRIBUTES]) <= CUSTOM_ATTRIBUTES_MAX


def test_the_options_of_the_header_are_followed() -> None:
    with running(Half()) as client:
        answer = send(client, output={"format": "webp", "channels": "alpha"})
    assert answer.headers["content-type"] == "image/webp"


OVERFLOW = {"bucket": "results", "key": "results/cutouts/1.png", "bytes_max": 50}


def test_a_result_that_is_too_large_is_put_aside_and_its_place_told() -> None:
    storage = FakeStorage()
    with running(Half(), storage) as client:
        whole = send(client)
        answers = [send(client, overflow=OVERFLOW) for _ in range(2)]  # a caller that lost the first answer asks again
    _, body = storage.objects["results", "results/cutouts/1.png"]
    assert (body, storage.writes) == (whole.content, 1)
    for answer in answers:
        assert answer.status_code == 200
        told = answer.json()["result"]
        assert (told["bucket"], told["key"], told["bytes"]) == ("results", "results/cutouts/1.png", len(body))
        assert (told["width"], told["height"], told["sha256"]) == (40, 30, hashlib.sha256(body).hexdigest())
        assert json.loads(answer.headers[CUSTOM_ATTRIBUTES])["subject"]["box"] == [0, 0, 20, 30]


def test_a_result_that_is_small_enough_comes_back_and_nothing_is_written() -> None:
    storage = FakeStorage()
    with running(Half(), storage) as client:
        answer = send(client, overflow={**OVERFLOW, "bytes_max": len(send(client).content)})
    assert answer.headers["content-type"] == "image/png"
    assert storage.objects == {}


def test_a_result_that_could_not_be_put_aside_is_an_error() -> None:
    class Broken(FakeStorage):
        def write(self, *_: object) -> bool:
            raise StorageUnavailable("S3 answered SlowDown.")

    with running(Half(), Broken()) as client:
        answer = send(client, overflow=OVERFLOW)
    assert (answer.status_code, error_code(answer)) == (503, "storage_unavailable")


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
def test_options_that_make_no_sense_are_refused(header: str, code: str) -> None:
    with running(Half()) as client:
        answer = client.post(
            "/invocations", content=JPEG, headers={"Content-Type": "image/jpeg", CUSTOM_ATTRIBUTES: header}
        )
    assert (answer.status_code, error_code(answer)) == (400, code)


def test_a_prompt_that_the_engine_cannot_use_is_refused() -> None:
    header = json.dumps({"prompt": {"box": [0, 0, 1, 1]}})
    with running(Half()) as client:
        answer = client.post(
            "/invocations", content=JPEG, headers={"Content-Type": "image/jpeg", CUSTOM_ATTRIBUTES: header}
        )
    assert (answer.status_code, error_code(answer)) == (422, "invalid_prompt")


def test_a_bad_picture_is_refused_with_its_status_and_no_trace() -> None:
    with running(Half()) as client:
        answer = send(client, b"no image")
    assert (answer.status_code, error_code(answer)) == (415, "unsupported_format")
    assert answer.json()["error"]["retryable"] is False
    assert "Traceback" not in answer.text


def test_another_kind_of_body_is_refused() -> None:
    with running(Half()) as client:
        answer = client.post("/invocations", content=b"a=b", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, error_code(answer)) == (415, "unsupported_format")


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
        answer = client.post("/invocations", content=content, headers=headers)
    assert (answer.status_code, error_code(answer)) == (413, "file_too_large")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("body", [JPEG, npy(np.full((30, 40, 3), 90, np.uint8))], ids=["file", "array"])
@pytest.mark.parametrize("accept", ["*/*", "application/x-npy", "image/png;q=0.5, Application/X-NPY"])
@pytest.mark.parametrize("channels", ["rgba", "alpha"])
def test_arrays_and_files_come_and_go_in_every_combination(body: bytes, accept: str, channels: str) -> None:
    headers = {
        "Content-Type": "image/jpeg" if body == JPEG else arrays.CONTENT_TYPE,
        "Accept": accept,
        CUSTOM_ATTRIBUTES: json.dumps({"output": {"channels": channels}}),
    }
    with running(Half()) as client:
        answer = client.post("/invocations", content=body, headers=headers)
    if accept == "*/*":
        assert answer.headers["content-type"] == "image/png"
        found = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    else:
        assert answer.headers["content-type"] == arrays.CONTENT_TYPE
        found = np.load(io.BytesIO(answer.content), allow_pickle=False)
    assert found.dtype == np.uint8
    assert found.shape == ((30, 40) if channels == "alpha" else (30, 40, 4))
    alpha = found if channels == "alpha" else found[..., 3]
    assert alpha[:, :10].min() == 255
    assert alpha[:, 30:].max() == 0
    assert json.loads(answer.headers[CUSTOM_ATTRIBUTES])["subject"]["box"] == [0, 0, 20, 30]


def test_an_array_may_have_more_bytes_than_a_file_but_not_more_pixels() -> None:
    changes = {"max_bytes": 1000, "max_pixels": 10_000}
    headers = {"Content-Type": arrays.CONTENT_TYPE}
    with running(Half(), **changes) as client:
        fits = client.post("/invocations", content=npy(np.zeros((100, 100, 3), np.uint8)), headers=headers)
        pixels = client.post("/invocations", content=npy(np.zeros((101, 100, 3), np.uint8)), headers=headers)
        body = client.post("/invocations", content=npy(np.zeros((140, 100, 3), np.uint8)), headers=headers)
    assert fits.status_code == 200
    assert (pixels.status_code, error_code(pixels)) == (413, "resolution_too_high")
    assert (body.status_code, error_code(body)) == (413, "file_too_large")


def test_an_engine_s_fault_is_internal_and_tells_nothing() -> None:
    engine = Half()
    with running(engine) as client:
        engine.fault = RuntimeError("secret")
        answer = send(client)
        page = client.get("/metrics").text
    assert (answer.status_code, error_code(answer)) == (500, "internal")
    assert "secret" not in answer.text
    assert f'maskdrop_pictures_total{{engine="{DEFAULT}",outcome="internal"}} 1.0' in page


def test_the_server_is_not_started_when_its_engine_cannot_do_one_picture() -> None:
    with pytest.raises(RuntimeError, match="broken"), running(Half(fault=RuntimeError("broken"))):
        pass


def test_a_full_server_says_so_at_once_and_takes_pictures_again_later() -> None:
    engine = Half()
    with running(engine, workers=1, queue_max=2) as client, ThreadPoolExecutor(2) as pool:
        engine.hold = threading.Event()
        waiting = [pool.submit(send, client) for _ in range(2)]
        assert engine.entered.acquire(timeout=60)
        until(lambda: "maskdrop_queue_pictures 2.0" in client.get("/metrics").text)
        refused = send(client)
        assert client.get("/ping").status_code == 200
        engine.hold.set()
        assert [answer.result().status_code for answer in waiting] == [200, 200]
        assert send(client).status_code == 200
    assert (refused.status_code, error_code(refused)) == (503, "queue_full")
    assert refused.headers["retry-after"] == str(RETRY_AFTER_S)
    assert refused.json()["error"]["retryable"] is True


def test_an_idle_server_takes_a_bundle_longer_than_its_queue() -> None:
    storage = FakeStorage()
    with running(Half(), storage, queue_max=1) as client:
        answer = bundle(client, *(item(n, storage) for n in range(20)))
    assert all(outcome.result for outcome in answer.outcomes)


def test_a_hung_picture_ends_and_the_server_is_not_ready_until_its_worker_is_back() -> None:
    engine = Half()
    with running(engine, workers=1, deadline_s=0.2) as client:
        engine.hold = threading.Event()
        late = send(client)
        assert (late.status_code, error_code(late)) == (504, "deadline_exceeded")
        assert client.get("/ping").status_code == 503
        assert "maskdrop_workers_stuck 1.0" in client.get("/metrics").text
        assert error_code(send(client)) == "deadline_exceeded"  # no worker is left to wait for
        engine.hold.set()
        until(lambda: client.get("/ping").status_code == 200)
        engine.hold = None
        assert send(client).status_code == 200


def test_a_bundle_answers_for_every_item_in_order_and_harms_none_for_another() -> None:
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
        answer = bundle(client, *items)
    assert [outcome.id for outcome in answer.outcomes] == [i.id for i in items]
    codes = [outcome.error.code if outcome.error else "" for outcome in answer.outcomes]
    assert codes == ["", "unsupported_format", "source_missing", "source_replaced", "empty_file", ""]
    assert (answer.bundle, answer.device, answer.usd_per_hour) == ("b", "cpu", 1.5)
    assert {"read", "decode", "predict", "encode", "write"} <= set(answer.outcomes[0].timings)
    assert set(storage.objects) >= {("results", "results/0.jpg.png"), ("results", "results/5.jpg.png")}


def test_a_bundle_that_comes_twice_writes_once_and_answers_twice() -> None:
    storage, engine = FakeStorage(), Half()
    with running(engine, storage) as client:
        first, second = (bundle(client, item(0, storage)) for _ in range(2))
    assert storage.writes == 1
    assert first.outcomes[0].result == second.outcomes[0].result


def about(answer: object) -> dict[str, object]:
    return json.loads(answer.headers[CUSTOM_ATTRIBUTES])  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("form", "kind"), [("jpg", "image/jpeg"), ("zip", "application/zip"), ("webp", "image/webp"), ("png", "image/png")]
)
def test_every_format_has_its_content_type(form: str, kind: str) -> None:
    with running(Half()) as client:
        assert send(client, output={"format": form}).headers["content-type"] == kind


def test_the_size_of_a_result_is_its_own_and_the_subject_s_box_is_the_picture_s() -> None:
    with running(Half()) as client:
        answer = send(client, output={"crop": "5px", "background": "red"})
    picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    found = about(answer)
    assert picture.shape == (found["height"], found["width"], 4) == (40, 32, 4), (
        "20 columns and two of its soft edge, 5 on each side"
    )
    assert (found["subject"]["box"], found["place"]) == ([0, 0, 20, 30], [5, 5, 25, 35])
    assert (picture[:5] == (0, 0, 255, 255)).all()


def test_arrays_are_laid_out_as_files_are() -> None:
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
    drawn = cv2.imdecode(np.frombuffer(file.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(np.load(io.BytesIO(array.content)), cv2.cvtColor(drawn, cv2.COLOR_BGRA2RGBA))


def test_outside_the_region_of_interest_all_is_background() -> None:
    with running(Half()) as client:
        answer = send(client, output={"roi": "10% 0 100% 50%", "channels": "alpha"})
    matte = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert about(answer)["subject"]["box"] == [4, 0, 20, 15]
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
def test_what_does_not_fit_the_picture_is_refused(output: dict[str, object], code: str, status: int) -> None:
    storage = FakeStorage()
    storage.put("b", "text", b"no image")
    storage.put("b", "empty", b"")
    with running(Half(), storage, max_pixels=200_000) as client:
        answer = send(client, output=output)
    assert (answer.status_code, error_code(answer)) == (status, code)


def test_a_background_image_is_read_from_s3_for_single_pictures_and_bundles() -> None:
    storage = FakeStorage()
    blue = cv2.imencode(".png", np.full((60, 80, 3), (250, 20, 10), np.uint8))[1].tobytes()
    storage.put("b", "blue.png", blue)
    output = Output(background=BackgroundImage("b", "blue.png"))
    with running(Half(), storage) as client:
        single = send(client, output=output.to_json()).content
        outcome = bundle(client, replace(item(0, storage), options=Options(output=output))).outcomes[0]
    drawn = cv2.imdecode(np.frombuffer(single, np.uint8), cv2.IMREAD_UNCHANGED)
    assert (drawn[:, 25:] == (250, 20, 10, 255)).all()
    assert outcome.result is not None
    assert storage.objects["results", "results/0.jpg.png"][1] == single


def test_a_background_that_cannot_be_read_now_is_tried_again() -> None:
    storage = FakeStorage()
    with running(Half(), storage) as client:
        storage.broken = StorageUnavailable("S3 is out of reach.")
        answer = send(client, output={"background": {"bucket": "b", "key": "k"}})
    assert (answer.status_code, error_code(answer)) == (503, "storage_unavailable")


def test_a_fault_of_ours_is_internal_for_its_item_alone_and_retryable() -> None:
    storage, engine = FakeStorage(), Half()
    with running(engine, storage) as client:
        engine.fault = RuntimeError("secret")
        outcome = bundle(client, item(0, storage)).outcomes[0]
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.retryable) == ("internal", True)
    assert "secret" not in outcome.error.message


@pytest.mark.parametrize("fault", [StorageUnavailable("S3 is out of reach."), NotAllowed("No.")])
def test_a_fault_of_the_storage_keeps_its_meaning(fault: StorageUnavailable | NotAllowed) -> None:
    storage = FakeStorage()
    work = item(0, storage)
    storage.broken = fault
    with running(Half(), storage) as client:
        assert bundle(client, work).outcomes[0].error == fault.info


def test_the_bytes_of_few_pictures_are_held_at_once() -> None:
    storage, engine = FakeStorage(), Half()
    with running(engine, storage, queue_max=64) as client, ThreadPoolExecutor(1) as pool:
        engine.hold = threading.Event()
        answer = pool.submit(bundle, client, *(item(n, storage) for n in range(40)))
        until(lambda: storage.reads >= in_flight(SETTINGS.workers))
        client.get("/ping")
        held = storage.reads
        engine.hold.set()
        assert all(outcome.result for outcome in answer.result().outcomes)
    assert held == in_flight(SETTINGS.workers)


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"bundle":"b","items":[{}]}', base64.b64encode(b"x")])
def test_a_body_that_is_no_bundle_is_refused(body: bytes) -> None:
    with running(Half()) as client:
        answer = client.post("/invocations", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, error_code(answer)) == (400, "invalid_options")


def test_metrics_count_pictures_and_their_stages() -> None:
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


def test_the_alpha_alone_is_the_matte_of_the_cut_out() -> None:
    with running(Half()) as client:
        rgba, alpha = (send(client, output=Output(channels=kind).to_json()).content for kind in ("rgba", "alpha"))
    read = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) for data in (rgba, alpha)]
    assert np.array_equal(read[0][..., 3], read[1])


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came to that"


@dataclass
class Batched(Half):
    """Half, as an engine for a GPU: it knows the sizes of its batches."""

    sizes: list[int] = field(default_factory=list)
    warm_ups: list[int] = field(default_factory=list)
    prepared: int = 0

    def warm_up(self, batch_max: int) -> None:
        self.warm_ups.append(batch_max)

    def prepare(self, rgb: np.ndarray, prompts: Prompts) -> np.ndarray:
        self.prepared += 1
        return np.zeros((3, 4, 8), np.float32)

    def infer(self, batch: list[np.ndarray]) -> list[Alpha]:
        self.sizes.append(len(batch))
        return [super(Batched, self).predict(one, ()) for one in batch]

    def finish(self, output: Alpha, rgb: np.ndarray, prompts: Prompts) -> Alpha:
        return output


def test_on_a_gpu_every_size_of_batch_is_made_ready_before_the_first_picture() -> None:
    engine = Batched()
    with running(engine, device="cuda", batch_max=4) as client:
        assert client.get("/ping").status_code == 200
    assert engine.warm_ups == [4]


def test_a_gpu_that_cannot_be_made_ready_stops_the_server() -> None:
    class Unready(Batched):
        def warm_up(self, batch_max: int) -> None:
            raise RuntimeError("no kernel image is available")

    with pytest.raises(RuntimeError, match="no kernel image"), running(Unready(), device="cuda"):
        pass


def test_on_the_cpu_no_batch_is_made_ready() -> None:
    engine = Batched()
    with running(engine):
        pass
    assert engine.warm_ups == engine.sizes == []


def test_on_a_gpu_the_pictures_of_several_requests_share_a_batch() -> None:
    engine = Batched()
    with running(engine, device="cuda", workers=8, queue_max=8) as client, ThreadPoolExecutor(8) as pool:
        engine.hold, engine.prepared = threading.Event(), 0
        first = pool.submit(send, client)
        assert engine.entered.acquire(timeout=60)
        rest = [pool.submit(send, client) for _ in range(5)]
        until(lambda: engine.prepared == 6)
        client.get("/metrics")  # by its answer, the event loop has passed on what was prepared
        engine.sizes.clear()
        engine.hold.set()
        answers = [one.result() for one in (first, *rest)]
    assert {answer.status_code for answer in answers} == {200}
    assert json.loads(answers[0].headers[CUSTOM_ATTRIBUTES])["device"] == "cuda"
    assert sum(engine.sizes) == 5
    assert max(engine.sizes) > 1


def test_an_engine_that_is_not_installed_is_refused_and_harms_no_other_picture() -> None:
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

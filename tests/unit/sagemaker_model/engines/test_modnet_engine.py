"""The engine `modnet` and its exported files, with a network trained for 40 steps to find a bright disc."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")

from starlette.testclient import TestClient  # noqa: E402

from maskdrop.options import Options  # noqa: E402
from maskdrop.output import Output  # noqa: E402
from maskdrop.wire import CUSTOM_ATTRIBUTES  # noqa: E402
from sagemaker_model.cutout import cut_out  # noqa: E402
from sagemaker_model.engines import modnet  # noqa: E402
from sagemaker_model.engines.onnx_session import run_matting  # noqa: E402
from sagemaker_model.engines.torch_runner import Pass  # noqa: E402
from sagemaker_model.engines.verification import HALF_TOLERANCE  # noqa: E402
from sagemaker_model.export import formats as export  # noqa: E402
from sagemaker_model.imaging.pixels import Pixels  # noqa: E402
from sagemaker_model.nets.modnet import MODNet  # noqa: E402
from sagemaker_model.serving.server import create_app  # noqa: E402
from sagemaker_model.settings import ServerSettings  # noqa: E402
from sagemaker_model.weights.store import MANIFEST, InvalidWeights, NotInstalled, import_file, named  # noqa: E402
from tests.unit.sagemaker_model.engines.fake_recorder import FakeRecorder  # noqa: E402
from tests.unit.sagemaker_model.serving.fake_storage import FakeStorage  # noqa: E402

SIDE = 64

MATTE = {"channels": "alpha"}


class ShiftedRecorder(FakeRecorder):
    """Replays return the outputs shifted by four pixels."""

    def record(self, run: Pass) -> Pass:
        replay = super().record(run)
        return lambda: [output.roll(4, -1) for output in replay()]


def disc(rng: np.random.Generator, width: int = SIDE, height: int = SIDE) -> tuple[Pixels, np.ndarray]:
    """A bright disc on a dark ground with noise, HxWx3 uint8, and its matte, HxW float32 in 0..1."""
    y, x = np.mgrid[:height, :width]
    side = min(width, height)
    centre, radius = rng.uniform(0.3, 0.7, 2) * (width, height), rng.uniform(0.15, 0.35) * side
    matte = np.clip(radius - np.hypot(x - centre[0], y - centre[1]) + 0.5, 0, 1)[..., None]
    colours = matte * rng.uniform(150, 250, 3) + (1 - matte) * rng.uniform(0, 100, 3)
    image = np.clip(colours + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)
    return image, matte[..., 0].astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(one_thread: None) -> MODNet:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net = MODNet().train()
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(40):
        pairs = [disc(rng) for _ in range(8)]
        x = torch.from_numpy(np.stack([rgb.transpose(2, 0, 1) / np.float32(127.5) - 1 for rgb, _ in pairs]))
        truth = torch.from_numpy(np.stack([matte for _, matte in pairs]))
        _, _, matte = net(x)
        optimiser.zero_grad()
        torch.nn.functional.binary_cross_entropy(matte[:, 0], truth).backward()
        optimiser.step()
    return net.eval()


@pytest.fixture(scope="module")
def folder(trained: MODNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with modnet.ckpt, in the published form, and the two files exported from it."""
    folder = tmp_path_factory.mktemp("weights")
    once = trained.state_dict()
    twice = once | {f"lr_branch.{name}": tensor for name, tensor in once.items() if name.startswith("backbone.")}
    published = folder / "published.ckpt"
    torch.save({f"module.{name}": tensor for name, tensor in twice.items()}, published)
    import_file(named("modnet"), published, folder, own=True)  # pinned by its own SHA-256, not the published one
    export.to_onnx(trained, folder / modnet.ONNX)
    export.to_int8(trained, folder / modnet.INT8, images(export.CALIBRATION_MIN))
    return folder


def images(count: int, seed: int = 1) -> list[np.ndarray]:
    """Returns inputs of the network: 3x128x128 float32 in -1..1."""
    rng = np.random.default_rng(seed)
    return [disc(rng, 128, 128)[0].transpose(2, 0, 1) / np.float32(127.5) - 1 for _ in range(count)]


def engine(folder: Path, *names: str, tmp_path: Path) -> modnet.MODNet:
    """Returns an engine set up from these files only."""
    for name in (*names, MANIFEST):
        shutil.copy(folder / name, tmp_path)
    loaded = modnet.MODNet()
    loaded.setup("cpu", tmp_path)
    return loaded


# Export


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (3, 3, 64, 96), (2, 3, 512, 128)])
def test_the_exported_network_agrees_at_any_size_and_batch(folder: Path, trained: MODNet, shape: tuple[int]) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    session = onnxruntime.InferenceSession(folder / modnet.ONNX, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = trained(torch.from_numpy(x)).numpy()
    assert np.abs(run_matting(session, x) - expected).max() <= 1e-4


def test_the_8_bit_file_is_close_to_float32_and_a_quarter_of_its_size(folder: Path, trained: MODNet) -> None:
    compared = images(4, seed=2)
    found, _ = export.run_onnx(folder / modnet.INT8, compared)
    with torch.inference_mode():
        expected = trained(torch.from_numpy(np.stack(compared))).numpy()
    assert 0 < np.abs(np.stack(found) - expected).mean() < 0.02
    assert (folder / modnet.INT8).stat().st_size < 0.3 * (folder / modnet.ONNX).stat().st_size


# The engine


@pytest.mark.parametrize("name", [modnet.CHECKPOINT, modnet.ONNX, modnet.INT8])
def test_every_form_of_the_weights_finds_the_disc(name: str, folder: Path, tmp_path: Path) -> None:
    rgb, truth = disc(np.random.default_rng(5), 512, 512)
    small = cv2.resize(rgb, (SIDE, SIDE), interpolation=cv2.INTER_AREA)  # the scale of the training images
    loaded = engine(folder, name, tmp_path=tmp_path)
    found = loaded.infer([small.transpose(2, 0, 1) / np.float32(127.5) - 1])[0]
    expected = cv2.resize(truth, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    assert np.abs(found - expected).mean() < 0.1 < expected.mean()
    assert loaded.weights_sha256 == hashlib.sha256((folder / name).read_bytes()).hexdigest()


@pytest.mark.parametrize("name", [modnet.CHECKPOINT, modnet.ONNX])
def test_a_batch_returns_the_mattes_of_its_images_in_order(name: str, folder: Path, tmp_path: Path) -> None:
    loaded = engine(folder, name, tmp_path=tmp_path)
    batch = images(3)
    for matte, image in zip(loaded.infer(batch), batch, strict=True):
        assert np.allclose(matte, loaded.infer([image])[0], rtol=0, atol=1e-4)


def test_prepare_infer_and_finish_give_the_result_of_predict(folder: Path, tmp_path: Path) -> None:
    loaded = engine(folder, modnet.ONNX, tmp_path=tmp_path)
    rgb, _ = disc(np.random.default_rng(0), 200, 150)
    prepared = loaded.prepare(rgb, ())
    assert prepared.shape == (3, 512, 672)
    assert prepared.dtype == np.float32
    assert -1 <= prepared.min() < prepared.max() <= 1
    in_steps = loaded.finish(loaded.infer([prepared])[0], rgb, ())
    assert np.array_equal(in_steps.values, loaded.predict(rgb, ()).values)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (20, 30000), (7, 5), (480, 641)])
def test_images_of_any_size_have_a_matte(shape: tuple[int, int], folder: Path, tmp_path: Path) -> None:
    loaded = engine(folder, modnet.INT8, tmp_path=tmp_path)
    found = loaded.predict(np.full((*shape, 3), 200, np.uint8), ()).values
    assert found.dtype == np.float32
    assert 0 <= found.min() <= found.max() <= 1


def test_many_threads_get_the_same_results(folder: Path, tmp_path: Path) -> None:
    loaded = engine(folder, modnet.INT8, tmp_path=tmp_path)
    batch = images(8)
    with ThreadPoolExecutor(4) as pool:
        mattes = list(pool.map(lambda image: loaded.infer([image])[0], batch))
    for matte, image in zip(mattes, batch, strict=True):
        assert np.array_equal(matte, loaded.infer([image])[0])


def test_the_8_bit_file_is_preferred_on_the_cpu(folder: Path) -> None:
    loaded = modnet.MODNet()
    loaded.setup("cpu", folder)
    assert loaded.weights_sha256 == hashlib.sha256((folder / modnet.INT8).read_bytes()).hexdigest()


def test_without_weights_it_is_not_installed(tmp_path: Path) -> None:
    for device, name in (("cpu", modnet.INT8), ("cuda", modnet.CHECKPOINT)):
        with pytest.raises(NotInstalled, match=name):
            modnet.MODNet().setup(device, tmp_path)


def test_without_onnx_runtime_it_is_not_installed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NotInstalled, match="onnxruntime"):
        engine(folder, modnet.ONNX, tmp_path=tmp_path)


@pytest.mark.parametrize("kept", [0, 1000, 1_000_000])
def test_a_truncated_export_is_refused(kept: int, folder: Path, tmp_path: Path) -> None:
    (tmp_path / modnet.ONNX).write_bytes((folder / modnet.ONNX).read_bytes()[:kept])
    with pytest.raises(InvalidWeights, match="damaged"):
        modnet.MODNet().setup("cpu", tmp_path)


def test_an_export_that_returns_nan_is_refused(tmp_path: Path) -> None:
    net = MODNet()
    torch.nn.init.constant_(net.f_branch.conv_f[1].layers[0].bias, float("nan"))
    export.to_onnx(net, tmp_path / modnet.ONNX)
    with pytest.raises(InvalidWeights, match="NaN"):
        modnet.MODNet().setup("cpu", tmp_path)


def test_every_shape_of_prepare_is_warmed_up(folder: Path, tmp_path: Path) -> None:
    class Shapes:
        def warm_up(self, shapes: set[tuple[int, ...]], batch_max: int) -> None:
            self.shapes, self.batch_max = shapes, batch_max

    loaded = engine(folder, modnet.CHECKPOINT, tmp_path=tmp_path)
    loaded._runner = recorder = Shapes()
    loaded.warm_up(16)
    rng = np.random.default_rng(0)
    sizes = [(1 + width, 1 + height) for width, height in rng.integers(0, 400, (2000, 2)).tolist()]
    assert {(3, *modnet.network_size(*size)[::-1]) for size in sizes} == recorder.shapes
    assert recorder.batch_max == 16


def test_warm_up_of_an_exported_file_does_nothing(folder: Path, tmp_path: Path) -> None:
    engine(folder, modnet.ONNX, tmp_path=tmp_path).warm_up(16)


def test_with_wrong_graphs_the_server_returns_the_mattes_of_float32(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modnet, "SIZES", ((SIDE, SIDE),))
    reference = engine(folder, modnet.CHECKPOINT, tmp_path=tmp_path)
    verified = engine(folder, modnet.CHECKPOINT, tmp_path=tmp_path)
    assert verified._runner is not None
    verified._runner._new_recorder = ShiftedRecorder
    settings = ServerSettings(device="cuda", workers=2, batch_max=4)
    rgb, _ = disc(np.random.default_rng(0))
    image = cv2.imencode(".png", rgb)[1].tobytes()
    headers = {"Content-Type": "image/png", CUSTOM_ATTRIBUTES: json.dumps({"engine": "modnet", "output": MATTE})}
    with TestClient(create_app(settings, {"modnet": verified}, FakeStorage)) as client:
        response = client.post("/invocations", content=image, headers=headers)
        metrics = client.get("/metrics").text
    options = Options(engine="modnet", output=Output.from_json(MATTE))
    assert response.content == cut_out(image, options, reference, settings.limits).data
    assert 'maskdrop_optimisation{engine="modnet",optimisation="graph"} 0.0' in metrics
    assert 'maskdrop_optimisation{engine="modnet",optimisation="batch"} 1.0' in metrics


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is available")
def test_on_a_gpu_every_optimisation_is_on(folder: Path) -> None:
    loaded, reference = modnet.MODNet(), modnet.MODNet()
    for each in (loaded, reference):
        each.setup("cuda", folder)
    comparisons = loaded.warm_up(16)
    assert {one.optimisation: one.passed for one in comparisons} == {"half": True, "batch": True, "graph": True}
    batch = [reference.prepare(disc(np.random.default_rng(seed), 200, 150)[0], ()) for seed in range(13)]
    for matte, image in zip(loaded.infer(batch), batch, strict=True):
        assert np.abs(matte.astype(np.float32) - reference.infer([image])[0]).max() < HALF_TOLERANCE.largest


# Sizes


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((4032, 3024), (672, 512)),
        ((3024, 4032), (512, 672)),
        ((6000, 4000), (768, 512)),
        ((1920, 1080), (896, 512)),
        ((1, 1), (512, 512)),
        ((30000, 20), (1024, 128)),
        ((20, 30000), (128, 1024)),
    ],
)
def test_the_input_size_has_the_closest_aspect_ratio(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert modnet.network_size(*size) == expected


def test_the_aspect_ratio_changes_by_at_most_8_percent_up_to_2_to_1_and_25_percent_up_to_10_to_1() -> None:
    for ratio in np.linspace(1, 10, 2000):
        width, height = modnet.network_size(round(1000 * ratio), 1000)
        change = max(width / height / ratio, ratio * height / width) - 1
        assert change <= (0.081 if ratio <= 2 else 0.251)


def test_there_are_few_input_sizes_and_all_are_multiples_of_32() -> None:
    rng = np.random.default_rng(0)
    sizes = {modnet.network_size(*rng.integers(1, 5000, 2).tolist()) for _ in range(5000)}
    assert len(sizes) <= 2 * len(modnet.SIZES)
    assert all(side % 32 == 0 for size in sizes for side in size)

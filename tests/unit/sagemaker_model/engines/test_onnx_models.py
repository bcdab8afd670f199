"""The engines of engines/onnx_models.py: every row with a small network, and the real ISNet where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")

from maskdrop.catalog import ENGINES  # noqa: E402
from maskdrop.errors import UnknownEngine  # noqa: E402
from maskdrop.options import Options  # noqa: E402
from sagemaker_model.engines import onnx_models  # noqa: E402
from sagemaker_model.engines.base import BatchedEngine, load  # noqa: E402
from sagemaker_model.engines.birefnet import VARIANTS  # noqa: E402
from sagemaker_model.engines.onnx_models import MODELS, OnnxModel, matte_of, network_input  # noqa: E402
from sagemaker_model.engines.onnx_session import CUDA, onnx_session, run_first  # noqa: E402
from sagemaker_model.imaging.pixels import Pixels, decode  # noqa: E402
from sagemaker_model.installed import Installed  # noqa: E402
from sagemaker_model.settings import ServerSettings  # noqa: E402
from sagemaker_model.weights.store import InvalidWeights, NotInstalled, known, named  # noqa: E402
from tests.unit.sagemaker_model.engines.small_onnx import install, network  # noqa: E402

PHOTO = Path(__file__).parents[4] / "samples" / "default" / "astronaut.png"
WEIGHTS = Path(__file__).parents[4] / ".local" / "weights"

every_model = pytest.mark.parametrize("name", MODELS)


def square(side: int = 60) -> Pixels:
    """A light square on a dark background."""
    image = np.full((2 * side, 3 * side, 3), 20, np.uint8)
    image[side // 2 : side * 3 // 2, side : 2 * side] = 240
    return image


def engine(folder: Path, name: str = "u2net", device: str = "cpu") -> OnnxModel:
    loaded = OnnxModel(name)
    loaded.setup(device, folder)
    return loaded


# Every row


def test_the_rows_are_the_engines_of_the_catalogue_with_this_class() -> None:
    """Those of BiRefNet's checkpoints use the class where no checkpoint is installed."""
    by_class = {name for name, row in ENGINES.items() if ":OnnxModel:" in row.factory}
    assert set(MODELS) == by_class | (set(MODELS) & set(VARIANTS))
    published = {one.engine for one in known().values() if one.file.endswith(".onnx") and (one.url or one.npm)}
    assert set(MODELS) <= published


@every_model
def test_every_model_finds_the_subject_of_its_network(name: str, tmp_path: Path) -> None:
    loaded = load([ENGINES[name]], "cpu", install(name, tmp_path), non_commercial=True)[name]
    alpha = loaded.predict(square(), ()).values
    assert isinstance(loaded, BatchedEngine)
    assert alpha.shape == (MODELS[name].side,) * 2
    assert alpha[alpha.shape[0] // 2, alpha.shape[1] // 2] > 0.95
    assert alpha[0, 0] < 0.05


@every_model
def test_every_model_is_normalised_as_its_publisher_does(name: str) -> None:
    model = MODELS[name]
    pixels = np.arange(model.side * model.side * 3).reshape(model.side, model.side, 3) % 201
    divisor = 256 if name == "isnet-imgly" else 200  # rembg: the image's own maximum
    expected = (pixels / divisor - np.array(model.mean)) / np.array(model.std)
    assert np.abs(network_input(pixels.astype(np.uint8), model) - expected.transpose(2, 0, 1)).max() < 1e-5


def test_a_black_image_is_normalised() -> None:
    assert np.isfinite(network_input(np.zeros((5, 4, 3), np.uint8), MODELS["u2net"])).all()


@every_model
def test_every_model_has_weights_that_can_be_pulled_and_a_licence(name: str) -> None:
    weights = named(name)
    assert weights.engine == name
    assert weights.url or weights.npm
    assert ("NC" in weights.licence) == ENGINES[name].non_commercial == bool(MODELS[name].owner)


# The matte


@pytest.mark.parametrize("value", [0.0, 0.3, 0.49])
def test_a_map_without_a_subject_is_empty_where_rembg_would_stretch_its_noise(value: float) -> None:
    noise = np.random.default_rng(0).random((50, 50)).astype(np.float32) * value
    assert matte_of(noise, logits=False).max() == 0
    assert matte_of(np.full((5, 5), value, np.float32), logits=False).max() == 0


def test_a_map_full_of_the_subject_stays_full() -> None:
    noise = 1 - 0.1 * np.random.default_rng(0).random((50, 50)).astype(np.float32)
    assert matte_of(noise, logits=False).min() > 0.8


def test_the_stretch_reaches_0_and_1_where_the_map_nearly_does() -> None:
    matte = matte_of(np.array([[0.1, 0.5, 0.9]], np.float32), logits=False)
    assert matte == pytest.approx(np.array([[0, 0.5, 1]]), abs=1e-6)


def test_logits_become_probabilities() -> None:
    logits = np.array([[-800, -3, 0, 3, 800]], np.float32)
    assert matte_of(logits, logits=True) == pytest.approx(1 / (1 + np.exp(-logits.clip(-50, 50))), abs=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_an_error(value: float) -> None:
    with pytest.raises(InvalidWeights, match="NaN or infinity"):
        matte_of(np.array([[0, value]], np.float32), logits=False)


# Files


@pytest.mark.parametrize(
    "data", [b"no network", network(256), network(320, (1.0, 1.0, 1.0), batch=2)], ids=["text", "side", "batch"]
)
def test_a_file_of_another_network_is_an_error(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidWeights):
        engine(install("u2net", tmp_path, data))


def test_missing_weights_are_reported_with_the_command_that_installs_them(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match="maskdrop models pull u2net"):
        engine(tmp_path)


def test_a_network_in_float16_is_fed_float16(tmp_path: Path) -> None:
    loaded = engine(install("u2net", tmp_path, network(320, dtype=np.float16)))
    assert loaded.predict(square(), ()).values[160, 160] > 0.95


# Batches


def spied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Records the number of images of each run."""
    sizes: list[int] = []

    def run(session: Any, images: Any) -> Any:
        sizes.append(len(images))
        return run_first(session, images)

    monkeypatch.setattr(onnx_models, "run_first", run)
    return sizes


def test_a_file_with_an_open_batch_dimension_runs_batches_after_their_verification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, sizes = engine(install("u2net", tmp_path, network(320, batch="n"))), spied(monkeypatch)
    inputs = [loaded.prepare(np.roll(square(), shift, 1), ()) for shift in (0, 20, 40)]
    before = loaded.infer(inputs)
    assert sizes == [1, 1, 1]
    [comparison] = loaded.warm_up(4)
    assert (comparison.optimisation, comparison.passed) == ("batch", True)
    sizes.clear()
    after = loaded.infer(inputs)
    assert sizes == [3]
    assert all(np.allclose(one, other, atol=1e-6) for one, other in zip(before, after, strict=True))


def test_batches_that_differ_from_single_images_are_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = engine(install("u2net", tmp_path, network(320, batch="n")))
    sizes: list[int] = []

    def mixed_up(session: Any, images: Any) -> Any:
        sizes.append(len(images))
        return run_first(session, images)[::-1]

    monkeypatch.setattr(onnx_models, "run_first", mixed_up)
    [comparison] = loaded.warm_up(4)
    assert not comparison.passed
    sizes.clear()
    loaded.infer([loaded.prepare(square(), ())] * 2)
    assert sizes == [1, 1]


def test_a_file_for_one_image_runs_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, sizes = engine(install("u2net", tmp_path)), spied(monkeypatch)
    assert loaded.warm_up(4) == ()
    sizes.clear()
    assert len(loaded.infer([loaded.prepare(square(), ())] * 3)) == 3
    assert sizes == [1, 1, 1]


# Devices


def test_a_gpu_without_onnxruntime_gpu_is_reported_with_the_remedy(tmp_path: Path) -> None:
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed")
    with pytest.raises(NotInstalled, match=r"onnxruntime-gpu.*MODEL_DEVICE=cpu"):
        engine(install("u2net", tmp_path), device="cuda")


def test_a_gpu_is_used_before_the_cpu_and_the_threads_are_those_of_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[tuple[list[str], int]] = []

    class Session:
        def __init__(self, _network: Any, options: Any, providers: list[Any]) -> None:
            names = [one if isinstance(one, str) else one[0] for one in providers]
            opened.append((names, options.intra_op_num_threads))

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    for device in ("cpu", "cuda"):
        onnx_session(b"", 3, device)
    assert opened == [(["CPUExecutionProvider"], 3), ([CUDA, "CPUExecutionProvider"], 3)]


def test_too_little_memory_is_a_memory_error_so_that_the_batcher_halves_the_batch() -> None:
    class Full:
        def get_inputs(self) -> list[Any]:
            return [type("Argument", (), {"name": "x"})]

        get_outputs = get_inputs

        def run(self, *_: Any) -> None:
            raise RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 1")

    with pytest.raises(MemoryError, match="requested buffer"):
        run_first(Full(), np.zeros((2, 3, 4, 4), np.float32))


# Consent

NON_COMMERCIAL = [name for name, row in ENGINES.items() if row.non_commercial]


@pytest.mark.parametrize("name", NON_COMMERCIAL)
def test_non_commercial_weights_run_only_with_consent_and_every_result_has_a_warning(name: str, tmp_path: Path) -> None:
    folder = install(name, tmp_path)
    assert load([ENGINES[name]], "cpu", folder) == {}
    loaded = load([ENGINES[name]], "cpu", folder, non_commercial=True)
    result = Installed(loaded).process(PHOTO.read_bytes(), Options(engine=name), ServerSettings().limits)
    assert [one for one in result.warnings if one.startswith("non_commercial: ") and name in one]


@pytest.mark.parametrize("name", NON_COMMERCIAL)
def test_without_consent_the_error_names_the_setting(name: str) -> None:
    with pytest.raises(UnknownEngine, match=rf"models pull {name}.*MODEL_NON_COMMERCIAL=1.*non_commercial = true"):
        Installed({}).engine(name)


def test_the_error_of_an_engine_without_weights_names_the_command_that_installs_them() -> None:
    with pytest.raises(UnknownEngine, match=r"maskdrop models pull isnet-general-use`\.$"):
        Installed({}).engine("isnet-general-use")


# The real network


def test_the_real_isnet_of_the_npm_package_cuts_out_the_person_of_a_photo() -> None:
    weights = known()["isnet-imgly"]
    if not (WEIGHTS / weights.file).exists():
        pytest.skip("isnet-imgly is not installed: run `maskdrop models pull isnet-imgly`")
    loaded = load([ENGINES[name] for name in ("isnet-imgly", "portrait")], "cpu", WEIGHTS)
    limits = ServerSettings().limits
    masks = {}
    for name in loaded:
        result = Installed(loaded).process(PHOTO.read_bytes(), Options(engine=name), limits)
        alpha = decode(result.data, limits).alpha
        assert alpha is not None
        masks[name] = alpha > 127
    ours, theirs = masks["isnet-imgly"], masks["portrait"]
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.8

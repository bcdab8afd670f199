"""The engines of BiRefNet and their exported file, with a tiny network of random weights."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from safetensors.torch import save_file  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from cli.app import app  # noqa: E402
from maskdrop.catalog import ENGINES  # noqa: E402
from sagemaker_model.engines import birefnet  # noqa: E402
from sagemaker_model.engines.base import BatchedEngine, load  # noqa: E402
from sagemaker_model.engines.birefnet import EXPORTED, SUFFIX, VARIANTS, BiRefNet, Variant, network_size  # noqa: E402
from sagemaker_model.engines.onnx_models import MODELS  # noqa: E402
from sagemaker_model.engines.verification import HALF_TOLERANCE, difference  # noqa: E402
from sagemaker_model.nets.birefnet import BACKBONES, Backbone  # noqa: E402
from sagemaker_model.weights.store import InvalidWeights, NotInstalled, import_file, known, named  # noqa: E402
from tests.unit.sagemaker_model.engines import small_onnx  # noqa: E402
from tests.unit.sagemaker_model.nets import published_birefnet as published  # noqa: E402

LITE, DYNAMIC = "birefnet-general-lite", "birefnet-dynamic"
CHECKPOINT = "birefnet-general-lite-torch"
SIDE = 64

SIZES = {("T", 2): 88_965_896, ("T", 4): 177_634_392, ("L", 2): 444_473_596, ("L", 4): 884_878_856}
"""Bytes of a checkpoint by its backbone and the bytes of a number: those of a file with the published names."""


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Swin-T is tiny, and so is the input of birefnet-general-lite."""
    monkeypatch.setitem(BACKBONES, "T", Backbone(published.TINY.width, (2, 2, 2, 2), (1, 2, 2, 4), 3))
    monkeypatch.setitem(VARIANTS, LITE, Variant("T", (SIDE, SIDE), old_tiles=True))
    monkeypatch.setitem(VARIANTS, DYNAMIC, Variant("T", None, old_tiles=False))


def checkpoint(folder: Path, dtype: torch.dtype = torch.float32, **changed: Any) -> Path:
    """A file as Hugging Face has it, with other values for some entries."""
    state = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in (published.state(published.TINY) | changed).items()
    }
    folder.mkdir(exist_ok=True)
    path = folder / "model.safetensors"
    save_file(state, path)
    return path


def install(folder: Path, file: Path, name: str = CHECKPOINT) -> Path:
    import_file(named(name), file, folder, own=True)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A weights folder with the checkpoint of birefnet-general-lite."""
    return install(tmp_path / "weights", checkpoint(tmp_path))


def engine(folder: Path, name: str = LITE, device: str = "cpu") -> BiRefNet:
    loaded = BiRefNet(name)
    loaded.setup(device, folder)
    return loaded


def photos(count: int, height: int = 90, width: int = 120) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]


# The table


def test_every_variant_has_a_row_of_the_catalogue_and_a_checkpoint_of_its_backbone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    assert set(VARIANTS) == {name for name, row in ENGINES.items() if ":birefnet:" in row.factory.replace(".", ":")}
    for name, variant in VARIANTS.items():
        (weights,) = [one for one in known().values() if one.engine == name and one.file.endswith(SUFFIX)]
        assert weights.file == f"{name}{SUFFIX}"
        assert weights.size in {size for (backbone, _), size in SIZES.items() if backbone == variant.backbone}
        assert (weights.url is None) == (name in {"birefnet-dynamic-matting", "birefnet-lite-2k", "birefnet-512x512"})
        assert variant.size is None or all(side % birefnet.MULTIPLE == 0 for side in variant.size)


# The network's input


def test_the_input_is_normalised_by_imagenets_mean_and_standard_deviation(folder: Path) -> None:
    grey = engine(folder).prepare(np.full((30, 50, 3), 128, np.uint8), ())
    assert grey.shape == (3, SIDE, SIDE)
    assert grey.dtype == np.float32
    expected = (128 / 255 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    assert np.allclose(grey, expected[:, None, None], rtol=0, atol=1e-5)


def test_a_reduced_image_is_antialiased(folder: Path) -> None:
    """Black and white columns of one pixel become grey; without antialiasing the input would have stripes."""
    stripes = np.zeros((640, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    assert engine(folder).prepare(stripes, ())[0, 8:-8, 8:-8].std() < 0.05


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ((1920, 1080), (1920, 1056)),
        ((1000, 700), (992, 672)),
        ((4608, 3456), (2304, 1728)),
        ((3456, 4608), (1728, 2304)),
        ((1, 1), (256, 256)),
        ((20, 30000), (256, 2304)),
        ((2305, 2305), (2304, 2304)),
    ],
)
def test_a_variant_without_a_size_takes_the_images_size(image: tuple[int, int], expected: tuple[int, int]) -> None:
    assert network_size(*image, VARIANTS[DYNAMIC]) == expected


def test_other_variants_take_every_image_at_the_size_of_their_training() -> None:
    for name, expected in (("birefnet-hr", (2048, 2048)), ("birefnet-lite-2k", (2560, 1440))):
        assert network_size(300, 4000, VARIANTS[name]) == expected


# Mattes


def test_the_matte_is_that_of_the_published_network(folder: Path) -> None:
    (rgb,) = photos(1)
    loaded = engine(folder)
    x = torch.from_numpy(loaded.prepare(rgb, ())[None])
    expected = torch.sigmoid(published.forward(published.state(published.TINY), published.TINY, x, "old"))[0, 0]
    found = loaded.predict(rgb, ()).values
    assert expected.std() > 0.05
    assert np.abs(found - expected.numpy()).max() <= 1e-4
    assert loaded.weights_sha256 == hashlib.sha256((folder / f"{LITE}{SUFFIX}").read_bytes()).hexdigest()


def test_a_batch_returns_the_mattes_of_its_images_in_order(folder: Path) -> None:
    loaded, reference = engine(folder), engine(folder)
    comparisons = loaded.warm_up(4)
    assert {one.optimisation: one.passed for one in comparisons} == {"batch": True}
    images = [loaded.prepare(rgb, ()) for rgb in photos(7)]
    for matte, image in zip(loaded.infer(images), images, strict=True):
        assert np.abs(matte - reference.infer([image])[0]).max() <= 1e-4


def test_a_batch_has_at_most_four_images_of_1024x1024(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorder:
        def warm_up(self, shapes: set[tuple[int, ...]], batch_max: int) -> tuple[()]:
            calls.append((shapes, batch_max))
            return ()

    calls: list[tuple[set[tuple[int, ...]], int]] = []
    loaded = engine(folder)
    monkeypatch.setattr(loaded, "_runner", Recorder())
    for size in ((512, 512), (1024, 1024), (2048, 2048), (2560, 1440), None):
        monkeypatch.setattr(loaded, "_variant", Variant("L", size, old_tiles=False))
        loaded.warm_up(64)
    assert [(sorted(shapes), batch) for shapes, batch in calls] == [
        ([(3, 512, 512)], 16), ([(3, 1024, 1024)], 4), ([(3, 2048, 2048)], 1), ([(3, 1440, 2560)], 1),
        ([(3, 1024, 1024)], 4),
    ]  # fmt: skip


def test_a_variant_without_a_size_runs_images_of_any_size(tmp_path: Path) -> None:
    loaded = engine(install(tmp_path, checkpoint(tmp_path / "in"), DYNAMIC), DYNAMIC)
    assert loaded.predict(photos(1, 270, 330)[0], ()).values.shape == (256, 320)


def test_a_checkpoint_in_float16_runs_in_float32(folder: Path, tmp_path: Path) -> None:
    (rgb,) = photos(1)
    half = install(tmp_path / "half", checkpoint(tmp_path / "in", torch.float16))
    assert np.abs(engine(half).predict(rgb, ()).values - engine(folder).predict(rgb, ()).values).max() < 0.01


def test_half_precision_stays_within_the_tolerance_of_the_verification(folder: Path) -> None:
    """By bfloat16 on the CPU, which has no fast float16: it has eight times its error."""
    from sagemaker_model.engines.torch_runner import cast_weights, inference_context

    net = birefnet.new_network(LITE)
    net.load_state_dict(birefnet.load_state(LITE, folder / f"{LITE}{SUFFIX}"))
    x = torch.from_numpy(engine(folder).prepare(photos(1)[0], ())[None])
    with torch.inference_mode():
        exact = net(x).numpy()
    cast_weights(net, torch.bfloat16)
    with inference_context(torch.device("cpu"), torch.bfloat16):
        half = net(x).float().numpy()
    found = difference([(half,)], [(exact,)])
    assert found.largest > 0
    assert found.within(HALF_TOLERANCE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is available")
def test_on_a_gpu_every_optimisation_is_on(folder: Path) -> None:
    loaded, reference = engine(folder, device="cuda"), engine(folder, device="cuda")
    comparisons = loaded.warm_up(4)
    assert {one.optimisation: one.passed for one in comparisons} == {"half": True, "batch": True, "graph": True}
    images = [reference.prepare(rgb, ()) for rgb in photos(7)]
    for matte, image in zip(loaded.infer(images), images, strict=True):
        assert np.abs(matte.astype(np.float32) - reference.infer([image])[0]).max() < HALF_TOLERANCE.largest


# Files


def test_a_released_pth_file_is_imported_in_place_of_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    (rgb,) = photos(1)
    release = tmp_path / "BiRefNet-general-bb_swin_v1_tiny-epoch_232.pth"
    torch.save({f"module._orig_mod.{name}": one for name, one in published.state(published.TINY).items()}, release)
    released = engine(install(tmp_path / "released", release))
    assert np.array_equal(released.predict(rgb, ()).values, engine(folder).predict(rgb, ()).values)


def test_a_pth_file_with_code_is_not_imported(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("executed",)

    torch.save({"model": Code()}, tmp_path / "model.pth")
    with pytest.raises(InvalidWeights, match="print"):
        install(tmp_path / "weights", tmp_path / "model.pth")


def test_a_checkpoint_of_the_other_backbone_is_refused_with_its_engines(tmp_path: Path) -> None:
    folder = install(tmp_path, checkpoint(tmp_path / "in"), "birefnet-hr")
    with pytest.raises(InvalidWeights, match=r"has the backbone Swin-T, and birefnet-hr has Swin-L.*general-lite"):
        engine(folder, "birefnet-hr")


def test_a_checkpoint_of_another_layout_is_refused_with_the_first_difference(tmp_path: Path) -> None:
    changed = {"decoder.refiner.weight": torch.zeros(1)}
    folder = install(tmp_path, checkpoint(tmp_path / "in", **changed))
    with pytest.raises(InvalidWeights, match=r"unknown decoder\.refiner\.weight"):
        engine(folder)


def test_a_checkpoint_whose_matte_overflows_is_refused(tmp_path: Path) -> None:
    changed = {"bb.norm0.weight": torch.full((published.TINY.width,), 3e38)}
    folder = install(tmp_path, checkpoint(tmp_path / "in", **changed))
    with pytest.raises(InvalidWeights, match="NaN or infinity"):
        engine(folder)


def test_without_a_checkpoint_rembgs_file_is_used(tmp_path: Path) -> None:
    for name in set(MODELS) & set(VARIANTS) - {LITE}:
        loaded = load([ENGINES[name]], "cpu", small_onnx.install(name, tmp_path))[name]
        assert isinstance(loaded, BatchedEngine)
        alpha = loaded.predict(np.full((20, 30, 3), 255, np.uint8), ()).values
        assert alpha.shape == (1024, 1024)
        assert alpha.min() > 0.95
        assert loaded.weights_sha256 == hashlib.sha256((tmp_path / named(name).file).read_bytes()).hexdigest()
        assert loaded.warm_up(4) == ()


def test_without_weights_an_engine_is_not_installed(tmp_path: Path) -> None:
    for name in VARIANTS:
        with pytest.raises(NotInstalled, match=f"maskdrop models (pull|import) {name}"):
            engine(tmp_path, name)


def test_without_torch_it_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(NotInstalled, match="needs the package torch"):
        engine(folder)


# The exported file


def test_the_command_exports_a_file_that_the_engine_prefers_on_the_cpu(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    by_torch = engine(folder)
    words = ["export", LITE, str(folder / f"{LITE}{SUFFIX}"), "--to", "onnx", "--out", str(folder)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    path = folder / f"{LITE}{EXPORTED}"
    operators = path.read_bytes()
    assert operators.count(b"DeformConv") >= 20  # five blocks of four
    by_onnx = engine(folder)
    assert by_onnx.weights_sha256 == hashlib.sha256(operators).hexdigest()
    for batch in (photos(2), photos(3)):
        images = [by_torch.prepare(rgb, ()) for rgb in batch]
        for matte, expected in zip(by_onnx.infer(images), by_torch.infer(images), strict=True):
            assert np.abs(matte - expected).max() <= 1e-4
    other_size = np.random.default_rng(0).normal(size=(3, 96, 160)).astype(np.float32)
    (found,), (expected,) = by_onnx.infer([other_size]), by_torch.infer([other_size])
    assert np.abs(found - expected).max() <= 1e-4
    path.write_bytes(operators[:1_000_000])
    with pytest.raises(InvalidWeights, match="damaged"):
        engine(folder)


def test_other_formats_are_refused(folder: Path, tmp_path: Path) -> None:
    words = ["export", LITE, str(folder / f"{LITE}{SUFFIX}"), "--to", "torchscript", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert "ONNX (onnx) only" in done.output.replace("\n", " ")

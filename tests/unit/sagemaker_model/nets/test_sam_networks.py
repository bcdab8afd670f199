"""The networks of SAM: every published layout, and small random networks through torch and ONNX Runtime."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskdrop.prompt import Prompt
from sagemaker_model.engines.sam import OnnxNetwork, Sam, Sam2
from sagemaker_model.weights import store as weights
from sagemaker_model.weights.store import InvalidWeights

torch = pytest.importorskip("torch", reason="torch is not installed: only the GPU container has it")
pytest.importorskip("transformers", reason="transformers is not installed: only the GPU container has it")

from transformers import Sam2Config, Sam2Model, SamConfig, SamModel  # noqa: E402

from sagemaker_model.nets import sam  # noqa: E402
from tests.unit.sagemaker_model.nets.small_sam import NETWORKS, save_folder  # noqa: E402

OFFICIAL_COUNTS = {
    "vit_b": 314,
    "vit_l": 482,
    "vit_h": 594,
    "tiny": 471,
    "small": 519,
    "base_plus": 615,
    "large": 903,
}
"""Number of keys of the published files."""

COMMON = (
    (r"shared_embedding\.positional_embedding", "pe_layer.positional_encoding_gaussian_matrix"),
    (r"(_mlps\.\d+|_head)\.proj_out\.", r"\1.layers.2."),
    (r"(_mlps\.\d+|_head)\.layers\.0\.", r"\1.layers.1."),
    (r"(_mlps\.\d+|_head)\.proj_in\.", r"\1.layers.0."),
    (r"upscale_conv1", "output_upscaling.0"),
    (r"upscale_layer_norm", "output_upscaling.1"),
    (r"upscale_conv2", "output_upscaling.3"),
    (r"mask_embed\.conv1", "mask_downscaling.0"),
    (r"mask_embed\.layer_norm1", "mask_downscaling.1"),
    (r"mask_embed\.conv2", "mask_downscaling.3"),
    (r"mask_embed\.layer_norm2", "mask_downscaling.4"),
    (r"mask_embed\.conv3", "mask_downscaling.6"),
    (r"point_embed\.", "point_embeddings."),
    (r"patch_embed\.projection", "patch_embed.proj"),
)

TO_OFFICIAL = {
    "sam": (
        (r"vision_encoder\.neck\.conv1", "image_encoder.neck.0"),
        (r"vision_encoder\.neck\.layer_norm1", "image_encoder.neck.1"),
        (r"vision_encoder\.neck\.conv2", "image_encoder.neck.2"),
        (r"vision_encoder\.neck\.layer_norm2", "image_encoder.neck.3"),
        (r"vision_encoder\.layers", "image_encoder.blocks"),
        (r"vision_encoder", "image_encoder"),
        *COMMON,
        (r"layer_norm", "norm"),
    ),
    "sam2": (
        (r"vision_encoder\.neck\.convs\.(\d+)", r"image_encoder.neck.convs.\1.conv"),
        (r"vision_encoder\.backbone", "image_encoder.trunk"),
        (r"^prompt_encoder", "sam_prompt_encoder"),
        (r"^mask_decoder", "sam_mask_decoder"),
        (r"^no_memory_embedding", "no_mem_embed"),
        (r"((blocks|transformer\.layers)\.\d+\.mlp)\.proj_in", r"\1.layers.0"),
        (r"((blocks|transformer\.layers)\.\d+\.mlp)\.proj_out", r"\1.layers.1"),
        (r"o_proj", "out_proj"),
        *COMMON,
        (r"layer_norm", "norm"),
    ),
}
"""From transformers' keys to the official ones, written independently of the engine's rules."""


def weight_and_bias(*names: str) -> list[str]:
    return [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]


def video_keys() -> list[str]:
    """Returns the keys for videos in an official file of SAM 2.1."""
    keys = [
        "maskmem_tpos_enc",
        "no_mem_pos_enc",
        "no_obj_ptr",
        "no_obj_embed_spatial",
        *weight_and_bias("mask_downsample"),
    ]
    for i in range(4):
        layer = f"memory_attention.layers.{i}."
        attention = [f"{a}.{p}_proj" for a in ("self_attn", "cross_attn_image") for p in ("q", "k", "v", "out")]
        keys += weight_and_bias(
            *(layer + name for name in (*attention, "linear1", "linear2", "norm1", "norm2", "norm3"))
        )
    encoder = [f"mask_downsampler.encoder.{i}" for i in (0, 1, 3, 4, 6, 7, 9, 10, 12)] + ["pix_feat_proj", "out_proj"]
    for i in range(2):
        encoder += [f"fuser.layers.{i}.{name}" for name in ("dwconv", "norm", "pwconv1", "pwconv2")]
        keys.append(f"memory_encoder.fuser.layers.{i}.gamma")
    keys += weight_and_bias("memory_attention.norm", *(f"memory_encoder.{name}" for name in encoder))
    return keys + weight_and_bias(*(f"obj_ptr_proj.layers.{i}" for i in range(3)), "obj_ptr_tpos_proj")


def official(family: str, state: dict[str, Any]) -> dict[str, Any]:
    """Returns the state dict of a network of transformers in the layout of its official file."""
    named = {}
    for key, value in state.items():
        if key == "shared_image_embedding.positional_embedding":
            continue
        for pattern, to in TO_OFFICIAL[family]:
            key = re.sub(pattern, to, key)
        named[key] = value
    if family == "sam2":
        points = named.pop("sam_prompt_encoder.point_embeddings.weight")
        named |= {f"sam_prompt_encoder.point_embeddings.{i}.weight": points[i : i + 1] for i in range(4)}
        named |= {key: torch.zeros(1) for key in video_keys()}
    return named


ENGINES = {"sam": (Sam, "sam-vit-base", "sam-vit_b"), "sam2": (Sam2, "sam2.1-hiera-tiny", "sam2-tiny")}

each_family = pytest.mark.parametrize("family", ["sam", "sam2"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with small networks as Hugging Face folders.

    The one of SAM 2.1 has a key of the video model, as published.
    """
    root = tmp_path_factory.mktemp("weights")
    for family, make in NETWORKS.items():
        video = {"memory_attention.layers.0.linear1.weight": torch.zeros(2)} if family == "sam2" else None
        save_folder(make(), root / ENGINES[family][1], video)
    return root


def load_engine(family: str, folder: Path) -> Sam:
    engine = ENGINES[family][0]()
    engine.setup("cpu", folder)
    return engine


def image(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


# Layouts


@pytest.mark.parametrize("name", sam.CONFIGS)
def test_the_official_file_of_every_variant_loads_strictly(name: str) -> None:
    family, config = sam.CONFIGS[name]
    with torch.device("meta"):
        network = SamModel(SamConfig(**config)) if family == "sam" else Sam2Model(Sam2Config(**config))
    one = torch.zeros(1)
    state = official(family, {key: one.expand(value.shape) for key, value in network.state_dict().items()})
    assert len(state) == OFFICIAL_COUNTS[name]
    loaded = sam.from_official(name, state)
    assert {key: value.shape for key, value in loaded.state_dict().items()} == {
        key: value.shape for key, value in network.state_dict().items()
    }
    assert not any(value.is_meta for value in (*loaded.parameters(), *loaded.buffers()))


@each_family
def test_renamed_maps_every_official_key_to_its_key_in_transformers(family: str) -> None:
    before = NETWORKS[family]().state_dict()
    after = sam.renamed(family, official(family, before))
    before.pop("shared_image_embedding.positional_embedding")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def without(state: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name != key}


TOKEN = "mask_decoder.iou_token.weight"


@each_family
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: without(state, TOKEN), f"{TOKEN} is missing"),
        (lambda state: state | {"head.weight": torch.zeros(1)}, r"head\.weight is unknown"),
        (lambda state: state | {TOKEN: torch.zeros(1, 31)}, r"has the shape \(1, 31\), not \(1, 32\)"),
        (lambda _: {}, r"is missing.*mismatches"),
    ],
)
def test_weights_of_another_network_are_refused_and_named(family: str, change: Any, message: str) -> None:
    network = NETWORKS[family]()
    with pytest.raises(InvalidWeights, match=message):
        sam.from_hugging_face(family, network.config.to_dict(), change(network.state_dict()))


class MaliciousPickle:
    def __reduce__(self) -> Any:
        return (print, ("this must not run",))


def write_damaged(kind: str, path: Path) -> None:
    if kind == "truncated":
        torch.save({"model": {"a": torch.zeros(1000)}}, path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "a pickle that runs":
        path.write_bytes(pickle.dumps(MaliciousPickle()))
    elif kind == "a checkpoint that runs":
        torch.save({"model": MaliciousPickle()}, path)
    elif kind == "no tensors":
        torch.save({"model": {"a": 1}}, path)
    elif kind == "one tensor":
        torch.save(torch.zeros(1), path)
    elif kind == "no number":
        torch.save({"model": {"a": torch.full((3,), torch.nan)}}, path)
    elif kind == "another network":
        torch.save({"model": {"a": torch.zeros(3)}}, path)
    else:
        path.write_bytes(b"" if kind == "empty" else b"no weights at all")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "truncated, damaged"),
        ("a pickle that runs", "were not unpickled"),
        ("a checkpoint that runs", "were not unpickled"),
        ("no tensors", "does not contain named tensors"),
        ("one tensor", "does not contain named tensors"),
        ("empty", "truncated, damaged"),
        ("text", "were not unpickled"),
        ("no number", "NaN or infinity"),
        ("another network", "The weights are not those of"),
    ],
)
@pytest.mark.parametrize(("family", "name"), [("sam", "sam_vit_b_01ec64.pth"), ("sam2", "sam2.1_hiera_tiny.pt")])
def test_a_damaged_or_malicious_file_is_refused(
    family: str, name: str, kind: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_damaged(kind, tmp_path / name)
    rows = {name: {"sha256": weights.digest(tmp_path / name)}}
    (tmp_path / weights.MANIFEST).write_text(weights.manifest_text(rows))
    with pytest.raises(InvalidWeights, match=message):
        load_engine(family, tmp_path)
    assert capsys.readouterr().out == ""


def test_an_official_file_must_have_the_published_sha256(tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "sam2.1_hiera_tiny.pt")
    with pytest.raises(InvalidWeights, match="has the SHA-256"):
        load_engine("sam2", tmp_path)


@each_family
def test_a_truncated_folder_is_refused(family: str, folders: Path, tmp_path: Path) -> None:
    name = ENGINES[family][1]
    (tmp_path / name).mkdir()
    for file in (folders / name).iterdir():
        (tmp_path / name / file.name).write_bytes(file.read_bytes()[: 3000 if file.suffix == ".safetensors" else None])
    with pytest.raises(InvalidWeights, match="truncated, damaged"):
        load_engine(family, tmp_path)


# Numbers


def labelled_points(*prompts: Iterable[tuple[float, float, int]]) -> tuple[Any, Any]:
    values = torch.tensor([list(prompt) for prompt in prompts])
    return values[..., :2], values[..., 2].long()


@each_family
@pytest.mark.parametrize("kind", ["points", "box", "both"])
def test_the_decoder_gives_the_outputs_of_the_network_of_transformers(family: str, kind: str) -> None:
    """transformers takes boxes as such and returns one mask or three; the decoder takes a box as two points."""
    network = NETWORKS[family]()
    maps = sam.Encoder(network)(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    points = [[(9.0, 12.0, 1), (40.0, 33.0, 0)], [(5.0, 6.0, 1), (7.0, 60.0, 1)]]
    boxes = [(3.0, 4.0, 30.0, 50.0), (20.0, 10.0, 60.0, 30.0)]
    inputs: dict[str, Any] = {}
    if kind != "box":
        positions, labels = labelled_points(*points)
        inputs |= {"input_points": positions[None], "input_labels": labels[None]}
    if kind != "points":
        inputs["input_boxes"] = torch.tensor(boxes)[None]
    embedding = maps[0] if family == "sam" else list(maps)
    network.config.mask_decoder_config.dynamic_multimask_via_stability = False
    if family == "sam2":
        network.mask_decoder.dynamic_multimask_via_stability = False
    with torch.inference_mode():
        one, three = (network(image_embeddings=embedding, multimask_output=many, **inputs) for many in (False, True))
    expected = torch.cat([one.pred_masks, three.pred_masks], 2)[0]
    scores = torch.cat([one.iou_scores, three.iou_scores], 2)[0]

    prompts = []
    for prompt_points, (x0, y0, x1, y1) in zip(points, boxes, strict=True):
        prompt = [] if kind == "box" else list(prompt_points)
        if kind != "points":
            prompt += [(x0, y0, 2), (x1, y1, 3)]
        if kind == "points" or family == "sam2":
            prompt.append((0.0, 0.0, -1))
        prompts.append(prompt)
    with torch.inference_mode():
        found, expected_iou = sam.Decoder(network)(*labelled_points(*prompts), *maps)
    assert expected.std() > 0.1
    assert (found - expected).abs().max() < 1e-4
    assert (expected_iou - scores).abs().max() < 1e-4


@each_family
def test_an_engine_reads_a_hugging_face_folder(family: str, folders: Path) -> None:
    engine = load_engine(family, folders)
    alpha = engine.predict(image(80, 48), (Prompt((3, 4, 60, 40)), Prompt(points=((70, 9, 1), (5, 40, 0))))).values
    assert 0 <= alpha.min() <= alpha.max() <= 1
    assert alpha.std() > 0.02
    assert len(engine.weights_sha256) == 64


@each_family
def test_a_batch_gives_the_embeddings_of_its_images_on_their_own(family: str, folders: Path) -> None:
    engine, again = load_engine(family, folders), load_engine(family, folders)
    prompts = (Prompt((3, 4, 15, 16)),)
    pixels = [engine.prepare(image(*size), prompts) for size in ((20, 30), (30, 20), (64, 64))]
    together = engine.infer(pixels)
    for one, embedding in zip(pixels, together, strict=True):
        (single,) = again.infer([one])
        for a, b in zip(single, embedding, strict=True):
            assert a.dtype == np.float16
            assert b.base is None, "a view would keep its batch in memory"
            assert np.allclose(a, b, atol=2e-2)


@each_family
def test_a_warmed_up_batch_gives_the_same_embeddings(family: str, folders: Path) -> None:
    engine, again = load_engine(family, folders), load_engine(family, folders)
    engine.warm_up(64)
    prompts = (Prompt((3, 4, 15, 16)),)
    inputs = [engine.prepare(image(20, 20 + i), prompts) for i in range(7)]
    for one, embedding in zip(inputs, engine.infer(inputs), strict=True):
        (single,) = again.infer([one])
        for a, b in zip(single, embedding, strict=True):
            assert np.allclose(a, b, atol=2e-2)


class MixedUp(torch.nn.Module):
    """Returns the results of the prompts in the wrong order."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, *inputs: Any) -> tuple[Any, ...]:
        return tuple(result.flip(0) for result in self.decoder(*inputs))


@each_family
@pytest.mark.parametrize("fault", [False, True])
def test_prompts_that_differ_when_decoded_together_are_decoded_alone(fault: bool, family: str, folders: Path) -> None:
    engine, reference = load_engine(family, folders), load_engine(family, folders)
    if fault:
        engine._network._decoder = MixedUp(engine._network._decoder)
    (prompts,) = [one for one in engine.warm_up(4) if one.optimisation == "prompts"]
    assert prompts.passed is not fault
    assert engine._network.prompts_at_once == (1 if fault else reference._network.prompts_at_once)
    rgb, sent = image(64, 64), tuple(Prompt(points=((x, 20.0, 1),)) for x in (5.0, 30.0, 60.0))
    (found,), (expected,) = ([one.masks(one.embed(rgb), (64, 64), sent)] for one in (engine, reference))
    assert np.array_equal(found.masks, expected.masks)


@each_family
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is available")
def test_on_a_gpu_every_optimisation_is_on(family: str, folders: Path) -> None:
    engine = ENGINES[family][0]()
    engine.setup("cuda", folders)
    passed = {one.optimisation: one.passed for one in engine.warm_up(4)}
    assert passed == {"half": True, "batch": True, "graph": True, "prompts": True}


# ONNX


@pytest.fixture(scope="module")
def exported(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="onnx is not installed: only the export needs it")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from sagemaker_model.export.sam import sam_decoder_to_onnx, sam_encoder_to_onnx

    root = tmp_path_factory.mktemp("onnx")
    for family, (_, _, name) in ENGINES.items():
        network = NETWORKS[family]()
        sam_encoder_to_onnx(network, root / f"{name}.encoder.onnx")
        sam_decoder_to_onnx(network, root / f"{name}.decoder.onnx")
    return root


@each_family
def test_the_onnx_files_give_the_alpha_of_torch(family: str, folders: Path, exported: Path) -> None:
    by_torch, by_onnx = load_engine(family, folders), load_engine(family, exported)
    assert isinstance(by_onnx._network, OnnxNetwork)
    rgb = image(80, 48)
    for count in (1, 2, 5):
        prompts = tuple(Prompt((i, 4, 60, 40)) for i in range(count))
        prompts += (Prompt(points=tuple((7.0 * i, 9.0, 1) for i in range(count))),)
        expected, found = by_torch.predict(rgb, prompts).values, by_onnx.predict(rgb, prompts).values
        assert np.abs(found - expected).max() < 1e-2  # the embeddings are rounded to half precision


def test_an_onnx_file_that_cannot_be_read_is_refused(tmp_path: Path, exported: Path) -> None:
    for half in ("encoder", "decoder"):
        (tmp_path / f"sam-vit_b.{half}.onnx").write_bytes((exported / f"sam-vit_b.{half}.onnx").read_bytes()[:500])
    with pytest.raises(InvalidWeights, match="damaged or not an ONNX network"):
        load_engine("sam", tmp_path)

"""The command `maskdrop repaint`, with the keys of its predecessor."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from cli.contact_sheet import CELL, Group, contact_sheet
from cli.repaint_config import KEYS, parse, read_config
from local.config import LocalError
from maskdrop.errors import EditFiltered, EditorUnavailable
from tests.unit.cli.conftest import ColourEditor, Run, pixels
from tests.unit.sagemaker_model.detectors.fake_detector import FakeDetector

OLD: dict[str, Any] = {
    "candidate_prompts": ["a beach", "a library"],
    "seed_range": "34,37",
    "cfgScale": 7.5,
    "height": 1152,
    "width": 768,
    "resize": False,
    "use_cuda": True,
    "modelId": "amazon.titan-image-generator-v1",
    "region": "us-west-2",
    "checkpoint": "sam_vit_h_4b8939.pth",
}
"""A configuration with every key of the predecessor."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(OLD))
    return path


def cells(path: Path) -> list[str]:
    return sorted(one.name for one in path.iterdir())


def test_the_old_command_writes_the_grid_of_candidates_and_a_contact_sheet(
    run: Run, two_people: Path, detector: FakeDetector, editor: ColourEditor, config: Path, tmp_path: Path
) -> None:
    result = run("repaint", "--config_file", config, "--img_path", two_people, "--target_label", "face")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "out" / "two.png"
    grid = [f"prompt-{number}-seed-{seed}.png" for number in (1, 2) for seed in (34, 35, 36)]
    assert cells(folder) == ["contact-sheet.jpg", *grid]
    assert [(one.prompt, one.seed) for one in editor.requests] == [
        (prompt, seed) for prompt in ("a beach", "a library") for seed in (34, 35, 36)
    ]
    assert editor.chosen == [("stability", "us-west-2")]
    candidate, source = pixels(folder / "prompt-1-seed-35.png"), pixels(two_people)
    assert candidate.shape == source.shape
    assert (candidate[400, :] == (35, 0, 255)).all()
    kept = (candidate == source).all(axis=2)
    assert kept[60:200, 170:280].any()
    assert kept[60:200, 744:856].any()  # all instances, not the last one only
    with Image.open(folder / "contact-sheet.jpg") as sheet:
        assert sheet.width >= 3 * CELL
        assert sheet.height > 3 * CELL / 2
    assert "Price: $0.42" in result.stderr


def test_every_old_key_is_read_and_one_without_an_effect_is_named() -> None:
    assert {*OLD} < {*KEYS}
    config = parse(OLD)
    assert (config.prompts, config.seeds) == (("a beach", "a library"), (34, 35, 36))
    assert (config.editor, config.region, config.size) == ("stability", "us-west-2", None)
    assert [warning.split(" ")[0] for warning in config.warnings] == [
        "cfgScale", "use_cuda", "modelId", "checkpoint", "height", "width",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"candidate_prompts": "a beach"}, {"prompts": ("a beach",), "seeds": (0,)}),
        ({"seed_range": [5, 9, 5]}, {"seeds": (5, 9)}),
        ({"seed_range": 7}, {"seeds": (7,)}),
        ({"seed_range": "34, 46"}, {"seeds": tuple(range(34, 46))}),
        ({"resize": True, "height": 1150, "width": 20}, {"size": (64, 1152)}),
        ({"modelId": "amazon.titan-image-generator-v2:0"}, {"editor": "titan"}),
        ({"modelId": "amazon.nova-canvas-v1:0"}, {"editor": "nova"}),
        ({"modelId": "us.stability.stable-image-inpaint-v1:0"}, {"editor": "stability"}),
        ({"region_name": "us-east-1", "seed_range": None}, {"region": "us-east-1", "seeds": (0,)}),
    ],
)
def test_a_key_has_its_old_meaning(keys: dict[str, Any], expected: dict[str, Any]) -> None:
    config = parse({"candidate_prompts": ["x"], **keys})
    assert {name: getattr(config, name) for name in expected} == expected


def test_unknown_keys_are_named_in_a_warning() -> None:
    [warning] = parse({"candidate_prompts": ["x"], "colour": "red", "steps": 3}).warnings
    assert warning.startswith("Unknown keys have no effect: colour, steps. Known keys: candidate_prompts, ")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"candidate_prompts": None}, "candidate_prompts must have at least one text"),
        ({"candidate_prompts": [3]}, "candidate_prompts must be texts"),
        ({"seed_range": "46,34"}, "seed_range must be"),
        ({"seed_range": "1,2,3"}, "seed_range must be"),
        ({"seed_range": "0,99999999999"}, "seed_range must be"),
        ({"seed_range": [-1]}, "seed_range must be"),
        ({"resize": "yes"}, "resize must be true or false"),
        ({"resize": True, "width": 768}, "height must be an integer"),
        ({"height": "big"}, "height must be an integer"),
    ],
)
def test_an_invalid_value_is_an_error_that_names_its_key(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(LocalError, match=message):
        parse({"candidate_prompts": ["x"], **keys})


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a\n", "mapping"), ("a: [", "not a YAML file"), ("!!python/name:os.system", "not a YAML file")],
)
def test_a_file_that_is_no_configuration_is_an_error_that_names_it(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(LocalError, match=message) as error:
        read_config(path)
    assert str(path) in str(error.value)


def test_a_photo_without_the_target_is_an_error_before_anything_is_paid(
    run: Run, two_people: Path, detector: FakeDetector, editor: ColourEditor, config: Path, tmp_path: Path
) -> None:
    detector.rows = ()
    result = run("repaint", "--config", config, "--img-path", two_people)
    assert result.exit_code == 1
    assert "Found no 'face' in" in result.output
    assert editor.requests == []
    assert not (tmp_path / "out").exists()


def test_a_folder_is_repainted_once_and_a_photo_without_the_target_does_not_stop_the_others(
    run: Run, two_people: Path, detector: FakeDetector, editor: ColourEditor, config: Path, tmp_path: Path
) -> None:
    config.write_text(yaml.safe_dump({"candidate_prompts": "a beach"}))
    (two_people.parent / "sub").mkdir()
    (two_people.parent / "sub" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    words = ("repaint", "--config", config, "--img-path", two_people.parent, "--editor", "stability")
    first = run(*words)
    assert (first.exit_code, "1 done, 0 skipped, 1 failed" in first.output) == (1, True), first.output
    assert (tmp_path / "out" / "two.png" / "contact-sheet.jpg").exists()
    second = run(*words)
    assert (second.exit_code, "0 done, 1 skipped, 1 failed" in second.output) == (1, True)
    assert len(editor.requests) == 1


def test_resize_scales_photo_and_mask_to_multiples_of_64(
    run: Run, two_people: Path, detector: FakeDetector, editor: ColourEditor, config: Path, tmp_path: Path
) -> None:
    keys = {"candidate_prompts": "a beach", "resize": True, "width": 500, "height": 250}
    config.write_text(yaml.safe_dump(keys))
    detector.rows = (("face", 0.9, (100.0, 40.0, 140.0, 100.0)),)
    result = run("repaint", "--config", config, "--img-path", two_people)
    assert result.exit_code == 0, result.output
    assert "width 500 is rounded to 512, a multiple of 64." in result.stderr
    [request] = editor.requests
    assert (request.width, request.height) == (512, 256)
    assert pixels(tmp_path / "out" / "two.png" / "prompt-1-seed-0.png").shape == (256, 512, 3)


def test_a_refused_candidate_does_not_stop_the_grid_and_an_error_keeps_what_was_paid(
    run: Run, two_people: Path, detector: FakeDetector, editor: ColourEditor, config: Path, tmp_path: Path
) -> None:
    editor.errors = [EditFiltered("Refused.")]
    result = run("repaint", "--config", config, "--img-path", two_people)
    assert result.exit_code == 1
    assert "edit_filtered: " in result.output
    folder = tmp_path / "out" / "two.png"
    assert len(cells(folder)) == 1 + 5

    editor.requests.clear()
    real, stop = editor.edit, EditorUnavailable("Timed out.", maybe_billed=True)

    def edit(request: Any) -> Any:
        if request.seed == 35:
            raise stop
        return real(request)

    editor.edit = edit  # type: ignore[method-assign]
    result = run("repaint", "--config", config, "--img-path", two_people)
    assert result.exit_code == 1
    assert "Timed out." in result.output
    assert len(cells(folder)) == 1 + 6


def test_a_contact_sheet_has_a_row_of_captioned_images_for_each_group() -> None:
    photo = Path(__file__).parents[3] / "samples" / "default" / "astronaut.png"
    one = contact_sheet([Group("1. a beach", [("seed 1", photo.read_bytes())])])
    images = [(f"seed {seed}", photo.read_bytes()) for seed in range(8)]
    many = contact_sheet([Group("long text " * 100, images), Group("2. a library", images[:1])])
    with Image.open(io.BytesIO(one)) as small, Image.open(io.BytesIO(many)) as large:
        assert (small.format, large.format) == ("JPEG", "JPEG")
        assert CELL < small.height < 2 * CELL
        assert 3 * CELL < large.height < 5 * CELL  # two rows of eight images, and one

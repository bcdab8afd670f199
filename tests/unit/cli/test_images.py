"""The commands `maskdrop mask`, `detect` and `replace`, with the bundled weights of `portrait` and a fake detector."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from cli import images, processing
from cli.app import app
from cli.options import PromptFlags
from cli.processing import Paint
from local import account
from maskdrop.edit import EditorName
from maskdrop.errors import EditFiltered, EditorUnavailable
from maskdrop.prompt import prompts_from_json
from tests.ai import running_ai
from tests.unit.cli.conftest import ColourEditor, Run, pixels, subject_alpha
from tests.unit.sagemaker_model.detectors.fake_detector import FakeDetector


def alpha(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened.convert("L"))


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_label_gives_the_mask_of_each_instance_and_their_union(
    run: Run, two_people: Path, detector: FakeDetector, tmp_path: Path
) -> None:
    result = run("mask", two_people, "--label", "face", "--instances", "each")
    assert result.exit_code == 0, result.output
    union, left, right = (alpha(tmp_path / "out" / name) for name in ("two.png.png", "two.png/1.png", "two.png/2.png"))
    assert {*np.unique(union)} == {0, 255}
    assert (union == np.maximum(left, right)).all()
    assert left[:, :512].any()
    assert not left[:, 512:].any()
    assert right[:, 512:].any()
    assert not right[:, :512].any()
    assert not (tmp_path / "out" / "two.png" / "3.png").exists()
    assert "face 0.90" in result.output


def test_a_label_gives_the_cut_out_of_each_instance(
    run: Run, two_people: Path, detector: FakeDetector, tmp_path: Path
) -> None:
    words = ("--label", "face", "--instances", "each", "--output", "crop=true", "--output", "format=webp")
    result = run("cutout", two_people, *words)
    assert result.exit_code == 0, result.output
    for number in (1, 2):
        with Image.open(tmp_path / "out" / "two.png" / f"{number}.webp") as opened:
            assert opened.format == "WEBP"
            assert opened.width < 300


def test_a_click_selects_one_instance(run: Run, two_people: Path, detector: FakeDetector, tmp_path: Path) -> None:
    result = run("mask", two_people, "--label", "face", "--instances", "each", "--point", "800,100", "--json")
    [record] = lines(result)
    [item] = record["results"]
    assert (item["label"], item["score"], item["result"]["path"]) == ("face", 0.6, str(tmp_path / "out/two.png/1.png"))
    assert not alpha(tmp_path / "out" / "two.png.png")[:, :512].any()


def test_the_confidence_and_the_largest_instance_select(run: Run, two_people: Path, detector: FakeDetector) -> None:
    confident = run("mask", two_people, "--label", "face", "--min-confidence", "80", "--instances", "each", "--json")
    assert [item["score"] for item in lines(confident)[0]["results"]] == [0.9]
    largest = run("mask", two_people, "--label", "face", "--select", "largest", "--instances", "each", "--json")
    assert [item["score"] for item in lines(largest)[0]["results"]] == [0.6]
    ignored = run("mask", two_people, "--label", "face", "--ignore", "face", "--json")
    assert lines(ignored)[0]["subject"]["box"] is None


def test_nothing_found_is_a_result_with_a_warning(run: Run, two_people: Path, detector: FakeDetector) -> None:
    detector.rows = ()
    result = run("mask", two_people, "--label", "face")
    assert result.exit_code == 0
    assert "label_not_found: found no 'face'" in result.output


def test_detections_are_printed_and_written_as_json(
    run: Run, two_people: Path, detector: FakeDetector, tmp_path: Path
) -> None:
    result = run("detect", two_people)
    assert result.exit_code == 0, result.output
    assert "170, 60, 280, 200" in result.output
    written = json.loads((tmp_path / "out" / "two.png.json").read_text())
    [record] = lines(run("detect", two_people, "--label", "face", "--min-confidence", "80", "--json"))
    assert record["detections"] == written["detections"][:1]
    assert (written["width"], written["height"], len(written["detections"])) == (1024, 512, 2)


def test_a_text_replaces_the_background_and_keeps_the_pixels_of_the_subject(
    run: Run, two_people: Path, tmp_path: Path
) -> None:
    result = run("replace", two_people, "--text", "white studio", "--text", "navy background", "--json")
    [record] = lines(result)
    made = [(item["prompt"], item["seed"]) for item in record["results"]]
    assert made == [("white studio", 0), ("navy background", 0)]
    assert record["cost_usd"] == 0
    matte, source = subject_alpha(two_people, tmp_path), pixels(two_people)
    composed = pixels(tmp_path / "out" / "two.png" / "2.png")
    assert (matte == 255).mean() > 0.2
    assert (composed[matte == 255] == source[matte == 255]).all()
    assert (composed[matte == 0] == (0, 0, 128)).all()
    assert (tmp_path / "out" / "two.png.png").read_bytes() == (tmp_path / "out" / "two.png" / "1.png").read_bytes()


def test_each_text_and_seed_is_one_call_of_the_editor_and_throttled_calls_are_repeated(
    run: Run, two_people: Path, editor: ColourEditor, tmp_path: Path
) -> None:
    editor.errors = [EditorUnavailable("Throttled."), EditorUnavailable("Throttled.")]
    words = ("--text", "a beach", "--seed", "7", "--seed", "8", "--negative-text", "people", "--change", "subject")
    result = run("replace", two_people, *words, "--json")
    [record] = lines(result)
    assert [request.seed for request in editor.requests] == [7, 7, 7, 8]
    assert {(one.prompt, one.negative_prompt, one.change) for one in editor.requests} == {
        ("a beach", "people", "subject")
    }
    assert record["cost_usd"] == 0.14
    assert result.stderr == "Price: $0.14 (stability.stable-image-inpaint-v1:0, $0.07 an image).\n"
    matte, source = subject_alpha(two_people, tmp_path), pixels(two_people)
    composed = pixels(tmp_path / "out" / "two.png" / "2.png")
    assert (composed[matte == 255] == (8, 0, 255)).all()
    assert (composed[matte == 0] == source[matte == 0]).all()


def test_an_editor_on_bedrock_is_called_with_the_credentials_of_the_user_and_billed_once_an_image(
    run: Run, two_people: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Against the emulator of Bedrock, which throttles two calls."""
    waits: list[float] = []

    def paint_of(name: EditorName, usd_max: float, region: str | None = None) -> Paint:
        return replace(processing.paint_of(name, usd_max, region), sleep=waits.append)

    with running_ai() as bedrock:
        account = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "NO_PROXY": "*"}
        for name, value in {**bedrock.config.ai_endpoints, **account}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(images, "paint_of", paint_of)
        bedrock.control(script={"InvokeModel": ["succeed", "ThrottlingException", "ThrottlingException"]})
        words = ("--text", "a beach", "--seed", "1", "--seed", "2", "--editor", "stability", "--region", "us-west-2")
        [record] = lines(run("replace", two_people, *words, "--json"))
        assert (bedrock.calls("InvokeModel"), len(bedrock.billed("InvokeModel"))) == (4, 2)
    assert waits == [2, 4]
    assert (record["cost_usd"], [item["seed"] for item in record["results"]]) == (0.14, [1, 2])
    matte, source = subject_alpha(two_people, tmp_path), pixels(two_people)
    composed = pixels(tmp_path / "out" / "two.png" / "2.png")
    assert (composed[matte == 255] == source[matte == 255]).all()
    assert (composed[matte == 0] != source[matte == 0]).any()


def test_an_editor_on_bedrock_needs_a_region(run: Run, two_people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "region_of_environment", lambda: "")
    result = run("replace", two_people, "--text", "a beach", "--editor", "nova")
    assert (result.exit_code, "--editor nova needs an AWS Region" in result.output) == (1, True)


def test_an_editor_on_bedrock_needs_credentials(run: Run, two_people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3.session.Session, "get_credentials", lambda _: None)
    result = run("replace", two_people, "--text", "a beach", "--editor", "nova", "--region", "us-east-1")
    assert "--editor nova needs AWS credentials" in result.output


def test_a_call_that_may_have_been_billed_is_not_repeated(run: Run, two_people: Path, editor: ColourEditor) -> None:
    editor.errors = [EditorUnavailable("Timed out.", maybe_billed=True)]
    result = run("replace", two_people, "--text", "a beach", "--json")
    assert (result.exit_code, len(editor.requests)) == (1, 1)
    assert lines(result)[0]["error"]["code"] == "editor_unavailable"


def test_a_price_above_the_maximum_stops_before_the_first_call(
    run: Run, two_people: Path, editor: ColourEditor, tmp_path: Path
) -> None:
    result = run("replace", two_people, "--text", "a beach", "--seed", "1", "--seed", "2", "--max-usd", "0.13")
    assert result.exit_code == 1
    assert "2 images cost $0.14, more than --max-usd 0.13" in result.output
    assert editor.requests == []
    assert not (tmp_path / "out").exists()


def test_a_candidate_that_the_content_filter_refuses_does_not_stop_the_others(
    run: Run, two_people: Path, editor: ColourEditor
) -> None:
    editor.errors = [EditFiltered("Refused.")]
    [record] = lines(run("replace", two_people, "--text", "a beach", "--seed", "1", "--seed", "2", "--json"))
    assert [item["seed"] for item in record["results"]] == [2]
    assert (record["cost_usd"], record["warnings"][-1].split(":")[0]) == (0.07, "edit_filtered")
    editor.errors = [EditFiltered("Refused.")]
    [record] = lines(run("replace", two_people, "--text", "a beach", "--json"))
    assert record["error"]["code"] == "edit_filtered"


def test_a_photo_that_fails_does_not_stop_the_others(run: Run, two_people: Path, tmp_path: Path) -> None:
    broken = tmp_path / "photos" / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff but no image")
    result = run("mask", broken, tmp_path / "photos" / "missing.jpg", two_people, "--json")
    assert result.exit_code == 1
    records = lines(result)
    assert {Path(record["photo"]).name: record["error"] and record["error"]["code"] for record in records} == {
        "broken.jpg": "unsupported_format",
        "missing.jpg": "source_missing",
        "two.png": None,
    }
    assert (tmp_path / "out" / "two.png.png").exists()
    table = run("mask", broken, two_people).output
    assert "unsupported_format: " in table
    assert "1 skipped, because their result exists" in table


@pytest.mark.parametrize(("threshold", "printed"), [("1", True), ("0", False)])
def test_a_result_below_the_threshold_is_listed_for_a_review(
    run: Run, two_people: Path, threshold: str, printed: bool
) -> None:
    result = run("cutout", two_people, "--engine", "portrait", "--review-below", threshold)
    assert result.exit_code == 0, result.output
    assert ("needs review: score 0." in result.output) == printed


def test_a_background_is_a_colour_or_a_file_of_this_machine(run: Run, two_people: Path, tmp_path: Path) -> None:
    wall = tmp_path / "wall.png"
    Image.new("RGB", (8, 4), "navy").save(wall)
    plain = ("--engine", "portrait", "--output", "format=png")
    assert run("replace", two_people, "--background", f"cover file://{wall}", *plain).exit_code == 0
    from_file = pixels(tmp_path / "out" / "two.png.png")
    assert run("replace", two_people, "--background", "navy", *plain).exit_code == 0
    assert (from_file == pixels(tmp_path / "out" / "two.png.png")).all()


def test_a_preset_is_replaced_field_by_field(run: Run, two_people: Path, tmp_path: Path) -> None:
    result = run("cutout", two_people, "--preset", "product", "--output", "background=gold")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "out" / f"{two_people.name}.jpg") as image:
        assert image.width == image.height, "of the preset"
        assert np.asarray(image)[0, 0, 2] < 100, "gold"


def test_an_unknown_preset_is_refused_with_the_known_names(run: Run, two_people: Path) -> None:
    result = run("cutout", two_people, "--preset", "shop")
    assert result.exit_code == 2
    assert "product, sticker; got 'shop'" in result.output


@pytest.mark.parametrize(
    ("words", "message", "status"),
    [
        (("mask", "--box", "1,2,3"), "--box must be x0,y0,x1,y1 in pixels; got '1,2,3'.", 2),
        (("mask", "--point", "a,b"), "--point must be x,y or x,y,label in pixels; got 'a,b'.", 2),
        (("mask", "--select", "largest"), "--select and --min-confidence need --label.", 2),
        (("mask", "--prompt", "{"), "--prompt must be JSON", 2),
        (("mask", "--prompt", "{}", "--label", "face"), "--prompt replaces the other flags", 2),
        (("mask", "--engine", "modnet"), "The engine modnet cannot be loaded", 1),
        (("mask", "--engine", "isnet-general-use"), "maskdrop models pull isnet-general-use", 1),
        (("mask", "--engine", "bria-rmbg"), "MODEL_NON_COMMERCIAL=1", 1),
        (("mask", "--engine", "nobody"), "nobody", 2),
        (("mask", "--output", "format"), "FIELD=VALUE", 2),
        (("mask", "--instances", "each"), '"instances" can be "each" only', 2),
        (("replace",), "use --background or --text", 2),
        (("mask", "https://example.com/a.jpg"), "not a URL", 2),
        (("replace", "--text", "a beach"), "the word 'beach' is unknown here", 1),
        (("replace", "--background", "white", "--seed", "1"), "--seed, --negative-text and --change need --text.", 2),
        (("replace", "--background", "file:///nowhere.jpg"), "/nowhere.jpg cannot be read", 1),
    ],
)
def test_an_error_of_the_options_is_printed_without_a_traceback(
    run: Run, two_people: Path, tmp_path: Path, words: tuple[str, ...], message: str, status: int
) -> None:
    result = run(words[0], two_people, *words[1:])
    assert result.exit_code == status
    assert message in " ".join(result.output.split())
    assert isinstance(result.exception, SystemExit)
    assert not (tmp_path / "out").exists()


def test_results_never_replace_a_photo_or_each_other(run: Run, two_people: Path, tmp_path: Path) -> None:
    twice = run("mask", two_people, two_people)
    assert (twice.exit_code, "Several photos have the result" in twice.output) == (2, True)
    beside = CliRunner().invoke(app, ["mask", str(two_people), "--out", str(two_people.parent)])
    assert (beside.exit_code, "--out must not be the folder of" in " ".join(beside.output.split())) == (2, True)


def test_a_file_of_a_format_that_is_only_read_is_no_result(two_people: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["mask", str(two_people), "--out", str(tmp_path / "mask.gif")])
    assert (result.exit_code, "mask.gif" in result.output) == (2, True)
    assert not (tmp_path / "mask.gif").exists(), "no folder of this name"


@pytest.mark.parametrize(
    ("flags", "prompts"),
    [
        (PromptFlags(), None),
        (PromptFlags(boxes=["1,2,3,4"]), [{"box": [1, 2, 3, 4]}]),
        (
            PromptFlags(boxes=["1,2,3,4"], points=["2,3", "3,3,0"]),
            [{"box": [1, 2, 3, 4], "points": [[2, 3], [3, 3]], "labels": [1, 0]}],
        ),
        (
            PromptFlags(boxes=["1,2,3,4", "5,6,7,8"], points=["2,3"]),
            [{"box": [1, 2, 3, 4]}, {"box": [5, 6, 7, 8]}, {"points": [[2, 3]], "labels": [1]}],
        ),
        (
            PromptFlags(labels=["face", "dog"], boxes=["1,2,3,4"], points=["2,3"], select="largest", min_confidence=60),
            [
                {"label": "face", "points": [[2, 3]], "labels": [1], "select": "largest", "min_confidence": 60},
                {"label": "dog", "points": [[2, 3]], "labels": [1], "select": "largest", "min_confidence": 60},
                {"box": [1, 2, 3, 4]},
            ],
        ),
        (
            PromptFlags(boxes=["1,2,3,4"], ignore=["person", "2,2,3,3"], min_confidence=50),
            [
                {"box": [1, 2, 3, 4]},
                {"label": "person", "mode": "ignore", "min_confidence": 50},
                {"box": [2, 2, 3, 3], "mode": "ignore"},
            ],
        ),
        (PromptFlags(prompt='{"label": "face"}'), {"label": "face"}),
    ],
)
def test_flags_become_prompts(flags: PromptFlags, prompts: Any) -> None:
    assert prompts_from_json(flags.to_json()) == prompts_from_json(prompts)

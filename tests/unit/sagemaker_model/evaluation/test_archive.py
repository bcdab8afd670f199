"""Tests pairs, alignment and report of an archive: originals with the cut-outs that another service made."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cli.app import app
from sagemaker_model.data.records import InvalidData
from sagemaker_model.evaluation.archive import NotAligned, align, find_pairs, read_cutout, write_dataset
from sagemaker_model.evaluation.summary import Unscored
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized
from tests.unit.sagemaker_model.evaluation.synthetic import DiscEngine
from tests.unit.sagemaker_model.evaluation.test_report import Page

SHARED = Path(__file__).parents[5] / "shared" / "data"

CENTRE, RADIUS = (150, 90), 50


def photo(seed: int = 0, size: tuple[int, int] = (240, 180)) -> Pixels:
    """A light textured disc on a dark textured background, HxWx3 RGB."""
    width, height = size
    noise = np.random.default_rng(seed).integers(0, 90, (height // 12, width // 12, 3)).astype(np.uint8)
    texture = cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
    return np.asarray(texture + np.where(disc_alpha(size)[..., None] > 0, 140, 0), np.uint8)


def disc_alpha(size: tuple[int, int] = (240, 180)) -> Pixels:
    alpha = np.zeros(size[::-1], np.uint8)
    cv2.circle(alpha, CENTRE, RADIUS, 255, -1)
    return alpha


def rgba(rgb: Pixels, alpha: Pixels) -> Image.Image:
    """A cut-out as services make it: invisible pixels are black."""
    return Image.fromarray(np.dstack((rgb * (alpha[..., None] > 0), alpha)))


def cutout(scale: float = 1.0, *, crop: bool = False, canvas: tuple[int, int] | None = None) -> Image.Image:
    image = rgba(photo(), disc_alpha())
    if crop or canvas:
        image = image.crop(image.getbbox())
    if scale != 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    if canvas:
        whole = Image.new("RGBA", canvas)
        whole.paste(image, (7, 11))
        return whole
    return image


@pytest.mark.parametrize(
    ("image", "scale"),
    [
        (cutout(), 1.0),
        (cutout(0.5), 0.5),
        (cutout(0.37), 0.37),
        (cutout(crop=True), 1.0),
        (cutout(0.6, crop=True), 0.6),
        (cutout(1.3, crop=True), 1.3),
        (cutout(canvas=(320, 200)), 1.0),
        (cutout(0.8, canvas=(240, 180)), 0.8),
    ],
    ids=["same", "half", "preview", "crop", "small crop", "enlarged crop", "canvas", "canvas of the same size"],
)
def test_a_cutout_is_found_in_its_original(image: Image.Image, scale: float) -> None:
    pixels = np.asarray(image)

    aligned = align(photo(), pixels[..., :3], pixels[..., 3])

    expected = resized(disc_alpha(), aligned.alpha.shape[::-1]) >= 128
    found = aligned.alpha >= 128
    assert aligned.placement.scale == pytest.approx(scale, rel=0.02)
    assert np.count_nonzero(found & expected) / np.count_nonzero(found | expected) > 0.95
    assert aligned.rgb.shape[:2] == aligned.alpha.shape


def test_a_cutout_of_another_photo_is_not_aligned() -> None:
    image = np.asarray(rgba(255 - photo(5), disc_alpha()).crop((90, 30, 210, 150)))

    with pytest.raises(NotAligned, match="of another photo"):
        align(photo(), image[..., :3], image[..., 3])


def test_a_grey_matte_needs_the_shape_of_the_original(tmp_path: Path) -> None:
    Image.fromarray(disc_alpha()).save(tmp_path / "a.png")
    colours, alpha = read_cutout(tmp_path / "a.png")

    assert np.array_equal(align(photo(), colours, alpha).alpha, disc_alpha())
    with pytest.raises(NotAligned, match="another shape"):
        align(photo(), colours[10:], alpha[10:])


def test_a_zip_of_colour_and_alpha_is_a_cutout(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, pixels in (("color.jpg", photo()), ("alpha.png", disc_alpha())):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG" if name.endswith("jpg") else "PNG")
            archive.writestr(name, file.getvalue())

    colours, alpha = read_cutout(tmp_path / "a.zip")

    assert colours.shape == (180, 240, 3)
    assert np.array_equal(alpha, disc_alpha())


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.png", b"no image", "damaged or not an image"),
        ("a.zip", b"PK", "damaged or not an image"),
        ("b.png", None, "no alpha channel"),
    ],
)
def test_a_file_that_is_not_a_cutout_is_rejected(tmp_path: Path, name: str, data: bytes | None, message: str) -> None:
    if data is None:
        Image.fromarray(photo()).save(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(data)

    with pytest.raises(InvalidData, match=message):
        read_cutout(tmp_path / name)


PAIRS = {
    "a.jpg": "a.png",
    "b.jpg": "b-removebg-preview.png",
    "shop/c.jpeg": "shop/c_no_bg.png",
    "d.png": "d.png_no_bg.png",
    "e.JPG": "E (1).png",
    "shop/f.jpg": "done/f-removebg-preview (2).webp",
    "g-cutout.jpg": "g-cutout.png",
    "h.jpg": "h.zip",
    "x/i.jpg": "x/i.png",
    "y/i.jpg": "y/i.png",
}


def test_cutouts_are_paired_by_name_without_the_endings_of_services(tmp_path: Path) -> None:
    for folder, names in (("in", PAIRS), ("out", PAIRS.values())):
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (tmp_path / "in" / "alone.jpg").touch()
    (tmp_path / "out" / "i.png").touch()
    (tmp_path / "out" / "stranger.png").touch()

    found = find_pairs(tmp_path / "in", tmp_path / "out")

    pairs = {
        pair.original.relative_to(tmp_path / "in").as_posix(): pair.cutout.relative_to(tmp_path / "out").as_posix()
        for pair in found.pairs
    }
    assert pairs == PAIRS
    assert {(one.id, one.reason) for one in found.alone} == {
        ("alone.jpg", "no cut-out has its name"),
        ("i.png", "2 originals have its name"),
        ("stranger.png", "no original has its name"),
    }
    assert len({pair.id for pair in found.pairs}) == len(PAIRS)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Originals with cut-outs: two that agree with the engine, one that shows half of the subject, one damaged."""
    for name in ("originals", "cutouts"):
        (tmp_path / name).mkdir()
    half = disc_alpha()
    half[:, CENTRE[0] :] = 0
    for number, image in enumerate((cutout(), cutout(0.5, crop=True), rgba(photo(), half))):
        Image.fromarray(photo()).save(tmp_path / "originals" / f"{number}.png")
        image.save(tmp_path / "cutouts" / f"{number}-removebg-preview.png")
    Image.fromarray(photo()).save(tmp_path / "originals" / "3.png")
    (tmp_path / "cutouts" / "3.png").write_bytes(b"damaged")
    return tmp_path


def compare(archive: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr("cli.migrate.compare.installed_engine", lambda *_: DiscEngine())
    folders = [str(archive / name) for name in ("originals", "cutouts")]
    result = CliRunner().invoke(
        app, ["migrate", "compare", *folders, "--engine", "portrait", "--out", str(archive / "out"), *words]
    )
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_report_shows_disagreements_first_with_a_verdict(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = compare(archive, monkeypatch)

    text = (archive / "out" / "report.html").read_text()
    page = Page(text)
    assert "Do not switch yet: portrait agrees with 2 of 3 cut-outs" in " ".join(output.split())
    assert "3.png: the cut-out is damaged or not an image" in output
    assert text.index("2-removebg-preview") < text.index("0-removebg-preview")
    assert re.search(r"1-removebg-preview.png · .* · scale 0\.(49|50)\d, cropped at", text)
    assert len(page.sources) == 4 * 3
    image, archived, ours, difference = page.images()[:4]
    assert archived.shape == ours.shape == image.shape
    right = (slice(60, 100), slice(150, 170))  # the half of the subject that the archive lacks, in the thumbnail
    assert np.abs(ours[right].astype(int) - image[right]).mean() < 12
    assert np.abs(archived[right].astype(int) - image[right]).mean() > 20
    assert difference[right][..., 2].mean() > 200


def test_json_has_the_summary_and_the_verdict(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.loads(compare(archive, monkeypatch, "--json"))

    (engine,) = content["engines"]
    assert (engine["pairs"], engine["agreeing"]) == (3, 2)
    assert engine["summary"]["subjects"]["mean"]["iou"] == pytest.approx(5 / 6, abs=0.02)
    assert [one["id"] for one in content["not_compared"]] == ["3.png"]


def test_folders_without_images_are_rejected(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["migrate", "compare", str(tmp_path), str(tmp_path), "--engine", "grabcut"])

    assert result.exit_code == 1
    assert "has no images" in result.output


@pytest.mark.skipif(not SHARED.exists(), reason="the folder shared/data is missing")
def test_thirty_cutouts_of_photos_are_aligned(tmp_path: Path) -> None:
    with (SHARED / "people" / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if 0.1 < float(row["fg_fraction"] or 0) < 0.7][::40][:30]
    for name in ("originals", "cutouts"):
        (tmp_path / name).mkdir()
    scales = {}
    for number, row in enumerate(rows):
        original = Image.open(SHARED / "people" / "images" / f"{row['id']}.jpg").convert("RGB")
        original.thumbnail((320, 320))
        mask = Image.open(SHARED / "people" / "masks" / f"{row['id']}.png").convert("L").resize(original.size)
        original.save(tmp_path / "originals" / f"{row['id']}.jpg", quality=95)
        image = rgba(np.asarray(original), np.asarray(mask))
        if number % 3:
            image = image.crop(image.getbbox())
        scales[row["id"]] = scale = (1.0, 0.5, 0.73)[number % 3]
        size = (round(image.width * scale), round(image.height * scale))
        image.resize(size, Image.Resampling.LANCZOS).save(tmp_path / "cutouts" / f"{row['id']}-removebg-preview.png")

    pairs = find_pairs(tmp_path / "originals", tmp_path / "cutouts").pairs
    outcomes = [*write_dataset(pairs, tmp_path / "data", workers=2)]

    assert len(outcomes) == 30
    wrong = [
        (pair.id, outcome)
        for pair, outcome in zip(pairs, outcomes, strict=True)
        if isinstance(outcome, Unscored) or abs(outcome.scale / scales[pair.original.stem] - 1) > 0.03
    ]
    assert not wrong

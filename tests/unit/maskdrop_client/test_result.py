"""Saving and showing results."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maskdrop_client import InvalidUsage, Result
from maskdrop_client.result import PREVIEW_BYTES, PREVIEW_SIDE


def result(format_: str = "PNG", size: tuple[int, int] = (4, 3), **fields: Any) -> Result:
    buffer = BytesIO()
    Image.new("RGB", size, "red").save(buffer, format_)
    values: dict[str, Any] = {"data": buffer.getvalue(), "content_type": f"image/{format_.lower()}"}
    return Result(**{**values, "width": size[0], "height": size[1], "name": "photo", **fields})


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("a.png", "a.png"),
        ("a.PNG", "a.PNG"),
        ("new/folder/a.png", "new/folder/a.png"),
        ("a", "a.png"),
        ("existing", "existing/photo.png"),
        ("new/", "new/photo.png"),
    ],
)
def test_a_result_is_saved_as_a_file_or_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, written: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("existing").mkdir()
    one = result()
    assert one.save(path) == Path(written)
    assert Path(written).read_bytes() == one.data
    assert [found.name for found in Path(written).parent.iterdir() if found.name.startswith(".")] == []


def test_a_result_replaces_an_older_file_of_its_format_only(tmp_path: Path) -> None:
    one = result()
    (tmp_path / "a.png").write_bytes(b"older")
    one.save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == one.data
    with pytest.raises(InvalidUsage, match=r"The result is image/png; its file must end with \.png; got 'photo\.jpg'"):
        one.save(tmp_path / "photo.jpg")
    result("JPEG").save(tmp_path / "photo.jpeg")


def test_a_notebook_shows_a_small_result_as_it_is_and_scales_a_large_one() -> None:
    small = result()
    assert small._repr_png_() == small.data
    noise = result("JPEG", (3000, 2000))
    shown = noise._repr_png_()
    assert shown
    with Image.open(BytesIO(shown)) as opened:
        assert (opened.format, max(opened.size)) == ("PNG", PREVIEW_SIDE)
    large = result(data=small.data + bytes(PREVIEW_BYTES))
    assert large._repr_png_() not in (None, large.data)


def test_a_result_without_an_image_has_no_preview() -> None:
    zipped = result(content_type="application/zip", data=b"PK")
    assert zipped._repr_png_() is None
    with pytest.raises(InvalidUsage, match="application/zip, not an image"):
        zipped.image()
    damaged = result(content_type="image/webp", data=b"RIFF")
    assert damaged._repr_png_() is None


def test_without_pillow_a_png_is_shown_and_other_formats_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    png, jpeg = result(), result("JPEG")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert png._repr_png_() == png.data
    assert jpeg._repr_png_() is None
    with pytest.raises(InvalidUsage, match="pip install pillow"):
        jpeg.image()


def test_the_representation_has_no_bytes() -> None:
    text = repr(result())
    assert "image/png" in text
    assert "PNG\\r" not in text

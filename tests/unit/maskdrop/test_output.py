from __future__ import annotations

import json
import math
import re
import string
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageColor

from maskdrop.background import BackgroundImage, Blur, Colour, Gradient, Position, Stop, Studio, gradient_of
from maskdrop.canvas import MARKETPLACES, AspectRatio, Canvas
from maskdrop.colours import NAMES
from maskdrop.errors import InvalidOptions, OptionsConflict, RegionEmpty, RegionOutside
from maskdrop.job import job_id
from maskdrop.lengths import Length, Margins
from maskdrop.options import Options
from maskdrop.outline import Outline
from maskdrop.output import FIELDS, Output, Region
from maskdrop.schema import output_fields
from maskdrop.shadow import ContactShadow, DropShadow
from maskdrop.studio import BACKDROPS
from tests.fakes import a_source

PADDING = Margins(Length(45, "%"), Length(2000), Length(0), Length(1))
WHITE, SILVER = Colour(255, 255, 255), Colour(0xCC, 0xCC, 0xCC)


def parsed(**value: object) -> Output:
    return Output.from_json(value)


def percent(least: int, most: int) -> st.SearchStrategy[float]:
    return st.integers(least * 1000, most * 1000).map(lambda thousandths: thousandths / 1000)


def lengths(pixels: int, share: int) -> st.SearchStrategy[Length]:
    return st.builds(Length, percent(0, pixels), st.just("px")) | st.builds(Length, percent(0, share), st.just("%"))


COLOURS = st.builds(Colour, *[st.integers(0, 255)] * 4)
OPAQUE = st.builds(Colour, *[st.integers(0, 255)] * 3)
POSITIONS = st.builds(Position, percent(0, 100), percent(0, 100))


def gradients(count: int) -> st.SearchStrategy[Gradient]:
    places = st.lists(percent(0, 100), min_size=count, max_size=count).map(sorted)
    stops = st.builds(lambda ats, colours: tuple(map(Stop, colours, ats)), places, st.lists(OPAQUE, min_size=count))
    even = st.lists(OPAQUE, min_size=count, max_size=count).map(lambda colours: gradient_of(colours).stops)
    return st.builds(Gradient, stops.filter(lambda found: len(found) == count) | even, st.none() | percent(0, 359))


IMAGES = st.builds(BackgroundImage, st.text(min_size=1), st.text(min_size=1), st.just("cover"), POSITIONS) | st.builds(
    BackgroundImage, st.text(min_size=1), st.text(min_size=1), st.just("contain"), POSITIONS, st.none() | COLOURS
)
DRAWN = COLOURS | st.integers(2, 5).flatmap(gradients) | st.builds(Studio, st.sampled_from(sorted(BACKDROPS)))
BACKGROUNDS = DRAWN | st.builds(Blur, percent(1, 10)) | IMAGES
SHADOWS = st.builds(
    DropShadow, percent(-50, 50), percent(-50, 50), percent(0, 20), percent(0, 100), OPAQUE
) | st.builds(ContactShadow, percent(0, 100), OPAQUE)

CANVASES = st.builds(Canvas, st.integers(400, 900), st.integers(400, 900)) | st.builds(
    lambda across, down: AspectRatio(across // math.gcd(across, down), down // math.gcd(across, down)),
    st.integers(1, 9),
    st.integers(1, 9),
)
OUTLINES = st.builds(Outline, percent(1, 50).map(Length) | st.builds(Length, percent(1, 20), st.just("%")), OPAQUE)


def consistent(size: str, crop: Margins | None, padding: Margins | None, scale: float | None, **form: Any) -> Output:
    """An output in which fields that exclude each other are left out."""
    if padding:
        crop, scale = crop and Margins(), None
    chosen: Any = "original" if isinstance(form["canvas"], Canvas) else size
    try:
        return Output(size=chosen, crop=crop, padding=padding, scale=scale, **form)
    except OptionsConflict:  # no room for the subject
        return Output(size=chosen, crop=crop, **{**form, "outline": None})


OUTPUTS = st.builds(
    consistent,
    format=st.sampled_from(["png", "webp", "jpg"]),
    size=st.sampled_from(["preview", "medium", "hd", "original"]),
    roi=st.none() | st.builds(Region, *[lengths(100_000, 100)] * 4),
    crop=st.none() | st.builds(Margins, *[lengths(500, 50)] * 4),
    outline=st.none() | OUTLINES,
    canvas=st.none() | CANVASES,
    padding=st.none() | st.builds(Margins, *[lengths(150, 45)] * 4),
    scale=st.none() | percent(10, 100),
    position=st.none() | POSITIONS,
    shadow=st.none() | SHADOWS,
    background=st.none() | BACKGROUNDS,
)


@given(OUTPUTS)
def test_an_output_survives_a_round_trip(output: Output) -> None:
    assert Output.from_json(json.loads(json.dumps(output.to_json()))) == output


@given(OUTPUTS)
def test_every_written_output_matches_the_published_patterns(output: Output) -> None:
    written = output.to_json()
    assert set(written) <= set(FIELDS)
    texts = {name: value for name, value in written.items() if not isinstance(value, dict)}
    assert not [name for name, text in texts.items() if not re.fullmatch(FIELDS[name].pattern, text)]


@pytest.mark.parametrize("field", ["background", "shadow", "canvas", "padding", "outline"])
@given(data=st.data())
def test_every_text_of_the_published_pattern_is_parsed(field: str, data: st.DataObject) -> None:
    parsed(**{field: data.draw(st.from_regex(FIELDS[field].pattern, fullmatch=True, alphabet=string.printable))})


@given(IMAGES, st.sampled_from(["k", "A Room/1.jpg", "50% s3://k", "contain"]))
def test_the_text_form_of_an_image_is_its_json_form(image: BackgroundImage, key: str) -> None:
    image = replace(image, bucket="b", key=key)
    assert parsed(background=str(image)).background == image


def test_of_the_defaults_only_format_and_channels_are_written() -> None:
    assert Output().to_json() == {"format": "png", "channels": "rgba"}


def test_new_options_do_not_change_the_ids_of_existing_jobs() -> None:
    ids = {
        "aa3acb67": Options(engine="selfie"),
        "b2251d1b": Options(engine="selfie", output=Output("webp")),
        "506196fa": Options(engine="selfie", output=Output(channels="alpha")),
        "9410139a": Options(engine="grabcut"),
        "ec0274a8": Options(engine="selfie", output=Output(background=BackgroundImage("b", "k"))),
    }
    assert [job_id(a_source(), options)[:8] for options in ids.values()] == list(ids)


def test_aliases_of_one_result_have_one_id() -> None:
    ways = (
        {"size": "full", "background": "red", "crop": "10px 5% 10px 5%", "position": "50%", "scale": "80%"},
        {"size": "4k", "background": "#F00", "crop": "10px 5%", "position": "center", "scale": "80.000%"},
        {"size": "auto", "background": "ff0000ff", "crop": " 10.0px  5% ", "position": "50% 50%", "scale": "80%"},
    )
    ids = {job_id(a_source(), Options.from_json({"output": output})) for output in ways}
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("value", "output"),
    [
        ({"format": "jpeg"}, Output("jpg")),
        ({"format": "zip"}, Output("zip")),
        ({"size": "small"}, Output(size="preview")),
        ({"size": "regular"}, Output(size="preview")),
        ({"roi": "0 5% 100px 95.5%"}, Output(roi=Region(Length(0), Length(5, "%"), Length(100), Length(95.5, "%")))),
        ({"crop": True}, Output(crop=Margins())),
        ({"crop": "true"}, Output(crop=Margins())),
        ({"crop": False}, Output()),
        ({"crop": "5px"}, Output(crop=Margins(*[Length(5)] * 4))),
        ({"crop": "1px 2px 3px 50%"}, Output(crop=Margins(Length(1), Length(2), Length(3), Length(50, "%")))),
        ({"crop": "1px 2%"}, Output(crop=Margins(Length(1), Length(2, "%"), Length(1), Length(2, "%")))),
        ({"scale": "original", "position": "original"}, Output()),
        ({"scale": "33.3%", "position": "0% 100%"}, Output(scale=33.3, position=Position(0, 100))),
        ({"position": "20%"}, Output(position=Position(20, 20))),
        ({"background": "81d4fa"}, Output(background=Colour(0x81, 0xD4, 0xFA))),
        ({"background": "#81d4fa80"}, Output(background=Colour(0x81, 0xD4, 0xFA, 0x80))),
        ({"background": "#fa05"}, Output(background=Colour(0xFF, 0xAA, 0x00, 0x55))),
        ({"background": "RebeccaPurple"}, Output(background=Colour(0x66, 0x33, 0x99))),
        ({"background": "blur"}, Output(background=Blur(2))),
        ({"background": "blur 0.5%"}, Output(background=Blur(0.5))),
        ({"background": {"bucket": "b", "key": "k"}}, Output(background=BackgroundImage("b", "k"))),
        ({"background": "gradient #fff #CCC"}, Output(background=gradient_of([WHITE, SILVER]))),
        ({"background": "gradient 180deg white ccc 100%"}, Output(background=gradient_of([WHITE, SILVER]))),
        ({"background": "gradient 360deg white #ccc"}, Output(background=gradient_of([WHITE, SILVER], 0))),
        ({"background": "gradient radial white #ccc"}, Output(background=gradient_of([WHITE, SILVER], None))),
        (
            {"background": "gradient 45deg white 10% #ccc white 50% #ccc 20%"},
            Output(background=Gradient((Stop(WHITE, 10), Stop(SILVER, 30), Stop(WHITE, 50), Stop(SILVER, 50)), 45)),
        ),
        ({"background": "studio Grey"}, Output(background=Studio("grey"))),
        ({"background": "studio gray"}, Output(background=Studio("grey"))),
        (
            {"background": {"bucket": "b", "key": "k", "fit": "contain", "position": "50% 100%", "fill": "white"}},
            Output(background=BackgroundImage("b", "k", "contain", Position(50, 100), WHITE)),
        ),
        (
            {"background": "contain 50% 100% white s3://b/k"},
            Output(background=BackgroundImage("b", "k", "contain", Position(50, 100), WHITE)),
        ),
        ({"background": "0% s3://b/k"}, Output(background=BackgroundImage("b", "k", position=Position(0, 0)))),
        ({"background": "cover s3://b/k"}, Output(background=BackgroundImage("b", "k"))),
        ({"shadow": "none"}, Output()),
        ({"shadow": "drop"}, Output(shadow=DropShadow())),
        ({"shadow": "drop 40%"}, Output(shadow=DropShadow(opacity=40))),
        ({"shadow": "drop -1% 2% 3%"}, Output(shadow=DropShadow(-1, 2, 3))),
        ({"shadow": "drop 1% 2% 3% 4% #ccc"}, Output(shadow=DropShadow(1, 2, 3, 4, SILVER))),
        ({"shadow": "contact"}, Output(shadow=ContactShadow())),
        ({"shadow": "Contact 20% #ccc"}, Output(shadow=ContactShadow(20, SILVER))),
        ({"canvas": "1000x1000"}, Output(canvas=Canvas(1000, 1000))),
        ({"canvas": " 10000X1 "}, Output(canvas=Canvas(10_000, 1))),
        ({"canvas": "8:10"}, Output(canvas=AspectRatio(4, 5))),
        ({"canvas": "191:100"}, Output(canvas=AspectRatio(191, 100))),
        ({"padding": "10%"}, Output(padding=Margins(*[Length(10, "%")] * 4))),
        ({"padding": "0"}, Output(padding=Margins())),
        ({"padding": "10% 20px"}, Output(padding=Margins(*[Length(10, "%"), Length(20)] * 2))),
        ({"crop": True, "padding": "45% 2000px 0 1px"}, Output(crop=Margins(), padding=PADDING)),
        ({"outline": "none"}, Output()),
        ({"outline": "0"}, Output()),
        ({"outline": "8px"}, Output(outline=Outline(Length(8)))),
        ({"outline": "2.5% Gold"}, Output(outline=Outline(Length(2.5, "%"), Colour(255, 215, 0)))),
        ({"background": "s3://b/A Room/1.jpg"}, Output(background=BackgroundImage("b", "A Room/1.jpg"))),
        ({"roi": None, "crop": None, "background": None, "size": None}, Output()),
    ],
)
def test_documented_values_are_parsed(value: dict[str, object], output: Output) -> None:
    assert Output.from_json(value) == output


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "gif"),
        ("channels", "rgb"),
        ("size", "8k"),
        ("size", 4),
        ("roi", "10px 10px 20px"),
        ("roi", "10 10 20 20"),
        ("roi", "0% 0% 101% 100%"),
        ("roi", "-1px 0 5px 5px"),
        ("roi", "0 0 ٣px 5px"),
        ("crop", 1),
        ("crop", "501px"),
        ("crop", "50.1%"),
        ("crop", "1px 2px 3px"),
        ("crop", ""),
        ("scale", "9.9%"),
        ("scale", "100.1%"),
        ("scale", "80"),
        ("scale", 80),
        ("position", "left"),
        ("position", "101%"),
        ("position", "10% 10% 10%"),
        ("background", "reddish"),
        ("background", "ff"),
        ("background", "fffff"),
        ("background", "red blue"),
        ("background", "blur 11%"),
        ("background", "blur 20px"),
        ("background", "gradient"),
        ("background", "gradient red"),
        ("background", "gradient red blue red blue red blue"),
        ("background", "gradient 361deg red blue"),
        ("background", "gradient 10% red blue"),
        ("background", "gradient red 10% 20% blue"),
        ("background", "gradient red 101% blue"),
        ("background", "gradient #ff000080 blue"),
        ("background", "radial red blue"),
        ("background", "studio"),
        ("background", "studio beach"),
        ("background", "studio white grey"),
        ("background", "cover white s3://b/k"),
        ("background", "contain white blue s3://b/k"),
        ("background", "stretch s3://b/k"),
        ("background", {"bucket": "b", "key": "k", "fit": "fill"}),
        ("background", {"bucket": "b", "key": "k", "fill": "white"}),
        ("background", {"bucket": "b", "key": "k", "position": "left"}),
        ("background", {"bucket": "b", "key": "k", "region": "eu-west-1"}),
        ("size", "1000x1000"),
        ("canvas", "1000"),
        ("canvas", "0x10"),
        ("canvas", "60000x60000"),
        ("canvas", "10001x10"),
        ("canvas", "1000 x 1000"),
        ("canvas", "1.91:1"),
        ("canvas", "1:0"),
        ("canvas", "amazon.com"),
        ("canvas", 1000),
        ("padding", "46%"),
        ("padding", "2001px"),
        ("padding", "10% 10% 10%"),
        ("padding", "-1px"),
        ("padding", "10"),
        ("outline", True),
        ("outline", ""),
        ("outline", "white"),
        ("outline", "101px"),
        ("outline", "21%"),
        ("outline", "8px #fff8"),
        ("shadow", True),
        ("shadow", ""),
        ("shadow", "car"),
        ("shadow", "drop 1% 2%"),
        ("shadow", "drop 51% 0% 0%"),
        ("shadow", "drop 0% 0% 21%"),
        ("shadow", "drop 0% 0% -1%"),
        ("shadow", "drop 2px 2px 2px"),
        ("shadow", "contact 1% 2% 3%"),
        ("shadow", "contact 101%"),
        ("shadow", "contact #0008"),
        ("background", ""),
        ("background", {"bucket": "b"}),
        ("background", {"bucket": "b", "key": ""}),
        ("background", ["red"]),
        ("background", "s3://bucket"),
    ],
)
def test_other_values_are_refused_with_the_field_and_the_accepted_values(field: str, value: object) -> None:
    with pytest.raises(InvalidOptions) as refused:
        parsed(**{field: value})
    assert refused.value.field == field
    assert f'"output.{field}" must be {FIELDS[field].grammar}; got' in refused.value.message


@given(
    st.sampled_from(sorted(FIELDS)),
    st.text(string.printable) | st.none() | st.booleans() | st.floats() | st.lists(st.text()),
)
def test_any_value_is_parsed_or_refused_as_an_invalid_option(field: str, value: object) -> None:
    with suppress(InvalidOptions):
        output = parsed(**{field: value})
        assert Output.from_json(output.to_json()) == output


def test_a_long_value_is_not_repeated_in_full() -> None:
    with pytest.raises(InvalidOptions) as refused:
        parsed(background="x" * 100_000)
    assert len(refused.value.message) < 500


@pytest.mark.parametrize("value", [{"background": "red"}, {"shadow": "drop"}, {"outline": "8px"}, {"format": "zip"}])
def test_a_matte_alone_has_no_background_no_shadow_no_outline_and_no_zip(value: dict[str, str]) -> None:
    with pytest.raises(InvalidOptions, match="rgba"):
        parsed(channels="alpha", **value)


@pytest.mark.parametrize(
    ("value", "field", "remedy"),
    [
        ({"padding": "5%", "crop": "5%"}, "crop", "leave out the margins"),
        ({"padding": "5%", "scale": "80%"}, "scale", "send one of them"),
        ({"canvas": "100x100", "size": "hd"}, "size", "Send an aspect ratio"),
        ({"canvas": "100x100", "padding": "0 50px"}, "canvas", "reduce the padding"),
        ({"canvas": "100x100", "padding": "45%", "outline": "5px"}, "canvas", "or the outline"),
        ({"canvas": "100x100", "scale": "10%", "outline": "5px"}, "canvas", "or the outline"),
    ],
)
def test_options_that_exclude_each_other_are_refused_with_the_remedy(
    value: dict[str, str], field: str, remedy: str
) -> None:
    with pytest.raises(OptionsConflict) as refused:
        parsed(**value)
    assert refused.value.field == field
    assert remedy in refused.value.message


def test_a_marketplace_stands_for_its_canvas_its_padding_and_its_background() -> None:
    written = {"canvas": "2000x2000", "padding": "7%", "background": "white"}
    assert parsed(canvas="amazon") == parsed(canvas="Amazon ", format="png") == parsed(**written)
    assert parsed(canvas="amazon", padding="3%", background="#eee") == parsed(
        canvas="2000x2000", padding="3%", background="#eee"
    )


def test_the_rules_of_a_marketplace_give_way_to_a_scale_to_margins_and_to_a_matte() -> None:
    square = {"canvas": "2000x2000", "background": "white"}
    assert parsed(canvas="amazon", scale="60%") == parsed(**square, scale="60%")
    assert parsed(canvas="amazon", crop="5%") == parsed(**square, crop="5%")
    assert parsed(canvas="amazon", channels="alpha") == parsed(canvas="2000x2000", padding="7%", channels="alpha")
    mask = Options.from_json({"task": "mask", "output": {"canvas": "amazon"}})
    assert mask.output == parsed(canvas="amazon", channels="alpha")


def test_every_marketplace_leaves_room_for_the_subject() -> None:
    for name, place in MARKETPLACES.items():
        output = parsed(canvas=name)
        assert output.canvas == place.canvas
        assert output.padding
        assert output.padding.left.of(place.canvas.width) < place.canvas.width / 4


def test_the_names_of_colours_are_those_of_css() -> None:
    css = {name: ImageColor.getrgb(name) for name in ImageColor.colormap}
    assert {name: tuple(bytes.fromhex(digits)) for name, digits in NAMES.items()} == css


def test_no_colour_name_is_also_hexadecimal_digits() -> None:
    assert not [name for name in NAMES if set(name) <= set(string.hexdigits)]


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("0% 0% 100% 100%", (0, 0, 640, 480)),
        ("10% 25% 50% 75%", (64, 120, 320, 360)),
        ("1px 2px 640px 480px", (1, 2, 640, 480)),
        ("0 0 99.6px 50%", (0, 0, 100, 240)),
    ],
)
def test_a_region_is_converted_to_pixels(text: str, box: tuple[int, int, int, int]) -> None:
    region = parsed(roi=text).roi
    assert region is not None
    assert region.inside(640, 480) == box


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("0 0 641px 480px", RegionOutside),
        ("0 0 640px 481px", RegionOutside),
        ("700px 0 800px 480px", RegionOutside),
        ("50% 0 50% 100%", RegionEmpty),
        ("90% 0 10% 100%", RegionEmpty),
        ("0 10px 640px 10.4px", RegionEmpty),
    ],
)
def test_a_region_outside_the_image_or_without_a_pixel_is_refused(text: str, fault: type[InvalidOptions]) -> None:
    region = parsed(roi=text).roi
    assert region is not None
    with pytest.raises(fault) as refused:
        region.inside(640, 480)
    assert refused.value.field == "roi"


def test_a_marketplace_in_the_openapi_document_is_the_fields_that_its_name_stands_for() -> None:
    published = output_fields(flat=False)["canvas"]["x-marketplaces"]
    assert published.keys() == MARKETPLACES.keys()
    for name, fields in published.items():
        assert parsed(canvas=name) == parsed(**fields)

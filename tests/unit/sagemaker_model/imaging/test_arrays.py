from __future__ import annotations

import contextlib
import io
import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdrop.errors import EmptyFile, FileTooLarge, InputError, ResolutionTooHigh, UnreadablePicture, UnsupportedFormat
from maskdrop.options import Options
from maskdrop.output import Output
from sagemaker_model.cutout import cut_out
from sagemaker_model.engines.base import Engine
from sagemaker_model.imaging.arrays import HEADER_MAX, bytes_max, read_array, write_array
from sagemaker_model.imaging.pixels import Limits, encode
from tests.bench.photos import jpeg

LIMITS = Limits(max_bytes=1000, max_pixels=10_000)
RGB = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)


def npy(array: object, *, allow_pickle: bool = False) -> bytes:
    to = io.BytesIO()
    np.save(to, array, allow_pickle=allow_pickle)  # type: ignore[arg-type]
    return to.getvalue()


def with_header(text: str, body: bytes = b"") -> bytes:
    header = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


def announcing(shape: str, descr: str = "|u1") -> bytes:
    return with_header(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}")


@pytest.mark.parametrize("array", [RGB, np.asfortranarray(RGB), RGB[::-1, ::2], RGB[:1, :1]])
def test_an_array_is_read_as_it_is_whatever_its_order(array: np.ndarray) -> None:
    picture = read_array(npy(array), LIMITS)
    assert np.array_equal(picture.rgb, array)
    assert picture.rgb.flags.c_contiguous
    assert (picture.alpha, picture.dpi, picture.warnings) == (None, None, ())


def test_a_file_of_version_two_and_one_that_names_a_byte_order_are_read() -> None:
    to = io.BytesIO()
    np.lib.format.write_array(to, RGB, version=(2, 0))
    assert np.array_equal(read_array(to.getvalue(), LIMITS).rgb, RGB)
    assert np.array_equal(read_array(npy(RGB).replace(b"'|u1'", b"'>u1'"), LIMITS).rgb, RGB)


@pytest.mark.parametrize(
    "array",
    [
        RGB.astype(np.float32),
        RGB.astype(">u2"),
        RGB.astype(np.int8),
        RGB > 0,
        RGB[..., 0],
        RGB[None],
        RGB[..., :2],
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.uint8(7),
        np.zeros(4, [("r", "u1"), ("g", "u1")]),
    ],
    ids=lambda array: f"{array.shape} {array.dtype}",
)
def test_another_array_is_refused_and_the_message_says_what_it_is(array: np.ndarray) -> None:
    with pytest.raises(UnsupportedFormat, match="HxWx3 uint8"):
        read_array(npy(array), LIMITS)


def test_an_array_of_objects_is_refused_unpickled(capsys: pytest.CaptureFixture[str]) -> None:
    class Loud:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("unpickled",)

    objects = np.empty((1, 1, 3), object)
    objects[:] = Loud()
    with pytest.raises(UnsupportedFormat):
        read_array(npy(objects, allow_pickle=True), LIMITS)
    with pytest.raises(UnreadablePicture):
        read_array(pickle.dumps(Loud()), LIMITS)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("shape", ["(1000000000, 1000000000, 3)", "(101, 100, 3)"])
def test_a_header_that_claims_too_many_pixels_is_refused_by_its_word(shape: str) -> None:
    with pytest.raises(ResolutionTooHigh, match=r"0\.01 megapixels"):
        read_array(announcing(shape), LIMITS)


@pytest.mark.parametrize("shape", ["(-4, -4, 3)", "(4, 4)", "()", "(True, 3)"])
def test_a_header_with_a_shape_of_no_picture_is_refused(shape: str) -> None:
    with pytest.raises(UnsupportedFormat):
        read_array(announcing(shape), LIMITS)


@pytest.mark.parametrize("body", [npy(RGB)[:-1], npy(RGB) + b"\0", npy(RGB)[:128]])
def test_an_array_cut_short_or_too_long_is_refused(body: bytes) -> None:
    with pytest.raises(UnreadablePicture, match="announces 3,600 bytes"):
        read_array(body, LIMITS)


@pytest.mark.parametrize(
    "body",
    [
        b"\x93NUMPY",
        b"no array",
        npy(RGB)[:60],
        with_header("{"),
        with_header("(" * 117),
        with_header("{'shape': (1, 1, 3)}"),
        announcing("(4, 4, 'x')"),
        announcing("(4, 4, 3)", "none"),
        npy(RGB).replace(b"\x93NUMPY\x01", b"\x93NUMPY\x03"),
    ],
)
def test_a_header_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(UnreadablePicture, match=r"no \.npy file"):
        read_array(body, LIMITS)


@given(st.binary(max_size=200), st.integers(0, 127))
def test_no_damage_to_a_header_brings_another_error_than_one_of_ours(damage: bytes, at: int) -> None:
    body = npy(RGB)
    with contextlib.suppress(InputError):
        read_array(body[:at] + damage + body[at + len(damage) :], LIMITS)


def test_bytes_are_bounded_by_the_pixels_not_by_those_of_a_compressed_file() -> None:
    assert bytes_max(LIMITS) == 30_000 + HEADER_MAX
    assert read_array(npy(np.zeros((100, 100, 3), np.uint8)), LIMITS).rgb.shape == (100, 100, 3)
    with pytest.raises(FileTooLarge):
        read_array(bytes(bytes_max(LIMITS) + 1), LIMITS)
    with pytest.raises(EmptyFile):
        read_array(b"", LIMITS)


@pytest.mark.parametrize("shape", [(30, 40), (1, 1), (1, 7), (7, 1)])
@pytest.mark.parametrize("channels", ["rgba", "alpha"])
def test_what_is_written_is_what_the_file_would_hold(shape: tuple[int, int], channels: str) -> None:
    rng = np.random.default_rng(1)
    rgb, alpha = rng.integers(0, 256, (*shape, 3), np.uint8), rng.integers(0, 3, shape, np.uint8) * 127
    output = Output(channels=channels)  # type: ignore[arg-type]
    found = np.load(io.BytesIO(write_array(rgb, alpha, output, None, {})), allow_pickle=False)
    file = cv2.imdecode(np.frombuffer(encode(rgb, alpha, output, None, {}), np.uint8), cv2.IMREAD_UNCHANGED)
    expected = file if channels == "alpha" else cv2.cvtColor(file, cv2.COLOR_BGRA2RGBA)
    assert found.shape == (shape if channels == "alpha" else (*shape, 4))
    assert np.array_equal(found, expected.reshape(found.shape))


def test_an_array_gets_the_cut_out_of_its_file(engines: dict[str, Engine]) -> None:
    limits = Limits(10_000_000, 10_000_000)
    bgr = cv2.imdecode(np.frombuffer(jpeg(300), np.uint8), cv2.IMREAD_COLOR)
    file = cv2.imencode(".png", bgr)[1].tobytes()
    array = npy(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
    one = cut_out(file, Options(), engines["selfie"], limits)
    other = cut_out(array, Options(), engines["selfie"], limits, read_array, write_array)
    drawn = cv2.imdecode(np.frombuffer(one.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(np.load(io.BytesIO(other.data)), cv2.cvtColor(drawn, cv2.COLOR_BGRA2RGBA))
    assert (one.subject, one.warnings) == (other.subject, other.warnings)

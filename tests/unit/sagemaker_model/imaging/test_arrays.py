from __future__ import annotations

import contextlib
import io
import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdrop.errors import EmptyFile, FileTooLarge, InputError, ResolutionTooHigh, UnreadableImage, UnsupportedFormat
from maskdrop.options import Options
from maskdrop.output import Output
from sagemaker_model.cutout import cut_out
from sagemaker_model.engines.base import Engine
from sagemaker_model.imaging.arrays import HEADER_MAX, bytes_max, read_array, write_array
from sagemaker_model.imaging.encode import encode
from sagemaker_model.imaging.pixels import Limits
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


def declaring(shape: str, descr: str = "|u1") -> bytes:
    return with_header(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}")


@pytest.mark.parametrize("array", [RGB, np.asfortranarray(RGB), RGB[::-1, ::2], RGB[:1, :1]])
def test_an_array_of_any_memory_order_is_read_unchanged(array: np.ndarray) -> None:
    image = read_array(npy(array), LIMITS)
    assert np.array_equal(image.rgb, array)
    assert image.rgb.flags.c_contiguous
    assert (image.alpha, image.dpi, image.warnings) == (None, None, ())


def test_files_of_version_two_and_with_an_explicit_byte_order_are_read() -> None:
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
def test_other_shapes_and_dtypes_are_rejected_with_the_accepted_ones(array: np.ndarray) -> None:
    with pytest.raises(UnsupportedFormat, match=r"has shape .* and dtype .*; send HxWx3 uint8"):
        read_array(npy(array), LIMITS)


def test_an_array_of_objects_is_rejected_without_unpickling(capsys: pytest.CaptureFixture[str]) -> None:
    class PrintsWhenUnpickled:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("unpickled",)

    objects = np.empty((1, 1, 3), object)
    objects[:] = PrintsWhenUnpickled()
    with pytest.raises(UnsupportedFormat):
        read_array(npy(objects, allow_pickle=True), LIMITS)
    with pytest.raises(UnreadableImage):
        read_array(pickle.dumps(PrintsWhenUnpickled()), LIMITS)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("shape", "limit"), [("(1000000000, 1000000000, 3)", "65535 pixels"), ("(101, 100, 3)", r"0\.01 megapixels")]
)
def test_a_header_with_too_many_pixels_is_rejected_before_the_pixels_are_read(shape: str, limit: str) -> None:
    with pytest.raises(ResolutionTooHigh, match=limit):
        read_array(declaring(shape), LIMITS)


@pytest.mark.parametrize("shape", ["(-4, -4, 3)", "(4, 4)", "()", "(True, 3)"])
def test_a_header_whose_shape_is_not_an_image_is_rejected(shape: str) -> None:
    with pytest.raises(UnsupportedFormat):
        read_array(declaring(shape), LIMITS)


@pytest.mark.parametrize("body", [npy(RGB)[:-1], npy(RGB) + b"\0", npy(RGB)[:128]])
def test_a_truncated_or_too_long_array_is_rejected(body: bytes) -> None:
    with pytest.raises(UnreadableImage, match="declares 3,600 bytes"):
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
        declaring("(4, 4, 'x')"),
        declaring("(4, 4, 3)", "none"),
        npy(RGB).replace(b"\x93NUMPY\x01", b"\x93NUMPY\x03"),
    ],
)
def test_an_invalid_header_is_rejected(body: bytes) -> None:
    with pytest.raises(UnreadableImage, match=r"not an \.npy file"):
        read_array(body, LIMITS)


@given(st.binary(max_size=200), st.integers(0, 127))
def test_any_damage_to_a_header_raises_an_input_error_or_none(damage: bytes, at: int) -> None:
    body = npy(RGB)
    with contextlib.suppress(InputError):
        read_array(body[:at] + damage + body[at + len(damage) :], LIMITS)


def test_the_byte_limit_of_an_array_follows_from_the_pixel_limit() -> None:
    assert bytes_max(LIMITS) == 30_000 + HEADER_MAX
    assert read_array(npy(np.zeros((100, 100, 3), np.uint8)), LIMITS).rgb.shape == (100, 100, 3)
    with pytest.raises(FileTooLarge):
        read_array(bytes(bytes_max(LIMITS) + 1), LIMITS)
    with pytest.raises(EmptyFile):
        read_array(b"", LIMITS)


@pytest.mark.parametrize("shape", [(30, 40), (1, 1), (1, 7), (7, 1)])
@pytest.mark.parametrize("channels", ["rgba", "alpha"])
def test_a_written_array_equals_the_decoded_image_file(shape: tuple[int, int], channels: str) -> None:
    rng = np.random.default_rng(1)
    rgb, alpha = rng.integers(0, 256, (*shape, 3), np.uint8), rng.integers(0, 3, shape, np.uint8) * 127
    output = Output(channels=channels)  # type: ignore[arg-type]
    found = np.load(io.BytesIO(write_array(rgb, alpha, output, None, {})), allow_pickle=False)
    file = cv2.imdecode(np.frombuffer(encode(rgb, alpha, output, None, {}), np.uint8), cv2.IMREAD_UNCHANGED)
    assert file is not None
    expected = file if channels == "alpha" else cv2.cvtColor(file, cv2.COLOR_BGRA2RGBA)
    assert found.shape == (shape if channels == "alpha" else (*shape, 4))
    assert np.array_equal(found, expected.reshape(found.shape))


def test_an_array_and_its_image_file_get_the_same_cut_out(engines: dict[str, Engine]) -> None:
    limits = Limits(10_000_000, 10_000_000)
    bgr = cv2.imdecode(np.frombuffer(jpeg(300), np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    file = cv2.imencode(".png", bgr)[1].tobytes()
    array = npy(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
    one = cut_out(file, Options(), engines["selfie"], limits)
    other = cut_out(array, Options(), engines["selfie"], limits, read_array, write_array)
    drawn = cv2.imdecode(np.frombuffer(one.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert drawn is not None
    assert np.array_equal(np.load(io.BytesIO(other.data)), cv2.cvtColor(drawn, cv2.COLOR_BGRA2RGBA))
    assert (one.subject, one.warnings) == (other.subject, other.warnings)

"""Colour spaces that a file names without an ICC profile, as ICC profiles, and the conversion to sRGB.

PNG (cICP, gAMA, cHRM), AVIF and HEIC (nclx) name a colour space by numbers or by chromaticities. An ICC profile is
built from them, so that one engine, LittleCMS in Pillow, converts all files.

Sources: ITU-T H.273 (07/2024), tables 2 and 3, for the numbers of primaries and transfers; ITU-R BT.2100-3 for PQ and
HLG; ITU-R BT.2408 for the reference white of HDR; ICC.1:2001-04 for the profile's layout; IEC 61966-2-1 for sRGB.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]

HDR_WHITE = 203.0
"""Luminance of SDR white in an HDR image, in cd/m² (BT.2408). Brighter colours are clipped."""

HLG_GAMMA = 1.2
"""System gamma of HLG on a display of 1000 cd/m² (BT.2100), here applied to each channel."""

HLG_WHITE = 0.75
"""HLG signal of SDR white (BT.2408)."""

CURVE_ENTRIES = 1024
"""Entries of a profile's tone curve. 8-bit images read 256 of them; the curves are smooth between."""

SRGB_GAMMA = 1 / 2.2
"""The gAMA value of sRGB (W3C PNG, third edition, 11.3.2.4): such a file is read as sRGB."""

D65 = (0.3127, 0.3290)
D50 = np.array((0.9642, 1.0, 0.8249))
"""White of the ICC profile connection space, XYZ."""

Chromaticities = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]
"""x and y of red, green, blue and white (CIE 1931)."""

SRGB_PRIMARIES: Chromaticities = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), D65)

_SMPTE_170M: Chromaticities = ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65)

PRIMARIES: dict[int, Chromaticities] = {
    1: SRGB_PRIMARIES,
    4: ((0.670, 0.330), (0.210, 0.710), (0.140, 0.080), (0.310, 0.316)),
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), D65),
    6: _SMPTE_170M,
    7: _SMPTE_170M,
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), (0.310, 0.316)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),
    10: ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1 / 3, 1 / 3)),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), D65),
}
"""ColourPrimaries of H.273. 2 is unspecified; other numbers are reserved."""


def _srgb_linear(signal: Floats) -> Floats:
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def _srgb_signal(linear: Floats) -> Floats:
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def _bt709_linear(signal: Floats) -> Floats:
    return np.where(
        signal < 4.5 * 0.018053968511, signal / 4.5, ((signal + 0.099296826809) / 1.099296826809) ** (1 / 0.45)
    )


def _smpte240_linear(signal: Floats) -> Floats:
    return np.where(signal < 4 * 0.022821585529, signal / 4, ((signal + 0.111572195922) / 1.111572195922) ** (1 / 0.45))


def _pq_linear(signal: Floats) -> Floats:
    """Luminance relative to HDR_WHITE, 0..49."""
    root = signal ** (32 / 2523)
    return (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (16384 / 2610) * (10_000 / HDR_WHITE)


def _hlg_linear(signal: Floats) -> Floats:
    """Luminance relative to that of HLG_WHITE, 0..5."""
    return (_hlg_scene(signal) / _hlg_scene(np.asarray(HLG_WHITE))) ** HLG_GAMMA


def _hlg_scene(signal: Floats) -> Floats:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((np.maximum(signal, 0.5) - c) / a) + b) / 12)


def _power(gamma: float) -> Callable[[Floats], Floats]:
    return lambda signal: np.asarray(signal**gamma)


TRANSFERS: dict[int, Callable[[Floats], Floats]] = {
    1: _bt709_linear,
    4: _power(2.2),
    5: _power(2.8),
    6: _bt709_linear,
    7: _smpte240_linear,
    8: _power(1.0),
    11: _bt709_linear,
    12: _bt709_linear,
    13: _srgb_linear,
    14: _bt709_linear,
    15: _bt709_linear,
    16: _pq_linear,
    17: lambda signal: np.asarray(signal**2.6 * (52.37 / 48)),
    18: _hlg_linear,
}
"""TransferCharacteristics of H.273: linear light, 1 = SDR white, from the signal 0..1. 2 is unspecified; 9 and 10 are
logarithmic and not used by image files."""

_VIDEO = {1, 6, 11, 12, 14, 15}
"""Transfers of cameras. With the primaries of BT.709 such a file is shown unconverted by browsers and viewers."""

HDR = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True, slots=True)
class ColourSpace:
    """The colour space of an RGB image.

    primaries: chromaticities of red, green, blue and white. transfer: a number of H.273. gamma: exponent of the signal;
    0: the transfer's curve.
    """

    primaries: Chromaticities = SRGB_PRIMARIES
    transfer: int = 13
    gamma: float = 0.0

    @classmethod
    def of_cicp(cls, primaries: int, transfer: int) -> ColourSpace | None:
        """The colour space of the code points of H.273; None where they are unspecified, reserved or mean sRGB."""
        if transfer == 2 and primaries in PRIMARIES:
            transfer = 13
        if primaries == 2 and transfer in TRANSFERS:
            primaries = 9 if transfer in HDR else 1
        if primaries not in PRIMARIES or transfer not in TRANSFERS:
            return None
        if PRIMARIES[primaries] == SRGB_PRIMARIES and (transfer == 13 or transfer in _VIDEO):
            return None
        return cls(PRIMARIES[primaries], transfer)

    @classmethod
    def of_gamma(cls, gama: float, chromaticities: Chromaticities | None) -> ColourSpace | None:
        """The colour space of PNG's gAMA and cHRM; None where they mean sRGB or are not plausible.

        gama: exponent from light to signal, such as 0.45455.
        """
        if not 0.1 <= gama <= 2:
            return None
        primaries = SRGB_PRIMARIES if chromaticities is None else chromaticities
        if not _invertible(primaries) or np.abs(np.subtract(primaries, SRGB_PRIMARIES)).max() < 0.005:
            primaries = SRGB_PRIMARIES
        if abs(gama / SRGB_GAMMA - 1) < 0.03 and primaries is SRGB_PRIMARIES:
            return None
        return cls(primaries, 4, 1 / gama)

    @property
    def hdr(self) -> str:
        """The name of the HDR transfer; "" for SDR."""
        return "" if self.gamma else HDR.get(self.transfer, "")

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warning `hdr_converted` for an HDR transfer."""
        if not self.hdr:
            return ()
        return (
            f"hdr_converted: the image is HDR ({self.hdr}) and was converted to sRGB; colours brighter than "
            f"{HDR_WHITE:.0f} cd/m² were clipped.",
        )

    def linear(self, signal: Floats) -> Floats:
        """Linear light, clipped to 0..1, of a signal 0..1."""
        light = signal**self.gamma if self.gamma else TRANSFERS[self.transfer](signal)
        return np.clip(light, 0, 1)

    def to_8_bit(self, samples: NDArray[np.uint16]) -> tuple[NDArray[np.uint8], ColourSpace]:
        """Converts samples of 16 bits to 8 bits with sRGB's transfer, and returns the colour space of the result.

        8 bits of linear light are too few: sRGB's darkest 13 levels would be one.
        """
        table = np.rint(_srgb_signal(self.linear(np.linspace(0, 1, 65536))) * 255).astype(np.uint8)
        return table[samples], ColourSpace(self.primaries)


@lru_cache(maxsize=16)
def icc_profile(space: ColourSpace) -> bytes:
    """Builds an ICC profile, version 2, of a display: three primaries and one tone curve."""
    curve = np.rint(space.linear(np.linspace(0, 1, CURVE_ENTRIES)) * 65535).astype(">u2")
    matrix = _to_d50(space.primaries)
    tone = struct.pack(">4sII", b"curv", 0, len(curve)) + curve.tobytes()
    text = b"text\0\0\0\0CC0\0"
    name = b"Built from code points\0"
    description = struct.pack(">4sII", b"desc", 0, len(name)) + name + bytes(78)
    bodies: dict[bytes, bytes] = {b"desc": description, b"cprt": text, b"wtpt": _xyz(D50)}
    bodies |= {tag: _xyz(matrix[:, i]) for i, tag in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    bodies |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), tone)
    table, blocks, offsets = b"", b"", {}
    start = 128 + 4 + 12 * len(bodies)
    for tag, body in bodies.items():
        if body not in offsets:
            offsets[body] = start + len(blocks)
            blocks += body + bytes(-len(body) % 4)
        table += struct.pack(">4sII", tag, offsets[body], len(body))
    size = start + len(blocks)
    header = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _xyz(D50)[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(bodies)) + table + blocks


def _xyz(values: Floats) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in values))


def _to_d50(chromaticities: Chromaticities) -> Floats:
    """The 3x3 matrix from linear RGB to XYZ of the profile connection space, adapted by Bradford's method."""
    white = _xyz_of(*chromaticities[3])
    columns = np.stack([_xyz_of(*xy) for xy in chromaticities[:3]], axis=1)
    matrix = columns * np.linalg.solve(columns, white)
    bradford = np.array(((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296)))
    scale = np.diag((bradford @ D50) / (bradford @ white))
    return np.asarray(np.linalg.inv(bradford) @ scale @ bradford @ matrix)


def _xyz_of(x: float, y: float) -> Floats:
    """XYZ of Y = 1; of a blue primary with y = 0, X + Y + Z = 1."""
    return np.array((x, y, 1 - x - y)) / (y or 1)


def _invertible(chromaticities: Chromaticities) -> bool:
    """Whether red, green and blue span a triangle and white has luminance."""
    columns = np.array([(x, y, 1 - x - y) for x, y in chromaticities[:3]])
    return bool(abs(np.linalg.det(columns)) > 1e-3 and chromaticities[3][1] > 0.01)


PROFILE_BYTES_MAX = 16 * 2**20
"""Largest ICC profile that is read. Profiles of printers have 0.5 to 3 MB."""

SRGB_BYTES_MAX = 65536
"""Largest ICC profile that is remembered as sRGB or not. Those of sRGB have 0.4 to 3 KB."""

_MODES = {"GRAY": ("L",), "RGB": ("RGB", "L"), "CMYK": ("CMYK",)}
"""Modes to which a profile of each colour space applies. A grey image is also RGB."""


def to_srgb(image: Image.Image, profile: bytes | None, warnings: list[str]) -> Image.Image:
    """Converts an image in mode L, RGB or CMYK by its ICC profile to sRGB, mode RGB.

    Adds the warning `profile_ignored` where the profile is damaged or of another colour space.
    """
    if profile:
        try:
            opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            space = opened.profile.xcolor_space.strip()
            if image.mode not in _MODES.get(space, ()):
                warnings.append(
                    f"profile_ignored: the colour profile is for {space} images, but the image is "
                    f"{'grey' if image.mode == 'L' else image.mode}; the colours were read as sRGB."
                )
            elif space == "RGB" and len(profile) <= SRGB_BYTES_MAX and _is_srgb(profile):
                return _rgb(image)
            else:
                return _converted(_rgb(image) if space == "RGB" else image, opened)
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            log.info("colour profile ignored: %s", error)
            warnings.append("profile_ignored: the colour profile is damaged; the colours were read as sRGB.")
    return _rgb(image)


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")  # converting RGB copies it: 12 MP, 20 ms, 48 MB


@lru_cache(maxsize=16)
def _is_srgb(profile: bytes) -> bool:
    """Whether a profile changes no colour by more than 1 of 255. Most photos have such a profile, and converting 12 MP
    takes 0.7 s."""
    levels = np.linspace(0, 255, 18).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(18, -1, 3)
    converted = _converted(Image.fromarray(colours), ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    return bool(np.abs(np.asarray(converted, np.int16) - colours).max() <= 1)


def _converted(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    converted = ImageCms.profileToProfile(
        image,
        profile,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if converted is None:
        raise ValueError("the profile has no conversion")
    return converted


def lab_to_rgb(lab: NDArray[np.uint8]) -> Image.Image:
    """Converts CIELab (D50) to sRGB, mode RGB. lab: HxWx3 uint8; a and b are offset by 128."""
    signed = lab.copy()
    signed[..., 1:] ^= 0x80  # Pillow stores a and b of its mode LAB as signed bytes
    image = Image.frombytes("LAB", (lab.shape[1], lab.shape[0]), signed.tobytes(), "raw", "LAB")
    return image.convert("RGB")

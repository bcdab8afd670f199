"""Golden tests: the alphas of the samples and some results must match the downscaled images in tests/golden.

After an intended change, run `python -m tests.contract.test_golden` to rewrite them and inspect them before committing.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from maskdrop.options import Options
from maskdrop.output import Output
from maskdrop.presets import PRESETS
from sagemaker_model.cutout import cut_out
from sagemaker_model.engines.base import Engine, load_all
from sagemaker_model.settings import ServerSettings

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
SAMPLES = sorted((ROOT / "samples").glob("*/*.png"))
PERSON = ROOT / "samples" / "default" / "astronaut.png"

SIDE = 64
"""Side of a golden alpha in pixels. Means over blocks ignore single pixels and detect a lost hand."""

TOLERANCE = 2.0
"""Maximum mean difference, of 255: rounding differs between processors. A quarter of a hand exceeds it."""

FORMATS = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"quality": 95},
    "TIFF": {},
    "BMP": {},
    "AVIF": {"quality": 90},
}


def matte(data: bytes, engine: Engine, name: str) -> np.ndarray:
    """Returns the alpha of an image, HxW uint8."""
    options = Options(engine=name, output=Output(channels="alpha"))
    result = cut_out(data, options, engine, ServerSettings().limits).data
    alpha = cv2.imdecode(np.frombuffer(result, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert alpha is not None
    return alpha


def small(alpha: np.ndarray) -> np.ndarray:
    return cv2.resize(alpha, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def golden(sample: Path) -> Path:
    return GOLDEN / f"{sample.parent.name}-{sample.stem}.png"


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_alpha_of_a_sample_matches_its_golden_image(sample: Path, engines: dict[str, Engine]) -> None:
    name = PRESETS[sample.parent.name].engine
    alpha = small(matte(sample.read_bytes(), engines[name], name)).astype(float)
    expected = cv2.imread(str(golden(sample)), cv2.IMREAD_GRAYSCALE)
    assert expected is not None
    assert np.abs(alpha - expected).mean() <= TOLERANCE


OUTPUTS = {
    "crop": {"crop": "10% 30%", "background": "81d4fa"},
    "scale": {"scale": "60%", "position": "0% 100%", "size": "preview"},
    "blur": {"background": "blur 5%", "crop": "20%"},
    "zip": {"format": "zip"},
    "sticker": {key: str(value) for key, value in PRESETS["sticker"].output.to_json().items()},
    "shadow": {"canvas": "4:5", "padding": "12%", "shadow": "drop 3% 4% 3% 60% navy", "background": "salmon"},
}


def render(output: dict[str, str], engine: Engine) -> np.ndarray:
    """Returns the result on grey, or the colours of a zip unchanged, SIDExSIDEx3 uint8."""
    options = Options(output=Output.from_json(output))
    data = cut_out(PERSON.read_bytes(), options, engine, ServerSettings().limits).data
    if output.get("format") == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            data = opened.read("color.jpg")
    with Image.open(io.BytesIO(data)) as result:
        on_grey = Image.new("RGBA", result.size, "grey")
        on_grey.alpha_composite(result.convert("RGBA"))
    return small(np.asarray(on_grey.convert("RGB")))


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_result_of_an_output_option_matches_its_golden_image(name: str, engines: dict[str, Engine]) -> None:
    bgr = cv2.imread(str(GOLDEN / f"output-{name}.png"))
    assert bgr is not None
    expected = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    assert np.abs(render(OUTPUTS[name], engines["selfie"]).astype(float) - expected).mean() <= TOLERANCE


@pytest.mark.parametrize("form", FORMATS)
def test_the_alpha_does_not_depend_on_the_file_format(form: str, engines: dict[str, Engine]) -> None:
    packed = io.BytesIO()
    with Image.open(PERSON) as photo:
        photo.convert("RGB").save(packed, form, **FORMATS[form])
    found = matte(packed.getvalue(), engines["selfie"], "selfie").astype(int)
    plain = matte(PERSON.read_bytes(), engines["selfie"], "selfie").astype(int)
    both, either = ((found >= 128) & (plain >= 128)).sum(), ((found >= 128) | (plain >= 128)).sum()
    assert both / either >= 0.98
    assert np.abs(found - plain).mean() <= TOLERANCE


if __name__ == "__main__":
    loaded = load_all("cpu", ROOT / ".local" / "weights")
    for path in SAMPLES:
        chosen = PRESETS[path.parent.name].engine
        cv2.imwrite(str(golden(path)), small(matte(path.read_bytes(), loaded[chosen], chosen)))
    for kind, output in OUTPUTS.items():
        colours = cv2.cvtColor(render(output, loaded["selfie"]), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(GOLDEN / f"output-{kind}.png"), colours)

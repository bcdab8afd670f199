"""Named sets of options. A photo's preset is the first folder of its key under `inbox/`."""

from __future__ import annotations

from maskdrop.options import Options
from maskdrop.output import Output

DEFAULT_PRESET = "default"

PRESETS: dict[str, Options] = {
    DEFAULT_PRESET: Options(),
    "webp": Options(output=Output(format="webp")),
    "matte": Options(output=Output(channels="alpha")),
    "object": Options(engine="grabcut"),
}

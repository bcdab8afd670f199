"""The editor that draws backgrounds by the standard library, without a paid service."""

from __future__ import annotations

from maskdrop.composer import backdrop_of, draw_png
from maskdrop.edit import Change
from maskdrop.errors import TextNotSupported
from maskdrop.services import EditedImage, EditRequest


class LocalEditor:
    """Draws the background that a text names (`maskdrop.composer`). It generates nothing else, and no subjects. The
    seed has no effect."""

    usd_per_image = 0.0

    def check(self, prompt: str, change: Change = "background") -> None:
        backdrop_of(prompt)
        if change != "background":
            raise TextNotSupported(
                'This stage draws backgrounds only: "edit.change" must be background; got subject. Set the option '
                '"editor" of the stage to stability to generate subjects.'
            )

    def edit(self, request: EditRequest) -> EditedImage:
        self.check(request.prompt, request.change)
        background = backdrop_of(request.prompt)
        return EditedImage(draw_png(background, request.width, request.height), "image/png", "local", 0.0)

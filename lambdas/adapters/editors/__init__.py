"""The editors, which generate images from text, by the setting `editor`."""

from __future__ import annotations

from maskdrop.edit import Change
from maskdrop.errors import TextNotSupported
from maskdrop.services import EditedImage, EditRequest


class NoEditor:
    """Refuses every text: the stage has no editor."""

    usd_per_image = 0.0

    def check(self, prompt: str, change: Change = "background") -> None:  # noqa: ARG002 - one protocol for all editors
        raise TextNotSupported(
            'This stage generates no images: its option "editor" is off. Use "output.background" with a colour, a '
            "gradient, blur or an image."
        )

    def edit(self, request: EditRequest) -> EditedImage:
        self.check(request.prompt)
        raise AssertionError

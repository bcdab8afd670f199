"""The mutations of `make fuzz-files`."""

from __future__ import annotations

import io
import itertools

from PIL import Image

from maskdrop.sniff import HEAD, image_type
from tests.fuzz.images import MUTATORS, mutations, originals


def test_a_seed_gives_the_same_mutations_and_another_seed_others() -> None:
    files = {"a": bytes(range(256)), "b": b"text"}
    first, again, other = (list(itertools.islice(mutations(files, seed), 50)) for seed in (1, 1, 2))
    assert first == again != other


def test_every_mutator_changes_a_file_of_some_format() -> None:
    files = originals()
    changed = {
        name.split()[1]
        for name, data in ((one.name, one.data) for one in itertools.islice(mutations(files, 0), 1000))
        if len(name.split()) == 2 and data != files[name.split()[0]]
    }
    assert changed == set(MUTATORS)


def test_the_originals_are_valid_images_of_the_accepted_formats() -> None:
    formats = {image_type(data[:HEAD]) for data in originals().values()}
    assert formats >= {"image/jpeg", "image/png", "image/webp", "image/gif", "image/tiff", "image/bmp", "image/avif"}
    for name, data in originals().items():
        if name != "jxl":
            with Image.open(io.BytesIO(data)) as image:
                image.load()

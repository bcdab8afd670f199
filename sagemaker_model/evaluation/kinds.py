"""Kinds of subjects, for the tables of a data set whose manifest names subjects but no parts."""

from __future__ import annotations

WORDS = {
    "toy": "doll dolls toy toys scarecrow",
    "animal": "animal bear bird cat cow dog duck elephant fish giraffe horse lemur monkey rabbit sheep tiger zebra",
    "vehicle": "airplane bicycle bike boat bus car motorcycle ship train truck van",
    "plant": "bonsai cactus flower leaf lily plant protea tree",
    "food": "apple banana bread broccoli cake carrot donut food fruit orange pizza pumpkin sandwich",
}
"""Words of a subject's name by kind; the first kind with a word of the name counts."""

OTHER = "product"
"""The kind of a subject without any of those words: furniture, vessels, devices, clothes."""

STUDIO = "alpha_studio"
"""Start of `mask_kind` of masks made in a studio, whose animals are toys."""


def kind_of(subject: str, mask_kind: str = "") -> str:
    """Returns the kind of a subject such as "dog+frisbee" or "giraffe_toy"."""
    words = set(subject.casefold().replace("+", "_").replace(" ", "_").split("_"))
    kind = next((kind for kind, known in WORDS.items() if words & set(known.split())), OTHER)
    return "toy" if kind == "animal" and mask_kind.startswith(STUDIO) else kind

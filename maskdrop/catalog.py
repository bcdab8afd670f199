"""The catalogue of engines. A new engine is one module and one row here; all other parts read this table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from maskdrop.errors import UnknownEngine

Task = Literal["cutout", "mask", "detect", "replace"]
"""cutout: the subject with transparency. mask: a binary mask of it. detect: labelled boxes. replace: the subject before
another background, or another subject before the same background."""

Returns = Literal["alpha", "masks", "boxes", "image"]
SubjectKind = Literal["person", "thing", "none", "unknown"]
"""What the subject of an image is. none: no subject was found. unknown: the engine segments anything, and does not tell
what it is."""

PromptKind = Literal["box", "points", "label"]


@dataclass(frozen=True, slots=True)
class Engine:
    """One row of the catalogue.

    tasks: supported tasks; the first is the main one.
    returns: kind of the engine's output. Later steps branch on it, never on the name.
    subject: what the engine segments or detects, in words.
    kind: kind of every subject that the engine finds.
    prompts: supported kinds of prompts; others are rejected.
    factory: "module:Class" in the container, whose instances take no arguments; or "module:Class:argument" for a class
        of several engines.
    light: whether a serverless endpoint can run it: fast without a GPU (25 MP in at most 6 s on one core), weights in
        the container image.
    everything: whether it segments all objects of an image where there is no prompt.
    paid: whether each image costs money at another service; used only where the stage allows it.
    non_commercial: whether the licence of its weights forbids commercial use; used only where the stage allows it, and
        every result has a warning.
    """

    name: str
    tasks: tuple[Task, ...]
    returns: Returns
    subject: str
    factory: str
    prompts: frozenset[PromptKind] = frozenset()
    light: bool = False
    everything: bool = False
    paid: bool = False
    kind: SubjectKind = "unknown"
    non_commercial: bool = False


SEGMENTS: tuple[Task, ...] = ("cutout", "mask", "replace")
"""The tasks of an engine that returns alpha."""


def _onnx(
    name: str, subject: str = "anything", *, kind: SubjectKind = "unknown", non_commercial: bool = False
) -> Engine:
    """The row of a model of `engines/onnx_models.py`. name: rembg's, where rembg has the model."""
    factory = f"sagemaker_model.engines.onnx_models:OnnxModel:{name}"
    return Engine(name, SEGMENTS, "alpha", subject, factory, kind=kind, non_commercial=non_commercial)


def _birefnet(name: str, subject: str = "anything", *, kind: SubjectKind = "unknown") -> Engine:
    """The row of a variant of `engines/birefnet.py`. name: rembg's, where rembg has the model."""
    return Engine(name, SEGMENTS, "alpha", subject, f"sagemaker_model.engines.birefnet:BiRefNet:{name}", kind=kind)


ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine("auto", SEGMENTS, "alpha", "anything", "sagemaker_model.engines.auto:Auto", light=True),
        Engine(
            "selfie", SEGMENTS, "alpha", "people", "sagemaker_model.engines.selfie:Selfie", light=True,
            kind="person",
        ),
        Engine(
            "portrait", SEGMENTS, "alpha", "people", "sagemaker_model.engines.portrait:Portrait", light=True,
            kind="person",
        ),
        Engine("u2netp", SEGMENTS, "alpha", "anything", "sagemaker_model.engines.u2netp:U2Netp", light=True),
        Engine(
            "grabcut", SEGMENTS, "alpha", "anything, by box", "sagemaker_model.engines.grabcut:GrabCut",
            frozenset({"box", "label"}), light=True,
        ),
        Engine("modnet", SEGMENTS, "alpha", "people", "sagemaker_model.engines.modnet:MODNet", kind="person"),
        _onnx("u2net"),
        _onnx("u2net_human_seg", "people", kind="person"),
        _onnx("silueta"),
        _onnx("isnet-general-use"),
        _onnx("isnet-imgly"),
        _onnx("isnet-anime", "anime characters"),
        _birefnet("birefnet-general"),
        _birefnet("birefnet-general-lite"),
        _birefnet("birefnet-portrait", "people", kind="person"),
        _birefnet("birefnet-matting"),
        _birefnet("birefnet-lite-matting"),
        _birefnet("birefnet-hr"),
        _birefnet("birefnet-hr-matting"),
        _birefnet("birefnet-dynamic"),
        _birefnet("birefnet-dynamic-matting"),
        _birefnet("birefnet-lite-2k"),
        _birefnet("birefnet-512x512"),
        _onnx("birefnet-dis"),
        _onnx("birefnet-hrsod"),
        _onnx("birefnet-cod", "camouflaged objects"),
        _onnx("birefnet-massive"),
        _onnx("bria-rmbg", non_commercial=True),
        Engine(
            "sam", SEGMENTS, "alpha", "anything, by points and boxes", "sagemaker_model.engines.sam:Sam",
            frozenset({"box", "points", "label"}), everything=True,
        ),
        Engine(
            "sam2", SEGMENTS, "alpha", "anything, by points and boxes", "sagemaker_model.engines.sam:Sam2",
            frozenset({"box", "points", "label"}), everything=True,
        ),
        Engine(
            "prompted", SEGMENTS, "alpha", "anything, by label, box or points",
            "sagemaker_model.engines.prompted:Prompted", frozenset({"box", "points", "label"}), light=True,
        ),
        Engine(
            "labels", ("detect",), "boxes", "anything, by label", "sagemaker_model.detectors.labels:Labels",
            frozenset({"label"}), light=True,
        ),
        Engine(
            "faces", ("detect",), "boxes", "faces", "sagemaker_model.detectors.faces:Faces",
            frozenset({"label"}), light=True, kind="person",
        ),
        Engine(
            "people", ("detect",), "boxes", "people", "sagemaker_model.detectors.people:People",
            frozenset({"label"}), light=True, kind="person",
        ),
        Engine(
            "detector", ("detect",), "boxes", "the classes it was trained on",
            "sagemaker_model.detectors.trained:Trained", frozenset({"label"}), light=True,
        ),
        Engine(
            "rekognition", ("detect",), "boxes", "any label of Amazon Rekognition",
            "sagemaker_model.detectors.rekognition:Rekognition", frozenset({"label"}), light=True, paid=True,
        ),
    )
}  # fmt: skip

DEFAULT_ENGINE: dict[Task, str] = {
    "cutout": "auto",
    "mask": "auto",
    "detect": "labels",
    "replace": "auto",
}
"""The engine of a task where neither an engine nor a prompt is given."""

PROMPTED_ENGINE = "prompted"
"""The engine that segments by prompts where no engine is given."""


def engine(name: str) -> Engine:
    """The engine named `name`. Raises UnknownEngine that lists the engines."""
    try:
        return ENGINES[name]
    except KeyError:
        raise UnknownEngine(f'"engine" must be one of {", ".join(sorted(ENGINES))}; got {name!r:.80}.') from None


def default_engine(task: Task, *, prompted: bool) -> Engine:
    """The engine of a request that names none."""
    return ENGINES[PROMPTED_ENGINE if prompted and task in SEGMENTS else DEFAULT_ENGINE[task]]

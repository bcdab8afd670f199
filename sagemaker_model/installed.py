"""The installed engines and detectors: finds the one that serves the options of an image, and runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from maskdrop import catalog
from maskdrop.edit import EditorModel
from maskdrop.errors import UnknownEngine
from maskdrop.options import Options
from sagemaker_model.cutout import Cutout, ImageReader, ImageWriter, compose_candidates, cut_out, detect_objects
from sagemaker_model.detectors.base import Detector
from sagemaker_model.detectors.labels import Labels
from sagemaker_model.engines.base import Engine, installation
from sagemaker_model.engines.prompted import resolve
from sagemaker_model.engines.verification import EngineUnavailable
from sagemaker_model.engines.vitmatte import Refiner
from sagemaker_model.imaging.encode import encode
from sagemaker_model.imaging.pixels import Limits, decode


@dataclass(frozen=True, slots=True)
class Installed:
    """Engines and detectors by name, as `engines.base.load` and `detectors.labels.load_detectors` return them.

    unavailable: engines that failed their verification, with the reason. refiner: ViTMatte, where it is installed.
    """

    engines: Mapping[str, Engine]
    detectors: Mapping[str, Detector] = field(default_factory=dict)
    unavailable: dict[str, EngineUnavailable] = field(default_factory=dict)
    refiner: Refiner | None = None

    def resolved(self, options: Options) -> Options:
        """Returns the options with the engine that serves them: SAM for `prompted`, where it is available."""
        return replace(options, engine=resolve(options.engine, self.engines.keys() - self.unavailable.keys()))

    @property
    def labels(self) -> Detector:
        """The detector that finds the labels of prompts."""
        return self.detectors.get("labels") or Labels()

    def engine(self, name: str) -> Engine:
        """Raises UnknownEngine for an engine that is not installed, EngineUnavailable."""
        if error := self.unavailable.get(name):
            raise EngineUnavailable(f"The engine {name!r} is unavailable on this server. {error}")
        if name not in self.engines:
            raise _not_installed(name, self.engines)
        return self.engines[name]

    def detector(self, name: str) -> Detector:
        """Raises UnknownEngine for a detector that is not installed."""
        if name == "labels":
            return self.labels
        if name not in self.detectors:
            raise _not_installed(name, self.detectors)
        return self.detectors[name]

    def process(
        self,
        data: bytes,
        options: Options,
        limits: Limits,
        read: ImageReader = decode,
        write: ImageWriter = encode,
        background: bytes = b"",
        editor: EditorModel | None = None,
        read_file: ImageReader = decode,
    ) -> Cutout:
        """Processes one image in the calling thread: detects objects, or segments and renders; of an edit the first
        stage. The parameters are those of `cut_out`.

        Raises what `detect_objects` and `cut_out` raise, UnknownEngine and EngineUnavailable.
        """
        if catalog.engine(options.engine).returns == "boxes":
            return detect_objects(data, options, self.detector(options.engine), limits, read)
        options = self.resolved(options)
        engine = self.engine(options.engine)
        return cut_out(
            data, options, engine, limits, read, write, background, self.labels, editor, self.refiner, read_file
        )

    def compose(
        self,
        data: bytes,
        options: Options,
        alpha: bytes,
        generated: Sequence[bytes],
        limits: Limits,
        read: ImageReader = decode,
    ) -> Cutout:
        """Runs the last stage of an edit in the calling thread; see `compose_candidates`."""
        options = self.resolved(options)
        return compose_candidates(data, options, alpha, generated, self.engine(options.engine), limits, read)


def _not_installed(name: str, installed: Mapping[str, object]) -> UnknownEngine:
    names, how = ", ".join(sorted(installed)), installation(catalog.engine(name))
    return UnknownEngine(f"The engine {name!r} is not installed on this server; it has: {names}. {how}")

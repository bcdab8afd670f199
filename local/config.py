"""Where the local stack lives and which ports it takes: read once from the environment, typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from maskdrop.errors import MaskdropError
from maskdrop.settings import InvalidSettings, read

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
"""The only address on which anything listens: nothing here asks who is calling."""

REGION = "us-east-1"
KEY_ID = SECRET = "test"  # noqa: S105  any pair will do, the emulator checks neither
APP_STACK = "Maskdrop-dev"

PREFIX = "MASKDROP_LOCAL_"
AWS_PORT = f"{PREFIX}AWS_PORT"
SAGEMAKER_PORT = f"{PREFIX}SAGEMAKER_PORT"
MODEL_PORT = f"{PREFIX}MODEL_PORT"
STATE_DIR = f"{PREFIX}DIR"
STRICT = f"{PREFIX}STRICT"

PORTS = {"aws_port": 4566, "sagemaker_port": 8085, "model_port": 8080}
"""Ports of the emulator of AWS, of the emulator of SageMaker's runtime and of the model server, with defaults."""


class LocalError(MaskdropError):
    """The local stack cannot do what it was asked; the message says what to change."""

    code = "local_stack"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalConfig:
    """Ports and folders of one local stack. Two stacks run side by side when ports and `state` differ.

    made: what is built once and shared by every stack: the emulator's environment, weights, the synthesized template.
    state: what one running stack writes: pids, logs, temporary files, stack.json.
    folder: holds `drop/` and `results/`.
    strict: roles and policies are checked, and the emulator is reached by TLS alone.
    """

    aws_port: int = PORTS["aws_port"]
    sagemaker_port: int = PORTS["sagemaker_port"]
    model_port: int = PORTS["model_port"]
    made: Path = ROOT / ".local"
    state: Path = ROOT / ".local"
    folder: Path = ROOT
    strict: bool = False

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> LocalConfig:
        """Reads MASKDROP_LOCAL_{AWS,SAGEMAKER,MODEL}_PORT, _DIR and _STRICT. Raises LocalError, naming every fault
        together."""
        try:
            values = read(cls, env, prefix=PREFIX, only=(*PORTS, "strict"), check=_port_range)
        except InvalidSettings as error:
            raise LocalError(error.message) from error
        if len({values.get(name, default) for name, default in PORTS.items()}) < len(PORTS):
            raise LocalError(f"{', '.join(PREFIX + name.upper() for name in PORTS)} must be three different ports.")
        state = Path(env.get(STATE_DIR) or cls.made_by_default()).resolve()
        return cls(**values, state=state, folder=ROOT if state == cls.made_by_default() else state)

    def to_env(self) -> dict[str, str]:
        """The environment that `from_env` reads back."""
        return {
            AWS_PORT: str(self.aws_port),
            SAGEMAKER_PORT: str(self.sagemaker_port),
            MODEL_PORT: str(self.model_port),
            STATE_DIR: str(self.state),
            STRICT: str(int(self.strict)),
        }

    @staticmethod
    def made_by_default() -> Path:
        return ROOT / ".local"

    @property
    def endpoint_url(self) -> str:
        return f"{'https' if self.strict else 'http'}://{HOST}:{self.aws_port}"

    @property
    def ca_bundle(self) -> Path | None:
        """What the emulator's certificate is verified with: the certificate itself, which `up` makes. None without
        TLS."""
        return self.state / "tmp" / "tls" / "emulator.crt" if self.strict else None

    @property
    def sagemaker_url(self) -> str:
        return f"http://{HOST}:{self.sagemaker_port}"

    @property
    def model_url(self) -> str:
        return f"http://{HOST}:{self.model_port}"

    @property
    def cdk_out(self) -> Path:
        return self.made / "cdk.out"

    @property
    def weights(self) -> Path:
        return self.made / "weights"

    @property
    def sagemaker_file(self) -> Path:
        """What the emulator was told of SageMaker's resources: {resource type: {name: properties}}."""
        return self.state / "sagemaker.json"

    @property
    def drop(self) -> Path:
        return self.folder / "drop"

    @property
    def results(self) -> Path:
        return self.folder / "results"


def _port_range(name: str, value: int) -> str:
    return "a port, 1 to 65535" if name in PORTS and not 1 <= value <= 65535 else ""

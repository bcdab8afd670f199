"""Configuration of the local stack: ports and folders, read from the environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from maskdrop.errors import MaskdropError
from maskdrop.settings import InvalidSettings, read
from standalone.settings import data_folder

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
"""The only IP address on which the local stack listens, because it does not authenticate callers."""

REGION = "us-east-1"
KEY_ID = SECRET = "test"  # noqa: S105  the emulator checks neither

PREFIX = "MASKDROP_LOCAL_"
AWS_PORT = f"{PREFIX}AWS_PORT"
SAGEMAKER_PORT = f"{PREFIX}SAGEMAKER_PORT"
MODEL_PORT = f"{PREFIX}MODEL_PORT"
STATE_DIR = f"{PREFIX}DIR"
STRICT = f"{PREFIX}STRICT"
STAGE = f"{PREFIX}STAGE"

PORTS = {"aws_port": 4566, "sagemaker_port": 8085, "model_port": 8080}
"""Ports of the emulator of AWS, of the emulator of SageMaker's runtime and of the model server, with defaults."""


class LocalError(MaskdropError):
    """The local stack cannot perform the request. The message states what to change."""

    code = "local_stack"


class NotRunning(LocalError):
    """The local stack is not running."""

    code = "not_running"

    def __init__(self) -> None:
        super().__init__(
            "The local stack is not running. Start it with `make up`, or name a stage in AWS with --stage."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalConfig:
    """Ports and folders of one local stack. Stacks with different ports and `state` run side by side.

    made: folder of build outputs that all stacks share: the emulator's environment, weights, the synthesized template.
    state: folder of one running stack: PID files, logs, temporary files, stack.json.
    folder: parent folder of `drop/` and `results/`.
    stage: name of the deployed stage: "local" with a GPU endpoint, "local-cpu" with serverless endpoints.
    strict: whether the emulator enforces IAM policies and accepts TLS only.
    """

    aws_port: int = PORTS["aws_port"]
    sagemaker_port: int = PORTS["sagemaker_port"]
    model_port: int = PORTS["model_port"]
    made: Path = field(default_factory=lambda: LocalConfig.made_by_default())
    state: Path = field(default_factory=lambda: LocalConfig.made_by_default())
    folder: Path = ROOT
    stage: str = "local"
    strict: bool = False

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> LocalConfig:
        """Reads MASKDROP_LOCAL_{AWS,SAGEMAKER,MODEL}_PORT, _DIR, _STAGE and _STRICT. Raises LocalError, naming every
        fault together."""
        faults: list[str] = []
        values: dict[str, Any] = {}
        for names in (tuple(PORTS), ("stage", "strict")):
            try:
                values |= read(cls, env, prefix=PREFIX, only=names, check=_port_range)
            except InvalidSettings as error:
                faults.append(error.message)
        if len({values.get(name, default) for name, default in PORTS.items()}) < len(PORTS):
            faults.append(f"{', '.join(PREFIX + name.upper() for name in PORTS)} must be three different ports.")
        if faults:
            raise LocalError(" ".join(faults))
        state = Path(env.get(STATE_DIR) or cls.made_by_default()).resolve()
        return cls(**values, state=state, folder=ROOT if state == cls.made_by_default() else state)

    @classmethod
    def of_running_stack(cls, env: Mapping[str, str]) -> LocalConfig:
        """Returns the configuration of the stack that runs in the state folder: stack.json names its stage and ports,
        so that another shell does not need the variables with which it was started. Without it: `from_env`."""
        config = cls.from_env(env)
        try:
            stack = json.loads(config.stack_file.read_text())
            urls = {name: urlsplit(stack[f"{name}_url"]) for name in ("endpoint", "sagemaker", "model")}
            return replace(
                config,
                stage=stack["stage"],
                strict=urls["endpoint"].scheme == "https",
                aws_port=urls["endpoint"].port,
                sagemaker_port=urls["sagemaker"].port,
                model_port=urls["model"].port,
            )
        except (FileNotFoundError, ValueError, KeyError):
            return config

    def to_env(self) -> dict[str, str]:
        """Returns the environment variables that `from_env` reads."""
        return {
            AWS_PORT: str(self.aws_port),
            SAGEMAKER_PORT: str(self.sagemaker_port),
            MODEL_PORT: str(self.model_port),
            STATE_DIR: str(self.state),
            STAGE: self.stage,
            STRICT: str(int(self.strict)),
        }

    @staticmethod
    def made_by_default() -> Path:
        """Returns `.local` in a checkout of the repository, else the data folder of the user: a package manager owns
        the folder of an installed package."""
        return ROOT / ".local" if (ROOT / "cdk.json").exists() else data_folder()

    @property
    def endpoint_url(self) -> str:
        return f"{'https' if self.strict else 'http'}://{HOST}:{self.aws_port}"

    @property
    def ca_bundle(self) -> Path | None:
        """Path of the emulator's self-signed certificate, which `up` creates. None without TLS."""
        return self.state / "tmp" / "tls" / "emulator.crt" if self.strict else None

    @property
    def sagemaker_url(self) -> str:
        return f"http://{HOST}:{self.sagemaker_port}"

    @property
    def ai_url(self) -> str:
        """URL of the emulator of Rekognition and Bedrock, a part of the SageMaker emulator."""
        return f"{self.sagemaker_url}/ai"

    @property
    def ai_endpoints(self) -> dict[str, str]:
        """Environment variables by which boto3 finds that emulator."""
        return {
            "AWS_ENDPOINT_URL_REKOGNITION": f"{self.ai_url}/rekognition",
            "AWS_ENDPOINT_URL_BEDROCK": self.ai_url,
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": self.ai_url,
        }

    @property
    def bot_api_url(self) -> str:
        """URL of the stub of Telegram's Bot API, a part of the SageMaker emulator. The stage trusts the host name, not
        the IP address."""
        return f"http://localhost:{self.sagemaker_port}/telegram"

    def api_url(self, api: str, stage: str) -> str:
        """URL prefix of the HTTP API. The output ApiUrl names amazonaws.com; this is the same stage in the emulator."""
        return f"{self.endpoint_url}/restapis/{api}/{stage}/_user_request_"

    @property
    def model_url(self) -> str:
        return f"http://{HOST}:{self.model_port}"

    @property
    def cdk_out(self) -> Path:
        return self.made / "cdk.out" / self.stage

    @property
    def app_stack(self) -> str:
        """Name of the stack whose outputs name the buckets, tables, queues and the API."""
        return f"Maskdrop-{self.stage}"

    @property
    def stacks(self) -> tuple[str, ...]:
        """Names of the deployed stacks, in the order of their imports."""
        return (self.app_stack, f"MaskdropBulk-{self.stage}", f"MaskdropInteractive-{self.stage}")

    @property
    def weights(self) -> Path:
        return self.made / "weights"

    @property
    def stack_file(self) -> Path:
        """Path of the description of the running stack (local.stack.Stack), as JSON."""
        return self.state / "stack.json"

    @property
    def account(self) -> Path:
        """Folder that keeps the emulated account between two runs: one for each stage and port, which is in URLs."""
        return self.state / "accounts" / f"{self.stage}-{self.aws_port}"

    @property
    def unclean_file(self) -> Path:
        """Path of the mark that the emulator runs, or was killed: the account may be incomplete."""
        return self.account / "unclean"

    @property
    def first_key_file(self) -> Path:
        """Path of the text of the account's first API key."""
        return self.account / "first-key"

    @property
    def sagemaker_file(self) -> Path:
        """Path of the SageMaker resources that the emulator deployed, as {resource type: {name: properties}}."""
        return self.account / "sagemaker.json"

    @property
    def calls_file(self) -> Path:
        """Path of the calls that IAM roles made in strict mode, one JSON object per line."""
        return self.state / "calls.jsonl"

    @property
    def drop(self) -> Path:
        return self.folder / "drop"

    @property
    def results(self) -> Path:
        return self.folder / "results"


def _port_range(name: str, value: int) -> str:
    return "a port, 1 to 65535" if name in PORTS and not 1 <= value <= 65535 else ""

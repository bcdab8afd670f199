"""The table of commands, and the import of their modules on demand."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from cli.app import app
from cli.commands import TARGETS, load, summary

HEAVY = ("numpy", "cv2", "onnxruntime", "boto3", "httpx2", "torch")


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_the_summary_of_a_command_is_the_beginning_of_its_help(name: str) -> None:
    command = vars(load(name))
    assert command["name"] == name
    assert summary(TARGETS[name])
    assert " ".join(command["help"].split()).startswith(summary(TARGETS[name]))


def test_the_help_imports_no_heavy_library() -> None:
    program = f"""
import sys
from typer.testing import CliRunner
from cli.app import app
assert "cutout" in CliRunner().invoke(app, ["--help"]).output
print([name for name in {HEAVY} if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    assert result.stdout.strip() == "[]"


def test_a_misspelt_command_is_corrected_and_exits_2() -> None:
    result = CliRunner().invoke(app, ["cutou"])
    assert result.exit_code == 2
    assert "cutout" in result.output


def test_the_shell_completes_the_names_of_commands_and_their_options() -> None:
    def completed(words: str, index: int) -> str:
        environment = {"_MASKDROP_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(index)}
        return CliRunner().invoke(app, [], env=environment, prog_name="maskdrop").output

    assert completed("maskdrop cut", 1).split() == ["cutout"]
    assert "--engine" in completed("maskdrop cutout --e", 2).split()

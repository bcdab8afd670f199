"""The workflows for GitHub Actions in docs/examples: every command, action and file that they name exists."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import stages
from tests.contract.commands import check_cdk, check_maskdrop, make_targets

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "examples" / "github-actions"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))
PAGE = ROOT / "docs" / "ci.md"


def load(path: Path) -> dict[str, Any]:
    loaded = yaml.safe_load(path.read_text())
    assert isinstance(loaded, dict)
    return loaded


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in WORKFLOWS:
        for name, job in load(path)["jobs"].items():
            for step in job.get("steps", []):
                yield f"{path.name}: {name}", step


def commands() -> list[list[str]]:
    """The shell commands of the workflows and of the page, split into words."""
    lines = [line for _, step in steps() for line in step.get("run", "").splitlines()]
    lines += re.findall(r"`((?:maskdrop|npx) [^`]+)`", PAGE.read_text())
    return [shlex.split(part) for line in lines for part in re.split(r"&&|\||;|\d?>>? ", line.strip()) if part.strip()]


def of(program: str) -> list[list[str]]:
    found = [words for words in commands() if words[0] == program]
    assert found, program
    return found


def test_every_maskdrop_command_exists_with_its_options() -> None:
    for _, *words in of("maskdrop"):
        check_maskdrop(words)


def test_the_stages_are_checked_deployed_and_tested_in_this_order() -> None:
    scripts = [step["run"] for step in load(FOLDER / "stage.yml")["jobs"]["deploy"]["steps"] if "run" in step]
    found = re.findall(r"(?:^maskdrop|aws-cdk@[\d.]+) (\w+)", "\n".join(scripts), re.MULTILINE)
    assert found == ["doctor", "deploy", "smoke", "doctor"]


def test_every_make_target_exists() -> None:
    assert {words[1] for words in of("make")} <= make_targets()


def test_every_cdk_command_has_the_version_and_the_options_of_the_documentation() -> None:
    versions = set(re.findall(r"aws-cdk@[\d.]+", (ROOT / "docs" / "operations.md").read_text()))
    for words in of("npx"):
        package, command, *options = [word for word in words[1:] if word != "--yes"]
        assert {package} == versions
        check_cdk([command, *options])


def test_every_action_is_pinned_by_its_major_version_and_every_file_exists() -> None:
    used = [step["uses"] for _, step in steps() if "uses" in step]
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", action)
    called = [job["uses"] for path in WORKFLOWS for job in load(path)["jobs"].values() if "uses" in job]
    for workflow in called:
        assert (FOLDER / workflow.removeprefix("./.github/workflows/")).exists()
    for words in of("pip"):
        if "--requirement" in words:
            assert (ROOT / words[words.index("--requirement") + 1]).exists()


def test_every_stage_that_is_deployed_has_a_file() -> None:
    jobs = load(FOLDER / "deploy.yml")["jobs"]
    deployed = {job["with"]["stage"] for job in jobs.values() if "with" in job}
    assert deployed == {"dev", "prod"} == {*jobs["diff"]["strategy"]["matrix"]["stage"]}
    assert deployed <= {*stages.names()}


def test_only_jobs_that_call_aws_get_an_identity_token() -> None:
    for path in WORKFLOWS:
        workflow = load(path)
        for name, job in workflow["jobs"].items():
            granted = job.get("permissions", workflow["permissions"]).get("id-token") == "write"
            calls_aws = "uses" in job or any(
                "configure-aws-credentials" in step.get("uses", "") for step in job["steps"]
            )
            assert granted is calls_aws, name


def test_no_script_contains_an_expression() -> None:
    """GitHub inserts an expression as text: a title or a tag could then contain commands. Scripts read variables."""
    for place, step in steps():
        assert "${{" not in step.get("run", ""), place


@pytest.mark.parametrize("policy", re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL))
def test_every_policy_of_the_page_is_json_with_statements(policy: str) -> None:
    for statement in json.loads(policy)["Statement"]:
        assert statement["Effect"] == "Allow"
        assert statement["Action"]

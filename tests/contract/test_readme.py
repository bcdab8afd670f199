import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cli.app import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "samples" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "tutorials").glob("*.md")),
]


def blocks(text: str) -> list[str]:
    """Returns the fenced blocks without a language and without a table: the commands for a reader."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block.strip() for language, block in found if not language and not block.lstrip().startswith(("┃", "│"))]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_two_commands_of_the_readme_are_make_run_and_make_test() -> None:
    assert blocks(README) == ["make run", "make test"]


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_of_a_page_exists(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    assert set(re.findall(r"`make ([a-z-]+)`", page.read_text())) <= targets()


def commands() -> dict[str, bool]:
    """Returns whether each command of `maskdrop` is a group. The key of a nested command is like "keys create"."""
    found: dict[str, bool] = {}
    for name, command in vars(typer.main.get_command(app))["commands"].items():
        group = vars(command).get("commands", {})
        found[name] = bool(group)
        found |= {f"{name} {nested}": False for nested in group}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_maskdrop_command_that_a_page_names_exists(page: Path) -> None:
    known = commands()
    for first, second in re.findall(r"(?:^|`|&& )maskdrop ([a-z-]+)(?: ([a-z-]+))?", page.read_text(), re.MULTILINE):
        assert first in known
        assert not known[first] or not second or f"{first} {second}" in known


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_shows_its_help(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "usage: " in result.output.lower()  # Typer or argparse


def test_every_make_target_has_a_help_line() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == targets()

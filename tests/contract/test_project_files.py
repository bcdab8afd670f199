"""The files around the code: settings of GitHub, of the hooks and of the documentation site."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.pages import names, sources

ROOT = Path(__file__).parents[2]
GITHUB = sorted((ROOT / ".github").rglob("*.*"))
YAML = [*(path for path in GITHUB if path.suffix == ".yml"), ROOT / ".pre-commit-config.yaml", ROOT / "mkdocs.yml"]
FORMS = [path for path in YAML if path.parent.name == "ISSUE_TEMPLATE" and path.name != "config.yml"]
TEXTS = [*GITHUB, *YAML, ROOT / "SECURITY.md", ROOT / "Makefile", ROOT / "docs" / "pages.py"]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def leaves(nav: Any) -> Iterator[str]:
    """Yields the pages of a navigation of MkDocs: a page is a text, a section a list, a title a mapping."""
    if isinstance(nav, str):
        yield nav
    else:
        for child in nav.values() if isinstance(nav, dict) else nav:
            yield from leaves(child)


@pytest.mark.parametrize("path", YAML, ids=name_of)
def test_every_yaml_file_has_a_mapping(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text()), dict)


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_every_make_target_that_a_file_names_exists(path: Path) -> None:
    assert set(re.findall(r"`make ([a-z-]+)`", path.read_text())) <= targets()


@pytest.mark.parametrize("name", [".github/pull_request_template.md", ".github/ISSUE_TEMPLATE/feature.yml"])
def test_contributors_are_pointed_to_make_check_and_make_test(name: str) -> None:
    assert {"check", "test"} <= set(re.findall(r"`make ([a-z-]+)`", (ROOT / name).read_text()))


@pytest.mark.parametrize("path", FORMS, ids=name_of)
def test_every_issue_form_has_what_github_requires(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields) > 0
    assert all(field["attributes"]["label"] for field in fields)


def test_dependabot_watches_folders_with_files_of_its_ecosystem() -> None:
    files = {"pip": "requirements*.txt", "docker": "Dockerfile", "github-actions": ""}
    for update in load(".github/dependabot.yml")["updates"]:
        pattern = files[update["package-ecosystem"]]
        for folder in update.get("directories") or [update["directory"]]:
            assert not pattern or list((ROOT / folder.strip("/")).glob(pattern)), folder


def test_the_local_hooks_run_commands_of_make_check() -> None:
    recipes = (ROOT / "Makefile").read_text()
    (local,) = (repo for repo in load(".pre-commit-config.yaml")["repos"] if repo["repo"] == "local")
    for hook in local["hooks"]:
        command = re.sub(r" --\S+", "", hook["entry"]).replace(".venv", "$(VENV)")
        assert re.search(rf"^\t@{re.escape(command)}\b", recipes, re.MULTILINE), command


def test_the_navigation_of_the_site_has_every_page_once() -> None:
    assert sorted(leaves(load("mkdocs.yml")["nav"])) == sorted(names())


def test_every_page_of_the_site_exists() -> None:
    assert [source for source in sources() if not (ROOT / source).is_file()] == []

"""docs/serve.md and its examples."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import yaml

from standalone.settings import PREFIX, ServeSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serve.md").read_text()
EXAMPLES = ROOT / "docs" / "examples"


def block(language: str, first: str) -> str:
    """Returns the code block of the page that starts with this text."""
    found = re.search(rf"```{language}\n({re.escape(first)}.*?)```", PAGE, re.DOTALL)
    assert found, first
    return found[1]


def test_the_compose_file_of_the_page_is_the_example() -> None:
    example = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())
    assert (EXAMPLES / example["services"]["maskdrop"]["build"].pop("context")).resolve() == ROOT
    page = yaml.safe_load(block("yaml", "services:"))
    page["services"]["maskdrop"]["build"].pop("context")
    assert page == example


def test_the_unit_of_the_page_is_the_example() -> None:
    assert (EXAMPLES / "maskdrop.service").read_text().endswith(block("ini", "[Unit]"))


def test_every_setting_that_the_page_names_exists() -> None:
    known = {PREFIX + field.name.upper() for field in fields(ServeSettings)}
    named = set(re.findall(r"SERVE_[A-Z_]+", PAGE))
    assert named
    assert named <= known


def test_the_limits_of_the_page_are_the_defaults() -> None:
    settings = ServeSettings(data=Path())
    rows = re.findall(r"`(SERVE_[A-Z_]+)` \| ([\d,]+) \|", PAGE)
    assert len(rows) >= 5
    for name, default in rows:
        assert float(default.replace(",", "")) == getattr(settings, name.removeprefix(PREFIX).lower()), name

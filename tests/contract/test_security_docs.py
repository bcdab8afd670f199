"""The threat model of docs/security.md: every row names a test that exists."""

import re
from functools import cache

from infra.sources import ROOT

ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| (.+) \|$", re.MULTILINE)


@cache
def rows() -> list[tuple[str, str, str, str]]:
    text = (ROOT / "docs" / "security.md").read_text()
    section = text.partition("## Threat model")[2].partition("\n## ")[0]
    return [row for row in ROW.findall(section) if not row[0].startswith(("who", "---"))]


@cache
def existing() -> set[str]:
    return {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }


def test_every_threat_names_tests_that_exist() -> None:
    assert len(rows()) >= 25
    for who, what, _, shown in rows():
        named = re.findall(r"`(\w+)`", shown)
        assert named, f"{who}, {what}: no test"
        assert [name for name in named if name not in existing()] == [], f"{who}, {what}"


def test_the_threats_are_those_of_every_kind_of_caller() -> None:
    assert {who for who, *_ in rows()} == {
        "anyone on the internet",
        "a caller",
        "the author of an image",
        "the host of a URL or webhook",
        "a container that is taken over",
        "the author of a package or of weights",
        "a web page in a browser",
        "a reader of logs",
    }

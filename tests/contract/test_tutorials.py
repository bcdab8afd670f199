"""The tutorials: their commands and options exist, and their images are there. `make test-web` runs the commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.contract import commands

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
IMAGES = ROOT / "docs" / "images" / "console"

LINES_MAX = 140
IMAGE_BYTES_MAX = 120_000
KINDS = r'|aws|install|exit \d+|server "[^"]+"'
"""Comments before a block; tests/web/tutorial.js documents them."""

AWS = {
    "cloudformation describe-stacks": {"--stack-name", "--output", "--query"},
    "s3 cp": set[str](),
    "s3 ls": {"--recursive"},
}
"""Commands of the AWS CLI and their options that the tutorials use."""


def blocks(page: Path) -> list[tuple[str, str]]:
    """Returns (kind, code) of each shell block."""
    return re.findall(r"(?:^<!-- tutorial: ([^\n]*) -->\n)?^```sh\n(.*?)^```$", page.read_text(), re.M | re.S)


def calls(page: Path, program: str) -> list[list[str]]:
    """Returns the calls of a program in the shell blocks of a page, split into words, without the program."""
    code = "\n".join(code for _, code in blocks(page)).replace("\\\n", " ")
    found = re.findall(rf"(?:^|&& |\$\(){program} ([^|&;)\n]*|.*?(?=\)$))", code, re.M)
    return [shlex.split(call, comments=True) for call in found]


def test_there_are_four_tutorials() -> None:
    assert [page.stem for page in PAGES] == ["click-to-segment", "drop-folder", "replace-removebg", "train-your-own"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_tutorial_exists_with_its_options(page: Path) -> None:
    for words in calls(page, "maskdrop"):
        commands.check_maskdrop(words)
    for words in calls(page, r"npx aws-cdk@2.1148.1"):
        commands.check_cdk(words)
    for words in calls(page, "make"):
        assert set(words) <= commands.make_targets(), words
    for words in calls(page, "aws"):
        assert {word for word in words if word.startswith("--")} <= AWS[" ".join(words[:2])], words
    for words in calls(page, "pip"):
        files = [words[place + 1] for place, word in enumerate(words) if word == "--requirement"]
        assert all((ROOT / file).exists() for file in files), words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_is_one_page_of_blocks_that_its_test_knows(page: Path) -> None:
    assert len(page.read_text().splitlines()) <= LINES_MAX
    assert blocks(page)
    for kind, _ in blocks(page):
        assert re.fullmatch(KINDS, kind), kind


def test_every_screenshot_is_small_and_in_a_page() -> None:
    pages = [*PAGES, ROOT / "README.md", ROOT / "docs" / "console.md"]
    shown = {name for page in pages for name in re.findall(r"images/console/([\w-]+\.png)\)", page.read_text())}
    assert {path.name for path in IMAGES.iterdir()} == shown
    assert {path.name: path.stat().st_size for path in IMAGES.iterdir() if path.stat().st_size > IMAGE_BYTES_MAX} == {}

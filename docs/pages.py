"""Collects the pages of the documentation site: the project's Markdown files and two references made from the code.

`make docs` runs it and then MkDocs. Relative links that work on GitHub are rewritten for the site.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from docs.api_reference import api_page
from lambdas.http.openapi import document

ROOT = Path(__file__).resolve().parents[1]

ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "CHANGELOG.md": "changelog.md",
    "samples/README.md": "samples.md",
}
"""Markdown files outside docs/, relative to the root: their names on the site."""

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def build(site: Path) -> None:
    """Writes all pages and images into the folder `site`, which it empties first."""
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(ROOT / "docs" / "images", site / "images")
    for source, name in sources().items():
        text = (ROOT / source).read_text()
        (site / name).write_text(for_site(notebook_page(text) if source.endswith(".ipynb") else text, source))
    (site / "api.md").write_text("\n".join(api_page(document())))
    (site / "cli.md").write_text(cli_page())


def names() -> set[str]:
    """Returns the names of all pages of the site."""
    return {*sources().values(), "api.md", "cli.md"}


def sources() -> dict[str, str]:
    """Returns the Markdown files and notebooks of the site, as path relative to the root: name on the site."""
    docs = ROOT / "docs"
    paths = [path for names in ("*.md", "tutorials/*.md", "notebooks/*.ipynb") for path in sorted(docs.glob(names))]
    return ROOT_PAGES | {str(path.relative_to(ROOT)): f"{path.stem}.md" for path in paths}


def notebook_page(text: str) -> str:
    """Returns the cells of a notebook as Markdown."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return "\n\n".join(f"```python\n{source}\n```" if kind == "code" else source for kind, source in cells)


def for_site(text: str, source: str) -> str:
    """Returns the text of a file with its relative links rewritten for the site.

    source: path of the file, relative to the root. A link to a file that the site does not have becomes its text.
    """
    pages = sources()

    def rewritten(link: re.Match[str]) -> str:
        image, label, target, fragment = link[1], link[2], link[3], link[4] or ""
        if "://" in target or target.startswith("mailto:"):
            return link[0]
        path = os.path.normpath(Path(source).parent / target)
        if image or path.startswith("docs/images/"):
            return f"{image}[{label}]({path.removeprefix('docs/')})"
        return f"[{label}]({pages[path]}{fragment})" if path in pages else label

    return LINK.sub(rewritten, text)


def cli_page() -> str:
    """Returns the reference of the command line, as Typer writes it from the code."""
    command = [sys.executable, "-m", "typer", "cli.app", "utils", "docs", "--name", "maskdrop", "--title", "CLI"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 (fixed arguments)
    return result.stdout.replace(f"{ROOT}/", "")  # defaults that are paths below the root


if __name__ == "__main__":
    build(Path(sys.argv[1]))

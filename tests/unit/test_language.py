"""The texts of the project use the field's terms: phrases that readers could not search for stay out."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Phrase, and what to write instead. They are looked for in whole files: prose, strings, comments and names.
EVERYWHERE = {
    r"\b(told|said|asked)\b": "request, response, payload, parsed options",
    r"\bin vain\b": "after N failed attempts",
    r"\bwhoever\b|\bwhatever\b|\bone's own\b": "caller, user, your; the object by its name",
    r"\bcomes? again\b|\b(goes|sent|go|went) round\b": "is retried, is redelivered, returns to the queue",
    r"\b(its|their) turn\b": "is queued",
    r"\b(fault|shortage)s? of ours\b|\bof ours\b": "server error; retry",
    r"\bmakes? small\b": "the loss it minimises",
    r"\bon the way of\b": "through the production pipeline",
    r"\bsays? (so|that|what|how|why|which)\b": "returns, logs, reports, warns, states",
    r"\bstand-ins?\b|\bstands? in\b": "fake (tests), local emulator or stub",
    r"\b(bring|brings|brought) down\b": "crash, stop",
    r"\b(gave|gives?|giving) up\b": "failed after the maximum number of attempts",
    r"\b(under guard|guarded)\b": "with SSRF protection",
    r"\bforgets?\b": "deletes",
    r"\bvalid for a while\b": "presigned URL",
    r"\b(come|comes|came) back\b": "is returned, response",
    r"\bis none that\b|\bare none\b": "is not one that",
    r"\bmet a\b|\bmeets a\b": "fails with",
    r"\b(become|becomes|became) of\b": "the state of, the outcome of",
    r"\btoo often\b": "more than N times",
    r"\bmakes? do\b|\bholds? (it|them|us|our) (against|beside)\b": "compares",
    r"\bleaves? nothing\b|\bnothing (is )?to be done\b": "name the actor and the object",
}
# These are also names in formats and libraries, so that only prose is searched: pages, comments and texts.
PROSE = {
    r"(?<!IP )(?<!IPv4 )(?<!IPv6 )(?<!e-mail )\baddress(es)?\b": "URL, IP address, S3 URI, path",
    r"\banswer(s|ed|ing)?\b": "response, result, return value; responds, returns",
    r"\b(ask|asks|asking)\b": "requests, calls, reads, queries",
    r"(?<!`)\bpictures?\b": "image",
    r"\bwhat there is\b|\bwhat it was\b|\bwhat stands\b": "name the object",
    r"\bof one's\b|\ba while\b": "your; a duration with its unit",
}

SOURCES = (
    "maskdrop",
    "maskdrop_client",
    "lambdas",
    "sagemaker_model",
    "standalone",
    "infra",
    "local",
    "cli",
    "app.py",
    "web",
)
TEXTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "pyproject.toml", "docs")


def files() -> list[str]:
    """Paths of the pages and modules that readers and users see, relative to the root."""
    roots = [ROOT / name for name in (*SOURCES, *TEXTS)]
    paths = [path for root in roots for path in ([root] if root.is_file() else sorted(root.rglob("*")))]
    return [str(path.relative_to(ROOT)) for path in paths if path.suffix in {".py", ".md", ".toml", ".html"}]


def prose(name: str, text: str) -> Iterator[tuple[int, str]]:
    """Lines of prose of a file with their numbers: all of a page, the strings and comments of a module."""
    if not name.endswith(".py"):
        yield from enumerate(text.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT) and " " in token.string.strip():
            for offset, line in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, line


def hits(name: str) -> list[str]:
    text = (ROOT / name).read_text()
    found = []
    for lines, table in ((list(enumerate(text.splitlines(), 1)), EVERYWHERE), (list(prose(name, text)), PROSE)):
        for number, line in lines:
            for pattern, instead in table.items():
                if match := re.search(pattern, line, re.IGNORECASE):
                    found.append(f"{name}:{number}: '{match.group()}': write {instead}: {line.strip()[:110]}")
    for pattern, instead in EVERYWHERE.items():  # phrases across two lines
        for match in re.finditer(pattern.replace(" ", r"\s*\n\s*(?:# )?"), text, re.IGNORECASE):
            if "\n" in match.group():
                number = text.count("\n", 0, match.start()) + 1
                found.append(f"{name}:{number}: '{' '.join(match.group().split())}': write {instead}")
    return found


@pytest.mark.parametrize("name", files())
def test_the_file_uses_the_terms_of_the_field(name: str) -> None:
    assert not hits(name), "\n".join(hits(name))

"""Searches a source tree for uses of remove.bg, and changes them on request."""

from __future__ import annotations

import codecs
import difflib
import os
import re
import shutil
import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cli.migrate.rules import LINE_MAX, RULES, Action, Kind, Rule, Target, line_at
from maskdrop.errors import MaskdropError

SKIPPED_FOLDERS = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        "node_modules",
        "bower_components",
        "vendor",
        "site-packages",
        "venv",
        ".venv",
        "__pycache__",
        ".tox",
        ".nox",
        ".terraform",
        ".gradle",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
    }
)
"""Folders of version control, installed packages and caches. A folder with pyvenv.cfg is skipped too."""

LOCK_FILES = frozenset(
    {
        "package-lock.json",
        "npm-shrinkwrap.json",
        "yarn.lock",
        "pnpm-lock.yaml",
        "bun.lock",
        "poetry.lock",
        "uv.lock",
        "Pipfile.lock",
        "Gemfile.lock",
        "composer.lock",
        "go.sum",
        "pubspec.lock",
        "packages.lock.json",
        "Cargo.lock",
    }
)
"""Files that package managers write: they are searched by their manifests."""

BYTES_MAX = 20_000_000
"""Largest file that is searched, in bytes. Exports of workflows have at most a few megabytes."""

HEAD = 8192
"""First bytes of a file in which a zero byte marks it as binary, as in Git."""

TEXT_MAX = 160
"""Characters of a line that are shown: minified files have one line."""

DOCUMENTS = re.compile(
    r"(?i)(?:\.(?:md|mdx|markdown|rst|adoc|asciidoc|org|txt|tex)|^(?:README|CHANGELOG|CHANGES|LICENSE|NOTICE|TODO)[^.]*)$"
)
REQUIREMENTS = re.compile(r"(?i)^(?:.*requirements.*|constraints.*)\.txt$")

HASH_COMMENTS = re.compile(
    r"(?i)(?:\.(?:py|pyi|rb|sh|bash|zsh|fish|ya?ml|toml|tf|tfvars|hcl|pl|r|ps1|conf|cfg|ini|properties|mk|http|rest|ex"
    r"|nix|php|txt|in|just)|^(?:Makefile|Dockerfile.*|Jenkinsfile|Gemfile|Pipfile|Justfile|crontab|hosts|\.env.*)"
    r"|\.env(?:\..*)?)$"
)
COMMENT = re.compile(r"\s*(?://|/\*|\*[\s/]|\*$|<!--|;)")
HASH_COMMENT = re.compile(r"\s*(?:#|//|;|\"#)")
MARKUP = re.compile(
    r"(?i)\.(?:json|ya?ml|toml|ini|cfg|conf|properties|xml|html?|env|csv|ipynb|svg|vue|svelte|http|rest)$"
)
"""Files in which a text may stand without quotes."""

SECRET = re.compile(
    r"(?i)((?:key|token|secret|password)[\"']?\]?\s*(?:=>|[:=,])\s*(?:[\"']?value[\"']?\s*:\s*)?[\"']?)((?=[a-z_-]*\d)[a-z0-9_-]{16,})"
)
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
ANY_USE = re.compile(r"(?i)remove.{0,9}?bg|rembgpy", re.DOTALL)


class NotWritten(MaskdropError):
    """A file could not be changed."""

    code = "not_written"


@dataclass(frozen=True, slots=True)
class Finding:
    """A use of remove.bg. file: path relative to the searched folder. line, column: from 1. text: the line, shortened,
    without secrets. change: what to do."""

    file: str
    line: int
    column: int
    rule: str
    kind: Kind
    action: Action
    text: str
    change: str


@dataclass(frozen=True, slots=True)
class Source:
    """A text file. raw: its bytes. encoding: "latin-1" for bytes that are not UTF-8, which keeps every byte."""

    path: Path
    name: str
    raw: bytes
    text: str
    encoding: str


@dataclass(frozen=True)
class Edited:
    """A file with changes. text: after them."""

    source: Source
    text: str

    @cached_property
    def diff(self) -> str:
        """The unified diff, without secrets."""
        before, after = (hide_secrets(text).splitlines(keepends=True) for text in (self.source.text, self.text))
        lines = difflib.unified_diff(before, after, f"a/{self.source.name}", f"b/{self.source.name}")
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in _visible_ends(lines))


@dataclass(frozen=True, slots=True)
class Found:
    """The uses in a tree. notes: what was skipped, with the reason. files: number of searched files."""

    findings: list[Finding] = field(default_factory=list)
    edits: list[Edited] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: int = 0

    def count(self, action: Action) -> int:
        return sum(finding.action == action for finding in self.findings)


def scan(root: Path, target: Target) -> Found:
    """Searches a file, or the files of a folder in the order of their names. Follows no symbolic link but `root`."""
    notes: list[str] = []
    base = root.parent if root.is_file() else root
    paths = [root] if root.is_file() else [*_files(root, base, notes)]
    local = {Path(path).stem for path in paths if path.suffix == ".py"} | {
        path.parent.name for path in paths if path.name == "__init__.py"
    }
    found = Found(notes=notes)
    searched = 0
    for path in paths:
        source = _read(path, path.relative_to(base).as_posix(), notes)
        if source is None:
            continue
        searched += 1
        if ANY_USE.search(source.text) is None:
            continue
        if path.name in LOCK_FILES:
            notes.append(f"{source.name}: lock file, not changed; its package manager writes it")
            continue
        findings, text = search(source, target, own_module="removebg" in local)
        found.findings.extend(findings)
        if text != source.text:
            found.edits.append(Edited(source, text))
    return Found(found.findings, found.edits, notes, searched)


def search(source: Source, target: Target, *, own_module: bool = False) -> tuple[list[Finding], str]:
    """Returns the uses in a file in the order of their lines, and its text with the changes.

    own_module: whether the tree has a Python module `removebg` of its own, which its imports mean.
    """
    text, name = source.text, source.path.name
    taken: list[tuple[int, int]] = []
    changes: list[tuple[int, int, str]] = []
    findings: list[Finding] = []
    ends = [match.start() for match in re.finditer("\n", text)]
    document = DOCUMENTS.search(name) is not None and not REQUIREMENTS.search(name)
    for rule in RULES:
        if not _applies(rule, name, text, own_module=own_module):
            continue
        for match in rule.pattern.finditer(text):
            first, last = match.span("at" if match.re.groupindex.get("at") and match["at"] else 0)
            line = line_at(text, first)
            place = bisect_left(taken, (first, last))
            if any(first < end and start < last for start, end in taken[max(0, place - 1) : place + 1]):
                continue
            if rule.unless and rule.unless.search(line):
                continue
            begin = text.rfind("\n", 0, first) + 1
            before = text[begin:first] if first - begin <= LINE_MAX else ""
            comment = _is_comment(name, line, before)
            prose = document or comment or MARKUP.search(name) or not _closed(before)
            if rule.kind == "mention" and not prose:
                continue
            taken.insert(place, (first, last))
            replacement = None
            action = rule.action
            if document or comment:
                action = "mention"
            elif rule.replace and (replacement := rule.replace(match, target)) is not None:
                action = "edit"
                changes.append((*match.span(), replacement))
            finding = _finding(source, bisect_left(ends, first), first, match, rule, action, target)
            if not findings or (finding.rule, finding.line) != (findings[-1].rule, findings[-1].line):
                findings.append(finding)
    parts, position = [], 0
    for start, end, replacement in sorted(changes):
        parts += [text[position:start], replacement]
        position = end
    changed = "".join((*parts, text[position:]))
    return sorted(findings, key=lambda finding: (finding.line, finding.column)), changed


def write(edits: Sequence[Edited]) -> list[str]:
    """Writes the changed files, each at once: another process sees the old file or the new one. Keeps permissions,
    encoding and line endings. Returns their names. Raises NotWritten for a file that changed since it was read, and one
    that cannot be written; the files before it are written."""
    names: list[str] = []
    for edit in edits:
        source = edit.source
        try:
            if source.path.read_bytes() != source.raw:
                raise NotWritten(
                    f"{source.name} changed since it was read, and was not written. Run the command again."
                )
            _replace(source.path, encode(edit.text, source.encoding))
        except OSError as error:
            raise NotWritten(
                f"{source.name} was not written: {error.strerror}. Written before it: {', '.join(names) or 'no file'}."
            ) from error
        names.append(source.name)
    return names


def decode(raw: bytes) -> tuple[str, str]:
    """Returns the text of a file and its encoding."""
    for bom, encoding in BOMS:
        if raw.startswith(bom):
            return raw.decode(encoding), encoding
    try:
        return raw.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return raw.decode("latin-1"), "latin-1"


def encode(text: str, encoding: str) -> bytes:
    """The inverse of `decode`."""
    return text.encode(encoding)


def hide_secrets(text: str) -> str:
    """Replaces the values of keys, tokens and passwords by stars."""
    return SECRET.sub(lambda match: match[1] + "*" * 8, text)


def _applies(rule: Rule, name: str, text: str, *, own_module: bool) -> bool:
    if own_module and rule.name.startswith(("pypi-import", "pypi-package")):
        return False
    return bool(
        rule.files.search(name)
        and (rule.only_with is None or rule.only_with.search(text))
        and (rule.never_with is None or not rule.never_with.search(text))
    )


def _finding(
    source: Source, lines: int, first: int, match: re.Match[str], rule: Rule, action: Action, target: Target
) -> Finding:
    """lines: number of the lines before the match."""
    text = match.group()
    blank = text[: len(text) - len(text.lstrip())] if first == match.start() else ""
    start, lines = first + len(blank), lines + blank.count("\n")
    column = start - source.text.rfind("\n", 0, start) - 1
    shown, before = line_at(source.text, start), min(column, LINE_MAX)
    if len(shown) > TEXT_MAX:
        shown = shown[max(0, before - TEXT_MAX // 4) :][: 2 * TEXT_MAX]
    shown = hide_secrets(shown)[:TEXT_MAX]
    rename = f" and rename it to {target.rename}" if target.rename else "; its name can stay"
    template = rule.by_hand if rule.by_hand and action == "by hand" else rule.change
    change = template.replace("{url}", target.url).replace("{rename}", rename)
    if action == "mention":
        change = "no change: a mention"
    return Finding(
        source.name,
        lines + 1,
        column + 1,
        rule.name,
        "mention" if action == "mention" else rule.kind,
        action,
        shown.strip(),
        change,
    )


def _is_comment(name: str, line: str, before: str) -> bool:
    """Whether a match is in a comment: of the whole line, or at its end. before: the part of the line before it."""
    hashes = HASH_COMMENTS.search(name) is not None
    if (HASH_COMMENT if hashes else COMMENT).match(line):
        return True
    marker = re.search(r"\s#\s" if hashes else r"(?:^|\s)(?://|/\*)\s", before)
    return marker is not None and _closed(before[: marker.start()])


def _closed(text: str) -> bool:
    """Whether every quotation mark of a text has its pair."""
    return not any(text.count(mark) % 2 for mark in "\"'`")


def _files(folder: Path, base: Path, notes: list[str]) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        notes.append(f"{folder.relative_to(base).as_posix()}: not readable ({error.strerror})")
        return
    for entry in entries:
        path = Path(entry.path)
        name = path.relative_to(base).as_posix()
        if entry.is_symlink():
            notes.append(f"{name}: symbolic link, not followed")
        elif entry.is_dir(follow_symlinks=False):
            if entry.name in SKIPPED_FOLDERS or (path / "pyvenv.cfg").is_file():
                notes.append(f"{name}/: skipped (version control, installed packages or a cache)")
            else:
                yield from _files(path, base, notes)
        elif entry.is_file(follow_symlinks=False):
            yield path


def _read(path: Path, name: str, notes: list[str]) -> Source | None:
    """Reads a text file. Notes one that is too large or not readable; returns None for a binary file."""
    try:
        size = path.stat().st_size
        if size > BYTES_MAX:
            notes.append(f"{name}: {size / 1e6:.0f} MB, not searched (limit {BYTES_MAX / 1e6:.0f} MB)")
            return None
        raw = path.read_bytes()
        text, encoding = decode(raw)
    except OSError as error:
        notes.append(f"{name}: not readable ({error.strerror})")
        return None
    except UnicodeDecodeError:
        return None  # a binary file that starts like a byte-order mark
    if "\0" in text[:HEAD]:
        return None
    return Source(path, name, raw, text, encoding)


def _replace(path: Path, data: bytes) -> None:
    """Writes a file at once, with the permissions of the old one."""
    if not os.access(path, os.W_OK):
        raise PermissionError(13, "the file is read-only")
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        shutil.copystat(path, temporary)
        os.utime(temporary)  # the time of change is now: build tools compare it
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _visible_ends(lines: Iterator[str]) -> Iterator[str]:
    """Returns the lines of a diff with the note that `diff` writes for a last line without an end, and long lines
    shortened around their first use."""
    for line in lines:
        if len(line) > 4 * TEXT_MAX and not line.startswith(("---", "+++", "@@")):
            yield f"{line[0]}… {len(line) - 1} characters\n"
        elif line.endswith("\n"):
            yield line.replace("\r\n", "\n")
        else:
            yield f"{line}\n\\ No newline at end of file\n"

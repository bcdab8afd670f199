"""Reads the dependencies of installed packages."""

from __future__ import annotations

import re
from importlib import metadata


def with_dependencies(names: list[str]) -> set[str]:
    """Returns these packages and their dependencies, according to the installed metadata."""
    found: set[str] = set()
    waiting = [canonical(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # for another platform
            continue
        waiting += [canonical(re.split(r"[^\w.-]", need)[0]) for need in needs if "extra ==" not in need]
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

"""Links from alarms to docs/runbooks.md."""

from __future__ import annotations


def runbook_link(section: str) -> str:
    """Returns the sentence of an alarm's description that links its section of docs/runbooks.md."""
    return f"Runbook: docs/runbooks.md#{section.lower()}"

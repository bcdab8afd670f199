"""The settings of the functions: read once, typed; what infra writes is what they read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Literal

from maskdrop.errors import MaskdropError

PREFIX = "MASKDROP_"

Interactive = Literal["serverless", "realtime", "off"]
"""How one image is worked at once: on CPUs that are there only while they work, on GPUs that are always there, or not
at all."""


class InvalidSettings(MaskdropError):
    code = "invalid_settings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Names of the parts, and limits.

    stage: the deployment's name, as in "dev".
    interactive, interactive_mode: the name and the kind of the endpoint for one image now; "" and "off" without one.
    max_attempts: submissions of one image before it is failed.
    overdue_s: how long a job may stay queued or submitted before the sweep sends it round again, in seconds: 5 minutes
        more than a bundle may wait in the endpoint (6 hours, SageMaker's most) and be in work there (15 minutes).
    link_s: how long a presigned address of a result is valid, in seconds.
    cors_origins: the origins whose pages may call the API, with blanks between them, or "*"; "": none.
    keep_days: how long the record of a finished job is kept, in days.
    trusted_hosts: names of one's own hosts, with blanks between them, that the address of a source or a webhook may
        have although they are not public; at any port, by https or http.
    source_buckets: buckets, beside the inbox, whose objects any caller may make jobs of, with blanks between them.
    http_sources: 1: sources are fetched by plain http too; 0: by https alone.
    """

    stage: str
    inbox: str
    results: str
    table: str
    registry: str
    jobs_queue_url: str
    webhooks_queue_url: str
    endpoint: str
    event_bus: str
    interactive: str = ""
    interactive_mode: Interactive = "off"
    cors_origins: str = ""
    max_attempts: int = 5
    overdue_s: int = 22_800
    link_s: int = 900
    keep_days: int = 90
    trusted_hosts: str = ""
    http_sources: int = 0
    source_buckets: str = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Reads MASKDROP_<FIELD>. Raises InvalidSettings, naming every fault together."""
        faults: list[str] = []
        values: dict[str, str | int] = {}
        for field in fields(cls):
            name = PREFIX + field.name.upper()
            text = env.get(name, "")
            if not text:
                if field.default is MISSING:
                    faults.append(f"{name} is not set")
            elif isinstance(field.default, int):
                try:
                    values[field.name] = int(text)
                except ValueError:
                    faults.append(f"{name} is not a whole number: {text!r}")
            else:
                values[field.name] = text
        if faults:
            raise InvalidSettings("; ".join(faults) + ".")
        return cls(**values)  # type: ignore[arg-type]

    def to_env(self) -> dict[str, str]:
        """The environment that `from_env` reads back. What is empty is left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {PREFIX + name.upper(): str(value) for name, value in values.items() if value != ""}

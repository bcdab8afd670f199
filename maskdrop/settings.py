"""Settings: typed dataclasses that are read once from texts, and those of the Lambda functions.

One reader serves environment variables (functions, model server, local stack) and named texts (training).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from maskdrop.edit import EditorName
from maskdrop.errors import MaskdropError
from maskdrop.limits import BODY_MAX, BYTES_MAX
from maskdrop.record import not_none

PREFIX = "MASKDROP_"

Interactive = Literal["serverless", "realtime", "off"]
"""Kind of the endpoint for single images: serverless on CPUs, real-time on an instance that always runs, or none."""


class InvalidSettings(MaskdropError):
    code = "invalid_settings"


def read(
    kind: type,
    texts: Mapping[str, str],
    *,
    prefix: str = "",
    only: tuple[str, ...] = (),
    check: Callable[[str, Any], str] = lambda _name, _value: "",
) -> dict[str, Any]:
    """Values for the fields of a dataclass, parsed from texts by their type hints.

    prefix: reads environment variables: the prefix and the field's name in capitals; an empty variable is not set.
        Without a prefix, the names are the fields' own, and any other name is a fault.
    only: names of the fields to read; all by default.
    check: returns what a value must be, for a value out of range, else "".

    Raises InvalidSettings that names every fault: a missing, malformed, out-of-range or unknown setting.
    """
    hints, faults, values = get_type_hints(kind), [], {}
    wanted = {
        prefix + item.name.upper() if prefix else item.name: item
        for item in fields(kind)
        if not only or item.name in only
    }
    for name, text in texts.items():
        if name in wanted and (text or not prefix):
            item = wanted[name]
            try:
                value = values[item.name] = _parse(text, hints[item.name])
                accepted = check(item.name, value)
            except ValueError:
                accepted = _accepted(hints[item.name])
            if accepted:
                faults.append(f"{name} must be {accepted}; got {text!r}")
        elif not prefix:
            faults.append(f"{name!r} is not a setting; settings are {', '.join(wanted)}")
    for name, item in wanted.items():
        if item.default is MISSING and item.default_factory is MISSING and not texts.get(name):
            faults.append(f"{name} is not set")
    if faults:
        raise InvalidSettings("; ".join(faults) + ".")
    return values


def _parse(text: str, hint: Any) -> Any:
    """Raises ValueError."""
    if get_origin(hint) in (UnionType, Union):
        return None if text == "none" else _parse(text, not_none(hint))
    if get_origin(hint) is Literal or hint is bool:
        choices = _BOOLEANS if hint is bool else {choice: choice for choice in get_args(hint)}
        if text not in choices:
            raise ValueError
        return choices[text]
    if hint in (int, float) and not text.isascii():
        raise ValueError
    return hint(text)


def _accepted(hint: Any) -> str:
    """The values that `_parse` takes, as the end of a sentence."""
    if get_origin(hint) in (UnionType, Union):
        return f"{_accepted(not_none(hint))}, or none"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    return {int: "a whole number", float: "a number", bool: "1, 0, true or false", Path: "a path"}.get(hint, "text")


_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of the Lambda functions: names of resources, and limits. `infra` writes them, the functions read them.

    stage: the deployment's name, such as "dev".
    interactive, interactive_mode: name and kind of the endpoint for single images; "" and "off" without one.
    bundles_queue_url: queue of the bundles that `invoke` sends to a serverless endpoint; "" where `endpoint` is
        asynchronous.
    results_queue_url: queue of the notifications that `invoke` sends; "" where SageMaker sends them.
    edits_queue_url: queue of the jobs whose images `edit` generates.
    editor: the service that generates images from text: "local" draws studio backdrops, "off" refuses edits.
    edit_usd_per_month: maximum US dollars for generated images of one owner in a calendar month (UTC); 0 for none.
    bundle_max: images of a full bundle, 1 to 64.
    backlog_max: images that may be submitted and not finished; further ones wait in SQS (`maskdrop.valve`).
    max_attempts: submissions of an image, received by a container, before its job fails.
    overdue_s: seconds that a job may stay queued or submitted before the sweep queues it again. The default is 5
        minutes more than a bundle may wait in the endpoint (6 hours, SageMaker's maximum) plus 15 minutes of
        processing.
    link_s: seconds for which the presigned URL of a result is valid.
    cors_origins: origins whose pages may call the API, separated by spaces, or "*"; "" for none.
    keep_days: days for which the record of a finished job is kept.
    keep_corrections_days: days for which corrections are kept as training records; 0: corrections are refused.
    trusted_hosts: names of your own hosts, separated by spaces. URLs of sources and webhooks may name them although
        they are not public, at any port, by https or http.
    untrusted_ports: ports, separated by spaces, at which `trusted_hosts` are not trusted.
    engines: names of the engines that the containers have, and "vitmatte" if they have it, separated by spaces. "*":
        they may have others too.
    image_bytes, body_bytes: maximum bytes of an image in a request, and of a request body. `maskdrop serve` accepts
        more than the defaults, which fit into a payload of Lambda (`maskdrop.limits`).
    source_buckets: buckets, besides the inbox, whose objects any caller may name as a source, or `bucket/prefix/`,
        separated by spaces.
    malware_scan: 1 submits jobs once GuardDuty found their files clean (`maskdrop.malware`), 0 does not wait for it.
    http_sources: 1 fetches sources by plain http too, 0 by https only.
    images_per_month: maximum images of one owner in a calendar month (UTC); 0 for no maximum.
    bytes_per_day: maximum bytes that the requests of one owner may store in a day: upload forms with the size for which
        they are signed, sources from URLs, backgrounds.
    fetches_at_once, calls_at_once, webhooks_at_once: what one owner may have in progress: downloads of sources,
        images that the interactive endpoint processes, and deliveries of webhooks (`maskdrop.slots`).
    """

    stage: str
    inbox: str
    results: str
    table: str
    registry: str
    jobs_queue_url: str
    webhooks_queue_url: str
    dead_letters_queue_url: str
    endpoint: str
    event_bus: str
    interactive: str = ""
    interactive_mode: Interactive = "off"
    bundles_queue_url: str = ""
    results_queue_url: str = ""
    edits_queue_url: str = ""
    editor: EditorName = "local"
    edit_usd_per_month: float = 10.0
    bundle_max: int = 64
    backlog_max: int = 72_000
    cors_origins: str = ""
    max_attempts: int = 5
    overdue_s: int = 22_800
    link_s: int = 900
    keep_days: int = 90
    keep_corrections_days: int = 0
    trusted_hosts: str = ""
    untrusted_ports: str = ""
    http_sources: int = 0
    malware_scan: int = 0
    images_per_month: int = 0
    bytes_per_day: int = 1 << 40
    fetches_at_once: int = 10
    calls_at_once: int = 50
    webhooks_at_once: int = 3
    source_buckets: str = ""
    engines: str = "*"
    image_bytes: int = BYTES_MAX
    body_bytes: int = BODY_MAX

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Reads MASKDROP_<FIELD>. Raises InvalidSettings that names every fault."""
        return cls(**read(cls, env, prefix=PREFIX))

    def has_engine(self, name: str) -> bool | None:
        """Whether the containers have the engine; None if that is not known."""
        names = self.engines.split()
        return True if name in names else None if "*" in names else False

    @property
    def sources(self) -> list[tuple[str, str]]:
        """Bucket and key prefix of each entry of `source_buckets`. The prefix is "", or ends with "/"."""
        entries = [entry.partition("/") for entry in self.source_buckets.split()]
        return [(bucket, prefix) for bucket, _, prefix in entries]

    def to_env(self) -> dict[str, str]:
        """The environment that `from_env` reads; empty values are omitted."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {PREFIX + name.upper(): str(value) for name, value in values.items() if value != ""}

"""The settings of `maskdrop serve`: read once, typed. Those of the engines are `sagemaker_model.settings`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from maskdrop.limits import IMAGE_BYTES_MAX
from maskdrop.settings import InvalidSettings, Settings, read

PREFIX = "SERVE_"

BUCKET_IN, BUCKET_OUT = "inbox", "results"
"""The buckets of the local store: uploads and backgrounds, and results."""


def data_folder() -> Path:
    """Returns the folder of the server's database and files: $XDG_DATA_HOME/maskdrop, by default
    ~/.local/share/maskdrop."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "maskdrop"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Settings of `maskdrop serve`, beside those of its engines (MODEL_…).

    host, port: IP address and TCP port to listen on.
    data: folder of the database (keys, usage, jobs, presets) and of stored files.
    no_auth: whether requests need no API key. Allowed on a loopback IP address only, unless `anyone`.
    anyone: allows `no_auth` on every IP address: all who reach the port may use the server.
    requests_max: requests in progress at once, waiting ones included; one more gets 503.
    requests_bytes: bytes of their bodies in memory at once.
    request_s: seconds for one request, from its last byte to its response; then 504.
    body_s: seconds in which a body must arrive; then 408.
    drain_s: seconds for requests in progress after SIGTERM.
    keep_days: days for which stored files, and records of finished jobs, are kept.
    keep_corrections_days: days for which corrections are kept as training records; 0: corrections are refused.
    image_bytes: bytes of an image in a request. remove.bg accepts 22 MB.
    public_url: URL at which callers reach the server, in the URLs of stored results; "" for that of host and port.
    registry: name of the DynamoDB table with the keys, limits and presets of a stage; "": the database in `data`.
    cors_origins, trusted_hosts, http_sources: as in `maskdrop.settings.Settings`.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    data: Path
    no_auth: bool = False
    anyone: bool = False
    requests_max: int = 128
    requests_bytes: int = 512 * 1024 * 1024
    request_s: float = 120.0
    body_s: float = 120.0
    drain_s: int = 25
    keep_days: int = 7
    keep_corrections_days: int = 0
    image_bytes: int = IMAGE_BYTES_MAX
    public_url: str = ""
    registry: str = ""
    cors_origins: str = ""
    trusted_hosts: str = ""
    http_sources: int = 0

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ServeSettings:
        """Reads SERVE_<FIELD>; a variable that is not set keeps the default. Raises InvalidSettings."""
        texts = {f"{PREFIX}DATA": str(data_folder())} | {name: text for name, text in env.items() if text}
        return cls(**read(cls, texts, prefix=PREFIX, check=_range))

    def check(self) -> None:
        """Raises InvalidSettings where anyone who reaches the port could use the server."""
        if self.no_auth and not self.anyone and not is_loopback(self.host):
            raise InvalidSettings(
                f"Without keys the server must listen on 127.0.0.1; got {self.host!r}. Create a key (`maskdrop keys "
                "create NAME --serve`) and omit --no-auth, or add --anyone if other means protect the port."
            )

    @property
    def url(self) -> str:
        """The URL of the server, for its callers."""
        return self.public_url or f"http://{self.host}:{self.port}"

    @property
    def body_bytes(self) -> int:
        """Maximum bytes of a body: an image of `image_bytes` in base64, and 64 KiB of other fields."""
        return math.ceil(self.image_bytes / 3) * 4 + 64 * 1024

    def to_api(self) -> Settings:
        """Returns the settings of the API's handlers. There are no queues of SQS, and one endpoint: this process."""
        return Settings(
            stage="serve",
            inbox=BUCKET_IN,
            results=BUCKET_OUT,
            table="jobs",
            registry="registry",
            jobs_queue_url="",
            webhooks_queue_url="",
            dead_letters_queue_url="",
            endpoint="serve",
            event_bus="",
            interactive="serve",
            interactive_mode="realtime",
            cors_origins=self.cors_origins,
            keep_days=self.keep_days,
            keep_corrections_days=self.keep_corrections_days,
            trusted_hosts=self.trusted_hosts,
            http_sources=self.http_sources,
            image_bytes=self.image_bytes,
            body_bytes=self.body_bytes,
            fetches_at_once=max(2, self.requests_max // 4),
            calls_at_once=max(2, self.requests_max // 2),
            webhooks_at_once=1,  # deliveries run in the threads of the jobs
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host. A name other than localhost counts as reachable."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _range(_name: str, value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return "0 or above" if number and not 0 <= value < math.inf else ""

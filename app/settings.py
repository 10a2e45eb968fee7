"""The only reader of the environment, ``STATEROOM_HOST``, ``STATEROOM_PORT``, ..., and of the configuration file.

Both are read once, and passed on.
"""

import difflib
import ipaddress
import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator, ByteSize, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, InitSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from .config_file import read_config_file
from .values.duration import parse_duration

Names = Annotated[frozenset[str], NoDecode]
"""Several names, separated by commas or spaces."""


def _duration(given: object) -> object:
    return parse_duration(given) if isinstance(given, str) else given


Duration = Annotated[timedelta, BeforeValidator(_duration)]
"""A duration, such as ``30d``."""


def _networks(given: object) -> object:
    return frozenset(map(_network, given.replace(",", " ").split())) if isinstance(given, str) else given


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an address or a network; use 10.0.0.7 or 10.0.0.0/8") from None


Networks = Annotated[frozenset[ipaddress.IPv4Network | ipaddress.IPv6Network], NoDecode, BeforeValidator(_networks)]
"""Several addresses or networks, separated by commas or spaces."""

PREFIX = "STATEROOM_"

OBJECT_STORES = frozenset({"s3", "gs", "az"})
"""Schemes of the URLs of object stores."""

CLIENT_VARIABLES = frozenset({"URL", "TOKEN", "RUN", "CACHE_DIR", "CACHE_SIZE", "SPOOL_DIR", "RETRY_SECONDS"})
"""Variables that the Python client reads, without the prefix: they may be set where a server runs."""

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]+)?")


class Settings(BaseSettings):
    """The settings of one server. A keyword overrides the environment, and the environment the file ``config``.

    ``durable`` off skips every fsync, for benchmarks and throw-away servers. ``store_endpoint`` is the URL of an object
    store that is not its provider's own, whose requests have the bucket's name in their path if ``store_path_style``
    (None: if there is an endpoint); ``presign`` lets clients read
    from it without the server. ``preload_torch`` imports torch, if installed, after the start, not at the first cast.
    ``server_token`` is all-powerful. Deleted
    checkpoints stay in the ``trash`` (0: they are purged at once), purged bytes for ``grace`` seconds, and events for
    ``events_keep``; every ``sweep_interval`` seconds a sweep removes those whose time is over (0: never). Each worker
    takes in at most ``max_uploads`` at once, each of at most ``max_upload_bytes``, and its requests hold at most
    ``memory`` bytes. Uploads leave ``reserve`` bytes of the disk to work that frees bytes (None: by the disk's size).
    A request's head has ``head_seconds`` to arrive, a body may pause for ``body_seconds``, a client may take no byte of
    a response for ``send_seconds``, and in the long run both make ``least_rate`` bytes a second (0: or less). Running
    transfers have ``drain_seconds`` to end when the server stops. Without tokens a server answers only to
    ``allowed_hosts`` and to names that nobody else can give it. Web pages of ``allowed_origins`` may use it.
    The ``trusted_proxies`` are believed when they say for whom they ask. ``webhook_private`` lets webhooks have
    addresses that are not public. ``log_format`` is text on a terminal and JSON elsewhere, unless it is given.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True, validate_default=False
    )

    config: Path | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    data_dir: Path = Path("stateroom-data")
    database_url: str | None = None
    store_url: str | None = None
    store_endpoint: str | None = None
    store_path_style: bool | None = None
    presign: bool = False
    durable: bool = True
    preload_torch: bool = True
    server_token: SecretStr | None = None
    insecure: bool = False
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    grace: Annotated[float, Field(ge=0)] = 3600.0
    sweep_interval: Annotated[float, Field(ge=0)] = 600.0
    events_keep: Duration = timedelta(days=30)
    webhook_private: bool = False
    trash: Duration = timedelta(days=7)
    max_uploads: Annotated[int, Field(ge=1)] = 128
    max_upload_bytes: Annotated[ByteSize, Field(ge=1)] | None = None
    memory: Annotated[ByteSize, Field(ge=64 * 1024**2)] = ByteSize(1024**3)
    reserve: Annotated[ByteSize, Field(ge=0)] | None = None
    head_seconds: Annotated[float, Field(gt=0)] = 10.0
    body_seconds: Annotated[float, Field(gt=0)] = 30.0
    send_seconds: Annotated[float, Field(gt=0)] = 60.0
    least_rate: Annotated[int, Field(ge=0)] = 1024
    drain_seconds: Annotated[int, Field(ge=0)] = 30
    allowed_hosts: Names = frozenset()
    allowed_origins: Names = frozenset()
    trusted_proxies: Networks = frozenset()
    log_format: Literal["text", "json"] | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, by precedence. Raises StateroomError if the file cannot be read."""
        config = init_settings().get("config") or env_settings().get("config")
        known = settings_cls.model_fields.keys() - {"config"}
        file = {} if config is None else read_config_file(Path(config), known)
        return init_settings, env_settings, InitSettingsSource(settings_cls, file)

    @field_validator("allowed_hosts", "allowed_origins", mode="before")
    @classmethod
    def _between_commas(cls, given: object) -> object:
        return given.lower().replace(",", " ").split() if isinstance(given, str) else given

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, hosts: frozenset[str]) -> frozenset[str]:
        for host in hosts:
            if _HOST.fullmatch(host) is None:
                raise ValueError(f"{host!r} is not a host; use stateroom.example or stateroom.example:8765")
        return hosts

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, origins: frozenset[str]) -> frozenset[str]:
        for origin in origins:
            scheme, _, host = origin.partition("://")
            if scheme not in {"http", "https"} or _HOST.fullmatch(host) is None:
                raise ValueError(f"{origin!r} is not an origin; use https://app.example, without a path")
        return origins

    @field_validator("store_url")
    @classmethod
    def _is_a_store(cls, url: str | None) -> str | None:
        if url is None:
            return url
        parts = urlsplit(url)
        if parts.scheme in OBJECT_STORES and parts.netloc:
            return url
        if not (parts.scheme == "file" and parts.path.startswith("/")):
            raise ValueError("the store URL must be file:///PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://...")
        if parts.netloc not in {"", "localhost"}:
            raise ValueError(
                f"the store URL must be file:///PATH, with three slashes: {parts.netloc!r} is read as a host"
            )
        return url

    @field_validator("store_endpoint")
    @classmethod
    def _is_an_endpoint(cls, url: str | None) -> str | None:
        if url is not None and not (urlsplit(url).scheme in {"http", "https"} and urlsplit(url).hostname):
            raise ValueError("the endpoint must be the URL of an object store, such as https://minio.example:9000")
        return url

    @field_validator("database_url")
    @classmethod
    def _has_no_host(cls, url: str | None) -> str | None:
        """Refuse a host in SQLite's URL; the catalog checks everything else."""
        if url is not None and urlsplit(url).scheme.startswith("sqlite") and (host := urlsplit(url).netloc):
            raise ValueError(f"the database URL must be sqlite:///PATH, with three slashes: {host!r} is read as a host")
        return url

    @property
    def catalog_url(self) -> str:
        """The database's URL; by default a SQLite file in the data dir."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'catalog.sqlite3'}"

    @property
    def catalog_file(self) -> Path | None:
        """The database, if it is a file, which a server creates and migrates at start; None on a database server."""
        scheme, _, path = self.catalog_url.partition(":///")
        return Path(path) if scheme == "sqlite" else None

    @property
    def alone(self) -> bool:
        """Tell whether no server on another data dir can share this one's catalog."""
        return self.database_url is None

    @property
    def store_folder(self) -> Path | None:
        """The folder of packs; None for an object store. If it is on one file system with the spool, in the data dir,
        an upload becomes a pack by a rename.
        """
        if self.store_url is None:
            return self.data_dir.resolve()
        parts = urlsplit(self.store_url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    @property
    def spool_folder(self) -> Path:
        return self.data_dir.resolve() / "spool"

    @property
    def reserve_file(self) -> Path:
        """The file of the reserve, beside a database file, which needs room to write to free bytes on a full disk."""
        folder = self.data_dir.resolve() if self.catalog_file is None else self.catalog_file.parent
        return folder / "stateroom-reserve"

    @property
    def open_to_others(self) -> bool:
        """Tell whether other machines can reach the server."""
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host != "localhost"


def unknown_variables(names: Iterable[str]) -> Iterator[str]:
    """Yield a warning for each environment variable that looks like a setting and is none, with the closest setting."""
    known = {name.upper() for name in Settings.model_fields}
    for name in sorted(names):
        setting = name.upper().removeprefix(PREFIX)
        if name.upper().startswith(PREFIX) and setting not in known | CLIENT_VARIABLES:
            near = difflib.get_close_matches(setting[:100], sorted(known), n=1)
            yield f"{name} is set but is not a setting" + (f"; did you mean {PREFIX}{near[0]}?" if near else "")

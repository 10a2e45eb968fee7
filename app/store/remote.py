"""Opening an object store at its URL, through obstore. This module is imported only where one is used."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from obstore.store import ObjectStore, from_url

from .object_store import ObjectPackStore

SCHEMES = frozenset({"s3", "gs", "az"})

REQUEST_SECONDS = 120
"""Longest time of one request for an object of 16 MiB. With its retries it stays far below the margin of a sweep."""

RETRIES = 4
RETRY_SECONDS = 60

PING_SECONDS = 2


@dataclass(frozen=True, slots=True)
class ObjectStoreAt:
    """An object store: ``s3://BUCKET/PREFIX``, ``gs://...`` or ``az://...``. ``endpoint`` is the URL of a service that
    is not the provider's own. Names of buckets are in the path of requests if ``path_style``, else in the host name
    (None: in the path if there is an endpoint). Credentials come from where the provider's own tools find them.
    """

    url: str
    endpoint: str | None = None
    path_style: bool | None = None

    def open(self) -> ObjectPackStore:
        """Open the store. Nothing is sent."""
        return ObjectPackStore(
            self._objects(REQUEST_SECONDS, RETRIES, RETRY_SECONDS), self._objects(PING_SECONDS, 0, PING_SECONDS)
        )

    def _objects(self, seconds: int, retries: int, retry_seconds: int) -> ObjectStore:
        opened: Any = from_url  # its types have a case for each provider
        store: ObjectStore = opened(
            self.url,
            config=self._config(),
            client_options={
                "timeout": f"{seconds}s",
                "connect_timeout": f"{min(seconds, 10)}s",
                "allow_http": self.endpoint is not None and urlsplit(self.endpoint).scheme == "http",
            },
            retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=retry_seconds)},
        )
        return store

    def _config(self) -> Mapping[str, Any]:
        if urlsplit(self.url).scheme != "s3":
            return {} if self.endpoint is None else {"endpoint": self.endpoint}
        # Some services do not check the hash that a signature covers, but all check this one.
        config: dict[str, Any] = {"checksum_algorithm": "SHA256"}
        path_style = self.endpoint is not None if self.path_style is None else self.path_style
        config["virtual_hosted_style_request"] = not path_style
        if self.endpoint is not None:
            config["endpoint"] = self.endpoint
        return config

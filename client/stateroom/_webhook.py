"""Webhooks as the server describes them, and the requests that make and remove them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ._errors import InvalidRequest, understood
from ._event import Kinds
from ._parsing import time_of

if TYPE_CHECKING:
    from ._api import ModelApi


@dataclass(frozen=True)
class Webhook:
    """A URL that is told of a model's events: of ``kinds``, or all if there are none. ``secret``, which signs the
    deliveries, is known only of a new webhook.
    """

    id: str
    url: str
    kinds: tuple[str, ...]
    created_at: datetime
    created_by: str | None
    secret: str | None


@dataclass(frozen=True)
class WebhookDelivery:
    """The delivery of the event ``event``. ``state`` is ``waiting``, ``delivered`` or ``failed``; ``status`` and
    ``error`` are of the last attempt, which was at ``tried_at``.
    """

    id: int
    event: int
    kind: str
    state: str
    attempts: int
    status: int | None
    error: str | None
    created_at: datetime
    tried_at: datetime | None


@dataclass(frozen=True)
class Webhooks:
    """The webhooks of one model."""

    api: ModelApi

    def all(self) -> list[Webhook]:
        answer, _ = self.api.http.json("GET", f"{self.api.path}/webhooks")
        with understood("a list of webhooks"):
            return [_webhook_of(item) for item in answer["items"]]

    def add(self, url: str, kinds: Kinds, secret: str | None) -> Webhook:
        wanted = [kinds] if isinstance(kinds, str) else list(kinds)
        body = {"url": url, "kinds": wanted, **({} if secret is None else {"secret": secret})}
        return _webhook_of(self.api.http.json("POST", f"{self.api.path}/webhooks", body=body)[0])

    def remove(self, id: str) -> None:  # noqa: A002  the server's word for it
        self.api.http.send("DELETE", self._at(id))

    def deliveries(self, id: str) -> Iterator[WebhookDelivery]:  # noqa: A002  as above
        return map(_delivery_of, self.api.http.pages(f"{self._at(id)}/deliveries", []))

    def _at(self, id: str) -> str:  # noqa: A002  as above
        if id in {"", ".", ".."}:
            raise InvalidRequest(f"{id!r} is not the id of a webhook")
        return f"{self.api.path}/webhooks/{quote(id, safe='')}"


@understood("a webhook")
def _webhook_of(data: Mapping[str, Any]) -> Webhook:
    return Webhook(
        id=str(data["id"]),
        url=data["url"],
        kinds=tuple(data["kinds"]),
        created_at=time_of(data["created_at"]),
        created_by=data["created_by"],
        secret=data.get("secret"),
    )


@understood("a delivery")
def _delivery_of(data: Mapping[str, Any]) -> WebhookDelivery:
    return WebhookDelivery(
        id=data["id"],
        event=data["event"],
        kind=data["kind"],
        state=data["state"],
        attempts=data["attempts"],
        status=data["status"],
        error=data["error"],
        created_at=time_of(data["created_at"]),
        tried_at=None if data["tried_at"] is None else time_of(data["tried_at"]),
    )

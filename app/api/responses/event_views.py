"""Events as JSON."""

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from ...values.event import Event, EventPage


class EventView(BaseModel):
    """A change. `version`, `alias` and `detail` are there where the kind of event has them."""

    id: int = Field(examples=[57])
    kind: str = Field(examples=["alias-moved"])
    model: str | None = Field(examples=["vision/resnet50"])
    version: int | None = Field(examples=[12])
    alias: str | None = Field(examples=["prod"])
    at: datetime
    by: str | None = Field(description="the token that made the change; null on a server without tokens")
    detail: dict[str, Any] = Field(examples=[{"previous_version": 11}])

    @classmethod
    def of(cls, event: Event) -> Self:
        return cls(**_shown(event))


class AuditedEventView(EventView):
    """A change or a refusal, with the address of the client that it came from."""

    address: str | None = Field(examples=["10.0.0.7"])

    @classmethod
    def of(cls, event: Event) -> Self:
        return cls(**_shown(event), address=event.address)


class EventList(BaseModel):
    """Events, oldest first. `last` is the `after` to go on with."""

    items: list[EventView]
    last: int = Field(examples=[57])

    @classmethod
    def of(cls, page: EventPage) -> "EventList":
        return cls(items=[EventView.of(event) for event in page.items], last=page.last)


class AuditedEventList(BaseModel):
    """Events of all namespaces, oldest first. `last` is the `after` to go on with."""

    items: list[AuditedEventView]
    last: int = Field(examples=[57])

    @classmethod
    def of(cls, page: EventPage) -> "AuditedEventList":
        return cls(items=[AuditedEventView.of(event) for event in page.items], last=page.last)


def _shown(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "kind": event.kind,
        "model": None if event.model is None else str(event.model),
        "version": event.version,
        "alias": event.alias,
        "at": event.at,
        "by": event.by,
        "detail": dict(event.detail),
    }

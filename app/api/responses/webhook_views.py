"""Webhooks and their deliveries as JSON."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from ...values.webhook import Delivery, DeliveryState, Webhook


class WebhookView(BaseModel):
    """A URL that is told of a model's events."""

    id: str = Field(examples=["wh0123456789abcdef"])
    url: str = Field(examples=["https://ci.example/stateroom"])
    kinds: list[str] = Field(description="the kinds of events; none: all", examples=[["alias-moved"]])
    created_at: datetime
    created_by: str | None

    @classmethod
    def of(cls, webhook: Webhook) -> "WebhookView":
        return cls(**_shown(webhook))


class NewWebhookView(WebhookView):
    """A new webhook, with the secret that its deliveries are signed with. The secret is not shown again."""

    secret: str

    @classmethod
    def of(cls, webhook: Webhook) -> "NewWebhookView":
        return cls(**_shown(webhook), secret=webhook.secret)


class WebhookList(BaseModel):
    items: list[WebhookView]


class DeliveryView(BaseModel):
    """The delivery of one event. `status` and `error` are of the last attempt."""

    id: int
    event: int = Field(examples=[57])
    kind: str = Field(examples=["alias-moved"])
    state: DeliveryState
    attempts: int = Field(examples=[1])
    status: int | None = Field(examples=[204])
    error: str | None
    created_at: datetime
    tried_at: datetime | None


class DeliveryPage(BaseModel):
    items: list[DeliveryView]
    next: str | None = Field(description="the cursor of the next page")

    @classmethod
    def of(cls, deliveries: Iterable[Delivery], cursor: str | None) -> "DeliveryPage":
        return cls(items=[DeliveryView(**asdict(each)) for each in deliveries], next=cursor)


def _shown(webhook: Webhook) -> dict[str, Any]:
    return {
        "id": webhook.id,
        "url": webhook.url,
        "kinds": list(webhook.kinds),
        "created_at": webhook.created_at,
        "created_by": webhook.created_by,
    }

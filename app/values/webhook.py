"""Webhooks: URLs that are told of a model's events, signed as Standard Webhooks has it.

See https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from .checkpoint import ModelName

SECRET_PREFIX = "whsec_"  # noqa: S105 - no password
MIN_SECRET, MAX_SECRET = 24, 64
"""Fewest and most bytes of a secret."""

DeliveryState = Literal["waiting", "delivered", "failed"]


@dataclass(frozen=True, slots=True)
class Webhook:
    """A URL that is told of the events of ``model``: of ``kinds``, or all if there are none."""

    id: str
    model: ModelName
    url: str
    kinds: tuple[str, ...]
    secret: str
    created_at: datetime
    created_by: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """The delivery of one event. ``status`` and ``error`` are of the last attempt, which was at ``tried_at``."""

    id: int
    event: int
    kind: str
    state: DeliveryState
    attempts: int
    status: int | None
    error: str | None
    created_at: datetime
    tried_at: datetime | None


@dataclass(frozen=True, slots=True)
class Message:
    """The message of a delivery. Its ``id`` is the same at every attempt, so that a receiver knows a repetition."""

    webhook: Webhook
    delivery: Delivery
    body: str

    @property
    def id(self) -> str:
        return f"msg_{self.webhook.id}_{self.delivery.event}"


def new_id() -> str:
    return f"wh{secrets.token_hex(8)}"


def new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def is_secret(text: str) -> bool:
    """Tell whether ``text`` is ``whsec_`` and the base64 of MIN_SECRET to MAX_SECRET bytes."""
    key = _key(text)
    return key is not None and MIN_SECRET <= len(key) <= MAX_SECRET


def sign(secret: str, message_id: str, timestamp: int, body: str) -> str:
    """Return the value of ``webhook-signature``."""
    signed = f"{message_id}.{timestamp}.{body}".encode()
    return "v1," + base64.b64encode(hmac.digest(_key(secret) or b"", signed, hashlib.sha256)).decode()


def _key(secret: str) -> bytes | None:
    if not secret.startswith(SECRET_PREFIX):
        return None
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return None

"""Webhooks of a model, and the log of their deliveries."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import delete, select

from ..errors import Conflict, InvalidRequest, NotFound
from ..values.checkpoint import ModelName
from ..values.event import EventKind
from ..values.webhook import Delivery, Webhook, is_secret, new_id, new_secret
from .catalog import Catalog
from .deliveries import delivery_of, drop_ended, webhook_of
from .events import record
from .models import get_model
from .page import Page, check_limit, open_cursor, seal_cursor
from .rows import to_microseconds
from .session import ReadSession, WriteSession
from .tables import webhook_deliveries, webhooks

MAX_WEBHOOKS = 20
"""Most webhooks of one model."""

_d, _h = webhook_deliveries.c, webhooks.c


def add(
    w: WriteSession, model: ModelName, url: str, kinds: Sequence[str], secret: str | None, by: str | None
) -> Webhook:
    """Add a webhook; a secret is made if none is given. Its first delivery tells of itself, if ``kinds`` allow it.

    Raises NotFound (``model-not-found``), InvalidRequest (``bad-webhook-secret``) and Conflict (``too-many-webhooks``).
    """
    get_model(w, model)
    if secret is not None and not is_secret(secret):
        raise InvalidRequest(
            "a secret is whsec_ and the base64 of 24 to 64 random bytes; leave it out to have one made",
            code="bad-webhook-secret",
        )
    if len(list_webhooks(w, model)) >= MAX_WEBHOOKS:
        detail = f"{model} has {MAX_WEBHOOKS} webhooks, the most that a model may have; remove one first"
        raise Conflict(detail, code="too-many-webhooks")
    made = Webhook(new_id(), model, url, tuple(kinds), secret or new_secret(), datetime.now(UTC), by)
    w.insert(
        webhooks,
        [
            {
                "id": made.id,
                "namespace": model.namespace,
                "name": model.name,
                "url": url,
                "kinds": list(kinds),
                "secret": made.secret,
                "created_at": to_microseconds(made.created_at),
                "created_by": by,
                "failures": 0,
            }
        ],
    )
    record(w, EventKind.WEBHOOK_MADE, model, detail={"webhook": made.id})
    return made


def list_webhooks(s: ReadSession, model: ModelName) -> tuple[Webhook, ...]:
    """All webhooks of a model, oldest first. Raises NotFound, code ``model-not-found``."""
    get_model(s, model)
    statement = select(webhooks).where(_h.namespace == model.namespace, _h.name == model.name)
    return tuple(map(webhook_of, s.select(statement.order_by(_h.created_at, _h.id))))


def remove(catalog: Catalog, model: ModelName, id_: str) -> None:
    """Remove a webhook with its deliveries. Those that ended, which may be many, go first, in short transactions; those
    that wait go with the webhook, so it loses none if it stays. Raises NotFound (``model-not-found``,
    ``webhook-not-found``).
    """
    with catalog.read() as s:
        _get(s, model, id_)
    drop_ended(catalog, id_)
    with catalog.write(model.namespace) as w:
        _get(w, model, id_)
        w.execute(delete(webhooks).where(_h.id == id_))
        record(w, EventKind.WEBHOOK_REMOVED, model, detail={"webhook": id_})


def list_deliveries(
    s: ReadSession, model: ModelName, id_: str, *, limit: int = 50, cursor: str | None = None
) -> Page[Delivery]:
    """One page of the deliveries to a webhook, newest first.

    Raises NotFound (``model-not-found``, ``webhook-not-found``) and InvalidRequest (``bad-limit``, ``bad-cursor``).
    """
    _get(s, model, id_)
    listing = f"deliveries of {id_}"
    statement = select(webhook_deliveries).where(_d.webhook_id == id_).order_by(_d.id.desc())
    if cursor is not None:
        (before,) = open_cursor(cursor, listing, (int,))
        statement = statement.where(_d.id < before)
    rows = s.select(statement.limit(check_limit(limit) + 1)).all()
    items = tuple(map(delivery_of, rows[:limit]))
    return Page(items, seal_cursor(listing, [items[-1].id]) if len(rows) > limit else None)


def _get(s: ReadSession, model: ModelName, id_: str) -> Webhook:
    found = next((hook for hook in list_webhooks(s, model) if hook.id == id_), None)
    if found is None:
        raise NotFound(f"{model} has no webhook {id_[:40]!r}", code="webhook-not-found")
    return found

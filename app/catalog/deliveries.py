"""Deliveries of events to webhooks.

The transaction that writes an event writes its deliveries, so that none is lost. Of each webhook, the oldest waiting
delivery is tried until it succeeds or has been tried for a day; then the next one follows.
"""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, ColumnElement, Row, and_, bindparam, delete, select, tuple_, update

from ..values.checkpoint import ModelName
from ..values.event import Event
from ..values.webhook import Delivery, Message, Webhook
from .by_page import by_page
from .lists import each_integer, is_among
from .pace import Pace
from .rows import from_microseconds, to_microseconds
from .session import ReadSession, WriteSession
from .tables import webhook_deliveries, webhooks

if TYPE_CHECKING:  # the catalog writes deliveries at the end of its transactions
    from .catalog import Catalog

LEASE = "webhooks"
"""The name of the lease of the process that delivers."""

_AT_ONCE = 2_000

TRIED_FOR = timedelta(days=1)
FIRST_RETRY, LONGEST_PAUSE = timedelta(seconds=1), timedelta(hours=1)
"""The pause after the first failed attempt, which doubles with each one, up to the longest."""

MAX_ERROR = 300
"""Most characters of an error that the log of deliveries keeps."""

_d, _h = webhook_deliveries.c, webhooks.c

_WANTING = select(webhooks).where(tuple_(_h.namespace, _h.name).in_(bindparam("names", expanding=True)))


def wanting(w: WriteSession, models: Sequence[ModelName]) -> tuple[Webhook, ...]:
    """The webhooks of some models."""
    names = sorted({(model.namespace, model.name) for model in models})
    if not names:
        return ()
    return tuple(map(webhook_of, w.select(_WANTING, names=names)))


def enqueue(w: WriteSession, hooks: Sequence[Webhook], events: Sequence[Event]) -> None:
    """Write the deliveries of new events to those of the webhooks that want them."""
    wanted = [
        (hook, event)
        for event in events
        for hook in hooks
        if hook.model == event.model and (not hook.kinds or event.kind in hook.kinds)
    ]
    if not wanted:
        return
    now = to_microseconds(datetime.now(UTC))
    w.insert(
        webhook_deliveries,
        [
            {
                "webhook_id": hook.id,
                "event_id": event.id,
                "kind": event.kind,
                "body": _body(event),
                "state": "waiting",
                "attempts": 0,
                "created_at": now,
            }
            for hook, event in wanted
        ],
    )
    ids = {hook.id for hook, _ in wanted}
    w.execute(update(webhooks).where(_h.id.in_(ids), _h.next_at.is_(None)).values(next_at=now))


def are_any(s: ReadSession) -> bool:
    return s.select(select(_h.id).limit(1)).first() is not None


def due(s: ReadSession, now: datetime, limit: int) -> tuple[str, ...]:
    """The ids of webhooks with a delivery to try now, longest due first."""
    statement = select(_h.id).where(_h.next_at <= to_microseconds(now)).order_by(_h.next_at).limit(limit)
    return tuple(s.select(statement).scalars())


def next_message(s: ReadSession, id_: str, now: datetime) -> Message | None:
    """The oldest waiting delivery to a webhook, if it is due."""
    hook = s.select(select(webhooks).where(_h.id == id_, _h.next_at <= to_microseconds(now))).first()
    if hook is None:
        return None
    waiting = select(webhook_deliveries).where(_d.webhook_id == id_, _d.state == "waiting").order_by(_d.id).limit(1)
    row = s.select(waiting).first()
    return None if row is None else Message(webhook_of(hook), delivery_of(row), row.body)


def succeeded(w: WriteSession, message: Message, status: int) -> None:
    """Note that a message was taken; the next one of its webhook is due at once."""
    now = datetime.now(UTC)
    _tried(w, message, now, "delivered", status, None)
    _set_next(w, message.webhook.id, 0, now)


def failed(w: WriteSession, message: Message, status: int | None, error: str) -> bool:
    """Note a failed attempt. Return whether the delivery is given up, after it was tried for a day."""
    now = datetime.now(UTC)
    is_over = now - message.delivery.created_at > TRIED_FOR
    _tried(w, message, now, "failed" if is_over else "waiting", status, error)
    count = w.select(select(_h.failures).where(_h.id == message.webhook.id)).scalar()
    failures = int(count or 0)
    pause = min(LONGEST_PAUSE, FIRST_RETRY * 2 ** min(failures, 20))
    _set_next(w, message.webhook.id, failures + 1, now + pause)
    return is_over


def drop_older(catalog: "Catalog", before: datetime, go_on: Callable[[], None]) -> int:
    """Delete the deliveries that ended and are from before a time. Return their number."""
    is_old = and_(_d.created_at < to_microseconds(before), _d.state != "waiting")
    return _drop(catalog, is_old, (_d.created_at, _d.id), go_on)


def drop_ended(catalog: "Catalog", webhook: str) -> int:
    """Delete the deliveries that ended to a webhook that is about to be removed. Return their number."""
    ended = and_(_d.webhook_id == webhook, _d.state != "waiting")
    return _drop(catalog, ended, (_d.state, _d.id), lambda: None)


def _drop(
    catalog: "Catalog", these: ColumnElement[bool], place: tuple[Column[Any], Column[int]], go_on: Callable[[], None]
) -> int:
    """Delete deliveries in the order of ``place``, of which an index begins with the first column."""
    count, pace = 0, Pace(200, _AT_ONCE)
    for rows in pace.slices(by_page(catalog, select(*place).where(these), *place)):
        go_on()
        ids = each_integer([row.id for row in rows])
        with catalog.turn(pace=pace) as w:
            count += w.execute(delete(webhook_deliveries).where(is_among(_d.id, ids), these)).rowcount
    return count


def _tried(w: WriteSession, message: Message, now: datetime, state: str, status: int | None, error: str | None) -> None:
    w.execute(
        update(webhook_deliveries)
        .where(_d.id == message.delivery.id, _d.state == "waiting")
        .values(
            state=state,
            attempts=_d.attempts + 1,
            status=status,
            error=None if error is None else error[:MAX_ERROR],
            tried_at=to_microseconds(now),
        )
    )


def _set_next(w: WriteSession, id_: str, failures: int, at: datetime) -> None:
    waits = w.select(select(_d.id).where(_d.webhook_id == id_, _d.state == "waiting").limit(1)).first() is not None
    next_at = to_microseconds(at) if waits else None
    w.execute(update(webhooks).where(_h.id == id_).values(failures=failures, next_at=next_at))


def _body(event: Event) -> str:
    data = {
        "id": event.id,
        "kind": event.kind,
        "model": str(event.model),
        "version": event.version,
        "alias": event.alias,
        "by": event.by,
        "detail": dict(event.detail),
    }
    at = event.at.isoformat().replace("+00:00", "Z")
    return json.dumps({"type": event.kind, "timestamp": at, "data": {**data, "at": at}})


def webhook_of(row: Row[*tuple[Any, ...]]) -> Webhook:
    return Webhook(
        id=row.id,
        model=ModelName(row.namespace, row.name),
        url=row.url,
        kinds=tuple(row.kinds),
        secret=row.secret,
        created_at=from_microseconds(row.created_at),
        created_by=row.created_by,
    )


def delivery_of(row: Row[*tuple[Any, ...]]) -> Delivery:
    return Delivery(
        id=row.id,
        event=row.event_id,
        kind=row.kind,
        state=row.state,
        attempts=row.attempts,
        status=row.status,
        error=row.error,
        created_at=from_microseconds(row.created_at),
        tried_at=None if row.tried_at is None else from_microseconds(row.tried_at),
    )

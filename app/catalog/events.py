"""Events: the record of all changes, written in the transactions that make them.

Ids ascend in the order of commits: a transaction numbers its events last, under a lock that it holds to its end. So
whoever has seen an event can miss none with a lower id. See docs/decisions/0023-events-are-numbered-at-commit.md.
They have no gaps, except before the first event after a restore of a backup.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Row, Select, delete, func, insert, select, union_all

from ..errors import EventsExpired, InvalidRequest
from ..values.checkpoint import ModelName
from ..values.event import Detail, Event, EventFilter, EventKind, EventPage, NewEvent
from . import deliveries
from .pace import Pace
from .page import check_limit
from .rows import from_microseconds, to_microseconds
from .session import ReadSession, WriteSession
from .tables import events, is_indexed_by_kind

if TYPE_CHECKING:  # the catalog finishes its transactions with events
    from .catalog import Catalog

_AT_ONCE = 2_000

RESTORED_STEP = 10**9
"""The first event after a restore has the time in microseconds as its id, or the next multiple of this if that is
higher: above all that were lost, and above all after a former restore. See
docs/decisions/0038-events-go-on-at-the-time.md.
"""

_NEWEST = select(func.max(events.c.id))
_OLDEST = select(func.min(events.c.id))
_NUMBERED = insert(events).values(id=select(func.coalesce(func.max(events.c.id), 0) + 1).scalar_subquery()).inline()


def record(
    w: WriteSession,
    kind: EventKind,
    model: ModelName | None = None,
    version: int | None = None,
    *,
    alias: str | None = None,
    detail: Detail | None = None,
) -> None:
    """Record a change that this transaction makes. Who made it is whoever acts now (``values.actor``)."""
    if model is not None:
        w.must_cover(model.namespace)
    w.recorded.append(NewEvent(kind, model, version, alias, detail or {}))


def finish(w: WriteSession) -> None:
    """Write what was recorded, and the deliveries to webhooks, and commit. The lock of the events is held for one
    round trip; for three if a webhook wants an event, because its delivery needs the event's id.
    """
    hooks = deliveries.wanting(w, [event.model for event in w.recorded if event.model is not None])
    at = datetime.now(UTC)
    with w.together():
        w.run_postponed()
        if w.recorded:
            w.lock_events()
            w.execute_many(_NUMBERED, [_row(event, at) for event in w.recorded])
        if not hooks:
            w.commit()
    if hooks:
        first = newest(w) - len(w.recorded) + 1
        numbered = [_numbered(number, at, event) for number, event in enumerate(w.recorded, first)]
        with w.together():
            deliveries.enqueue(w, hooks, numbered)
            w.commit()


def _numbered(number: int, at: datetime, event: NewEvent) -> Event:
    return Event(
        id=number,
        kind=event.kind,
        model=event.model,
        version=event.version,
        alias=event.alias,
        at=at,
        by=event.actor.name,
        address=event.actor.address,
        detail=event.detail,
    )


def _row(event: NewEvent, at: datetime) -> dict[str, Any]:
    return {
        "at": to_microseconds(at),
        "kind": str(event.kind),
        "namespace": None if event.model is None else event.model.namespace,
        "name": None if event.model is None else event.model.name,
        "version": event.version,
        "alias": event.alias,
        "by": event.actor.name,
        "address": event.actor.address,
        "detail": dict(event.detail),
    }


def begin_anew(w: WriteSession, backup: str, at: datetime) -> None:
    """Record that the catalog was restored from ``backup``, as an event whose id no reader can have seen: events that
    came after the backup are lost, and their ids are not given to others. The same backup may be restored many times.
    """
    last = newest(w)
    number = max((last // RESTORED_STEP + 1) * RESTORED_STEP, to_microseconds(at))
    row = _row(NewEvent(EventKind.BACKUP_RESTORED, detail={"backup": backup, "newest": last}), at)
    w.insert(events, [{**row, "id": number}])


def newest(s: ReadSession) -> int:
    """Return the id of the newest event, 0 before the first."""
    return int(s.select(_NEWEST).scalar() or 0)


def list_events(s: ReadSession, wanted: EventFilter, after: int | None, limit: int) -> EventPage:
    """Return the first ``limit`` wanted events after the event ``after``; without ``after``, from the oldest that is
    kept.

    Raises InvalidRequest (``bad-limit``; ``future-event`` for an ``after`` that no event had yet) and EventsExpired if
    events after it have been deleted, or if it was lost because a backup was restored.
    """
    check_limit(limit)
    last = newest(s)
    if after is not None:
        _check_after(s, after, last)
    rows = s.select(_page(wanted, events.c.id > (after or 0), limit + 1)).all()
    items = tuple(map(_event, rows[:limit]))
    return EventPage(items, items[-1].id if len(rows) > limit else last)


def events_beyond(s: ReadSession, after: int, limit: int) -> tuple[Event, ...]:
    """Return the first ``limit`` events after the event ``after``, whatever they are about."""
    return tuple(map(_event, s.select(_page(EventFilter(), events.c.id > after, limit))))


def events_before(s: ReadSession, wanted: EventFilter, before: int | None, limit: int) -> tuple[Event, ...]:
    """Return the last ``limit`` wanted events, newest first; with ``before``, those before that event."""
    those = events.c.id > 0 if before is None else events.c.id < before
    return tuple(map(_event, s.select(_page(wanted, those, limit, newest_first=True))))


def drop_older(catalog: "Catalog", before: datetime, go_on: Callable[[], None]) -> int:
    """Delete the events before a time, oldest first, but never the newest. Return their number."""
    count, pace = 0, Pace(200, _AT_ONCE)
    for ids in pace.slices(_older(catalog, to_microseconds(before))):
        go_on()
        with catalog.turn(pace=pace) as w:
            count += w.execute(delete(events).where(events.c.id.between(ids[0], ids[-1]))).rowcount
    return count


def _older(catalog: "Catalog", before: int) -> Iterator[int]:
    """The ids of the events up to the first one that is not older. Their times ascend with them, but for the moment
    between two transactions.
    """
    last = 0
    while True:
        page = select(events.c.id, events.c.at).where(events.c.id > last).order_by(events.c.id).limit(_AT_ONCE)
        with catalog.read() as s:
            end, rows = newest(s), s.select(page).all()
        for id_, at in rows:
            if at >= before or id_ >= end:
                return
            yield id_
        if not rows:
            return
        last = rows[-1].id


def _check_after(s: ReadSession, after: int, last: int) -> None:
    if after > last:
        raise InvalidRequest(
            f"there is no event {after} yet; the newest is {last}: go on from there, or leave out after",
            code="future-event",
        )
    oldest = int(s.select(_OLDEST).scalar() or 1)
    if after < oldest - 1:
        raise EventsExpired(
            f"events after {after} have been deleted, because events are kept for a limited time; the oldest is "
            f"{oldest}: look at the present state, and go on with after={oldest - 1}",
            after=oldest - 1,
        )
    if oldest <= after < last and s.select(select(events.c.id).where(events.c.id == after)).first() is None:
        known = int(s.select(_NEWEST.where(events.c.id < after)).scalar_one())
        raise EventsExpired(
            f"event {after} is lost: a backup was restored, whose newest event is {known}: look at the present state, "
            f"and go on with after={known}",
            after=known,
        )


def _page(wanted: EventFilter, those: ColumnElement[bool], limit: int, *, newest_first: bool = False) -> Select[Any]:
    """The first ``limit`` wanted events among ``those``, by id."""
    e = events.c
    conditions = [those]
    if wanted.namespace is not None:
        conditions.append(e.namespace == wanted.namespace)
    if wanted.name is not None:
        conditions.append(e.name == wanted.name)

    def first(*more: ColumnElement[bool]) -> Select[Any]:
        return _in_order(select(events).where(*conditions, *more), e.id, limit, newest_first=newest_first)

    kinds = sorted(kind.value for kind in wanted.kinds)
    if not kinds:
        return first()
    if EventKind.CHECKPOINT_CREATED in kinds:
        return first(e.kind.in_(kinds))
    # A page of each kind, through the indexes by kind: a walk along all events would look for rare kinds for long.
    of_each = [first(e.kind == kind, is_indexed_by_kind) for kind in kinds]
    if len(of_each) == 1:
        return of_each[0]
    found = union_all(*(select(each.subquery()) for each in of_each)).subquery("found")
    return _in_order(select(found), found.c.id, limit, newest_first=newest_first)


def _in_order(statement: Select[Any], number: Any, limit: int, *, newest_first: bool) -> Select[Any]:
    return statement.order_by(number.desc() if newest_first else number).limit(limit)


def _event(row: Row[*tuple[Any, ...]]) -> Event:
    return Event(
        id=row.id,
        kind=row.kind,
        model=None if row.namespace is None else ModelName(row.namespace, row.name),
        version=row.version,
        alias=row.alias,
        at=from_microseconds(row.at),
        by=row.by,
        address=row.address,
        detail=row.detail,
    )

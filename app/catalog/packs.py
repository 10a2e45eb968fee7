"""Packs, from before their first byte to the sweep that removes them.

A pack's row comes first: ``writing``, with a lease. So what an upload that crashed has left is a query. Its commit
seals it, and when that has ended, ends the lease: a sealed pack whose lease is over is *finished*, it gets no more
blobs. Only finished packs are swept.

The order of clean-up is the other way round. A pack is given up (its lease is taken from it, so that it can no longer
be sealed), its bytes are deleted, then it is forgotten: a crash in between is found again. A finished pack whose last
blob has gone is unsealed, and goes the same way.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, and_, case, delete, or_, select, update

from ..errors import StoreError
from .dialect import each_integer
from .rows import to_microseconds
from .session import ReadSession, WriteSession
from .tables import blobs, packs


def begin(w: WriteSession, name: str, lease_seconds: float) -> None:
    """Announce the pack ``name``; its bytes may be written once this is committed."""
    until = datetime.now(UTC) + timedelta(seconds=lease_seconds)
    w.insert(packs, [{"name": name, "size": 0, "state": "writing", "lease_until": to_microseconds(until)}])


def seal(w: WriteSession, name: str, size: int) -> int:
    """The pack's bytes are durable: ``size`` of them. Returns its id. Sealing again changes nothing.

    Raises StoreError, code ``pack-lease-expired``: its bytes may be gone, the upload must begin again.
    """
    now = to_microseconds(datetime.now(UTC))
    pack_id = w.execute(
        update(packs)
        .where(packs.c.name == name, or_(packs.c.state == "sealed", packs.c.lease_until > now))
        .values(state="sealed", size=size)
        .returning(packs.c.id)
    ).scalar()
    if pack_id is None:
        raise StoreError("the upload took longer than its lease; send it again", code="pack-lease-expired")
    return int(pack_id)


def finish(w: WriteSession, name: str) -> bool:
    """End the lease of the pack ``name``: nobody is at work on it. Sealed it is finished, unless it holds no blob: then
    it is abandoned, as is one that was never sealed. Tells whether it is abandoned.
    """
    state = case((_is_empty, "writing"), else_=packs.c.state)
    ended = update(packs).where(packs.c.name == name).values(lease_until=0, state=state).returning(packs.c.state)
    return w.execute(ended).scalar() == "writing"


def finish_all(w: WriteSession) -> None:
    """End every lease, for a server that knows that it is the only one and has not begun to serve."""
    w.execute(update(packs).where(packs.c.lease_until > 0).values(lease_until=0))


def finished(before: datetime) -> ColumnElement[bool]:
    """Of a row of packs: it is sealed, and its lease was over at ``before``."""
    return and_(packs.c.state == "sealed", packs.c.lease_until <= to_microseconds(before))


def forget(w: WriteSession, name: str) -> bool:
    """Remove the row of a pack that was never sealed. False: it is sealed, its bytes must stay (or it is no pack)."""
    return w.execute(delete(packs).where(packs.c.name == name, packs.c.state == "writing")).rowcount == 1


def empty(s: ReadSession, before: datetime, limit: int) -> Sequence[int]:
    """Ids of packs that were finished at ``before`` and hold no blob, at most ``limit``."""
    return (
        s.select(select(packs.c.id).where(finished(before), _is_empty).order_by(packs.c.id).limit(limit))
        .scalars()
        .all()
    )


def unseal(w: WriteSession, ids: Sequence[int], before: datetime) -> int:
    """Make those of ``ids`` abandoned ones that are still empty and finished; tells how many."""
    wanted = packs.c.id.in_(each_integer(ids))
    unsealed = update(packs).where(wanted, finished(before), _is_empty)
    return w.execute(unsealed.values(state="writing", lease_until=0)).rowcount


def is_sealed(s: ReadSession, name: str) -> bool:
    return s.select(select(packs.c.id).where(packs.c.name == name, packs.c.state == "sealed")).first() is not None


def abandoned(s: ReadSession, before: datetime) -> tuple[str, ...]:
    """The packs that nobody is writing any more: their lease was over at ``before``."""
    return tuple(s.select(select(packs.c.name).where(_is_abandoned(before)).order_by(packs.c.id)).scalars())


def give_up(w: WriteSession, before: datetime) -> tuple[str, ...]:
    """As ``abandoned``; and from now on none of them can be sealed, whatever the clock of its writer says.

    Delete their bytes, then forget them.
    """
    ended = update(packs).where(_is_abandoned(before)).values(lease_until=0).returning(packs.c.name)
    return tuple(w.execute(ended).scalars())


_is_empty = ~select(blobs.c.id).where(blobs.c.pack_id == packs.c.id).exists()


def _is_abandoned(before: datetime) -> ColumnElement[bool]:
    return and_(packs.c.state == "writing", packs.c.lease_until <= to_microseconds(before))

"""Packs, from before their first byte to the commit that seals them.

A pack's row comes first: ``writing``, with a lease. So what an upload that crashed has left is a query. The order of
clean-up is the other way round: delete the bytes of an abandoned pack, then ``forget`` it, so that a crash between
them is found again. A lease that has run out can no longer be sealed, so nobody's bytes go while they are in use.
A sealed pack whose last blob has gone goes the same way: it is unsealed, which makes it an abandoned one.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, or_, select, update

from ..errors import StoreError
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


def forget(w: WriteSession, name: str) -> bool:
    """Remove the row of a pack that was never sealed. False: it is sealed, its bytes must stay (or it is no pack)."""
    return w.execute(delete(packs).where(packs.c.name == name, packs.c.state == "writing")).rowcount == 1


def unseal_empty(w: WriteSession, name: str | None = None) -> bool:
    """Make the pack ``name`` an abandoned one if it is sealed and holds no blob; without ``name``, every such pack.

    Tells whether there was one. Only the commit of a pack gives it blobs: while others may run, name none but your own.
    """
    statement = update(packs).where(
        packs.c.state == "sealed", ~select(blobs.c.id).where(blobs.c.pack_id == packs.c.id).exists()
    )
    if name is not None:
        statement = statement.where(packs.c.name == name)
    return w.execute(statement.values(state="writing", lease_until=0)).rowcount > 0


def is_sealed(s: ReadSession, name: str) -> bool:
    return s.select(select(packs.c.id).where(packs.c.name == name, packs.c.state == "sealed")).first() is not None


def abandoned(s: ReadSession, now: datetime | None = None) -> tuple[str, ...]:
    """The packs that nobody is writing any more: their lease had run out at ``now``.

    Without ``now``, all that are not sealed, for a server that knows that it is the only one and has not begun to
    serve.
    """
    statement = select(packs.c.name).where(packs.c.state == "writing").order_by(packs.c.id)
    if now is not None:
        statement = statement.where(packs.c.lease_until <= to_microseconds(now))
    return tuple(s.select(statement).scalars())

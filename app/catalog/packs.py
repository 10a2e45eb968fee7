"""The life cycle of packs, from before their first byte to the sweep that removes them.

A pack's row is written before its bytes, with the state ``writing`` and a lease. So a query finds the remains of a
crashed upload. The commit seals the pack, and ends the lease when the commit has ended. A sealed pack whose lease is
over is *finished*: it gets no more blobs. Only finished packs are swept.

Clean-up goes the other way round, so that a later sweep finds an interrupted one. The pack is given up (its lease is
ended, so it can no longer be sealed), its bytes are deleted, then its row is deleted. A finished pack whose last blob
is gone is unsealed, and goes the same way.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Table, and_, bindparam, case, delete, or_, select, update

from ..errors import StoreError
from ..values.checkpoint import CheckpointName
from .by_page import by_page
from .catalog import Catalog
from .lists import each_integer, each_text, is_among
from .rows import to_microseconds
from .session import ReadSession, WriteSession
from .tables import blobs, checkpoint_blobs, hub_objects, hub_xorbs, packs, uploads

_SEAL = (
    update(packs)
    .where(packs.c.name == bindparam("pack"), or_(packs.c.state == "sealed", packs.c.lease_until > bindparam("now")))
    .values(state="sealed", size=bindparam("nbytes"))
    .returning(packs.c.id)
)
_SEAL_FINISHED = _SEAL.values(lease_until=0, parent=None)


def begin(w: WriteSession, name: str, lease_seconds: float, parent: CheckpointName | None = None) -> None:
    """Insert the row of the pack ``name``. Write the pack's bytes only after this is committed. Retention keeps
    ``parent`` until the lease ends.
    """
    until = datetime.now(UTC) + timedelta(seconds=lease_seconds)
    row = {
        "name": name,
        "size": 0,
        "state": "writing",
        "lease_until": to_microseconds(until),
        "parent": None if parent is None else str(parent),
    }
    w.insert(packs, [row])


def seal(w: WriteSession, name: str, size: int, *, finish: bool = False) -> int:
    """Record that the pack's ``size`` bytes are durable, and return its id. Sealing again changes nothing. With
    ``finish``, the pack is also finished; it has to get a blob in the same transaction.

    Raises StoreError, code ``pack-lease-expired``: the bytes may be gone, so the upload must begin again.
    """
    now = to_microseconds(datetime.now(UTC))
    pack_id = w.execute(_SEAL_FINISHED if finish else _SEAL, pack=name, now=now, nbytes=size).scalar()
    if pack_id is None:
        raise StoreError("the upload took longer than its lease; send it again", code="pack-lease-expired")
    return int(pack_id)


def hold(
    w: WriteSession, holders: Table, this: Sequence[ColumnElement[bool]], name: str, lease_seconds: float
) -> int | None:
    """Keep the pack ``name``, which was begun, for a new row of ``holders``, and return the pack's id. None if the row
    that ``this`` finds has a pack already: that one is kept for longer, and the new one is not needed. If that one is
    gone, the row goes, too.

    Raises StoreError, code ``pack-lease-expired``.
    """
    held = w.select(select(packs.c.name).join(holders, holders.c.pack_id == packs.c.id).where(*this)).scalar()
    if held is not None:
        if renew(w, held, lease_seconds):
            return None
        w.execute(delete(holders).where(*this))
    if not renew(w, name, lease_seconds):
        raise StoreError("the upload took longer than its lease; send it again", code="pack-lease-expired")
    return int(w.select(select(packs.c.id).where(packs.c.name == name)).scalar_one())


def renew(w: WriteSession, name: str, lease_seconds: float) -> bool:
    """Extend the lease of a pack that is being written; False if it was given up, so its bytes may be gone."""
    until = to_microseconds(datetime.now(UTC) + timedelta(seconds=lease_seconds))
    writing = packs.c.name == name, packs.c.state == "writing", packs.c.lease_until > 0
    return w.execute(update(packs).where(*writing).values(lease_until=until)).rowcount == 1


def end(w: WriteSession, name: str) -> bool:
    """End the lease of a pack, which can then no longer be sealed; False if it is sealed, or does not exist. The row
    stays until the bytes are deleted.
    """
    now = to_microseconds(datetime.now(UTC))
    writing = packs.c.name == name, packs.c.state == "writing"
    return w.execute(update(packs).where(*writing).values(lease_until=now)).rowcount == 1


def leased(s: ReadSession, names: Iterable[str]) -> tuple[str, ...]:
    """Return those of the packs ``names`` that are sealed and have a lease: a commit is running, or they are staged."""
    now = to_microseconds(datetime.now(UTC))
    sealed = is_among(packs.c.name, each_text(names)), packs.c.state == "sealed", packs.c.lease_until > now
    return tuple(s.select(select(packs.c.name).where(*sealed)).scalars())


def end_staging(w: WriteSession, names: Sequence[str]) -> None:
    """End the leases of those of the sealed packs ``names`` whose blobs all belong to checkpoints by now."""
    now = to_microseconds(datetime.now(UTC))
    used = select(checkpoint_blobs.c.blob_id).where(checkpoint_blobs.c.blob_id == blobs.c.id).exists()
    waits = select(blobs.c.id).where(blobs.c.pack_id == packs.c.id, ~used).exists()
    these = is_among(packs.c.name, each_text(names)), packs.c.state == "sealed", packs.c.lease_until > now
    w.execute(update(packs).where(*these, ~waits).values(lease_until=now))


def rename(w: WriteSession, area: str, name: str) -> None:
    """Give the pack that was begun as ``area`` the name of its list, just before it is sealed."""
    w.execute(update(packs).where(packs.c.name == area, packs.c.state == "writing").values(name=name))


def finish(w: WriteSession, name: str) -> bool:
    """End the lease of the pack ``name``, because nobody works on it any more. Return whether it is abandoned: it
    holds no blob or was never sealed. Any other pack is finished.
    """
    state = case((_is_empty, "writing"), else_=packs.c.state)
    ended = (
        update(packs)
        .where(packs.c.name == name)
        .values(lease_until=0, state=state, parent=None)
        .returning(packs.c.state)
    )
    return w.execute(ended).scalar() == "writing"


def finish_all(w: WriteSession) -> None:
    """End every lease, except those of uploads in parts and of files sent ahead of a commit, which outlive a server.
    Only for a server that knows that it is the only one and has not begun to serve.
    """
    of_an_upload = select(uploads.c.id).where(uploads.c.id == packs.c.name).exists()
    sent_ahead = or_(*(select(c.pack_id).where(c.pack_id == packs.c.id).exists() for c in (hub_objects.c, hub_xorbs.c)))
    running = packs.c.state.in_(("writing", "sealed")), packs.c.lease_until > 0  # so that an index finds them
    w.execute(update(packs).where(*running, ~of_an_upload, ~sent_ahead).values(lease_until=0))


def finished(before: datetime) -> ColumnElement[bool]:
    """The SQL condition that a pack is sealed and its lease was over at ``before``."""
    return and_(packs.c.state == "sealed", packs.c.lease_until <= to_microseconds(before))


def forget(w: WriteSession, name: str) -> bool:
    """Delete the row of an unsealed pack. False if the pack is sealed, so its bytes must stay, or does not exist."""
    return forget_all(w, [name]) == {name}


def forget_all(w: WriteSession, names: Sequence[str]) -> set[str]:
    """Delete the rows of unsealed packs, as ``forget`` does, and return the names of those that were there."""
    these = delete(packs).where(is_among(packs.c.name, each_text(names)), packs.c.state == "writing")
    return set(w.execute(these.returning(packs.c.name)).scalars())


def empty(catalog: Catalog, before: datetime) -> Iterator[int]:
    """The ids of the packs that were finished at ``before`` and hold no blob. No transaction is open between two."""
    found = select(packs.c.id).where(finished(before), _is_empty)
    return (row.id for row in by_page(catalog, found, packs.c.id))


def unseal(w: WriteSession, ids: Sequence[int], before: datetime) -> int:
    """Make the packs ``ids`` abandoned if they are still empty and finished, and return their number."""
    wanted = is_among(packs.c.id, each_integer(ids))
    unsealed = update(packs).where(wanted, finished(before), _is_empty)
    return w.execute(unsealed.values(state="writing", lease_until=0)).rowcount


def is_sealed(s: ReadSession, name: str) -> bool:
    return s.select(select(packs.c.id).where(packs.c.name == name, packs.c.state == "sealed")).first() is not None


def newest(s: ReadSession) -> str | None:
    """The name of the sealed pack that was begun last; None without one."""
    name: str | None = s.select(
        select(packs.c.name).where(packs.c.state == "sealed").order_by(packs.c.id.desc()).limit(1)
    ).scalar()
    return name


def abandoned(s: ReadSession, before: datetime) -> tuple[str, ...]:
    """The names of unsealed packs whose lease was over at ``before``: nobody writes them any more."""
    return tuple(s.select(select(packs.c.name).where(_is_abandoned(before)).order_by(packs.c.id)).scalars())


def give_up(w: WriteSession, before: datetime, names: Sequence[str]) -> tuple[str, ...]:
    """End the leases of those of the packs ``names`` that are still ``abandoned``, and return their names. None can be
    sealed now, whatever its writer's clock says.

    Delete their bytes, then forget them.
    """
    these = is_among(packs.c.name, each_text(names)), _is_abandoned(before)
    return tuple(w.execute(update(packs).where(*these).values(lease_until=0).returning(packs.c.name)).scalars())


_is_empty = ~select(blobs.c.id).where(blobs.c.pack_id == packs.c.id).exists()


def _is_abandoned(before: datetime) -> ColumnElement[bool]:
    return and_(packs.c.state == "writing", packs.c.lease_until <= to_microseconds(before))

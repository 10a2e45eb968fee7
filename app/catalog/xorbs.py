"""Xorbs: chunks of files that a client of the Hub sent, kept until the files that are made of them have arrived."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select, update

from ..values.hub import KeptXorb, Xorb
from . import packs
from .lists import each_text, is_among
from .rows import to_microseconds
from .session import ReadSession, WriteSession
from .tables import hub_xorbs
from .tables import packs as pack_rows

UNUSED = timedelta(hours=24)
"""Time for which a xorb waits for a file that is made of it. The token with which it was sent is good for less."""

USED = timedelta(hours=1)
"""Time for which a xorb stays for further files of its session, after a file was made of it."""

_x = hub_xorbs.c


def keep(w: WriteSession, namespace: str, xorb: Xorb, pack: str) -> bool:
    """Record that all of ``pack``, which was begun, is the ``xorb``, and keep it for UNUSED. False if the session has
    the xorb already: that one stays, and this pack is not needed.
    """
    this = _x.namespace == namespace, _x.session == xorb.session, _x.hash == xorb.hash
    pack_id = packs.hold(w, hub_xorbs, this, pack, UNUSED.total_seconds())
    if pack_id is None:
        return False
    row = {"session": xorb.session, "hash": xorb.hash, "size": xorb.size, "chunks": xorb.chunks}
    w.insert(hub_xorbs, [{"namespace": namespace, **row, "is_used": False, "pack_id": pack_id}])
    return True


def kept(s: ReadSession, namespace: str, session: str, hashes: Iterable[str]) -> dict[str, KeptXorb]:
    """Return the xorbs among ``hashes`` that are kept of a session, by hash."""
    now = to_microseconds(datetime.now(UTC))
    found = (
        select(_x.hash, _x.size, _x.chunks, pack_rows.c.name)
        .join(pack_rows, pack_rows.c.id == _x.pack_id)
        .where(_x.namespace == namespace, _x.session == session, is_among(_x.hash, each_text(hashes)))
        .where(pack_rows.c.lease_until > now)
    )
    return {row.hash: KeptXorb(row.size, row.chunks, row.name) for row in s.select(found)}


def use(w: WriteSession, namespace: str, session: str, hashes: Iterable[str]) -> None:
    """Record that the files that are made of these xorbs have arrived, and keep the xorbs for USED from now on."""
    these = _x.namespace == namespace, _x.session == session, is_among(_x.hash, each_text(hashes))
    w.execute(update(hub_xorbs).where(*these).values(is_used=True))
    now = datetime.now(UTC)
    held = pack_rows.c.id.in_(select(_x.pack_id).where(*these)), pack_rows.c.lease_until > to_microseconds(now)
    w.execute(update(pack_rows).where(*held).values(lease_until=to_microseconds(now + USED)))


def unused_bytes(s: ReadSession, namespace: str) -> int:
    """The bytes of all xorbs that the namespace keeps and of which no file was made yet."""
    unused = _x.namespace == namespace, _x.is_used.is_(False)
    return int(s.select(select(func.coalesce(func.sum(_x.size), 0)).where(*unused)).scalar_one())

"""Blobs that no checkpoint refers to: marked, and dropped after a grace period. Also the use of packs after that.

Read transactions find the rows, and short write transactions check them again before a change. No other write runs
beside them, so their look-ups stay true until they end. A commit that relied on a blob dropped here finds the blob
missing in its own transaction, and stores it.

Blobs of an unfinished pack are left alone: the commit that brought them may be about to refer to them.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Delete, Row, and_, case, delete, func, or_, select, update

from ..values.digest import Digest
from . import checksums, namespaces, packs, tensor_stats
from .by_page import by_page
from .catalog import Catalog
from .commit import BATCH
from .lists import each_integer, is_among
from .pace import Pace
from .rows import to_microseconds
from .session import ReadSession, WriteSession
from .tables import blobs, checkpoint_blobs, checkpoints, removed_checkpoints
from .tables import packs as packs_table
from .unfinished import is_aside

GoOn = Callable[[], None]
"""A function called between two transactions of a long task. An exception from it ends the task there."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The times of a sweep. ``now`` is its own time. Leases that were over at ``before`` are over on every server's
    clock. Blobs unused since ``cutoff`` or longer may be dropped. A dry run counts as ``purged`` what is in the trash
    until then.
    """

    now: datetime
    before: datetime
    cutoff: datetime
    purged: datetime | None = None

    @classmethod
    def at(cls, now: datetime, grace: float) -> "Moment":
        """The moment of a sweep at ``now`` with ``grace`` in seconds."""
        return cls(now, now - MARGIN, now - timedelta(seconds=grace))


MARGIN = timedelta(hours=1)
"""Time after the end of a lease before others act on it, because clocks differ and commits take a moment."""


@dataclass(frozen=True, slots=True)
class PackUse:
    """A finished pack of ``size`` bytes, with ``live`` bytes of blobs that stay. ``namespaces``, sorted, own its blobs.

    A pack has one namespace, except packs of an older compaction that mixed namespaces.
    """

    id: int
    name: str
    size: int
    live: int
    namespaces: tuple[str, ...]


_uses = select(checkpoint_blobs.c.blob_id).where(checkpoint_blobs.c.blob_id == blobs.c.id)
_is_unused = ~_uses.exists()


def _is_settled(moment: Moment) -> ColumnElement[bool]:
    """The SQL condition that the blob's pack is finished."""
    return select(packs_table.c.id).where(packs_table.c.id == blobs.c.pack_id, packs.finished(moment.before)).exists()


def _may_go(moment: Moment) -> ColumnElement[bool]:
    """The SQL condition that no checkpoint refers to the blob and its grace is over, or would be if marked now."""
    since = func.coalesce(blobs.c.unused_since, to_microseconds(moment.now))
    if moment.purged is None:
        return and_(since <= to_microseconds(moment.cutoff), _is_unused)
    removed = removed_checkpoints.c
    is_due = (
        removed.checkpoint_id == checkpoint_blobs.c.checkpoint_id,
        removed.purge_at <= to_microseconds(moment.purged),
    )
    goes = or_(
        select(removed.version).where(*is_due).exists(),
        select(checkpoints.c.id).where(checkpoints.c.id == checkpoint_blobs.c.checkpoint_id, is_aside).exists(),
    )
    return and_(since <= to_microseconds(moment.cutoff), ~_uses.where(~goes).exists())


def mark(catalog: Catalog, moment: Moment, go_on: GoOn) -> int:
    """Mark every unreferenced blob with the time since when it is unused, and return the number of new marks."""
    count = 0
    is_new = and_(blobs.c.unused_since.is_(None), _is_unused, _is_settled(moment))
    pace = Pace(100, BATCH)
    for ids in pace.slices(_found(catalog, is_new)):
        go_on()
        with catalog.turn(pace=pace) as w:
            marked = update(blobs).where(is_among(blobs.c.id, each_integer(ids)), is_new)
            count += w.execute(marked.values(unused_since=to_microseconds(moment.now))).rowcount
    return count


def drop(catalog: Catalog, moment: Moment, go_on: GoOn) -> int:
    """Drop the marked blobs whose grace is over and that are still unreferenced, and return their number."""
    count = 0
    is_over = blobs.c.unused_since <= to_microseconds(moment.cutoff)
    pace = Pace(100, BATCH)
    for ids in pace.slices(_found(catalog, is_over)):
        go_on()
        these = is_among(blobs.c.id, each_integer(ids))
        with catalog.turn(pace=pace) as w:
            dropped: defaultdict[str, list[Digest]] = defaultdict(list)
            gone = delete(blobs).where(these, is_over, _is_unused, _is_settled(moment))
            for namespace, digest in _deleted(w, gone):
                dropped[namespace].append(digest)
            for namespace, digests in dropped.items():
                checksums.drop(w, namespace, digests)
                tensor_stats.drop(w, namespace, digests)
                count += len(digests)
            w.execute(update(blobs).where(these, is_over, ~_is_unused).values(unused_since=None))
    return count


def release(catalog: Catalog, pack: str) -> None:
    """Drop the unreferenced blobs of ``pack``, whose upload has given up. An empty pack becomes abandoned, and its
    bytes may be deleted; a pack with other blobs becomes finished.

    Works in short transactions. After a crash between them, the sweep does the rest.
    """
    is_of_pack = blobs.c.pack_id == select(packs_table.c.id).where(packs_table.c.name == pack).scalar_subquery()
    pace = Pace(100, BATCH)
    for ids in pace.slices(_found(catalog, and_(_is_unused, is_of_pack))):
        with catalog.turn(pace=pace) as w:
            _deleted(w, delete(blobs).where(is_among(blobs.c.id, each_integer(ids)), _is_unused, is_of_pack))
    with catalog.write() as w:
        packs.finish(w, pack)


def _deleted(w: WriteSession, gone: Delete) -> list[tuple[str, Digest]]:
    """Delete blobs, no longer count their bytes, and return their namespaces and digests."""
    rows = w.execute(gone.returning(blobs.c.namespace, blobs.c.digest, blobs.c.length)).all()
    freed: Counter[str] = Counter()
    for namespace, _, length in rows:
        freed[namespace] += length
    for namespace, nbytes in freed.items():
        namespaces.count(w, namespace, stored_bytes=-nbytes)
    return [(namespace, digest) for namespace, digest, _ in rows]


def count(s: ReadSession, moment: Moment) -> int:
    """The number of blobs that would be dropped."""
    wanted = select(func.count()).select_from(blobs).where(_may_go(moment), _is_settled(moment))
    return int(s.select(wanted).scalar_one())


def usage(catalog: Catalog, moment: Moment, is_wanted: Callable[[PackUse], bool] = lambda _: True) -> Iterator[PackUse]:
    """The finished packs that are wanted, with the bytes that stay in each after the blobs that may go are dropped.

    Takes as long as a scan of all blobs, seconds for millions of blobs, in short read transactions.
    """
    live = func.coalesce(func.sum(case((_may_go(moment), 0), else_=blobs.c.length)), 0)
    last = 0
    while True:
        page = (
            select(packs_table.c.id, packs_table.c.name, packs_table.c.size)
            .where(packs_table.c.id > last)
            .where(packs.finished(moment.before))
            .order_by(packs_table.c.id)
            .limit(BATCH)
            .subquery()
        )
        of_each = (
            select(page.c.id, page.c.name, page.c.size, live, blobs.c.namespace)
            .outerjoin(blobs, blobs.c.pack_id == page.c.id)
            .group_by(page.c.id, page.c.name, page.c.size, blobs.c.namespace)
            .order_by(page.c.id, blobs.c.namespace)
        )
        with catalog.read() as s:
            rows = s.select(of_each).all()
        if not rows:
            return
        for _, of_pack in groupby(rows, key=lambda row: row[0]):
            use = _use_of(list(of_pack))
            if is_wanted(use):
                yield use
        last = rows[-1][0]


def _use_of(rows: Sequence[Row[*tuple[Any, ...]]]) -> PackUse:
    """The use of one pack, from a row for each namespace."""
    pack_id, name, size = rows[0][:3]
    owners = tuple(row[4] for row in rows if row[4] is not None)
    return PackUse(int(pack_id), name, int(size), sum(int(row[3]) for row in rows), owners)


def _found(catalog: Catalog, condition: ColumnElement[bool]) -> Iterator[int]:
    """The ids of blobs that meet a condition. No transaction is open between two of them."""
    return (row.id for row in by_page(catalog, select(blobs.c.id).where(condition), blobs.c.id))

"""Blobs that no checkpoint refers to: noticed, and after a grace dropped. And what that leaves of the packs.

Everything is looked for in read transactions and done in short write transactions that look once more: a writer holds
the one write lock, so what it has looked up is still so when it ends. A commit that relied on a blob that goes here
finds it missing in its own transaction, and stores it after all.

A blob of a pack that is not finished is left alone: the commit that brought it may be about to refer to it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, case, delete, func, select, update

from ..values.digest import Digest
from . import checksums, packs
from .catalog import Catalog
from .commit import BATCH
from .dialect import each_integer
from .rows import to_microseconds
from .session import ReadSession
from .tables import blobs, checkpoint_blobs
from .tables import packs as packs_table

GoOn = Callable[[], None]
"""Called between two transactions of something long; what it raises ends it there."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a sweep looks: ``now``; leases that were over at ``before`` are over on every server's clock; what has been
    unused since ``cutoff`` may go.
    """

    now: datetime
    before: datetime
    cutoff: datetime

    @classmethod
    def at(cls, now: datetime, grace: float) -> "Moment":
        """``grace`` is in seconds."""
        return cls(now, now - MARGIN, now - timedelta(seconds=grace))


MARGIN = timedelta(hours=1)
"""How long a lease has to have run out before others act on it: clocks differ, and commits take a moment."""


@dataclass(frozen=True, slots=True)
class PackUse:
    """A finished pack of ``size`` bytes, of which ``live`` are those of blobs that stay; its blobs are those of
    ``namespaces``, sorted: of one, but for packs of a compaction that did not keep them apart yet.
    """

    id: int
    name: str
    size: int
    live: int
    namespaces: tuple[str, ...]


_is_unused = ~select(checkpoint_blobs.c.blob_id).where(checkpoint_blobs.c.blob_id == blobs.c.id).exists()


def _is_settled(moment: Moment) -> ColumnElement[bool]:
    """Its pack is finished."""
    return select(packs_table.c.id).where(packs_table.c.id == blobs.c.pack_id, packs.finished(moment.before)).exists()


def _may_go(moment: Moment) -> ColumnElement[bool]:
    """Nothing refers to it, and its grace is over or would be if it were marked now."""
    since = func.coalesce(blobs.c.unused_since, to_microseconds(moment.now))
    return and_(since <= to_microseconds(moment.cutoff), _is_unused)


def mark(catalog: Catalog, moment: Moment, go_on: GoOn) -> int:
    """Note of every blob that nothing refers to since when that is so; tells how many were new."""
    count = 0
    is_new = and_(blobs.c.unused_since.is_(None), _is_unused, _is_settled(moment))
    for ids in _pages(catalog, select(blobs.c.id).where(is_new)):
        go_on()
        with catalog.turn() as w:
            marked = update(blobs).where(blobs.c.id.in_(each_integer(ids)), is_new)
            count += w.execute(marked.values(unused_since=to_microseconds(moment.now))).rowcount
    return count


def drop(catalog: Catalog, moment: Moment, go_on: GoOn) -> int:
    """Drop the marked blobs whose grace is over, unless something refers to them after all; tells how many."""
    count = 0
    is_over = blobs.c.unused_since <= to_microseconds(moment.cutoff)
    for ids in _pages(catalog, select(blobs.c.id).where(is_over)):
        go_on()
        these = blobs.c.id.in_(each_integer(ids))
        with catalog.turn() as w:
            dropped: defaultdict[str, list[Digest]] = defaultdict(list)
            gone = delete(blobs).where(these, is_over, _is_unused, _is_settled(moment))
            for namespace, digest in w.execute(gone.returning(blobs.c.namespace, blobs.c.digest)):
                dropped[namespace].append(digest)
            for namespace, digests in dropped.items():
                checksums.drop(w, namespace, digests)
                count += len(digests)
            w.execute(update(blobs).where(these, is_over, ~_is_unused).values(unused_since=None))
    return count


def release(catalog: Catalog, pack: str) -> None:
    """Drop the blobs of ``pack`` that no checkpoint refers to: whoever brought them has given up. With the last one the
    pack becomes an abandoned one, whose bytes may be deleted; with others, it is finished.

    In short transactions; a crash between them leaves less for the sweep.
    """
    is_of_pack = blobs.c.pack_id == select(packs_table.c.id).where(packs_table.c.name == pack).scalar_subquery()
    for ids in _pages(catalog, select(blobs.c.id).where(_is_unused, is_of_pack)):
        with catalog.turn() as w:
            w.execute(delete(blobs).where(blobs.c.id.in_(each_integer(ids)), _is_unused, is_of_pack))
    with catalog.write() as w:
        packs.finish(w, pack)


def count(s: ReadSession, moment: Moment) -> int:
    """How many blobs would be dropped."""
    wanted = select(func.count()).select_from(blobs).where(_may_go(moment), _is_settled(moment))
    return int(s.select(wanted).scalar_one())


def usage(s: ReadSession, moment: Moment) -> Sequence[PackUse]:
    """All finished packs, and what of each stays when the blobs that may go have gone. Takes as long as going through
    all blobs does: seconds where there are millions.
    """
    live = func.coalesce(func.sum(case((_may_go(moment), 0), else_=blobs.c.length)), 0)
    rows = s.select(
        select(packs_table.c.id, packs_table.c.name, packs_table.c.size, live, blobs.c.namespace)
        .outerjoin(blobs, blobs.c.pack_id == packs_table.c.id)
        .where(packs.finished(moment.before))
        .group_by(packs_table.c.id, packs_table.c.name, packs_table.c.size, blobs.c.namespace)
        .order_by(packs_table.c.id, blobs.c.namespace)
    )
    uses: list[PackUse] = []
    for pack_id, name, size, nbytes, namespace in rows:
        use = PackUse(int(pack_id), name, int(size), int(nbytes), () if namespace is None else (namespace,))
        if uses and uses[-1].id == use.id:
            before = uses.pop()
            use = replace(use, live=before.live + use.live, namespaces=before.namespaces + use.namespaces)
        uses.append(use)
    return uses


def _pages(catalog: Catalog, found: Select[int]) -> Iterator[Sequence[int]]:
    """The ids that ``found`` finds, at most BATCH at a time."""
    last = 0
    while True:
        with catalog.read() as s:  # looking for them may take long where they are few
            ids = s.select(found.where(blobs.c.id > last).order_by(blobs.c.id).limit(BATCH)).scalars().all()
        if not ids:
            return
        yield ids
        last = ids[-1]

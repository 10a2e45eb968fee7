"""Rows of checkpoints that are none: of commits that broke off, and of purged checkpoints with many blobs.

They have no version, and are not in the trash. Dropping one of hundreds of thousands of references takes several short
transactions. The first *sets it aside*, with 0 as its time of creation: nothing makes such a row visible any more. Then
go its references, and at last the row. So the next sweep finds what a crash left, and goes on.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import groupby

from sqlalchemy import ColumnElement, and_, delete, func, select, update

from .by_page import by_page
from .catalog import Catalog
from .lists import each_integer, is_among
from .models import drop_never_used
from .pace import Pace
from .rows import to_microseconds
from .session import ReadSession, WriteSession
from .tables import checkpoint_blobs, checkpoints, removed_checkpoints

AT_ONCE = 2_000
"""Most references that are dropped in one transaction: about 20 ms."""

_c, _refers = checkpoints.c, checkpoint_blobs.c
_in_trash = select(removed_checkpoints.c.checkpoint_id).where(removed_checkpoints.c.checkpoint_id == _c.id)
_has_references = select(_refers.blob_id).where(_refers.checkpoint_id == _c.id).exists()

is_aside = and_(_c.version.is_(None), _c.created_at == 0)


def drop(catalog: Catalog, before: datetime | None, go_on: Callable[[], None]) -> int:
    """Remove rows of commits that began ``before`` and did not end, and rows set aside. Return the number of the first.

    ``before`` is None only in a server that knows that it is the only one and has not begun to serve.
    """
    count = 0
    pace = Pace(200, AT_ONCE)
    for ids in pace.slices(_ids(catalog, _broke_off(before))):
        go_on()
        with catalog.turn(pace=pace) as w:
            these = update(checkpoints).where(is_among(_c.id, each_integer(ids)), _broke_off(before))
            count += w.execute(these.values(created_at=0)).rowcount
    pace = Pace(200, AT_ONCE)
    for pairs in pace.slices(_references(catalog)):
        go_on()
        with catalog.turn(pace=pace) as w:
            for id_, of_one in groupby(pairs, key=lambda pair: pair[0]):
                blob_ids = each_integer([blob_id for _, blob_id in of_one])
                w.execute(
                    delete(checkpoint_blobs).where(_refers.checkpoint_id == id_, is_among(_refers.blob_id, blob_ids))
                )
    pace = Pace(200, AT_ONCE)
    for ids in pace.slices(_ids(catalog, is_aside)):
        go_on()
        with catalog.turn(pace=pace) as w:
            w.execute(delete(checkpoints).where(is_among(_c.id, each_integer(ids)), is_aside, ~_has_references))
    with catalog.write() as w:
        drop_never_used(w)
    return count


def count(s: ReadSession, before: datetime) -> int:
    """The number of rows that ``drop`` would remove, but for those set aside."""
    return int(s.select(select(func.count()).select_from(checkpoints).where(_broke_off(before))).scalar_one())


def drop_now(w: WriteSession, ids: Sequence[int]) -> None:
    """Drop rows of checkpoints that were just purged, or set them aside if they have many references. A row with a
    version stays.
    """
    of_them = each_integer(ids)
    these = is_among(_c.id, of_them), _c.version.is_(None)
    some = select(_refers.blob_id).where(is_among(_refers.checkpoint_id, of_them)).limit(AT_ONCE + 1).subquery()
    if w.select(select(func.count()).select_from(some)).scalar_one() <= AT_ONCE:
        w.execute(delete(checkpoints).where(*these))
    else:
        w.execute(update(checkpoints).where(*these).values(created_at=0))


def _broke_off(before: datetime | None) -> ColumnElement[bool]:
    broke_off = and_(_c.version.is_(None), _c.created_at > 0, ~_in_trash.exists())
    return broke_off if before is None else and_(broke_off, _c.created_at < to_microseconds(before))


def _ids(catalog: Catalog, condition: ColumnElement[bool]) -> Iterator[int]:
    return (row.id for row in by_page(catalog, select(_c.id).where(condition), _c.id))


def _references(catalog: Catalog) -> Iterator[tuple[int, int]]:
    """The references of the rows set aside: checkpoint and blob."""
    for id_ in _ids(catalog, is_aside):
        its = select(_refers.blob_id).where(_refers.checkpoint_id == id_)
        yield from ((id_, row.blob_id) for row in by_page(catalog, its, _refers.blob_id))

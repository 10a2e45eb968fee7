"""Totals of stored data over all namespaces."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select

from . import damage
from .namespaces import largest, quota_use
from .session import ReadSession
from .tables import blobs, models, packs


@dataclass(frozen=True, slots=True)
class Totals:
    """Totals of what is stored. ``namespaces`` are stored bytes and checkpoints."""

    checkpoints: int
    blobs: int
    packs: int
    pack_bytes: int
    damaged_blobs: int
    quota_use: Mapping[tuple[str, str], float]
    namespaces: Mapping[str, tuple[int, int]]


def totals(s: ReadSession) -> Totals:
    """Compute the totals. Takes as long as counting all blobs: seconds for millions of blobs."""
    count, size = s.select(
        select(func.count(), func.coalesce(func.sum(packs.c.size), 0)).where(packs.c.state == "sealed")
    ).one()
    return Totals(
        checkpoints=int(s.select(select(func.coalesce(func.sum(models.c.checkpoints), 0))).scalar_one()),
        blobs=int(s.select(select(func.count()).select_from(blobs)).scalar_one()),
        packs=int(count),
        pack_bytes=int(size),
        damaged_blobs=damage.count(s),
        quota_use=quota_use(s),
        namespaces=largest(s),
    )

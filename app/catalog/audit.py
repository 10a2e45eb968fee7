"""Queries of the full check (fsck): all rows, a page at a time, and look-ups that confirm a finding later."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, func, select, union_all

from ..store.keys import JOINED_LENGTH
from ..values.checkpoint import Blob, ModelName
from ..values.digest import Digest
from .by_page import by_page
from .catalog import Catalog
from .lists import each_text
from .rows import from_microseconds
from .session import ReadSession
from .tables import blobs, checkpoint_blobs, checkpoints, models, packs, removed_checkpoints


@dataclass(frozen=True, slots=True)
class PackRow:
    id: int
    name: str
    size: int
    sealed: bool


@dataclass(frozen=True, slots=True)
class BlobRow:
    """A blob, with the size and state in its pack's row. ``damaged_at`` is when it was marked as damaged, if it is;
    ``healed_at`` is when an upload brought it again.
    """

    id: int
    namespace: str
    blob: Blob
    pack_size: int
    pack_sealed: bool
    damaged_at: datetime | None
    healed_at: datetime | None


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    id: int
    model: ModelName
    version: int
    manifest: Digest
    frame: Digest
    nbytes: int
    is_thinned: bool

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"


_version = func.coalesce(checkpoints.c.version, removed_checkpoints.c.version)
"""The version of a checkpoint, also in the trash; null for an unfinished commit."""


def all_packs(catalog: Catalog) -> Iterator[PackRow]:
    found = select(packs.c.id, packs.c.name, packs.c.size, packs.c.state == "sealed")
    return (PackRow(row[0], row[1], row[2], bool(row[3])) for row in by_page(catalog, found, packs.c.id))


def packs_in(s: ReadSession, areas: Iterable[str]) -> Mapping[str, PackRow]:
    """Return the packs of ``areas``: an area has at most one, of the area's name, or of a joined name."""
    area, name = each_text(areas).subquery(), packs.c.name
    joined = and_(name > area.c.value, name < area.c.value + "~", func.length(name) == JOINED_LENGTH)
    row = packs.c.id, name, packs.c.size, packs.c.state == "sealed"
    ways = [select(area.c.value, *row).join(packs, way) for way in (name == area.c.value, joined)]
    rows = s.select(select(union_all(*ways).subquery()))
    return {found[0]: PackRow(found[1], found[2], found[3], bool(found[4])) for found in rows}


_BLOB = (
    select(
        blobs.c.id,
        blobs.c.namespace,
        packs.c.size,
        packs.c.state == "sealed",
        blobs.c.damaged_at,
        blobs.c.healed_at,
        blobs.c.digest,
        packs.c.name,
        blobs.c.offset,
        blobs.c.length,
        blobs.c.crc32,
        blobs.c.blocks,
    )
    .select_from(blobs)
    .join(packs, packs.c.id == blobs.c.pack_id)
)


def all_blobs(catalog: Catalog) -> Iterator[BlobRow]:
    return map(_blob, by_page(catalog, _BLOB, blobs.c.id))


def blobs_in(catalog: Catalog, pack_id: int) -> Iterator[BlobRow]:
    """Yield the blobs of one pack."""
    return map(_blob, by_page(catalog, _BLOB.where(blobs.c.pack_id == pack_id), blobs.c.id))


def blob_named(s: ReadSession, namespace: str, digest: Digest) -> BlobRow | None:
    row = s.select(_BLOB.where(blobs.c.namespace == namespace, blobs.c.digest == digest)).first()
    return None if row is None else _blob(row)


def users_of(s: ReadSession, blob_id: int, limit: int) -> list[str]:
    """At most ``limit`` checkpoints that refer to a blob, as ``namespace/name@version``."""
    rows = s.select(
        select(models.c.namespace, models.c.name, _version)
        .join(checkpoints, checkpoints.c.model_id == models.c.id)
        .join(checkpoint_blobs, checkpoint_blobs.c.checkpoint_id == checkpoints.c.id)
        .outerjoin(removed_checkpoints, removed_checkpoints.c.checkpoint_id == checkpoints.c.id)
        .where(checkpoint_blobs.c.blob_id == blob_id, _version.is_not(None))
        .order_by(models.c.namespace, models.c.name, _version)
        .limit(limit)
    )
    return [f"{row[0]}/{row[1]}@{row[2]}" for row in rows]


def all_checkpoints(catalog: Catalog) -> Iterator[CheckpointRow]:
    """All checkpoints, those in the trash too."""
    found = (
        select(
            checkpoints.c.id,
            models.c.namespace,
            models.c.name,
            _version,
            checkpoints.c.manifest,
            checkpoints.c.frame,
            checkpoints.c.nbytes,
            checkpoints.c.thinned_at,
        )
        .join(models, models.c.id == checkpoints.c.model_id)
        .outerjoin(removed_checkpoints, removed_checkpoints.c.checkpoint_id == checkpoints.c.id)
        .where(_version.is_not(None))
    )
    for row in by_page(catalog, found, checkpoints.c.id):
        model = ModelName(row[1], row[2])
        is_thinned = row[7] is not None
        yield CheckpointRow(row[0], model, row[3], Digest(row[4]), Digest(row[5]), row[6], is_thinned)


def is_unchanged(s: ReadSession, row: CheckpointRow) -> bool:
    """Tell whether a checkpoint is still there, and has not been thinned meanwhile."""
    thinned = checkpoints.c.thinned_at.is_not(None) if row.is_thinned else checkpoints.c.thinned_at.is_(None)
    this = select(checkpoints.c.id).where(checkpoints.c.id == row.id, thinned)
    return s.select(this).first() is not None


def references(s: ReadSession, checkpoint_id: int) -> Mapping[tuple[str, Digest], int]:
    """The namespaces and digests of the blobs that a checkpoint refers to, with their lengths."""
    rows = s.select(
        select(blobs.c.namespace, blobs.c.digest, blobs.c.length)
        .join(checkpoint_blobs, checkpoint_blobs.c.blob_id == blobs.c.id)
        .where(checkpoint_blobs.c.checkpoint_id == checkpoint_id)
    )
    return {(row[0], Digest(row[1])): row[2] for row in rows}


def _blob(row: Any) -> BlobRow:
    return BlobRow(row[0], row[1], Blob(*row[6:]), row[2], bool(row[3]), _time(row[4]), _time(row[5]))


def _time(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else from_microseconds(microseconds)

"""Queries of the full check (fsck): all rows, a page at a time, and look-ups that confirm a finding later."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, case, func, or_, select

from ..store.keys import AREA_LENGTH, JOINED_LENGTH
from ..values.checkpoint import Blob, ModelName
from ..values.digest import Digest
from .catalog import Catalog
from .commit import BATCH
from .dialect import each_text
from .rows import from_microseconds
from .session import ReadSession
from .tables import blobs, checkpoint_blobs, checkpoints, models, namespaces, packs, removed_checkpoints


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


@dataclass(frozen=True, slots=True)
class ModelRow:
    """The counters in a model's row (``says``, ``next_version``), and the real values of its checkpoints."""

    name: ModelName
    says: int
    checkpoints: int
    next_version: int
    highest: int


_version = func.coalesce(checkpoints.c.version, removed_checkpoints.c.version)
"""The version of a checkpoint, also in the trash; null for an unfinished commit."""


def all_packs(catalog: Catalog) -> Iterator[PackRow]:
    found = select(packs.c.id, packs.c.name, packs.c.size, packs.c.state == "sealed")
    return (PackRow(row[0], row[1], row[2], bool(row[3])) for row in _pages(catalog, found, packs.c.id))


_area = case(
    (func.length(packs.c.name) == JOINED_LENGTH, func.substr(packs.c.name, 1, AREA_LENGTH)), else_=packs.c.name
)
"""The area of a pack, as ``store.keys.area_of`` tells it."""


def packs_in(s: ReadSession, areas: Iterable[str]) -> Mapping[str, PackRow]:
    """Return the packs of ``areas``: an area has at most one."""
    rows = s.select(
        select(_area, packs.c.id, packs.c.name, packs.c.size, packs.c.state == "sealed").where(
            _area.in_(each_text(areas))
        )
    )
    return {row[0]: PackRow(row[1], row[2], row[3], bool(row[4])) for row in rows}


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
    return map(_blob, _pages(catalog, _BLOB, blobs.c.id))


def blobs_in(catalog: Catalog, pack_id: int) -> Iterator[BlobRow]:
    """Yield the blobs of one pack."""
    return map(_blob, _pages(catalog, _BLOB.where(blobs.c.pack_id == pack_id), blobs.c.id))


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
    for row in _pages(catalog, found, checkpoints.c.id):
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


def wrong_models(s: ReadSession) -> list[ModelRow]:
    """Models whose row disagrees with their checkpoints. One statement, so a running commit causes no false alarm."""
    there = (
        select(
            checkpoints.c.model_id,
            func.count(checkpoints.c.version).label("number"),
            func.coalesce(func.max(checkpoints.c.version), 0).label("highest"),
        )
        .group_by(checkpoints.c.model_id)
        .subquery()
    )
    number, highest = func.coalesce(there.c.number, 0), func.coalesce(there.c.highest, 0)
    rows = s.select(
        select(models.c.namespace, models.c.name, models.c.checkpoints, number, models.c.next_version, highest)
        .outerjoin(there, there.c.model_id == models.c.id)
        .where(or_(models.c.checkpoints != number, models.c.next_version <= highest))
        .order_by(models.c.namespace, models.c.name)
    )
    return [ModelRow(ModelName(row[0], row[1]), *row[2:]) for row in rows]


def wrong_namespaces(s: ReadSession) -> list[tuple[str, str]]:
    """The namespaces whose counters disagree with their rows, each with the difference as text."""
    n, none = namespaces.c, {"checkpoints": 0, "logical_bytes": 0, "stored_bytes": 0}
    said = {row.namespace: row._asdict() for row in s.select(select(n.namespace, *(n[name] for name in none)))}
    there: dict[str, dict[str, int]] = {}
    held = (
        select(models.c.namespace, func.count().label("number"), func.sum(checkpoints.c.nbytes).label("nbytes"))
        .join(checkpoints, checkpoints.c.model_id == models.c.id)
        .where(checkpoints.c.version.is_not(None))
        .group_by(models.c.namespace)
    )
    for name, number, nbytes in s.select(held):
        there[name] = {**none, "checkpoints": number, "logical_bytes": int(nbytes)}
    for name, length in s.select(select(blobs.c.namespace, func.sum(blobs.c.length)).group_by(blobs.c.namespace)):
        there.setdefault(name, {**none})["stored_bytes"] = int(length)
    return [
        (name, ", ".join(f"{each} is {counted[each]:,} but should be {real[each]:,}" for each in wrong))
        for name in sorted({*said, *there})
        for counted, real in [(said.get(name, none), there.get(name, none))]
        if (wrong := [each for each in none if counted[each] != real[each]])
    ]


def _blob(row: Any) -> BlobRow:
    return BlobRow(row[0], row[1], Blob(*row[6:]), row[2], bool(row[3]), _time(row[4]), _time(row[5]))


def _time(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else from_microseconds(microseconds)


def _pages(catalog: Catalog, found: Select[*tuple[Any, ...]], by: Any) -> Iterator[Any]:
    """The rows of ``found`` in the order of their first column, ``by``. No transaction is open between pages.

    Rows added or removed meanwhile may be included or not.
    """
    last = 0
    while True:
        with catalog.read() as s:
            rows = s.select(found.where(by > last).order_by(by).limit(BATCH)).all()
        if not rows:
            return
        yield from rows
        last = rows[-1][0]

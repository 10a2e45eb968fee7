"""Checkpoints for the catalog to hold, and queries that these tests share."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from alembic import command
from sqlalchemy import event

from app.catalog import Catalog, checkpoints, migrate, packs
from app.catalog.commit import NewPack, commit
from app.catalog.dialect import migrating_engine, parse_url
from app.values.checkpoint import Blob, Checkpoint, ModelName, NewCheckpoint
from app.values.digest import Digest
from app.values.manifest import Component

MODEL = ModelName("vision", "resnet50")
NOW = datetime(2026, 5, 9, 7, 35, 25, tzinfo=UTC)
_pack_numbers = itertools.count()


def downgrade(url: str, revision: str) -> None:
    """Take a catalog back to an earlier revision."""
    engine = migrating_engine(parse_url(url))
    with engine.begin() as connection:
        command.downgrade(migrate.config_for(connection), revision)
    engine.dispose()


def digest(text: str) -> Digest:
    return Digest(f"blake3:{hashlib.sha256(text.encode()).hexdigest()}")


def new_checkpoint(model: ModelName = MODEL, blobs: Sequence[Digest] = (), **fields: Any) -> NewCheckpoint:
    """It refers to ``blobs`` of 100 bytes, as ``begin_pack`` makes them."""
    values: dict[str, Any] = {
        "run": None,
        "epoch": None,
        "step": None,
        "loss": None,
        "metrics": {},
        "tags": {},
        "format": "torch_zip",
        "devices": ("cpu", "cuda:0"),
        "components": (Component(("model", 0), "state_dict", 62, 1000),),
        "unsafe_globals": ("numpy.dtype",),
        "manifest": digest("manifest"),
        "frame": digest("frame"),
        "nbytes": 5000,
        "new_bytes": 400,
        "digest": digest("file"),
        "sha256": "ab" * 32,
    }
    return NewCheckpoint(model=model, blobs=dict.fromkeys(blobs, 100), **(values | fields))


def begin_pack(catalog: Catalog, digests: Sequence[Digest], *, lease_seconds: float = 3600) -> NewPack:
    """A pack that is announced, as if its bytes were written: 100 bytes for each of ``digests``."""
    name = f"pack-{next(_pack_numbers)}"
    with catalog.write() as w:
        packs.begin(w, name, lease_seconds)
    blobs = [Blob(each, name, 100 * i, 100, i, bytes(32)) for i, each in enumerate(digests)]
    return NewPack(name, 100 * len(blobs), blobs)


def add(catalog: Catalog, model: ModelName = MODEL, **fields: Any) -> Checkpoint:
    """Commit a checkpoint that needs no blobs."""
    return commit(catalog, new_checkpoint(model, **fields), None)


def resolve(catalog: Catalog, ref: str, run: str | None = None, model: ModelName = MODEL) -> Checkpoint:
    with catalog.read() as s:
        return checkpoints.resolve(s, model, ref, run)


def count(catalog: Catalog, table: str) -> int:
    with catalog.read() as s:
        return int(s._connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


@contextmanager
def statements(catalog: Catalog) -> Iterator[list[str]]:
    """The SQL that the catalog runs meanwhile; how transactions begin, each database has its own way."""
    seen: list[str] = []

    def listen(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith(("BEGIN", "SELECT pg_advisory_xact_lock", "COMMIT")):
            seen.append(statement)

    engines = (catalog._reader, catalog._writer)
    for engine in engines:
        event.listen(engine, "before_cursor_execute", listen)
    try:
        yield seen
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", listen)

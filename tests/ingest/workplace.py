"""A real catalog, store and spool in a folder, and torch files to put into them."""

import asyncio
import io
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from sqlalchemy import select

from app.catalog import Catalog, blobs
from app.catalog.tables import packs
from app.catalog.trash import NOT_KEPT
from app.formats.manifest_json import decode
from app.ingest.body import Chunks
from app.ingest.service import Ingest
from app.retention import Retention
from app.store import LocalPackStore, Spool
from app.store.digests import crc32, digest_of
from app.values.checkpoint import Blob, Checkpoint, Fields, ModelName
from app.values.digest import Digest
from app.values.frame import frame_spans
from app.values.manifest import Manifest
from app.values.span import Span

MODEL = ModelName("vision", "resnet")
MIB = 1024 * 1024


def torch_file(obj: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(obj, buffer)
    return buffer.getvalue()


def weights(seed: int, mebibytes: float = 1) -> torch.Tensor:
    """Random float32 values that follow from ``seed``."""
    return torch.rand(int(mebibytes * MIB / 4), generator=torch.Generator().manual_seed(seed))


async def chunked(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@cache
def _migrated() -> bytes:
    """A SQLite file without rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        with closing(Catalog(f"sqlite:///{path}", durable=False)) as catalog:
            catalog.migrate()
        return path.read_bytes()


@dataclass(frozen=True, slots=True)
class Workplace:
    folder: Path
    catalog: Catalog
    store: LocalPackStore
    spool: Spool
    ingest: Ingest

    @classmethod
    def at(cls, folder: Path, catalog_at: Path, *, durable: bool = True) -> "Workplace":
        catalog_at.write_bytes(_migrated())
        catalog = Catalog(f"sqlite:///{catalog_at}")
        return cls.of(folder, catalog, durable=durable)

    @classmethod
    def of(cls, folder: Path, catalog: Catalog, *, durable: bool = True, store: Path | None = None) -> "Workplace":
        """``folder`` is a data dir; the store lies in it unless it is said where."""
        packs_in, spool = LocalPackStore(store or folder, durable=durable), Spool(folder / "spool")
        return cls(
            folder,
            catalog,
            packs_in,
            spool,
            Ingest(catalog, packs_in, spool, Retention(catalog, packs_in, NOT_KEPT)),
        )

    def close(self) -> None:
        self.ingest.close()
        self.spool.close()
        self.catalog.close()

    def upload(self, data: bytes, model: ModelName = MODEL, **fields: Any) -> Checkpoint:
        async def receive_and_commit() -> Checkpoint:
            upload = await self.ingest.receive(Chunks(chunked(data)), len(data))
            return await asyncio.to_thread(self.ingest.commit, upload, model, Fields(**fields))

        return asyncio.run(receive_and_commit())

    def files(self) -> Mapping[str, int]:
        """Every file of the spool and of the store, with its size."""
        return {
            str(path.relative_to(self.folder)): path.stat().st_size
            for path in self.folder.rglob("*")
            if path.is_file() and "sqlite" not in path.name
        }

    def bytes_stored(self) -> int:
        return sum(self.files().values())

    def pack_rows(self) -> Mapping[str, str]:
        """Every pack's state."""
        with self.catalog.read() as s:
            return {row.name: row.state for row in s.select(select(packs))}

    def contents(self) -> tuple[Mapping[str, int], Mapping[str, str]]:
        """All that an upload could leave behind."""
        return self.files(), self.pack_rows()

    def blobs(self, digests: Iterable[Digest], namespace: str = MODEL.namespace) -> Mapping[Digest, Blob]:
        with self.catalog.read() as s:
            return blobs.known(s, namespace, list(digests))

    def blob(self, digest: Digest, namespace: str = MODEL.namespace) -> bytes:
        """A blob's bytes, checked against everything the catalog says of them."""
        return self._checked(self.blobs([digest], namespace)[digest])

    def _checked(self, place: Blob) -> bytes:
        data = bytes(self.store.read(place.pack, Span(place.offset, place.offset + place.length)))
        assert digest_of(data) == (place.digest, place.blocks)
        assert crc32(data) == place.crc32
        return data

    def manifest(self, checkpoint: Checkpoint) -> Manifest:
        return decode(self.blob(checkpoint.manifest, checkpoint.model.namespace))

    def original(self, checkpoint: Checkpoint) -> bytes:
        """The uploaded file, put together again from its frame and its blobs."""
        manifest = self.manifest(checkpoint)
        places = self.blobs({each.digest for each in manifest.storages if each.digest}, checkpoint.model.namespace)
        blobs = {digest: self._checked(place) for digest, place in places.items()}
        data = bytearray(manifest.size)
        frame, position = self.blob(checkpoint.frame, checkpoint.model.namespace), 0
        for span in frame_spans(manifest.size, manifest.storages):
            data[span.start : span.end] = frame[position : position + span.length]
            position += span.length
        for storage in manifest.storages:
            if storage.digest is not None:
                data[storage.span.start : storage.span.end] = blobs[storage.digest]
        return bytes(data)

"""Reader of a torch zip file, to a Document: its pickle as nodes, and each storage's span."""

import zlib
from typing import Literal

from ...errors import HostileCheckpoint, NotACheckpoint
from ...values.source import ByteSource
from ...values.work import Work
from ..document import Document
from ..pickle.limits import LIMITS
from ..pickle.machine import parse
from ..pickle.nodes import Node, StorageRef
from ..torch_tensors import TorchHooks
from .archive import Archive
from .records import Record

FORMAT = "torch_zip"
VERSIONS = range(1, 11)
"""File format versions that torch reads."""
MAX_WORD = 16
"""Bytes of the records that hold a version or a byte order."""


def read(data: ByteSource, archive: Archive, work: Work) -> Document:
    """Read a checkpoint. Raises NotACheckpoint, HostileCheckpoint or ShardedTensor."""
    _check_version(data, archive)
    skeleton = archive.records["data.pkl"]
    if skeleton.end - skeleton.start > LIMITS.nbytes:  # checked before the read
        detail = f"the pickle has {skeleton.end - skeleton.start} bytes; at most {LIMITS.nbytes} are allowed"
        raise HostileCheckpoint(detail, rule="pickle-size", where="data.pkl")
    pickle = data[skeleton.start : skeleton.end]
    _check_crc32(pickle, skeleton, "data.pkl")
    hooks = TorchHooks(work)
    root = parse(pickle, hooks, work=work)
    found = {key: _record_of(storage, archive) for key, storage in hooks.storages.items()}
    return Document(
        root=root,
        format=FORMAT,
        skeleton=skeleton.span,
        byteorder=_byteorder(data, archive),
        records={key: record.span for key, record in found.items()},
        checksums={key: record.crc32 for key, record in found.items()},
        storages=hooks.storages,
        unsafe_globals=tuple(hooks.unsafe_globals),
    )


def tree_of(skeleton: bytes, work: Work) -> Node:
    """Parse the pickle by itself, to nodes."""
    return parse(skeleton, TorchHooks(work), work=work)


def _check_version(data: ByteSource, archive: Archive) -> None:
    """Check the format's version: every torch writes one, and reads 1 to 10."""
    name = _only_one(archive, ".data/version", "version")
    if name is None:
        raise NotACheckpoint("the file has no record version, which torch.save always writes", rule="no-version")
    text = _short_text(data, archive, name).strip()
    if not text.isdigit() or int(text) not in VERSIONS:
        detail = f"the file's format version is not a number from {VERSIONS[0]} to {VERSIONS[-1]}"
        raise NotACheckpoint(detail, rule="version", where="version")


def _byteorder(data: ByteSource, archive: Archive) -> Literal["little", "big"]:
    """Return the byte order. Files from before torch 2.1 have no such record, and are little-endian."""
    if "byteorder" not in archive.records:
        return "little"
    text = _short_text(data, archive, "byteorder")
    if text == b"little":
        return "little"
    if text == b"big":
        return "big"
    raise HostileCheckpoint("the byte order is neither little nor big", rule="byteorder", where="byteorder")


def _only_one(archive: Archive, *names: str) -> str | None:
    """Return which of a record's names over the years is there. Two are refused: each torch would read its own."""
    found = [name for name in names if name in archive.records]
    if len(found) > 1:
        detail = f"some versions of torch take the records {found[0][:200]!r} and {found[1][:200]!r} for the same"
        raise HostileCheckpoint(detail, rule="zip-duplicate", where=found[0][:200])
    return found[0] if found else None


def _short_text(data: ByteSource, archive: Archive, name: str) -> bytes:
    """Read a record of one word; a longer record reads as empty."""
    record = archive.records[name]
    if record.end - record.start > MAX_WORD:
        return b""
    text = bytes(data[record.start : record.end])
    _check_crc32(text, record, name)
    return text


def _check_crc32(content: bytes | memoryview, record: Record, name: str) -> None:
    """Raise HostileCheckpoint for a wrong CRC32: torch does not check it, and other readers refuse the file."""
    if record.crc32 not in {0, zlib.crc32(content)}:  # torch.serialization.set_crc32_options(False) writes none
        raise HostileCheckpoint(f"record {name!r} does not match its CRC32", rule="zip-crc", where=name)


def _record_of(storage: StorageRef, archive: Archive) -> Record:
    """Return the record of exactly a storage's bytes: ``data/<key>`` (torch 1.4: ``tensors/<key>``)."""
    key = storage.key
    name = _only_one(archive, f"data/{key}", f"tensors/{key}")
    where = f"data/{key[:200]}"
    if name is None:
        detail = f"the pickle names storage {key[:200]!r}, but the file has no record of that name"
        raise HostileCheckpoint(detail, rule="storage-missing", where=where)
    record = archive.records[name]
    if record.end - record.start != storage.nbytes:
        detail = (
            f"storage {key!r} has {storage.nbytes} bytes by the pickle, but {record.end - record.start} by its record"
        )
        raise HostileCheckpoint(detail, rule="storage-size", where=where)
    return record

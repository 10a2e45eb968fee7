"""Encoding of a manifest: JSON by columns, deflated, because 400,000 tensors as rows are slow to read and large.

The document is content-addressed like everything else, so equal manifests are encoded to equal bytes.
"""

import json
import zlib
from collections.abc import Sequence
from typing import Any

from ..values.digest import Digest
from ..values.dtype import DTYPES
from ..values.folder import FolderFile, SourceFile
from ..values.json_text import encode_text, read_json
from ..values.lazy_rows import LazyRows
from ..values.manifest import Assembled, Chunk, Component, Manifest, Storage, Tensor
from ..values.span import Span
from ..values.strides import strides_of

VERSION = 1
WITH_ASSEMBLED = 2
"""Version of a manifest with assembled storages: no reader of version 1 could take them for other ones."""


def encode(manifest: Manifest) -> bytes:
    storages, tensors = manifest.storages, manifest.tensors
    document: dict[str, Any] = {
        "version": WITH_ASSEMBLED if manifest.assembled else VERSION,
        "format": manifest.format,
        "size": manifest.size,
        "skeleton": [manifest.skeleton.start, manifest.skeleton.end],
        "byteorder": manifest.byteorder,
        "frame": manifest.frame,
        "unsafe_globals": manifest.unsafe_globals,
        "components": [
            [c.path, c.kind, c.keys, c.nbytes, c.param_groups, *([True] if c.named_only else [])]
            for c in manifest.components
        ],
        "storages": [
            (s.key for s in storages),
            (s.location for s in storages),
            (s.dtype and s.dtype.name for s in storages),
            (s.span.start for s in storages),
            (s.span.end for s in storages),
            (s.crc32 for s in storages),
            (s.digest for s in storages),
        ],
        "tensors": [
            (t.component for t in tensors),
            (t.path for t in tensors),
            (t.dtype.name for t in tensors),
            (t.shape for t in tensors),
            (t.stride for t in tensors),
            (t.offset for t in tensors),
            (t.storage for t in tensors),
        ],
    }
    if manifest.metadata:  # left out if empty, so that older manifests stay the same
        document["metadata"] = dict(manifest.metadata)
    if manifest.keys:
        document["keys"] = manifest.keys
    if manifest.files:
        document["files"] = list(map(_encode_file, manifest.files))
    if manifest.assembled:
        document["assembled"] = list(map(_encode_assembled, manifest.assembled))
    # Columns are made one by one during the writing: one call for all would let no other thread run.
    # A pair of lone surrogates is two characters in Python, and one as JSON escapes: they are kept unescaped.
    text = json.dumps(document, default=list, separators=(",", ":"), ensure_ascii=False)
    return zlib.compress(encode_text(text), 1)


def decode(data: bytes | memoryview, *, gives_way: bool = True) -> Manifest:
    """The inverse of ``encode``, for bytes that were verified against their digest; ``gives_way`` as ``read_json``."""
    document: dict[str, Any] = read_json(zlib.decompress(data), gives_way=gives_way)
    start, end = document["skeleton"]
    return Manifest(
        format=document["format"],
        size=document["size"],
        skeleton=Span(start, end),
        storages=tuple(
            Storage(key, location, dtype and DTYPES[dtype], Span(start, end), crc32, digest and Digest(digest))
            for key, location, dtype, start, end, crc32, digest in zip(*document.pop("storages"), strict=True)
        ),
        tensors=_decode_tensors(document.pop("tensors")),
        components=tuple(
            Component(tuple(path), kind, keys, nbytes, param_groups, *named_only)
            for path, kind, keys, nbytes, param_groups, *named_only in document["components"]
        ),
        unsafe_globals=tuple(document["unsafe_globals"]),
        byteorder=document["byteorder"],
        frame=document["frame"] and Digest(document["frame"]),
        metadata=document.get("metadata", {}),
        keys=tuple(document.get("keys", ())),
        files=tuple(map(_decode_file, document.get("files", ()))),
        assembled=tuple(map(_decode_assembled, document.get("assembled", ()))),
    )


def _decode_tensors(columns: list[list[Any]]) -> Sequence[Tensor]:
    def rows() -> tuple[Tensor, ...]:
        return tuple(
            Tensor(
                component,
                tuple(path),
                DTYPES[dtype],
                None if shape is None else tuple(shape),
                tuple(stride),
                offset,
                storage,
            )
            for component, path, dtype, shape, stride, offset, storage in zip(*columns, strict=True)
        )

    return LazyRows(len(columns[0]), rows)


def _encode_file(file: FolderFile) -> list[Any]:
    source = file.source
    as_source = source and [
        source.name,
        source.format,
        source.skeleton.start,
        source.skeleton.end,
        source.keys,
        *([[(span.start, span.end) for span in source.values]] if source.values else []),
    ]
    return [file.path, file.span.start, file.span.end, file.storage, as_source, file.crc32]


def _decode_file(fields: list[Any]) -> FolderFile:
    path, start, end, storage, as_source, crc32 = fields
    source = None
    if as_source is not None:
        name, kind, first, last, keys, *values = as_source
        spans = tuple(Span(*span) for each in values for span in each)
        source = SourceFile(name, kind, Span(first, last), tuple(keys), spans)
    return FolderFile(path, Span(start, end), source, storage, crc32)


def _encode_assembled(one: Assembled) -> list[Any]:
    held, dtype = one.storage, one.storage.dtype
    chunks = [[c.offsets, c.sizes, c.storage, *([] if c.is_plain else [c.offset, c.stride])] for c in one.chunks]
    return [
        held.key, held.location, dtype and dtype.name, held.span.start, held.span.end, one.dtype.name, one.shape, chunks
    ]  # fmt: skip


def _decode_assembled(fields: list[Any]) -> Assembled:
    key, location, held, start, end, dtype, shape, chunks = fields
    return Assembled(
        Storage(key, location, held and DTYPES[held], Span(start, end)),
        DTYPES[dtype],
        tuple(shape),
        tuple(map(_decode_chunk, chunks)),
    )


def _decode_chunk(fields: list[Any]) -> Chunk:
    offsets, sizes, storage, *view = fields
    offset, stride = view or (0, strides_of(sizes))
    return Chunk(tuple(offsets), tuple(sizes), storage, offset, tuple(stride))

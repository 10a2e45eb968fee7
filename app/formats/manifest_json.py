"""Encoding of a manifest: JSON by columns, deflated, because 400,000 tensors as rows are slow to read and large.

The document is content-addressed like everything else, so equal manifests are encoded to equal bytes.
"""

import json
import zlib
from typing import Any

from ..values.digest import Digest
from ..values.dtype import DTYPES
from ..values.folder import FolderFile, SourceFile
from ..values.json_text import encode_text, read_json
from ..values.manifest import Component, Manifest, Storage, Tensor
from ..values.span import Span

VERSION = 1


def encode(manifest: Manifest) -> bytes:
    storages, tensors = manifest.storages, manifest.tensors
    document: dict[str, Any] = {
        "version": VERSION,
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
    # Columns are made one by one during the writing: one call for all would let no other thread run.
    # A pair of lone surrogates is two characters in Python, and one as JSON escapes: they are kept unescaped.
    text = json.dumps(document, default=list, separators=(",", ":"), ensure_ascii=False)
    return zlib.compress(encode_text(text), 1)


def decode(data: bytes | memoryview) -> Manifest:
    """The inverse of ``encode``, for bytes that were verified against their digest."""
    document: dict[str, Any] = read_json(zlib.decompress(data))
    start, end = document["skeleton"]
    return Manifest(
        format=document["format"],
        size=document["size"],
        skeleton=Span(start, end),
        storages=tuple(
            Storage(key, location, dtype and DTYPES[dtype], Span(start, end), crc32, digest and Digest(digest))
            for key, location, dtype, start, end, crc32, digest in zip(*document.pop("storages"), strict=True)
        ),
        tensors=tuple(
            Tensor(
                component,
                tuple(path),
                DTYPES[dtype],
                None if shape is None else tuple(shape),
                tuple(stride),
                offset,
                storage,
            )
            for component, path, dtype, shape, stride, offset, storage in zip(*document.pop("tensors"), strict=True)
        ),
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
    )


def _encode_file(file: FolderFile) -> list[Any]:
    source = file.source
    as_source = source and [source.name, source.format, source.skeleton.start, source.skeleton.end, source.keys]
    return [file.path, file.span.start, file.span.end, file.storage, as_source, file.crc32]


def _decode_file(fields: list[Any]) -> FolderFile:
    path, start, end, storage, as_source, crc32 = fields
    source = None
    if as_source is not None:
        name, kind, first, last, keys = as_source
        source = SourceFile(name, kind, Span(first, last), tuple(keys))
    return FolderFile(path, Span(start, end), source, storage, crc32)

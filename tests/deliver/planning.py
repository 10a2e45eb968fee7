"""Planning without a server: from a file's bytes to the bytes that would be served."""

import io
import zipfile
import zlib
from dataclasses import replace
from typing import Any

import torch

from app.deliver.convert import convert
from app.deliver.plan import Plan, Wanted, plan
from app.deliver.spans import BlobMap
from app.deliver.windows import strips_of
from app.formats.index import index
from app.select.query import StateDictQuery
from app.values.conversion import Conversion
from app.values.digest import Digest
from app.values.manifest import MIN_BLOB_SIZE, Manifest
from app.values.span import Span
from app.values.virtual_file import Converted


def save(obj: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(obj, buffer, **options)
    return buffer.getvalue()


def load(data: bytes, **options: Any) -> Any:
    return torch.load(io.BytesIO(data), **{"weights_only": True, **options})


def planned(data: bytes, wanted: Wanted) -> Plan:
    manifest = index(memoryview(data)).manifest
    return plan(manifest, b"".join(data[span.start : span.end] for span in manifest.skeletons), wanted)


def materialise(made: Plan, data: bytes) -> bytes:
    file = made.file.filled({span: zlib.crc32(data[span.start : span.end]) for _, span in made.file.checksums})
    blobs = BlobMap(committed(index(memoryview(data)).manifest)) if made.file.conversions else None
    parts = []
    for piece in file.pieces():
        if isinstance(piece, Span):
            parts.append(data[piece.start : piece.end])
        elif isinstance(piece, memoryview):
            parts.append(bytes(piece))
        else:
            all_of_it = converted(piece.conversion, data, blobs)
            source = all_of_it if isinstance(piece, Converted) else zlib.crc32(all_of_it).to_bytes(4, "little")
            parts.append(source[piece.span.start : piece.span.end])
    return b"".join(parts)


def committed(manifest: Manifest) -> Manifest:
    """As if its blobs were stored: each is named by its key."""
    storages = tuple(
        replace(one, digest=Digest(f"blake3:{one.key}") if one.span.length > MIN_BLOB_SIZE else None)
        for one in manifest.storages
    )
    return replace(manifest, storages=storages, frame=Digest("blake3:frame"))


def converted(conversion: Conversion, data: bytes, blobs: BlobMap) -> bytes:
    source = memoryview(data)[conversion.source.start : conversion.source.end]
    strips = strips_of(blobs, conversion, Span(0, conversion.size))
    return b"".join(
        convert(strip, [(place, source[place : place + part.span.length]) for place, part in strip.sources])
        for strip in strips
    )


def served_file(data: bytes, device: str | None = None) -> bytes:
    return materialise(planned(data, Wanted(device=device)), data)


def served_state_dict(data: bytes, **query: Any) -> bytes:
    return materialise(planned(data, Wanted(query=StateDictQuery(**query))), data)


def big_endian(data: bytes) -> bytes:
    """A torch zip as a big-endian machine would have written it."""
    storages = index(memoryview(data)).manifest.storages
    words = {one.key: 1 if one.dtype is None else one.dtype.word for one in storages}
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            _, _, record = name.partition("/")
            if record == "byteorder":
                content = b"big"
            elif record.startswith("data/"):
                word = words[record.removeprefix("data/")]
                content = b"".join(content[i : i + word][::-1] for i in range(0, len(content), word))
            if record not in {".format_version", ".storage_alignment"}:
                target.writestr(name, content)
    return buffer.getvalue()

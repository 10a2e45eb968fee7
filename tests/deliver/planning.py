"""Planning without a server: from a file's bytes to the bytes of what would be served."""

import io
import zlib
from typing import Any

import torch

from app.deliver.plan import Plan, Wanted, plan
from app.formats.index import index
from app.select.query import StateDictQuery
from app.values.span import Span


def save(obj: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(obj, buffer, **options)
    return buffer.getvalue()


def load(data: bytes, **options: Any) -> Any:
    return torch.load(io.BytesIO(data), **{"weights_only": True, **options})


def planned(data: bytes, wanted: Wanted) -> Plan:
    manifest = index(memoryview(data)).manifest
    return plan(manifest, data[manifest.skeleton.start : manifest.skeleton.end], wanted)


def materialise(made: Plan, data: bytes) -> bytes:
    for offset, span in made.file.checksums:
        made.file.fill(offset, zlib.crc32(data[span.start : span.end]))
    return b"".join(data[p.start : p.end] if isinstance(p, Span) else bytes(p) for p in made.file.pieces())


def served_file(data: bytes, device: str | None = None) -> bytes:
    return materialise(planned(data, Wanted(device=device)), data)


def served_state_dict(data: bytes, **query: Any) -> bytes:
    return materialise(planned(data, Wanted(query=StateDictQuery(**query))), data)

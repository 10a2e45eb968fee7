"""Writer of a safetensors file as a virtual file, with the byte layout of the safetensors package.

The header's length in eight bytes, little-endian; the header, padded with spaces to a multiple of eight; the tensors,
largest elements first, so that each tensor begins at a multiple of its element size.

Reference: safetensors/src/tensor.rs (``prepare``).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from struct import Struct

from ...errors import SelectionError
from ...values.conversion import Conversion
from ...values.dtype import DType
from ...values.span import Span
from ...values.virtual_file import VirtualFile
from .header import METADATA, NAMES, Field
from .read import MAX_HEADER

WRITER_REVISION = 2
"""Increased whenever the bytes written for one input change, so that no ETag ever names two byte strings."""

_ALIGNMENT = 8
_LENGTH = Struct("<Q").pack
_RANK = {name: rank for rank, name in enumerate((
    "U64", "I64", "F64", "C64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16", "F8_E5M2FNUZ", "F8_E4M3FNUZ",
    "F8_E8M0", "F8_E4M3", "F8_E5M2", "I8", "U8", "F4", "BOOL",
))}  # fmt: skip
"""Rank of each dtype in the package's order."""


@dataclass(frozen=True, slots=True)
class Content:
    """A tensor to be written: contiguous little-endian elements of ``dtype``, which the format has."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    source: Span | Conversion

    @property
    def size(self) -> int:
        return self.source.length if isinstance(self.source, Span) else self.source.size


def write_safetensors(
    contents: Iterable[Content], metadata: Mapping[str, str]
) -> tuple[VirtualFile, tuple[tuple[Span, Span | Conversion], ...]]:
    """Lay out the file; return it and, in file order, each tensor's span and source. Raises SelectionError for a
    header that no reader accepts.
    """
    ordered = sorted(contents, key=lambda content: (_RANK[NAMES[content.dtype.name]], content.name))
    fields: dict[str, Mapping[str, str] | Field] = {METADATA: dict(sorted(metadata.items()))}
    end = 0
    for content in ordered:
        start, end = end, end + content.size
        fields[content.name] = {
            "dtype": NAMES[content.dtype.name],
            "shape": _shape(content),
            "data_offsets": [start, end],
        }
    header = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    if len(header) > MAX_HEADER:
        raise SelectionError(
            f"the names of {len(ordered):,} tensors need a header of {len(header):,} bytes; the format allows "
            f"{MAX_HEADER:,}: select fewer keys, or use format pt",
            code="not-in-safetensors",
        )
    file, places = VirtualFile(), []
    file.add_literal(_LENGTH(len(header)) + header)
    for content in ordered:
        places.append((Span(file.size, file.size + content.size), content.source))
        file.add(content.source)
    return file, tuple(places)


def _shape(content: Content) -> list[int]:
    """Return the shape in the file: each of torch's pairs of half bytes is two elements there."""
    if content.dtype.name == "float4_e2m1fn_x2":
        return [*content.shape[:-1], 2 * content.shape[-1]]
    return list(content.shape)

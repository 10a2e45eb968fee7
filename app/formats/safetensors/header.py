"""The JSON header of a safetensors file, read so strictly that no two readers can understand it differently.

The header is an object of names, each with exactly ``dtype``, ``shape`` and ``data_offsets``, and perhaps of
``__metadata__``, texts by their names. The reference reader takes the last of two equal names, and accepts unknown
fields; this reader refuses both.

Reference: safetensors/src/tensor.rs.
"""

import json
from dataclasses import dataclass
from typing import Any, TypedDict

from ...errors import HostileCheckpoint, NotACheckpoint
from ...values.dtype import DTYPES, DType
from ..tensor_arguments import MAX_BYTES, MAX_DIMS

MAX_TENSORS = 500_000
MAX_METADATA = 4_000_000
"""Characters of ``__metadata__``: training scripts write some 100,000."""

METADATA = "__metadata__"
_FIELDS = {"dtype", "shape", "data_offsets"}

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu", "F4": "float4_e2m1fn_x2",
}  # fmt: skip
"""Dtypes that the reference reader gives torch."""
NAMES = {torch: name for name, torch in _DTYPES.items()}
_WITHOUT_TORCH = {"F6_E2M3", "F6_E3M2"}


class Field(TypedDict):
    """A tensor's fields in the header."""

    dtype: str
    shape: list[int]
    data_offsets: list[int]


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor: contiguous, at bytes ``[start, end)`` behind the header. ``shape`` is its shape in torch."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header. ``entries`` are in its order; they fill the rest of the file, without a hole or an overlap."""

    entries: tuple[Entry, ...]
    metadata: dict[str, str]

    @property
    def data_size(self) -> int:
        return max([entry.end for entry in self.entries], default=0)


def parse_header(text: bytes) -> Header:
    """Parse a header. ``text`` must start with ``{``.

    Raises NotACheckpoint if ``text`` is not a header, HostileCheckpoint if it breaks a rule.
    """
    fields = _parse_json(text)
    metadata = fields.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _refused("metadata", "its __metadata__ is not an object of strings", METADATA)
    if sum(len(name) + len(value) for name, value in metadata.items()) > MAX_METADATA:
        raise _refused("metadata", f"its __metadata__ is longer than {MAX_METADATA} characters", METADATA)
    if len(fields) > MAX_TENSORS:
        raise _refused("tensors", f"it has {len(fields)} tensors; at most {MAX_TENSORS} are allowed", None)
    entries = tuple(_entry(name, value) for name, value in fields.items())
    _check_places(entries)
    return Header(entries, metadata)


def _parse_json(text: bytes) -> dict[str, Any]:
    try:
        decoded = text.decode("utf-8")
        fields: dict[str, Any] = json.loads(
            decoded, object_pairs_hook=_object, parse_int=_integer, parse_constant=_no_constant
        )
        if "\\u" in decoded:  # only an escape can make a lone surrogate
            json.dumps(fields, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise _refused("nesting", "its values are nested too deeply", None) from None
    except ValueError as error:
        detail = f"the file is not a safetensors file: its header cannot be read ({error})"
        raise NotACheckpoint(detail, rule="header-json", where="header") from None
    return fields


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        name = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]  # None
        raise _refused("duplicate-key", f"the name {_shown(name)!r} occurs twice", name)
    return made


def _integer(digits: str) -> int:
    """Parse an integer. Python accepts -0, and the reference reader refuses it."""
    if digits == "-0":
        raise ValueError("-0 is not a size")
    return int(digits)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _entry(name: str, value: Any) -> Entry:
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise _refused("tensor-fields", "a tensor's fields are not dtype, shape and data_offsets", name)
    shape, offsets = value["shape"], value["data_offsets"]
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise _refused("tensor-fields", "a tensor's sizes or offsets are not integers in torch's range", name)
    if len(shape) > MAX_DIMS:
        raise _refused(
            "tensor-dimensions", f"a tensor has {len(shape)} dimensions; at most {MAX_DIMS} are allowed", name
        )
    count = 1
    for size in shape:
        count *= size
        if count > MAX_BYTES:
            raise _refused("tensor-extent", "a tensor has more elements than can be counted", name)
    dtype = _dtype(value["dtype"], name)
    start, end = offsets
    if dtype.name == "float4_e2m1fn_x2":  # one element of torch's is two of the file's
        if not shape or shape[-1] % 2:
            raise _refused("tensor-extent", "a tensor of 4-bit elements does not fill whole bytes", name)
        shape = [*shape[:-1], shape[-1] // 2]
        count //= 2
    if end - start != count * dtype.itemsize:
        detail = f"a tensor has {count * dtype.itemsize} bytes by its shape, but {end - start} by its offsets"
        raise _refused("tensor-extent", detail, name)
    return Entry(name, dtype, tuple(shape), start, end)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size <= MAX_BYTES for size in value)


def _dtype(name: Any, tensor: str) -> DType:
    if isinstance(name, str) and name in _DTYPES:
        return DTYPES[_DTYPES[name]]
    if isinstance(name, str) and name in _WITHOUT_TORCH:
        detail = f"tensor {tensor[:200]!r} is of dtype {name}, which torch does not have"
        raise NotACheckpoint(detail, rule="dtype", where=tensor[:200])
    raise _refused("dtype", f"a tensor's dtype is {str(name)[:50]!r}, which the format does not support", tensor)


def _check_places(entries: tuple[Entry, ...]) -> None:
    end = 0
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.end)):
        if entry.start != end:
            rule = "tensor-gap" if entry.start > end else "tensor-overlap"
            raise _refused(rule, f"a tensor does not start where the one before it ends, at byte {end}", entry.name)
        end = entry.end


def _refused(rule: str, detail: str, where: str | None) -> HostileCheckpoint:
    text = f"the safetensors file is damaged or forged: {detail}"
    return HostileCheckpoint(text, rule=rule, where=_shown(where or "header"))


def _shown(name: str) -> str:
    """Shorten a name, and escape its lone surrogates."""
    return name[:200].encode("utf-8", "backslashreplace").decode()

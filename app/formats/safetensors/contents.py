"""Conversion of a tree's tensors to contents of a safetensors file, each contiguous, little-endian and separate."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...errors import SelectionError
from ...values.conversion import ByteOrder, Conversion, merged
from ...values.dtype import DType
from ...values.manifest import Storage
from ...values.span import Span
from ..pickle.nodes import Dict, Node, TensorRef
from ..placement import extent
from ..torch_tensors import data_of, is_tensor, tensor_of
from ..tree import name_of
from .header import METADATA, NAMES
from .write import Content

CONTIGUOUS_NOTE = "stateroom.made_contiguous"
SHARED_NOTE = "stateroom.shared"
"""Texts in ``__metadata__``: JSON lists of names, and of lists of names."""

MAX_NOTED = 1_000
"""Names in a note; of more names, only the first are noted."""

_WHY_NOT = {
    "torch._utils._rebuild_qtensor": "quantized",
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_sparse_csr_tensor": "sparse",
    "torch._utils._rebuild_nested_tensor": "nested",
    "torch._utils._rebuild_meta_tensor_no_storage": "on the meta device, without bytes",
}


@dataclass(frozen=True, slots=True)
class Contents:
    """Contents of a file. ``notes`` are for ``__metadata__``; ``left_out`` are the names of other values."""

    tensors: tuple[Content, ...]
    notes: Mapping[str, str]
    left_out: tuple[str, ...]


def contents_of(
    leaves: Iterable[tuple[str, Node]],
    storages: Mapping[str, Storage],
    targets: Mapping[int, DType],
    byteorder: ByteOrder,
) -> Contents:
    """Convert leaves. ``targets`` are the new dtypes of cast tensors, by the ids of their TensorRefs.

    Raises SelectionError ``not-in-safetensors`` for a tensor that the format cannot hold, ``duplicate-key`` for two
    leaves of one name.
    """
    tensors: dict[str, Content] = {}
    refs: dict[str, TensorRef] = {}
    left_out: list[str] = []
    moved: list[str] = []
    for name, node in leaves:
        if not is_tensor(node):
            left_out.append(name)
            continue
        _check_name(name, tensors)
        ref = tensor_of(node)
        why = why_not_contiguous(node, byteorder)
        if ref is None or why is not None:
            raise _cannot(name, why or "")
        dtype = targets.get(id(ref), ref.dtype)
        if not is_storable(dtype, ref.shape):
            raise _cannot(name, f"of dtype {dtype.name}, which the format does not support")
        source = source_of(ref, dtype, storages[ref.storage.key].span, byteorder)
        if isinstance(source, Conversion) and not source.is_contiguous:
            moved.append(name)
        tensors[name], refs[name] = Content(name, dtype, ref.shape, source), ref
    notes = {CONTIGUOUS_NOTE: moved[:MAX_NOTED], SHARED_NOTE: _sharing(refs)[:MAX_NOTED]}
    texts = {name: json.dumps(note, ensure_ascii=False) for name, note in notes.items() if note}
    return Contents(tuple(tensors.values()), texts, tuple(left_out))


def is_storable(dtype: DType, shape: tuple[int, ...]) -> bool:
    """Tell whether the format has the dtype. A pair of half bytes needs a dimension, which is twice as long there."""
    return dtype.name in NAMES and (dtype.name != "float4_e2m1fn_x2" or bool(shape))


def why_not_contiguous(node: Node, byteorder: ByteOrder) -> str | None:
    """Say why a tensor cannot be sent as contiguous elements of its dtype; None if it can."""
    ref = tensor_of(node)
    if ref is None:
        return _WHY_NOT.get(name_of(data_of(node)) or "", "not a tensor with elements of its own")
    if byteorder == "big" and not _is_swapped(ref):
        return f"of dtype {ref.dtype.name}, which torch.load does not swap in a big-endian checkpoint"
    if _is_negative(ref) and not _has_sign(ref.dtype):
        return "a negative view of a dtype without a sign bit"
    return None


def _is_swapped(ref: TensorRef) -> bool:
    """Tell whether torch.load swaps a tensor's bytes by its own dtype. It goes by the storage's class, which is untyped
    for uint16 to uint64: to swap those would give other numbers than torch.load.
    """
    held = 1 if ref.storage.dtype is None else ref.storage.dtype.word
    return ref.dtype.word == held or 0 in ref.shape


def source_of(ref: TensorRef, to: DType, storage: Span, byteorder: ByteOrder) -> Span | Conversion:
    """Return the source of a tensor's contiguous elements, cast to ``to``; ``storage`` is its place in the file."""
    start, end = extent(ref)
    if start == end:
        return Span(storage.start, storage.start)
    conversion = Conversion(
        Span(storage.start + start, storage.start + end),
        ref.dtype,
        to,
        merged(ref.shape, ref.stride),
        byteorder,
        flips=_flips(ref),
    )
    return conversion.source if conversion.changes_nothing else conversion


def _flips(ref: TensorRef) -> tuple[int, ...]:
    """Return the bytes with the sign bits that a negative or conjugate view inverts."""
    last, real = ref.dtype.itemsize - 1, ref.dtype.word - 1
    flips: set[int] = set()
    if _is_negative(ref):
        flips ^= {real, last}
    if "conj" in _lazy_bits(ref) and _is_complex(ref.dtype):
        flips ^= {last}
    return tuple(sorted(flips))


def _lazy_bits(ref: TensorRef) -> set[Node]:
    """Return the names of a view's operations that torch has not applied yet: ``conj``, ``neg``."""
    texts = ref.rest[3:] if ref.function.name == "_rebuild_tensor_v3" else ref.rest[2:]
    return {key for key, value in texts[0].pairs if value is True} if texts and isinstance(texts[0], Dict) else set()


def _is_negative(ref: TensorRef) -> bool:
    return "neg" in _lazy_bits(ref)


def _has_sign(dtype: DType) -> bool:
    return _is_complex(dtype) or dtype.is_floating


def _is_complex(dtype: DType) -> bool:
    return dtype.name.startswith("complex")


def _sharing(refs: Mapping[str, TensorRef]) -> list[list[str]]:
    """Return groups of names whose tensors overlap."""
    extents = sorted(
        (ref.storage.key, *extent(ref), number) for number, ref in enumerate(refs.values()) if 0 not in ref.shape
    )
    names, groups = list(refs), []
    storage, reach, group = "", 0, [-1]
    for key, start, end, number in extents:
        if key == storage and start < reach:
            group.append(number)
            reach = max(reach, end)
        else:
            groups.append(group)
            storage, reach, group = key, end, [number]
    groups.append(group)
    return [[names[number] for number in sorted(group)] for group in sorted(groups) if len(group) > 1]


def _check_name(name: str, taken: Mapping[str, Content]) -> None:
    if name in taken:
        raise SelectionError(f"two tensors would have the same name {name!r}", code="duplicate-key", near=(name,))
    if name == METADATA:
        raise _cannot(name, "a name that the format uses for its own metadata: rename it")
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = name.encode("utf-8", "backslashreplace").decode()
        raise _cannot(shown, "a name with half a character (a lone surrogate): rename it") from None


def _cannot(name: str, why: str) -> SelectionError:
    return SelectionError(
        f"a safetensors file cannot hold {name[:200]!r}: it is {why}. Exclude it, or use format pt",
        code="not-in-safetensors",
    )

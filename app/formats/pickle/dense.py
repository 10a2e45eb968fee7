"""A dense tensor's opcodes, read at once.

torch.save writes a tensor as 30 opcodes that are alike for all tensors: its storage's persistent id, its offset, sizes
and strides, and an empty OrderedDict. One regular expression matches them all, and the values are put on the stack and
in the memo as the machine would have put them there. Anything else is left to the machine, opcode by opcode; so is
anything that a rule refuses, so that the error names the right place.
"""

import re
from collections.abc import Callable, Container
from math import prod
from struct import pack
from typing import NamedTuple

from ...errors import RefusedCheckpoint
from ...values.dtype import DTYPES
from . import opcodes as op
from .literals import read_i32, read_u16, read_u32
from .memo import Memo
from .nodes import Call, Global, Node, StorageRef, TensorRef

STEPS = 8
"""Work of one tensor that is read at once, in steps of one opcode."""

_NUMBER = rb"(?:K.|M..|J....)"
_GET = rb"(h.|j....)"
_PUT = rb"r(....)"
_SIZES = rb"(\((?:%b){4,6}t|(?:%b){0,3}[)\x85-\x87])(?:%b)?" % (_NUMBER, _NUMBER, _PUT)
TENSOR = re.compile(
    b"".join(
        (
            rb"\(\(", _GET, _GET, rb"X(....)([0-9]{1,10})", _PUT, _GET, rb"(%b)t" % _NUMBER, _PUT, b"Q",
            rb"(%b)" % _NUMBER, _SIZES, _SIZES, rb"\x89", _GET, rb"\)R", _PUT, b"t", _PUT, b"R", _PUT,
        )
    ),
    re.DOTALL,
)  # fmt: skip
"""From the marks of the arguments and of the persistent id to the put of the tensor, behind the function's name."""

_COUNTS = {ord(")"): 0, op.TUPLE1: 1, op.TUPLE2: 2, op.TUPLE3: 3}
_WIDTHS = {op.BININT1: 2, op.BININT2: 3, op.BININT: 5}
_ORDERED_DICT = "collections.OrderedDict"
_REBUILD = "torch._utils._rebuild_tensor_v2"
_MAX_COUNT = 1 << 58
"""Elements of a tensor that is read at once; more than a storage can have, and few enough to count their bytes."""
_UNTYPED = DTYPES["uint8"]
_MAX_KNOWN = 10_000
"""Pairs of sizes and strides that are kept, at most."""
_SLOTS = 1 << 10
"""Numbers of slots that are kept as bytes."""


class _View(NamedTuple):
    """Sizes and strides; ``reach`` is the distance of the last element from the first, None without elements."""

    shape: list[int]
    stride: list[int]
    reach: int | None


class DenseTensors:
    """Reads tensors of one pickle, with the hooks ``persistent`` and ``builders`` of its format."""

    __slots__ = ("_builders", "_first", "_memo", "_persistent", "_slots", "_views")

    def __init__(self, memo: Memo, persistent: Callable[[Node], Node], builders: Container[Global]) -> None:
        self._memo = memo
        self._persistent = persistent
        self._builders = builders
        self._views: dict[tuple[bytes, bytes], _View | None] = {}
        self._first = 0
        self._slots = b""

    def read(self, data: bytes, pos: int, function: Node) -> tuple[TensorRef, int] | None:
        """Read the arguments at ``pos`` of a call of ``function``; return the tensor and the position behind it.

        None if other opcodes are there, or if a rule refuses one of them; the memo is unchanged then.
        """
        found = TENSOR.match(data, pos)
        if found is None or function not in self._builders or function.full_name != _REBUILD:
            return None
        (
            text, kind, length, digits, put_key, location, numel, put_id, offset,
            sizes, put_shape, strides, put_stride, ordered, put_hooks, put_args, put_tensor,
        ) = found.groups(b"")  # fmt: skip
        puts = put_key + put_id + put_shape + put_stride + put_hooks + put_args + put_tensor
        view = self._view(sizes, strides)
        if view is None or read_u32(length, 0)[0] != len(digits) or not self._are_next(puts):
            return None
        slots = self._memo.dense
        try:
            name = slots[_slot(ordered)]
            if type(name) is not Global or name.full_name != _ORDERED_DICT:
                return None
            key, first = digits.decode(), _number(offset)
            pid = (slots[_slot(text)], slots[_slot(kind)], key, slots[_slot(location)], _number(numel))
            storage = self._persistent(pid)
        except (IndexError, RefusedCheckpoint):
            return None
        if type(storage) is not StorageRef or first < 0:
            return None
        dtype = storage.dtype or _UNTYPED
        if view.reach is not None and (first + view.reach + 1) * dtype.itemsize > storage.nbytes:
            return None
        shape, stride, hooks = tuple(view.shape), tuple(view.stride), Call(name, ())
        tensor = TensorRef(function, storage, first, shape, stride, (False, hooks), dtype)
        slots += (key, pid)
        if put_shape:
            slots.append(shape)
        if put_stride:
            slots.append(stride)
        slots += (hooks, (storage, first, shape, stride, False, hooks), tensor)
        return tensor, found.end()

    def _are_next(self, puts: bytes) -> bool:
        """Tell whether values are put into the next slots, one after another."""
        known, count = len(self._memo.dense), len(puts) // 4
        if self._memo.sparse or known + count > self._memo.max_slots:
            return False
        start = 4 * (known - self._first)
        if start + len(puts) > len(self._slots):
            self._first, start = known, 0
            self._slots = pack(f"<{_SLOTS}I", *range(known, known + _SLOTS))
        return puts == self._slots[start : start + len(puts)]

    def _view(self, sizes: bytes, strides: bytes) -> _View | None:
        """Return the sizes and strides that opcodes make; None if they make others, or a tensor that is refused."""
        if (sizes, strides) not in self._views:
            if len(self._views) == _MAX_KNOWN:
                self._views.clear()
            self._views[sizes, strides] = _view_of(_numbers(sizes), _numbers(strides))
        return self._views[sizes, strides]


def _view_of(shape: list[int] | None, stride: list[int] | None) -> _View | None:
    if shape is None or stride is None or len(shape) != len(stride) or min([*shape, *stride], default=0) < 0:
        return None
    reach = sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if prod(shape) > _MAX_COUNT:
        return None
    return _View(shape, stride, None if 0 in shape else reach)


def _slot(get: bytes) -> int:
    slot: int = get[1] if len(get) == 2 else read_u32(get, 1)[0]
    return slot


def _number(opcodes: bytes) -> int:
    if len(opcodes) == 2:
        return opcodes[1]
    number: int = (read_u16 if len(opcodes) == 3 else read_i32)(opcodes, 1)[0]
    return number


def _numbers(opcodes: bytes) -> list[int] | None:
    """Return the numbers of a tuple; None unless its last opcode takes just these."""
    is_counted = opcodes[0] != op.MARK
    numbers, pos = [], int(not is_counted)
    while pos < len(opcodes) - 1:
        width = _WIDTHS[opcodes[pos]]
        numbers.append(_number(opcodes[pos : pos + width]))
        pos += width
    return None if is_counted and len(numbers) != _COUNTS[opcodes[-1]] else numbers

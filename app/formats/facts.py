"""The plain facts at a checkpoint's top level: epoch, step, loss, and other numbers as metrics."""

import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping

from ..values.manifest import Facts, Storage, is_one_element
from ..values.span import Span
from .pickle.names import is_unicode
from .pickle.nodes import Node, TensorRef
from .torch_tensors import tensor_of
from .tree import numpy_scalar

STEP_KEYS = ("step", "global_step", "iteration", "iter")
FACTS = frozenset({"epoch", "loss", *STEP_KEYS})
_DECIMAL = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,30})?([eE][-+]?[0-9]{1,3})?", re.ASCII)
MAX_INTEGER = 2**63 - 1
MAX_METRICS = 1000
MAX_NAME_LENGTH = 200

ReadStorage = Callable[[str, Span], bytes | memoryview]
"""Reads bytes ``[start, end)`` of a storage, by its key."""

_STRUCT_OF_DTYPE = {
    "float64": "d", "float32": "f", "float16": "e", "int64": "q", "int32": "i", "int16": "h", "int8": "b",
    "uint8": "B", "bool": "?", "uint16": "H", "uint32": "I", "uint64": "Q",
}  # fmt: skip


def lift_facts(
    top: Iterable[tuple[Node, Node]],
    storages: Iterable[Storage],
    read: ReadStorage,
    byteorder: str,
    metadata: Mapping[str, str],
) -> Facts:
    """Find a checkpoint's facts. ``top`` are the pairs of its top level; if that is a state_dict, only plain numbers
    under a name in FACTS.

    Numbers, numpy scalars and tensors of one element count; bools do not. A number that cannot be an epoch or a step
    (a fraction, say) is a metric. In a safetensors file's ``metadata``, plain decimals count as epoch, step and loss.
    """
    devices = tuple(sorted({storage.location for storage in storages}))
    numbers = {key: _decimal(text) for key, text in metadata.items() if key in FACTS and _DECIMAL.fullmatch(text)}
    for key, value in top:
        if not _is_name(key) or len(numbers) >= MAX_METRICS:
            continue
        number = _number(value, read, byteorder)
        if number is not None:
            numbers[key] = number
    epoch = _take_count(numbers, ("epoch",))
    step = _take_count(numbers, STEP_KEYS)
    loss = numbers.pop("loss", None)
    return Facts(
        epoch=epoch,
        step=step,
        loss=None if loss is None else float(loss),
        metrics={key: float(number) for key, number in numbers.items()},
        devices=devices,
    )


def _decimal(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)


def _is_name(key: Node) -> bool:
    """Tell whether a key can name a metric: text that any database can store and a URL can contain."""
    if type(key) is not str or not 0 < len(key) <= MAX_NAME_LENGTH or "\0" in key:
        return False
    return is_unicode(key)


def _take_count(numbers: dict[str, int | float], keys: tuple[str, ...]) -> int | None:
    for key in keys:
        number = numbers.get(key)
        if number is not None and math.isfinite(number) and number == int(number) and abs(number) <= MAX_INTEGER:
            return int(numbers.pop(key))
    return None


def _number(node: Node, read: ReadStorage, byteorder: str) -> int | float | None:
    tensor = tensor_of(node)
    number = _item(tensor, read, byteorder) if tensor is not None else numpy_scalar(node)
    if number is None:
        number = node
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return None
    if isinstance(number, int) and abs(number) > MAX_INTEGER:
        return None
    return number


def _item(tensor: TensorRef, read: ReadStorage, byteorder: str) -> int | float | None:
    """Return the value of a tensor of one element, None for any other."""
    if not is_one_element(tensor.shape):
        return None
    size = tensor.dtype.itemsize
    data = bytes(read(tensor.storage.key, Span(tensor.offset * size, (tensor.offset + 1) * size)))
    order = "<" if byteorder == "little" else ">"
    if tensor.dtype.name == "bfloat16":
        data = bytes(2) + data if order == "<" else data + bytes(2)
        return struct.unpack(order + "f", data)[0]  # type: ignore[no-any-return]  # struct gives Any
    code = _STRUCT_OF_DTYPE.get(tensor.dtype.name)
    return None if code is None else struct.unpack(order + code, data)[0]

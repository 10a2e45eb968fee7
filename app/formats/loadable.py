"""Checks that torch can carry out calls of allowed names.

A call may fail although its name is on torch's weights_only list: ``set(None)`` raises, ``bytearray(10**12)`` asks for
a terabyte. A call that fails, or that pickling never writes, is left out of a component, so that the rest loads.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from math import prod

from ..values.work import Work
from .pickle.hashing import is_hashable
from .pickle.nodes import FROM_TYPE, Call, Dict, Global, Node, Set, StorageRef, TensorRef
from .tensor_arguments import MAX_DIMS
from .torch_tensors import PARAMETERS, is_tensor, tensor_of
from .tree import name_of, pairs_of

Args = tuple[Node, ...]

MAX_BITS = 8
"""Pairs in a tensor's metadata: torch has two."""

_DEVICE = re.compile(r"(cpu|cuda|mps|xpu|hpu|npu|mtia|xla|meta|maia|privateuseone)(:(0|[1-9][0-9]{0,2}))?")
_ENCODINGS = frozenset({"latin1", "latin-1", "utf-8", "utf8", "ascii"})
_COMPRESSED = frozenset(f"torch.sparse_{kind}" for kind in ("csr", "csc", "bsr", "bsc"))
_LAYOUTS = _COMPRESSED | {"torch.strided", "torch.sparse_coo"}
_PER_CHANNEL = frozenset({"torch.per_channel_affine", "torch.per_channel_affine_float_qparams"})
_TENSOR_CLASSES = frozenset({"torch.Tensor", "torch.nn.parameter.Parameter"})
_BITS = {"torch.bits8": 1, "torch.bits16": 2, "torch.bits1x8": 1, "torch.bits2x4": 1, "torch.bits4x2": 1}
"""Bytes of an element, by dtype."""
_HASHES = frozenset({"builtins.set", "collections.OrderedDict"})
_CLASSES = frozenset(
    {"collections.OrderedDict", "collections.Counter", "builtins.set", "builtins.bytearray", "builtins.complex",
     "torch.Size", "torch.device", "torch.nn.parameter.Parameter"}
)  # fmt: skip
"""Classes that NEWOBJ may make too."""


def can_be_called(node: Call, work: Work) -> bool:
    """Tell whether torch can execute a call. The caller checks the nodes inside of its arguments."""
    work.spend(4)
    name, args = name_of(node), node.args
    if name is None or not isinstance(args, tuple) or node.items:
        return False
    if node.how != "reduce" and not (node.how == "newobj" and name in _CLASSES):
        return False
    if node.pairs or node.states:
        is_mapping = name in {"collections.OrderedDict", "collections.Counter"}
        if not is_mapping or not all(type(state) is Dict for state in node.states):
            return False
    if name not in _WORKS:
        return False
    work.spend(_size_of(args))
    if name in _HASHES and not all(is_hashable(item, work) for item in _hashed(name, args)):
        return False
    return _WORKS[name](args)


def _size_of(args: Args) -> int:
    """Count the parts to check in arguments that many calls may share: items, text, and items of items."""
    inside = [part for arg in args if isinstance(arg, tuple) for part in arg[:MAX_BITS]]
    parts = [part.pairs if isinstance(part, Dict) else part for part in (*args, *inside)]
    return sum(len(part) for part in parts if isinstance(part, (list, tuple, str, bytes, bytearray)))


def _hashed(name: str, args: Args) -> Sequence[Node]:
    """Return the nodes that a set, or an OrderedDict of pairs, hashes."""
    items = args[0] if len(args) == 1 and isinstance(args[0], (list, tuple)) else ()
    return items if name == "builtins.set" else [pair[0] for pair in items if isinstance(pair, (list, tuple)) and pair]


def has_right_metadata(tensor: TensorRef) -> bool:
    """Tell whether torch accepts a tensor's metadata: ``{"conj": True}``, ``{"neg": True}``."""
    place = {"_rebuild_tensor_v2": 2, "_rebuild_tensor_v3": 3}.get(tensor.function.name, len(tensor.rest))
    metadata = tensor.rest[place] if place < len(tensor.rest) else None
    if type(metadata) is not Dict and name_of(metadata) != "collections.OrderedDict":
        return not metadata
    if _pair_count(metadata) > MAX_BITS:
        return False
    for key, value in pairs_of(metadata) or ():
        if type(key) is not str or type(value) is not bool:
            return False
        if key == "conj" and not tensor.dtype.name.startswith("complex"):
            return False
    return True


def _pair_count(mapping: Node) -> int:
    """Count the pairs of a Dict, or an OrderedDict; a lower bound."""
    first = mapping.args[0] if type(mapping) is Call and type(mapping.args) is tuple and mapping.args else ()
    initial = first.pairs if type(first) is Dict else first
    return len(mapping.pairs) + (len(initial) if isinstance(initial, (list, tuple)) else 0)


def _ordered_dict(args: Args) -> bool:
    if len(args) != 1 or type(args[0]) is Dict:
        return len(args) < 2
    return isinstance(args[0], (list, tuple)) and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in args[0]
    )


def _counter(args: Args) -> bool:
    return args == () or (len(args) == 1 and type(args[0]) is Dict)


def _set(args: Args) -> bool:
    if len(args) == 1 and isinstance(args[0], (list, tuple)):
        return True
    return args == () or (len(args) == 1 and type(args[0]) is Set)


def _encode(args: Args) -> bool:
    if not 0 < len(args) < 3 or not all(type(arg) is str for arg in args):
        return False
    encoding = args[1] if len(args) == 2 else "utf-8"
    if encoding not in _ENCODINGS:
        return False
    try:
        args[0].encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _bytearray(args: Args) -> bool:
    if len(args) == 2:
        return _encode(args)
    if len(args) != 1:
        return args == ()
    if isinstance(args[0], (list, tuple)):
        return all(type(item) is int and 0 <= item < 256 for item in args[0])
    return isinstance(args[0], (bytes, bytearray)) or name_of(args[0]) in {"_codecs.encode", "builtins.bytearray"}


def _complex(args: Args) -> bool:
    return len(args) < 3 and all(type(arg) is float or (type(arg) is int and arg.bit_length() < 1000) for arg in args)


def _sizes(node: Node) -> Sequence[int] | None:
    """Return a tensor's sizes or strides, or None if the node cannot be either."""
    if name_of(node) == "torch.Size" and isinstance(node.args, tuple):
        node = node.args[0] if node.args else ()
    if not isinstance(node, (list, tuple)) or len(node) > MAX_DIMS:
        return None
    if not all(type(size) is int and 0 <= size < 2**63 for size in node):
        return None
    return node if prod(map(float, node)) < 2**60 else None


def _size(args: Args) -> bool:
    if len(args) != 1:
        return args == ()
    return isinstance(args[0], (list, tuple)) and all(type(size) is int for size in args[0])


def _device(args: Args) -> bool:
    if not 0 < len(args) < 3 or type(args[0]) is not str or not _DEVICE.fullmatch(args[0]):
        return False
    return len(args) == 1 or (type(args[1]) is int and 0 <= args[1] < 128 and ":" not in args[0])


def _layout(args: Args) -> bool:
    return len(args) == 1 and type(args[0]) is str and args[0] in _LAYOUTS


def _parameter(args: Args) -> bool:
    """Tell whether a Parameter's data is a tensor, of floats if with a gradient. Parsing checked ``requires_grad``."""
    if not args or not is_tensor(args[0]):
        return False
    tensor, gradient = tensor_of(args[0]), args[1] if len(args) > 1 else True
    return not gradient or tensor is None or tensor.dtype.name.startswith(("float", "bfloat", "complex"))


def _state(node: Node) -> bool:
    """Tell whether a tensor's attributes, alone or beside its slots, can be set."""
    return all(map(_attributes, node)) if isinstance(node, tuple) and len(node) == 2 else _attributes(node)


def _attributes(node: Node) -> bool:
    """Tell whether a node can be a tensor's attributes; setting an existing attribute may still fail."""
    return node is None or (type(node) is Dict and all(type(key) is str for key, _ in node.pairs))


def _from_type(args: Args) -> bool:
    if len(args) != 4 or not isinstance(args[1], Global) or args[1].full_name not in _TENSOR_CLASSES:
        return False
    if not _state(args[3]) or not isinstance(args[0], Global):
        return False
    if type(args[2]) is TensorRef:
        return True
    wrapped = args[0].full_name
    return wrapped not in FROM_TYPE and isinstance(args[2], tuple) and wrapped in _WORKS and _WORKS[wrapped](args[2])


def _sparse(layout: Node, data: Node) -> bool:
    """Tell whether all parts are there; torch checks whether their numbers fit each other."""
    if name_of(layout) != "torch.serialization._get_layout" or not isinstance(data, tuple):
        return False
    if layout.how != "reduce" or layout.items or layout.pairs or layout.states or not isinstance(layout.args, tuple):
        return False
    if not _layout(layout.args):
        return False
    if layout.args[0] == "torch.sparse_coo":
        tensors, rest = data[:2], data[2:]
    elif layout.args[0] in _COMPRESSED and len(data) == 4:
        tensors, rest = data[:3], data[3:]
    else:
        return False
    if not 0 < len(rest) < 3 or _sizes(rest[0]) is None or not all(map(tensor_of, tensors)):
        return False
    return all(flag is None or type(flag) is bool for flag in rest[1:])


def _quantized(args: Args) -> bool:
    """Check the quantizer in ``(storage, offset, shape, stride, quantizer, requires_grad, hooks)``."""
    quantizer = args[4] if len(args) == 7 else None
    if not isinstance(quantizer, tuple) or not quantizer or not isinstance(quantizer[0], Global):
        return False
    kind, numbers, shape = quantizer[0].full_name, quantizer[1:], _sizes(args[2])
    if kind == "torch.per_tensor_affine":
        return len(numbers) == 2 and type(numbers[0]) is float and type(numbers[1]) is int
    if kind not in _PER_CHANNEL or len(numbers) != 3 or shape is None:
        return False
    axis = numbers[2]
    if type(axis) is not int or not 0 <= axis < len(shape):
        return False
    if isinstance(numbers[0], list) and isinstance(numbers[1], list):  # as torch 1.4 and earlier wrote them
        if not len(numbers[0]) == len(numbers[1]) == shape[axis]:
            return False
        return all(type(number) in {float, int} for number in numbers[0] + numbers[1])
    scales, points = tensor_of(numbers[0]), tensor_of(numbers[1])
    return scales is not None and points is not None and scales.shape == points.shape == (shape[axis],)


def _on_device(args: Args) -> bool:
    if len(args) != 4 or not is_tensor(args[0]) or not isinstance(args[1], Global):
        return False
    return _device(args[2:3]) and type(args[3]) is bool


def _meta(args: Args) -> bool:
    if len(args) != 4 or not isinstance(args[0], Global) or type(args[3]) is not bool:
        return False
    size, stride = _sizes(args[1]), _sizes(args[2])
    return size is not None and stride is not None and len(size) == len(stride)


def _bits(args: Args) -> bool:
    """Check ``(storage, offset, shape, stride, requires_grad, hooks, dtype, metadata)`` of a dtype only torch knows."""
    if len(args) not in {7, 8} or type(args[0]) is not StorageRef or not isinstance(args[6], Global):
        return False
    size, stride, itemsize = _sizes(args[2]), _sizes(args[3]), _BITS.get(args[6].full_name)
    if size is None or stride is None or len(size) != len(stride) or itemsize is None or args[4] not in {None, False}:
        return False
    if type(args[1]) is not int or args[1] < 0 or not (len(args) == 7 or _is_plain(args[7])):
        return False
    end = args[1] + 1 + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    return 0 in size or end * itemsize <= args[0].nbytes


def _is_plain(metadata: Node) -> bool:
    """Tell whether metadata is empty."""
    return metadata is None or (type(metadata) is Dict and not metadata.pairs)


_WORKS: Mapping[str, Callable[[Args], bool]] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.Counter": _counter,
    "builtins.set": _set,
    "builtins.bytearray": _bytearray,
    "builtins.complex": _complex,
    "_codecs.encode": _encode,
    "torch.Size": _size,
    "torch.device": _device,
    "torch.serialization._get_layout": _layout,
    **dict.fromkeys(PARAMETERS, _parameter),
    "torch.nn.parameter.Parameter": lambda args: len(args) < 3 and _parameter(args),
    "torch._utils._rebuild_parameter": lambda args: len(args) == 3 and _parameter(args),
    "torch._utils._rebuild_parameter_with_state": lambda args: len(args) == 4 and _parameter(args) and _state(args[3]),
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch._tensor._rebuild_from_type": _from_type,
    "torch._utils._rebuild_qtensor": _quantized,
    "torch._utils._rebuild_sparse_tensor": lambda args: len(args) == 2 and _sparse(*args),
    "torch._utils._rebuild_nested_tensor": lambda args: len(args) == 4 and all(map(is_tensor, args)),
    "torch._utils._rebuild_meta_tensor_no_storage": _meta,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _on_device,
    "torch._utils._rebuild_tensor_v3": _bits,
}
"""Check of the arguments, by function name. No pickle calls storages, dtypes, or tensor classes from before torch 0.4.
"""

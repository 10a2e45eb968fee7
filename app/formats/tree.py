"""Reading a parsed pickle as the tree of mappings and lists it describes."""

import struct
from collections.abc import Callable, Iterator

from ..values.manifest import Path
from ..values.work import Work
from .pickle.nesting import parts
from .pickle.nodes import Call, Dict, Global, Node, Persistent, Set, StorageRef, TensorRef
from .pickle.survey import is_plain
from .torch_tensors import is_tensor

PLAIN_MAPPINGS = frozenset({"collections.OrderedDict", "collections.defaultdict", "collections.Counter"})

CALLED_WITH_PAIRS = frozenset({"collections.OrderedDict", "collections.Counter"})

CONTAINERS = (Dict, list, tuple, Call, Set)
"""Types of nodes that may have children."""

_MAY_HOLD_REFS = frozenset({*CONTAINERS, TensorRef, StorageRef, Persistent})

_LOOKS_AT_NOTHING = PLAIN_MAPPINGS | {"torch._utils._rebuild_parameter"}

MAX_INT_BITS = 64
"""Bits of an integer in a path; a larger one names no parameter, and takes seconds to print in decimal."""

_MAX_SCALAR = 16
"""Bytes of a numpy scalar."""
_NUMPY_SCALAR = frozenset({"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"})
_STRUCT_OF_NUMPY = {
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
    "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip


class Nameless(str):
    """The path element for a tensor as a key: no request can name values below."""

    __slots__ = ()


NAMELESS = Nameless("(key)")


def name_of(node: Node) -> str | None:
    """Return the full name of a Call's function, or None."""
    return node.function.full_name if isinstance(node, Call) and isinstance(node.function, Global) else None


def pairs_of(node: Node) -> list[tuple[Node, Node]] | None:
    """Return a mapping's pairs in order, or None if the node is not a mapping.

    A str key that comes twice keeps its first place and its last value, as in the dict that unpickling would build.
    """
    if isinstance(node, Dict):
        pairs = node.pairs
    elif isinstance(node, Call) and (node.pairs or name_of(node) in PLAIN_MAPPINGS):
        pairs = [*_initial_pairs(node), *node.pairs]
    else:
        return None
    keys = [key for key, _ in pairs if type(key) is str]
    if len(set(keys)) == len(keys):
        return pairs
    last = {key: value for key, value in pairs if type(key) is str}
    return [
        (key, last.pop(key) if type(key) is str else value)
        for key, value in pairs
        if type(key) is not str or key in last
    ]


def _initial_pairs(node: Call) -> list[tuple[Node, Node]]:
    """Pairs passed to a call of Python 2's OrderedDict, or Counter: a dict, or a list of two-item lists."""
    args = node.args
    if name_of(node) in CALLED_WITH_PAIRS and isinstance(args, tuple) and len(args) == 1:
        items = args[0]
        if isinstance(items, Dict):
            return items.pairs
        if isinstance(items, list) and all(isinstance(item, (list, tuple)) and len(item) == 2 for item in items):
            return [(key, value) for key, value in items]
    return []


def size_of(node: Node) -> int:
    """Count the parts that one pass over a container visits, with repeated keys and parts of its arguments."""
    if isinstance(node, (list, tuple)):
        return len(node)
    if isinstance(node, Set):
        return len(node.items)
    if isinstance(node, Dict):
        return len(node.pairs)
    if not isinstance(node, Call):
        return 0
    args = node.args if isinstance(node.args, tuple) else ()
    first = args[0] if len(args) == 1 else ()
    initial = first.pairs if isinstance(first, Dict) else first if isinstance(first, list) else ()
    return len(node.pairs) + len(node.items) + len(args) + len(initial) + attribute_count(node)


def attribute_count(node: Call) -> int:
    """Count the pairs of ``attributes_of``."""
    parts = (part for state in node.states for part in (state if type(state) is tuple else (state,))[:2])
    return sum(len(part.pairs) for part in parts if type(part) is Dict)


def attributes_of(node: Node) -> list[tuple[Node, Node]]:
    """Return pairs that BUILD put into an object's ``__dict__`` and slots."""
    if not isinstance(node, Call):
        return []
    pairs: list[tuple[Node, Node]] = []
    for state in node.states:
        for part in state if isinstance(state, tuple) and len(state) == 2 else (state,):
            if isinstance(part, Dict):
                pairs += part.pairs
    return pairs


def children(node: Node) -> Iterator[tuple[str | int, Node]]:
    """Yield a node's children, each after its path element."""
    if isinstance(node, (list, tuple)):
        yield from enumerate(node)
    elif isinstance(node, Set):
        yield from enumerate(node.items)
    elif isinstance(node, (Dict, Call)):
        pairs = pairs_of(node)
        for key, value in pairs or ():
            yield path_element(key), value
        for key, value in attributes_of(node):
            yield path_element(key), value
        if isinstance(node, Call):
            yield from enumerate(node.items)
            if pairs is None and isinstance(node.args, tuple):
                yield from enumerate(node.args)


def walk(root: Node, is_leaf: Callable[[Node], bool], work: Work) -> Iterator[tuple[Path, Node]]:
    """Yield every leaf below ``root`` in order, with its path: nodes by ``is_leaf``, and nodes without children.

    A container inside itself is not entered again.
    """
    ancestors: set[int] = set()
    stack: list[tuple[Path, Node] | int] = [((), root)]
    while stack:
        step = stack.pop()
        if isinstance(step, int):
            ancestors.discard(step)
            continue
        path, node = step
        if not isinstance(node, CONTAINERS):
            yield path, node
            continue
        if id(node) in ancestors:
            continue
        work.spend(2 + size_of(node))
        if is_leaf(node):
            yield path, node
        else:
            ancestors.add(id(node))
            stack.append(id(node))
            below = list(children(node))
            work.spend(len(below) * (3 + len(path) // 2))  # each has a path of its own
            stack += reversed([((*path, element), child) for element, child in below])


def refs_in(root: Node) -> list[StorageRef | TensorRef]:
    """List every tensor, and every storage that is named outside of a tensor, once each."""
    refs: list[StorageRef | TensorRef] = []
    seen: set[int] = set()
    stack: list[Node] = [root]
    while stack:
        node = stack.pop()
        kind = type(node)
        if kind in _MAY_HOLD_REFS and id(node) not in seen:
            seen.add(id(node))
            if kind is TensorRef or kind is StorageRef:
                refs.append(node)
            if kind is not TensorRef or not is_plain(node):
                stack += parts(node)
    return refs


def refs_in_objects(root: Node) -> list[StorageRef | TensorRef]:
    """List those of ``refs_in`` whose bytes a loader may read while it builds the object around them: a sparse or
    quantized tensor, an object of any class. Storages that are named outside of a tensor are included.
    """
    refs: list[StorageRef | TensorRef] = []
    seen: set[tuple[int, bool]] = set()
    stack: list[tuple[Node, bool]] = [(root, False)]
    while stack:
        node, inside = stack.pop()
        kind = type(node)
        if kind not in _MAY_HOLD_REFS or (id(node), inside) in seen:
            continue
        if kind is TensorRef and not inside and is_plain(node):
            continue
        seen.add((id(node), inside))
        if kind is StorageRef or (inside and kind is TensorRef):
            refs.append(node)
        inside = inside or not (isinstance(node, (list, tuple, Dict)) or name_of(node) in _LOOKS_AT_NOTHING)
        stack += [(part, inside) for part in parts(node)]
    return refs


def path_element(key: Node) -> str | int:
    """Return a mapping's key as part of a path: str and int unchanged, other plain values as text."""
    if type(key) is str or (type(key) is int and key.bit_length() <= MAX_INT_BITS):
        return key
    if key is None or isinstance(key, (bool, float, bytes)):
        return str(key)
    return NAMELESS if is_tensor(key) else "(key)"


def numpy_scalar(node: Node) -> bool | int | float | None:
    """Return the value of a pickled numpy scalar; None for another node, or a type that Python does not have."""
    if name_of(node) not in _NUMPY_SCALAR or not isinstance(node.args, tuple) or len(node.args) != 2:
        return None
    dtype, data = node.args[0], _bytes_of(node.args[1])
    if name_of(dtype) != "numpy.dtype" or not isinstance(dtype.args, tuple) or not dtype.args or data is None:
        return None
    code = _STRUCT_OF_NUMPY.get(dtype.args[0]) if isinstance(dtype.args[0], str) else None
    if code is None or len(data) != struct.calcsize("<" + code):
        return None
    big = any(isinstance(state, tuple) and len(state) > 1 and state[1] == ">" for state in dtype.states)
    return struct.unpack((">" if big else "<") + code, data)[0]  # type: ignore[no-any-return]  # struct gives Any


def _bytes_of(node: Node) -> bytes | None:
    """Return a scalar's bytes, also from protocol 2: ``_codecs.encode(text, "latin1")``."""
    if isinstance(node, bytes):
        return node
    if (
        name_of(node) == "_codecs.encode"
        and isinstance(node.args, tuple)
        and node.args
        and isinstance(node.args[0], str)
        and len(node.args[0]) <= _MAX_SCALAR
    ):
        try:
            return node.args[0].encode("latin1")
        except UnicodeEncodeError:
            return None
    return None

"""The nodes a pickle is parsed into.

Inert Python values stay unchanged: None, bool, int, float, complex, str, bytes, bytearray, tuple and list. All other
nodes are of the classes below. Dicts and sets are kept as lists, because a hostile file could choose keys that are slow
to hash. Nodes compare by identity: one node in two places is one shared object.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from ...values.dtype import DType

Node: TypeAlias = Any
"""None | bool | int | float | str | bytes | bytearray | tuple | list | one of the classes below."""

FROM_TYPE = frozenset({"torch._tensor._rebuild_from_type_v2", "torch._tensor._rebuild_from_type"})
"""Functions called with ``(rebuild, type, arguments, state)``: a Tensor subclass, or a tensor with attributes.

If ``rebuild`` makes a dense tensor, the Call holds that TensorRef in the place of ``arguments``.
"""


class Dict:
    """A plain dict, as its pairs in order; a later pair with an equal key replaces an earlier pair."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[Node, Node]] | None = None) -> None:
        self.pairs: list[tuple[Node, Node]] = [] if pairs is None else pairs


class Set:
    """A set, or with ``frozen`` a frozenset, from the set opcodes of protocol 4."""

    __slots__ = ("frozen", "items")

    def __init__(self, items: list[Node], frozen: bool = False) -> None:
        self.items = items
        self.frozen = frozen


class Global:
    """The name of a function or class, never looked up. Python 2 names are already mapped to Python 3's."""

    __slots__ = ("full_name", "module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name
        self.full_name = f"{module}.{name}"


class Call:
    """An object that unpickling would have built by calling ``function``: an opaque node, never built.

    ``how`` is ``reduce`` (``function(*args)``), ``newobj`` (``cls.__new__(cls, *args)``), ``newobj_ex`` (with
    ``kwargs``) or ``obj`` (protocol 0 and 1 instances). ``items`` and ``pairs`` are from APPEND(S) and
    SETITEM(S), ``states`` from BUILD, in order. No list is made while they are empty: two bytes of pickle are
    a call.
    """

    __slots__ = ("args", "function", "how", "items", "kwargs", "pairs", "states")

    def __init__(self, function: Node, args: Node, how: str = "reduce", kwargs: Node = None) -> None:
        self.function = function
        self.args = args
        self.how = how
        self.kwargs = kwargs
        self.items: Sequence[Node] = ()
        self.pairs: Sequence[tuple[Node, Node]] = ()
        self.states: Sequence[Node] = ()


class Persistent:
    """A persistent id of unknown meaning."""

    __slots__ = ("pid",)

    def __init__(self, pid: Node) -> None:
        self.pid = pid


class StorageRef:
    """A storage named by a persistent id ``("storage", storage_class, key, location, numel)``.

    ``dtype`` is the element type of its class, None for an untyped storage; ``numel`` counts such elements
    (bytes if untyped). One key is one StorageRef, however often the pickle names the key.
    """

    __slots__ = ("dtype", "key", "location", "numel", "storage_class")

    def __init__(self, storage_class: Global, dtype: DType | None, key: str, location: str, numel: int) -> None:
        self.storage_class = storage_class
        self.dtype = dtype
        self.key = key
        self.location = location
        self.numel = numel

    @property
    def nbytes(self) -> int:
        return self.numel * (1 if self.dtype is None else self.dtype.itemsize)


class StorageView:
    """A part of a storage in torch's format from before 1.6: ``numel`` elements from ``offset`` on.

    It is replaced once a tensor is built on it: the tensor views the whole storage.
    """

    __slots__ = ("numel", "offset", "storage")

    def __init__(self, storage: StorageRef, offset: int, numel: int) -> None:
        self.storage = storage
        self.offset = offset
        self.numel = numel


class TensorRef:
    """A dense tensor: ``function(storage, offset, shape, stride, *rest)``, a ``torch._utils._rebuild_tensor*``.

    ``offset`` and ``stride`` count elements of ``dtype``; the extent was checked to lie within the storage.
    """

    __slots__ = ("dtype", "function", "offset", "rest", "shape", "storage", "stride")

    def __init__(
        self,
        function: Global,
        storage: StorageRef,
        offset: int,
        shape: tuple[int, ...],
        stride: tuple[int, ...],
        rest: tuple[Node, ...],
        dtype: DType,
    ) -> None:
        self.function = function
        self.storage = storage
        self.offset = offset
        self.shape = shape
        self.stride = stride
        self.rest = rest
        self.dtype = dtype

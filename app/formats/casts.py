"""Casting the tensors of a tree to another dtype.

A cast tensor is a new TensorRef, because the old one may also be wanted uncast under another name; one object stays one
object. The elements of a sparse or nested tensor are cast as by ``Tensor.to``; quantized elements are not floating
numbers, and stay. A tensor inside another object (a Parameter's attribute, a module's extra state) stays too.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from ..values.dtype import DTYPES, DType
from .devices import ON_DEVICE
from .pickle.nodes import FROM_TYPE, Call, Global, Node, TensorRef
from .tree import name_of

_PARAMETERS = frozenset({"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"})
_MADE_OF_TENSORS = frozenset({"torch._utils._rebuild_sparse_tensor", "torch._utils._rebuild_nested_tensor"})
_META = "torch._utils._rebuild_meta_tensor_no_storage"


@dataclass(slots=True)
class Caster:
    """Casts the tensors that ``wanted`` picks by their new names. ``targets`` maps the id of each new TensorRef to its
    dtype.
    """

    dtype: DType
    wanted: Callable[[str], bool]
    targets: dict[int, DType] = field(default_factory=dict)
    _made: dict[int, tuple[Node, Node]] = field(default_factory=dict)
    """The old node, kept so that its id stays unique, and the new node, by the old node's id."""

    def cast(self, name: str, node: Node) -> Node:
        """Return a value of a state_dict, or a leaf of a tree, as it is to be written."""
        return self._cast(node) if isinstance(node, (TensorRef, Call)) and self.wanted(name) else node

    def _cast(self, node: Node) -> Node:
        if id(node) not in self._made:
            self._made[id(node)] = node, self._new(node)
        return self._made[id(node)][1]

    def _new(self, node: Node) -> Node:
        if isinstance(node, tuple):
            return tuple(map(self._cast, node))
        if isinstance(node, TensorRef):
            return self._tensor(node) if node.dtype.is_floating and node.dtype != self.dtype else node
        if not isinstance(node, Call) or not isinstance(node.args, tuple):
            return node
        name, args = name_of(node), node.args
        if name in _PARAMETERS and args:
            return _called_with(node, (self._cast(args[0]), *args[1:]))
        if name in FROM_TYPE and len(args) == 4 and (isinstance(args[2], TensorRef) or _rebuilds(args[0])):
            return _called_with(node, (*args[:2], self._cast(args[2]), args[3]))
        if name in ON_DEVICE and len(args) == 4 and isinstance(args[0], (TensorRef, Call)):
            data = self._cast(args[0])
            return node if data is args[0] else _called_with(node, (data, Global("torch", self.dtype.name), *args[2:]))
        if name in _MADE_OF_TENSORS:
            return _called_with(node, self._cast(args))
        if name == _META and args and isinstance(args[0], Global):
            dtype = DTYPES.get(args[0].name)
            if dtype is not None and dtype.is_floating:
                return _called_with(node, (Global("torch", self.dtype.name), *args[1:]))
        return node

    def _tensor(self, ref: TensorRef) -> TensorRef:
        made = TensorRef(ref.function, ref.storage, ref.offset, ref.shape, ref.stride, ref.rest, ref.dtype)
        self.targets[id(made)] = self.dtype
        return made


def _rebuilds(function: Node) -> bool:
    return isinstance(function, Global) and function.full_name in _PARAMETERS | _MADE_OF_TENSORS


def _called_with(call: Call, args: tuple[Node, ...]) -> Call:
    if all(new is old for new, old in zip(args, call.args, strict=True)):
        return call
    made = Call(call.function, args, call.how, call.kwargs)
    made.items, made.pairs, made.states = call.items, call.pairs, call.states
    return made

"""A walk over a tree before it is written: counts references to nodes, and asks for their replacements."""

from collections.abc import Callable

from ...values.work import Work
from .nesting import parts
from .nodes import Call, Global, Node, StorageRef, TensorRef

Replace = Callable[[StorageRef | TensorRef], Node]

_PLAIN_REFERENCES = 5
_PLAIN_STEPS = 10
"""References from a plain tensor and from its OrderedDict, and the steps of looking at them."""

_NEVER_SHARED = frozenset({type(None), bool, int, float, complex, Global})
"""Plain numbers are written each time; a Global is memoized by its name, not by its identity."""


def is_plain(tensor: TensorRef) -> bool:
    """Tell whether a tensor has no gradient and no hooks: behind its stride are False and an empty OrderedDict()."""
    rest = tensor.rest
    if len(rest) != 2 or rest[0] is not False or type(rest[1]) is not Call:
        return False
    hooks = rest[1]
    return (
        type(hooks.function) is Global
        and type(hooks.args) is tuple
        and not hooks.args
        and hooks.kwargs is None
        and hooks.how == "reduce"
        and not (hooks.items or hooks.pairs or hooks.states)
    )


class Survey:
    """Asks for replacements in the order in which they will be written, so that the caller can number them.

    ``references`` counts all references from one node of the tree to another.

    All nodes live as long as their root, so ids are unique.
    """

    def __init__(self, root: Node, replace: Replace, work: Work) -> None:
        self.references = 1
        self._work = work
        self._replace = replace
        self._final: dict[int, Node] = {}
        self._fresh: set[int] = set()
        self._shared = frozenset(key for key, uses in self._walk(root).items() if uses > 1)

    def is_shared(self, node: Node) -> bool:
        return id(node) in self._shared

    def final(self, ref: StorageRef | TensorRef) -> Node:
        """Return the node that is written in the place of ``ref``."""
        key = id(ref)
        if key not in self._final:
            new = self._final[key] = self._replace(ref)
            if new is not ref:
                self._final[id(new)] = new
                self._fresh.add(id(new))
        return self._final[key]

    def storage_of(self, tensor: TensorRef) -> StorageRef:
        """Return the storage that is written with a final tensor."""
        storage = tensor.storage if id(tensor) in self._fresh else self.final(tensor.storage)
        if type(storage) is not StorageRef:
            raise TypeError(f"a tensor's storage cannot be replaced by a {type(storage).__name__}")
        return storage

    def _walk(self, root: Node) -> dict[int, int]:
        """Count the references to each node, by its id."""
        uses: dict[int, int] = {}
        stack = [root]
        while stack:
            node = stack.pop()
            kind = type(node)
            if kind is StorageRef or kind is TensorRef:
                node = self.final(node)
                kind = type(node)
            key = id(node)
            seen = uses.get(key, 0)
            uses[key] = seen + 1
            if seen or kind is str:
                continue
            if kind is TensorRef and is_plain(node):  # by far the most: their parts are counted without a walk
                hooks, storage = id(node.rest[1]), id(self.storage_of(node))
                uses[hooks] = uses.get(hooks, 0) + 1
                uses[storage] = uses.get(storage, 0) + 1
                self.references += _PLAIN_REFERENCES
                self._work.spend(_PLAIN_STEPS)
            else:
                inside = parts(node)
                self.references += len(inside)
                self._work.spend(4 + 2 * len(inside))
                stack += [part for part in reversed(inside) if type(part) not in _NEVER_SHARED]
                if kind is TensorRef:
                    storage = id(self.storage_of(node))
                    uses[storage] = uses.get(storage, 0) + 1
        return uses

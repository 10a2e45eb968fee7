"""Copies of trees for files that always load with ``weights_only=True``.

Plain values, containers and tensors are kept. A numpy scalar becomes the Python number it stands for. A leaf of any
other kind (a custom class, a numpy array, a path) is left out, and its path is reported.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..values.manifest import Path
from ..values.work import Work
from .loadable import can_be_called, has_right_metadata
from .modules import detached
from .pickle.hashing import is_hashable
from .pickle.nodes import Call, Dict, Global, Node, Set, StorageRef, TensorRef
from .torch_tensors import is_allowed, is_tensor, tensor_of
from .tree import attributes_of, name_of, numpy_scalar, pairs_of, path_element, size_of

MAX_DEPTH = 100
"""Containers nested deeper than this inside one component are left out; a real optimizer nests four deep."""

MAX_INT_BITS = 2032
"""torch's restricted unpickler reads integers of up to 255 bytes."""

ORDERED_DICT = "collections.OrderedDict"
COUNTER = "collections.Counter"
META_TENSOR = "torch._utils._rebuild_meta_tensor_no_storage"


def is_leaf(node: Node) -> bool:
    """Tell whether a node is kept or left out as a whole: any node but a mapping, list or tuple."""
    return not isinstance(node, (list, tuple)) and pairs_of(node) is None


class _LeftOut:
    """Placeholder for a node that cannot be kept."""


_LEFT_OUT = _LeftOut()


@dataclass(slots=True)
class Keeper:
    """Copies the nodes of a tree that can be kept. ``wanted`` decides on each leaf by its path.

    ``skip`` are the ids of nodes that are left out without report. With ``meta``, tensors that are made of others
    (quantized, sparse) are left out: they do not exist without bytes. ``change`` replaces a kept leaf.
    """

    wanted: Callable[[Path], bool] = lambda path: True
    skip: frozenset[int] = frozenset()
    meta: bool = False
    change: Callable[[Path, Node], Node] = lambda path, node: node
    work: Work = field(default_factory=Work)
    left_out: list[Path] = field(default_factory=list)
    _ancestors: set[int] = field(default_factory=set)
    _leaves: dict[int, Node] = field(default_factory=dict)
    _allowed: set[int] = field(default_factory=set)

    def keep(self, node: Node) -> Node:
        """Copy a tree. Return an empty dict if no leaf is wanted."""
        kept = self._keep(node, (), 0)
        return Dict() if kept is _LEFT_OUT else kept

    def keep_value(self, node: Node, path: Path) -> tuple[Node, bool]:
        """Copy one value of a state_dict; return also whether the value could be kept."""
        kept = self._keep(node, path, 1)
        return kept, kept is not _LEFT_OUT

    def _keep(self, node: Node, path: Path, depth: int) -> Node:
        self.work.spend(4 + depth + size_of(node))
        if id(node) in self.skip:
            return _LEFT_OUT
        if depth <= MAX_DEPTH and id(node) not in self._ancestors:
            if (pairs := pairs_of(node)) is not None:
                return self._keep_mapping(node, pairs, path, depth)
            if isinstance(node, (list, tuple)):
                return self._keep_sequence(node, path, depth)
        if not self.wanted(path):
            return _LEFT_OUT
        leaf = self._leaf(node)
        if leaf is _LEFT_OUT:
            self.left_out.append(path)
            return leaf
        return self.change(path, leaf)

    def _keep_mapping(self, node: Node, pairs: list[tuple[Node, Node]], path: Path, depth: int) -> Node:
        kept = []
        self._ancestors.add(id(node))
        for key, value in pairs:
            below = (*path, path_element(key))
            copy = self._keep(value, below, depth + 1)
            if copy is _LEFT_OUT:
                continue
            if type(key) is str or self._can_be_a_key(key):
                kept.append((key, copy))
            else:
                self.left_out.append(below)
        self._ancestors.discard(id(node))
        if pairs and not kept:
            return _LEFT_OUT
        if name_of(node) == COUNTER:
            return Call(Global("collections", "Counter"), (Dict(kept),))
        if name_of(node) != ORDERED_DICT:
            return Dict(kept)
        ordered = Call(Global("collections", "OrderedDict"), ())
        ordered.pairs = kept
        metadata = self.metadata_of(node)
        if metadata is not None:
            ordered.states = [Dict([("_metadata", metadata)])]
        return ordered

    def _keep_sequence(self, node: list[Node] | tuple[Node, ...], path: Path, depth: int) -> Node:
        """Copy a sequence without its unwanted items. A sequence with an item that cannot be kept is left out itself:
        later items would move up into that item's place.
        """
        self._ancestors.add(id(node))
        before, kept = len(self.left_out), []
        for number, item in enumerate(node):
            so_far = len(self.left_out)
            copy = self._keep(item, (*path, number), depth + 1)
            if copy is not _LEFT_OUT:
                kept.append(copy)
            elif len(self.left_out) > so_far:
                self.left_out[before:] = [path]
                kept.clear()
                break
        self._ancestors.discard(id(node))
        if node and not kept:
            return _LEFT_OUT
        return kept if isinstance(node, list) else tuple(kept)

    def _leaf(self, node: Node) -> Node:
        """Return a leaf as it may be written: one copy, however often the leaf is met."""
        if not isinstance(node, (Call, TensorRef, Global, Set)):
            return _plain(node)
        if id(node) not in self._leaves:
            no_meta = self.meta and is_tensor(node) and tensor_of(node) is None and name_of(node) != META_TENSOR
            self._leaves[id(node)] = _LEFT_OUT if no_meta else self._object(node)
        return self._leaves[id(node)]

    def _can_be_a_key(self, node: Node) -> bool:
        """Tell whether a node is a hashable plain value, or a tuple of such. Custom mappings may have other keys."""
        if not is_hashable(node, self.work):
            return False
        return _plain(node) is not _LEFT_OUT or (isinstance(node, tuple) and self._is_allowed_throughout(node))

    def _object(self, node: Call | TensorRef | Global | Set) -> Node:
        """Return a number, tensor or other allowed object as it may be written; a wrapped tensor is unwrapped."""
        scalar = numpy_scalar(node)
        if scalar is not None:
            return scalar
        if type(node) is TensorRef and node.function.name == "_rebuild_tensor_v3":
            node = detached(node)  # torch writes requires_grad=True there, and cannot load it
        if self._is_allowed_throughout(node):
            return node
        tensor = tensor_of(node)
        if tensor is None or not has_right_metadata(tensor):
            return _LEFT_OUT
        rest = tuple(part if self._is_allowed_throughout(part) else None for part in tensor.rest)
        return TensorRef(
            tensor.function, tensor.storage, tensor.offset, tensor.shape, tensor.stride, rest, tensor.dtype
        )

    def metadata_of(self, state_dict: Node) -> Node | None:
        """Return a state_dict's ``_metadata`` (module versions, which a strict load reads), if allowed throughout."""
        attributes = attributes_of(state_dict)
        self.work.spend(len(attributes))
        metadata = next((value for key, value in attributes if key == "_metadata"), None)
        return metadata if metadata is not None and self._is_allowed_throughout(metadata) else None

    def _is_allowed_throughout(self, root: Node) -> bool:
        """Tell whether torch's restricted unpickler accepts a node and all nodes inside."""
        seen: set[int] = set()
        stack: list[Node] = [root]
        while stack:
            node = stack.pop()
            if id(node) in seen or id(node) in self._allowed:
                continue
            if isinstance(node, (Call, TensorRef, Dict, Set, list, tuple)):
                seen.add(id(node))
            inside = _inside_of_allowed(node, self.work)
            if inside is None:
                return False
            self.work.spend(4 + len(inside))
            stack += inside
        self._allowed |= seen
        return True


def _plain(node: Node) -> Node:
    if node is None or isinstance(node, (bool, float, str, bytes, bytearray, StorageRef)):
        return node
    if isinstance(node, int):
        return node if node.bit_length() <= MAX_INT_BITS else _LEFT_OUT
    if isinstance(node, (list, tuple)) and not node:
        return node
    return _LEFT_OUT


def _inside_of_allowed(node: Node, work: Work) -> Sequence[Node] | None:
    """Return the inner nodes that have to be allowed too; None if the node itself is not allowed."""
    if isinstance(node, Global):
        return () if is_allowed(node) else None
    if isinstance(node, Call):
        if not can_be_called(node, work):
            return None
        pairs = [part for pair in node.pairs for part in pair]
        return [node.function, node.args, *node.items, *node.states, *pairs]
    if isinstance(node, Dict):
        return [part for pair in node.pairs for part in pair]
    if isinstance(node, Set) and not node.frozen:
        return node.items
    if isinstance(node, (list, tuple)):
        return node
    if isinstance(node, TensorRef):
        return node.rest if has_right_metadata(node) else None
    return None if _plain(node) is _LEFT_OUT else ()

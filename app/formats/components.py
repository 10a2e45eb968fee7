"""Search for the components of a checkpoint: state_dicts, optimizers' state_dicts, whole modules."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from ..errors import SelectionError
from ..values.manifest import Component, ComponentKind, Path, dotted, is_one_element
from ..values.work import Work
from .facts import FACTS
from .modules import has_keys, is_module
from .pickle.nodes import Call, Dict, Global, Node, TensorRef
from .torch_tensors import is_tensor, tensor_of
from .tree import NAMELESS, children, pairs_of, size_of, walk


def component_kind(node: Node, work: Work, *, is_root: bool = False) -> ComponentKind | None:
    """Tell whether a node is a state_dict, an optimizer's state_dict, or neither.

    A state_dict is a mapping with str keys and at least one tensor among its direct values, whatever the others are;
    or a whole module, read as its state_dict. A general checkpoint's root is none: see ``_is_mostly_tensors``.
    """
    work.spend(size_of(node))
    if is_module(node, work):
        return "state_dict" if has_keys(node, work) else None
    pairs = pairs_of(node)
    if not pairs:
        return None
    if _is_optimizer(pairs):
        return "optimizer"
    if not all(type(key) is str for key, _ in pairs) or not any(is_tensor(value) for _, value in pairs):
        return None
    others = [(key, value) for key, value in pairs if type(value) is not TensorRef]
    if is_root or any(_is_part_of_a_checkpoint(value, work) for key, value in others if not is_extra_state(key)):
        return "state_dict" if _is_mostly_tensors(pairs, work) else None
    return "state_dict"


def _is_optimizer(pairs: Sequence[tuple[Node, Node]]) -> bool:
    keys = [key for key, _ in pairs]
    if "state" not in keys or "param_groups" not in keys:
        return False
    return not any(is_tensor(value) for key, value in pairs if key in {"state", "param_groups"})


def _is_part_of_a_checkpoint(value: Node, work: Work) -> bool:
    """Tell whether a value is an optimizer's state_dict or a whole module: no state_dict holds either."""
    if not isinstance(value, (Dict, Call)) or is_tensor(value):
        return False
    work.spend(size_of(value))
    return is_module(value, work) or _is_optimizer(pairs_of(value) or ())


def _is_mostly_tensors(pairs: Sequence[tuple[Node, Node]], work: Work) -> bool:
    """Tell whether a possible general checkpoint is a state_dict after all: most of its values are tensors.

    Other values of quantized modules do not count against it: lists of tensors, dtypes, None. Beside models or
    optimizers, numbers are a checkpoint's own (its loss), and there have to be more tensors than the models hold.
    """
    rest = [value for key, value in pairs if not (value is None or type(value) is Global or is_extra_state(key))]
    own = [value for value in rest if is_tensor(value)]
    others = [value for value in rest if isinstance(value, (Dict, Call)) and not is_tensor(value)]
    inside = _count_tensors(others, len(own), work)
    if inside or any(_is_part_of_a_checkpoint(value, work) for value in others):
        counted = sum(not _is_number(value) for value in own)
    elif len(own) == len(rest):
        return True
    else:
        facts = sum(type(key) is str and key in FACTS and _is_number(value) for key, value in pairs)
        counted = len(own) - facts
        counted += sum(isinstance(value, (list, tuple)) and any(map(is_tensor, value)) for value in rest)
    return 2 * counted > len(rest) and counted > inside


def _count_tensors(nodes: Iterable[Node], enough: int, work: Work) -> int:
    """Count the tensors in some nodes, up to ``enough``, without tensors of optimizers."""

    def is_leaf(node: Node) -> bool:
        return is_tensor(node) or _is_optimizer(pairs_of(node) or ())

    leaves = (node for each in nodes for _, node in walk(each, is_leaf, work) if is_tensor(node))
    return sum(1 for _ in islice(leaves, enough))


def _is_number(node: Node) -> bool:
    tensor = tensor_of(node)
    return tensor is not None and is_one_element(tensor.shape)


def is_extra_state(key: Node) -> bool:
    """Tell whether a module saves the value of ``get_extra_state`` under a key."""
    return type(key) is str and key.endswith("_extra_state")


def find_components(root: Node, work: Work) -> Iterator[tuple[Path, ComponentKind | None, Node]]:
    """Yield every component in the file's order; also, with None as kind, every tensor outside of components, and
    nodes that may hold one.

    No component lies inside another, or at a path that no request could name: a pickled optimizer keeps its state
    under its parameters as keys.
    """
    kinds = _Kinds(root, work)
    for path, node in walk(root, kinds.is_leaf, work):
        kind = kinds.of(node)
        if kind is not None:
            yield path, None if any(element is NAMELESS for element in path) else kind, node
        elif is_tensor(node):
            yield path, None, node


class _Kinds:
    """Cache of ``component_kind`` for each node."""

    def __init__(self, root: Node, work: Work) -> None:
        self._root = root
        self._work = work
        self._kinds: dict[int, ComponentKind | None] = {}

    def of(self, node: Node) -> ComponentKind | None:
        if id(node) not in self._kinds:
            is_root = node is self._root
            self._kinds[id(node)] = None if is_tensor(node) else component_kind(node, self._work, is_root=is_root)
        return self._kinds[id(node)]

    def is_leaf(self, node: Node) -> bool:
        return is_tensor(node) or self.of(node) is not None


def nodes_of(root: Node, components: Sequence[Component], work: Work) -> dict[int, Node]:
    """Find the nodes of the components that a manifest lists, by their paths. Return the nodes by number.

    The manifest may be from older rules: if today's rules find no component at a path, the node there is taken.
    A component without a node at its path is left out.
    """
    tree: dict[str, Any] = {}
    for number, component in enumerate(components):
        place = tree
        for element in component.path:
            place = place.setdefault(repr(element), {})
        place.setdefault("", deque()).append(number)
    found: dict[int, Node] = {}
    stack: list[tuple[Node, dict[str, Any]]] = [(root, tree)]
    others: list[tuple[Node, deque[int]]] = []  # at a component's path, but no component by today's rules
    while stack:
        node, place = stack.pop()
        numbers = place.get("")
        if numbers and component_kind(node, work) is not None:
            found[numbers.popleft()] = node
            continue
        if numbers and isinstance(node, (Dict, Call)):
            others.append((node, numbers))
        if len(place) > ("" in place):
            work.spend(2 + size_of(node))
            below = ((child, place.get(repr(element))) for element, child in children(node))
            stack += reversed([(child, where) for child, where in below if where is not None])
    for node, numbers in sorted(others, key=lambda other: not pairs_of(other[0])):  # mappings first
        if numbers:
            found[numbers.popleft()] = node
    return found


def node_of(root: Node, components: Sequence[Component], number: int, work: Work) -> Node:
    """Find the node of one component. Raises SelectionError if no mapping is at its path any more."""
    node = nodes_of(root, components, work).get(number)
    if not pairs_of(node) and not is_module(node, work):
        raise SelectionError(
            f"the component {dotted(components[number].path)!r} was listed by an older version of the server, and this "
            "version does not find it in the file. Upload the checkpoint again to get it; other components still work",
            code="unknown-component",
        )
    return node

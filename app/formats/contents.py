"""What a parsed checkpoint contains: its components, and each tensor that views one storage, with its path."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..errors import HostileCheckpoint
from ..values.manifest import Component, ComponentKind, Path, Storage, Tensor
from ..values.work import Work
from .modules import MAX_KEY_LENGTH, has_keys, is_module, state_dict_pairs
from .param_groups import param_groups_json
from .pickle.nodes import Node
from .torch_tensors import is_tensor, quantized_of, tensor_of
from .tree import pairs_of, size_of, walk


def component_kind(node: Node, work: Work) -> ComponentKind | None:
    """Whether a node is a state_dict, an optimizer's state_dict, or neither.

    A state_dict is a mapping with str keys whose values are all tensors, ``*_extra_state`` aside, at least one of
    them; or a whole module, which stands for its own.
    """
    work.spend(size_of(node))
    if is_module(node, work):
        return "state_dict" if has_keys(node, work) else None
    pairs = pairs_of(node)
    if not pairs:
        return None
    keys = [key for key, _ in pairs]
    if "state" in keys and "param_groups" in keys:
        return "optimizer"
    tensors = 0
    for key, value in pairs:
        if type(key) is not str:
            return None
        if is_tensor(value):
            tensors += 1
        elif not key.endswith("_extra_state"):
            return None
    return "state_dict" if tensors else None


def text_length(path: Path) -> int:
    """Characters of the names along a path."""
    return sum(len(element) for element in path if type(element) is str)


def check_key(path: Path) -> int:
    """The path's length as text. Raises HostileCheckpoint for one that no key is as long as."""
    length = text_length(path)
    if length > MAX_KEY_LENGTH:
        raise HostileCheckpoint(f"a key of {length:,} characters; at most {MAX_KEY_LENGTH:,}", rule="key-length")
    return length


def find_components(root: Node, work: Work) -> Iterator[tuple[Path, ComponentKind, Node]]:
    """Every component in the file's order; none lies inside another."""
    kinds = _Kinds(work)
    for path, node in walk(root, kinds.is_leaf, work):
        kind = kinds.of(node)
        if kind is not None:
            check_key(path)
            yield path, kind, node


class _Kinds:
    """``component_kind``, found out once for each node, however often it is met."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._kinds: dict[int, ComponentKind | None] = {}

    def of(self, node: Node) -> ComponentKind | None:
        if id(node) not in self._kinds:
            self._kinds[id(node)] = None if is_tensor(node) else component_kind(node, self._work)
        return self._kinds[id(node)]

    def is_leaf(self, node: Node) -> bool:
        return is_tensor(node) or self.of(node) is not None


def list_contents(
    root: Node, storages: tuple[Storage, ...], index_of: Mapping[str, int], work: Work
) -> tuple[tuple[Component, ...], tuple[Tensor, ...]]:
    """Components and tensors, components first, then what belongs to the root.

    ``index_of`` gives each storage key its place in ``storages``.
    """
    components: list[Component] = []
    tensors: list[Tensor] = []
    for path, kind, node in find_components(root, work):
        before = len(tensors)
        pairs = state_dict_pairs(node, work) if kind == "state_dict" else []
        leaves = (((key,), value) for key, value in pairs) if is_module(node, work) else walk(node, is_tensor, work)
        tensors += _tensors(leaves, len(components), index_of, work)
        work.spend(8 + len(path) + text_length(path) // 8)
        used = {tensor.storage for tensor in tensors[before:]}
        component = Component(
            path=path,
            kind=kind,
            keys=len(pairs) if kind == "state_dict" else len(tensors) - before,
            nbytes=sum(storages[i].span.length for i in used),
        )
        if kind == "optimizer":
            component = replace(component, param_groups=param_groups_json(node, work))
        components.append(component)
    tensors += _tensors(walk(root, _Kinds(work).is_leaf, work), None, index_of, work)
    return tuple(components), tuple(tensors)


def _tensors(
    leaves: Iterator[tuple[Path, Node]], component: int | None, index_of: Mapping[str, int], work: Work
) -> Iterator[Tensor]:
    for path, node in leaves:
        tensor = tensor_of(node) or quantized_of(node)
        if tensor is not None:
            text = check_key(path)
            work.spend(16 + len(path) + 4 * len(tensor.shape) + text // 8)  # its row in the manifest
            yield Tensor(
                component, path, tensor.dtype, tensor.shape, tensor.stride, tensor.offset, index_of[tensor.storage.key]
            )

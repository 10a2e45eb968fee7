"""Contents of a parsed checkpoint: its components, and each tensor that views one storage, with its path."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ..errors import HostileCheckpoint
from ..values.manifest import Component, Path, Storage, Tensor
from ..values.work import Work
from .components import find_components
from .meant import named_only
from .modules import MAX_KEY_LENGTH, is_module, state_dict_pairs
from .param_groups import param_groups_json
from .pickle.nodes import Node
from .tensor_kinds import without_bytes
from .torch_tensors import is_tensor, quantized_of, tensor_of
from .tree import walk


def text_length(path: Path) -> int:
    """Count the characters of the names along a path."""
    return sum(len(element) for element in path if type(element) is str)


def check_key(path: Path) -> int:
    """Return the length of a path's text. Raises HostileCheckpoint if it exceeds MAX_KEY_LENGTH."""
    length = text_length(path)
    if length > MAX_KEY_LENGTH:
        raise HostileCheckpoint(f"a key of {length:,} characters; at most {MAX_KEY_LENGTH:,}", rule="key-length")
    return length


def list_contents(
    root: Node, storages: Sequence[Storage], index_of: Mapping[str, int], work: Work
) -> tuple[tuple[Component, ...], tuple[Tensor, ...]]:
    """List components and tensors: tensors of components first, then tensors of the root.

    ``index_of`` gives each storage key its place in ``storages``.
    """
    components: list[Component] = []
    tensors: list[Tensor] = []
    others: list[tuple[Path, Node]] = []
    listed: set[int] = set()
    for path, kind, node in find_components(root, work):
        if kind is None:
            others.append((path, node))
            continue
        check_key(path)
        listed.add(id(node))
        before = len(tensors)
        pairs = state_dict_pairs(node, work) if kind == "state_dict" else []
        leaves = (((key,), value) for key, value in pairs) if is_module(node, work) else walk(node, is_tensor, work)
        tensors += _tensors(leaves, len(components), index_of, work)
        work.spend(8 + len(path) + text_length(path) // 8)
        used = {tensor.storage for tensor in tensors[before:] if tensor.storage is not None}
        component = Component(
            path=path,
            kind=kind,
            keys=len(pairs) if kind == "state_dict" else len(tensors) - before,
            nbytes=sum(storages[i].span.length for i in used),
        )
        if kind == "optimizer":
            component = replace(component, param_groups=param_groups_json(node, work))
        components.append(component)
    for path, node in others:
        if id(node) not in listed:
            below = ((path + rest, each) for rest, each in walk(node, is_tensor, work))
            tensors += _tensors(below, None, index_of, work)
    unmeant = named_only(root, components, tensors, work)
    components = [replace(each, named_only=number in unmeant) for number, each in enumerate(components)]
    return tuple(components), tuple(tensors)


def _tensors(
    leaves: Iterator[tuple[Path, Node]], component: int | None, index_of: Mapping[str, int], work: Work
) -> Iterator[Tensor]:
    for path, node in leaves:
        tensor = tensor_of(node) or quantized_of(node)
        if tensor is not None:
            _spend_for_row(path, tensor.shape, work)
            yield Tensor(
                component, path, tensor.dtype, tensor.shape, tensor.stride, tensor.offset, index_of[tensor.storage.key]
            )
        elif (found := without_bytes(node)) is not None:
            dtype, shape, stride = found
            _spend_for_row(path, stride, work)
            yield Tensor(component, path, dtype, shape, stride, 0, None)


def _spend_for_row(path: Path, shape: tuple[int, ...], work: Work) -> None:
    text = check_key(path)
    work.spend(16 + len(path) + 4 * len(shape) + text // 8)  # its row in the manifest

"""Whole models that were pickled: the state_dict of an ``nn.Module``, whatever its class is and without asking for it.

A module's state is its ``__dict__``: ``_parameters``, ``_buffers`` and ``_modules`` are mappings in the order in which
``state_dict()`` lists them, ``_non_persistent_buffers_set`` holds the names that it leaves out. What a class adds in
code of its own (``get_extra_state``, hooks on ``state_dict``) is not in the file. Neither are the modules' versions, so
there is no ``_metadata``: a strict load then takes all keys as they are.

Reference: ``Module.state_dict`` and ``Module._save_to_state_dict`` in torch/nn/modules/module.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import HostileCheckpoint
from ..values.work import Work
from .pickle.nodes import Call, Node, Set, TensorRef
from .torch_tensors import data_of, is_tensor
from .tree import attribute_count, attributes_of, name_of, pairs_of, size_of

MAX_KEY_LENGTH = 4_096
"""Characters in the names along a path, as many as the patterns that pick keys may have."""

Pairs = list[tuple[Node, Node]]

_MAPPINGS = ("_parameters", "_buffers", "_modules")


@dataclass(frozen=True, slots=True)
class _State:
    parameters: Pairs
    buffers: Pairs
    modules: Pairs
    non_persistent: frozenset[str]


def is_module(node: Node, work: Work) -> bool:
    """Whether a node is a pickled ``nn.Module``, as its state shows."""
    return _state_of(node, work) is not None


def has_keys(module: Node, work: Work) -> bool:
    """Whether a module's state_dict has a tensor in it."""
    return any(is_tensor(value) for _, value in _walk(module, "", work, frozenset()))


def state_dict_pairs(node: Node, work: Work) -> Pairs:
    """The keys and values of a state_dict, or of the one that a module would give: detached, without gradients.

    Raises HostileCheckpoint for modules that share each other endlessly, or under endless names.
    """
    if not is_module(node, work):
        return pairs_of(node) or []
    return list({key: detached(value) for key, value in _walk(node, "", work, frozenset())}.items())


def _walk(module: Node, prefix: str, work: Work, above: frozenset[int]) -> Iterator[tuple[str, Node]]:
    """``above`` are the ids of the modules that this one lies in. The pickle's nesting bounds the recursion."""
    if type(module) is not Call or id(module) in above:
        return
    state = _state_of(module, work)
    if state is None:
        return
    if len(prefix) > MAX_KEY_LENGTH:
        detail = f"a key of {len(prefix):,} characters and more; at most {MAX_KEY_LENGTH:,}"
        raise HostileCheckpoint(detail, rule="key-length")
    for name, value in state.parameters:
        if type(name) is str and value is not None:
            work.spend(4 + len(above) + (len(prefix) + len(name)) // 8)
            yield prefix + name, value
    for name, value in state.buffers:
        if type(name) is str and value is not None and name not in state.non_persistent:
            work.spend(4 + len(above) + (len(prefix) + len(name)) // 8)
            yield prefix + name, value
    above |= {id(module)}
    for name, value in state.modules:
        if type(name) is str:
            yield from _walk(value, f"{prefix}{name}.", work, above)


def _state_of(node: Node, work: Work) -> _State | None:
    if type(node) is not Call or not node.states:
        return None
    work.spend(4 + 2 * attribute_count(node))
    attributes = {key: value for key, value in attributes_of(node) if type(key) is str}
    work.spend(4 * sum(size_of(attributes.get(name)) for name in _MAPPINGS))
    parameters, buffers, modules = (
        pairs_of(attributes.get(name)) for name in _MAPPINGS
    )  # fmt: skip
    if parameters is None or buffers is None or modules is None:
        return None
    non_persistent = _texts(attributes.get("_non_persistent_buffers_set"))
    work.spend(len(non_persistent))
    return _State(parameters, buffers, modules, non_persistent)


def _texts(node: Node) -> frozenset[str]:
    """The texts in a set, also as protocol 2 writes it: ``set([...])``."""
    items: Node = ()
    if isinstance(node, Set):
        items = node.items
    elif name_of(node) == "builtins.set" and isinstance(node.args, tuple) and len(node.args) == 1:
        items = node.args[0]
    return frozenset(item for item in items if type(item) is str) if isinstance(items, (list, tuple)) else frozenset()


def detached(node: Node) -> Node:
    """A tensor as ``detach()`` gives it: what a Parameter is made of, without gradient or attributes."""
    tensor = data_of(node)
    if type(tensor) is not TensorRef or not tensor.rest or tensor.rest[0] is False:
        return tensor
    rest = (False, *tensor.rest[1:])
    return TensorRef(tensor.function, tensor.storage, tensor.offset, tensor.shape, tensor.stride, rest, tensor.dtype)

"""State_dicts of pickled ``nn.Module`` objects of any class, without importing the class.

A module's state is its ``__dict__``, from BUILD or from the ``__reduce__`` of its class (``fx.GraphModule``):
``_parameters``, ``_buffers`` and ``_modules`` are mappings in the order in which ``state_dict()`` lists them,
``_non_persistent_buffers_set`` holds the names that are left out. A compiled module is read as the module inside.
Values from a class's own code (``get_extra_state``, hooks on ``state_dict``) are not in the file. Module versions are
not there either, so there is no ``_metadata``: a strict load then takes all keys as they are. A quantized module packs
its weights into a ``torch.ScriptObject``, or pickles itself as a tuple; such an object stays unchanged in the
state_dict, so that a writer can name the object.

Reference: ``Module.state_dict`` and ``Module._save_to_state_dict`` in torch/nn/modules/module.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import HostileCheckpoint
from ..values.work import Work
from .pickle.nodes import Call, Dict, Node, Set, TensorRef
from .torch_tensors import data_of, is_tensor
from .tree import attribute_count, attributes_of, name_of, pairs_of, size_of

MAX_KEY_LENGTH = 4_096
"""Characters in the names along a path: as many as a pattern for keys may have."""

Pairs = list[tuple[Node, Node]]

_MAPPINGS = ("_parameters", "_buffers", "_modules")

_COMPILED = "torch._dynamo.eval_frame.OptimizedModule"
_SCRIPT_OBJECT = "torch.ScriptObject"


@dataclass(frozen=True, slots=True)
class _State:
    parameters: Pairs
    buffers: Pairs
    modules: Pairs
    non_persistent: frozenset[str]
    packed: Pairs
    """Attributes that hold tensors without being tensors, from quantized modules."""


def is_module(node: Node, work: Work) -> bool:
    """Tell whether a node is a pickled ``nn.Module``, by its state."""
    return _state_of(_compiled_from(node, work), work) is not None


def has_keys(module: Node, work: Work) -> bool:
    """Tell whether a module's state_dict has a tensor in it, packed or not."""
    return any(is_tensor(value) or _is_packed(value) for _, value in _pairs(module, work))


def state_dict_pairs(node: Node, work: Work) -> Pairs:
    """Return the keys and values of a state_dict, or of a module's state_dict: detached, without gradients.

    Raises HostileCheckpoint for modules that share each other endlessly, or under endless names.
    """
    if not is_module(node, work):
        return pairs_of(node) or []
    return list({key: detached(value) for key, value in _pairs(node, work)}.items())


def _pairs(module: Node, work: Work) -> Iterator[tuple[str, Node]]:
    return _walk(_compiled_from(module, work), "", work, frozenset())


def _compiled_from(node: Node, work: Work) -> Node:
    """Return the module passed to ``torch.compile``; any other node unchanged. In a file, one may contain itself."""
    seen: set[int] = set()
    while (inner := _inside_of_compiled(node, work)) is not None and id(node) not in seen:
        seen.add(id(node))
        node = inner
    return node


def _inside_of_compiled(node: Node, work: Work) -> Node:
    if name_of(node) != _COMPILED:
        return None
    work.spend(2 + attribute_count(node))
    if node.states:  # written by torch 2.1
        modules = next((value for key, value in attributes_of(node) if key == "_modules"), None)
        work.spend(size_of(modules))
        return next((value for key, value in pairs_of(modules) or () if key == "_orig_mod"), None)
    return node.args[0] if type(node.args) is tuple and node.args else None


def _is_packed(node: Node) -> bool:
    return name_of(node) == _SCRIPT_OBJECT


def _walk(module: Node, prefix: str, work: Work, above: frozenset[int]) -> Iterator[tuple[str, Node]]:
    """Walk a module. ``above`` are the ids of its outer modules. The pickle's nesting bounds the recursion."""
    if type(module) is not Call or id(module) in above:
        return
    work.spend(4 + len(above) + len(prefix) // 8)
    if len(prefix) > MAX_KEY_LENGTH:
        detail = f"a key of {len(prefix):,} characters and more; at most {MAX_KEY_LENGTH:,}"
        raise HostileCheckpoint(detail, rule="key-length")
    if (inner := _inside_of_compiled(module, work)) is not None and not module.states:
        yield from _walk(inner, prefix + "_orig_mod.", work, above | {id(module)})
        return
    state = _state_of(module, work)
    if state is None:
        yield prefix.removesuffix("."), module
        return
    for name, value in state.parameters:
        if type(name) is str and value is not None:
            work.spend(4 + len(above) + (len(prefix) + len(name)) // 8)
            yield prefix + name, value
    for name, value in state.buffers:
        if type(name) is str and value is not None and name not in state.non_persistent:
            work.spend(4 + len(above) + (len(prefix) + len(name)) // 8)
            yield prefix + name, value
    for name, value in state.packed:
        work.spend(4 + len(above) + (len(prefix) + len(name)) // 8)
        yield prefix + name, value
    above |= {id(module)}
    for name, value in state.modules:
        if type(name) is str:
            yield from _walk(value, f"{prefix}{name}.", work, above)


def _state_of(node: Node, work: Work) -> _State | None:
    if type(node) is not Call or is_tensor(node):
        return None
    work.spend(4 + 2 * attribute_count(node))
    pairs = attributes_of(node) if node.states else _body_of(node)
    if not pairs:
        return None
    work.spend(0 if node.states else 2 * len(pairs))
    attributes = {key: value for key, value in pairs if type(key) is str}
    work.spend(4 * sum(size_of(attributes.get(name)) for name in _MAPPINGS))
    parameters, buffers, modules = (
        pairs_of(attributes.get(name)) for name in _MAPPINGS
    )  # fmt: skip
    if parameters is None or buffers is None or modules is None:
        return None
    non_persistent = _texts(attributes.get("_non_persistent_buffers_set"))
    work.spend(len(non_persistent))
    packed = [(name, value) for name, value in attributes.items() if _is_packed(value)]
    return _State(parameters, buffers, modules, non_persistent, packed)


def _body_of(node: Call) -> Pairs:
    """Return the ``__dict__`` among the arguments of a module's rebuild function."""
    args = node.args if type(node.args) is tuple else ()
    return next((arg.pairs for arg in args[:2] if type(arg) is Dict), [])


def _texts(node: Node) -> frozenset[str]:
    """Return the texts in a set, also from protocol 2: ``set([...])``."""
    items: Node = ()
    if isinstance(node, Set):
        items = node.items
    elif name_of(node) == "builtins.set" and isinstance(node.args, tuple) and len(node.args) == 1:
        items = node.args[0]
    return frozenset(item for item in items if type(item) is str) if isinstance(items, (list, tuple)) else frozenset()


def detached(node: Node) -> Node:
    """Return a tensor as by ``detach()``: the data of a Parameter, without gradient or attributes."""
    tensor = data_of(node)
    if type(tensor) is not TensorRef or not tensor.rest or tensor.rest[0] is False:
        return tensor
    rest = (False, *tensor.rest[1:])
    return TensorRef(tensor.function, tensor.storage, tensor.offset, tensor.shape, tensor.stride, rest, tensor.dtype)

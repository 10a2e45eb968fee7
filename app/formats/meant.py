"""Components that are never the default: something outside of the components may be the model."""

from collections.abc import Sequence

from ..values.manifest import Component, Tensor, is_one_element
from ..values.usual import MODELS, is_callback, is_support
from ..values.work import Work
from .pickle.nodes import Call, Global, Node, StorageRef
from .torch_tensors import is_allowed, is_tensor
from .tree import attributes_of, pairs_of, walk


def named_only(root: Node, components: Sequence[Component], tensors: Sequence[Tensor], work: Work) -> frozenset[int]:
    """Return the numbers of the components that are served only by name.

    These are all components if the root holds a model that could not be read: a value under a usual name, or an object
    with tensors; optimizers if the root holds other tensors; and always the components that a callback keeps.
    """
    every = frozenset(range(len(components)))
    if _holds_an_unread_model(root, components, work):
        return every
    others = any(tensor.component is None and not _is_number(tensor) for tensor in tensors)
    return frozenset(
        number
        for number in every
        if is_callback(components[number].path) or (others and components[number].kind == "optimizer")
    )


def _is_number(tensor: Tensor) -> bool:
    return len(tensor.path) == 1 and tensor.shape is not None and is_one_element(tensor.shape)


def _holds_an_unread_model(root: Node, components: Sequence[Component], work: Work) -> bool:
    read = {component.path[0] if component.path else "" for component in components}
    if "" in read or not read.isdisjoint(MODELS):
        return False
    return any(
        type(key) is str and key not in read and not is_support((key,)) and _may_be_a_model(value, key in MODELS, work)
        for key, value in pairs_of(root) or ()
    )


def _may_be_a_model(value: Node, is_called_so: bool, work: Work) -> bool:
    """Tell whether a value may be a model: an object with tensors in it, or under a usual name (``is_called_so``) any
    object or tensor.
    """
    for _, node in walk(value, _is_object, work):
        if is_called_so and (type(node) is StorageRef or is_tensor(node)):
            return True
        if type(node) is not Call or is_tensor(node) or any(key == "param_groups" for key, _ in attributes_of(node)):
            continue
        if is_called_so or any(is_tensor(each) for _, each in walk(node, is_tensor, work)):
            return True
    return False


def _is_object(node: Node) -> bool:
    """Tell whether a node is a tensor, or an object that only its own class makes."""
    if type(node) is not Call or is_tensor(node):
        return is_tensor(node)
    return pairs_of(node) is None and not (type(node.function) is Global and is_allowed(node.function))

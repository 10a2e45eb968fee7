"""Tensors of devices without storages, as torch writes them: the device is an argument of a call.

Reference: ``Tensor._reduce_ex_internal`` in torch/_tensor.py.
"""

from ..values.work import Work
from .pickle.nesting import parts
from .pickle.nodes import Call, Dict, Global, Node

ON_DEVICE = frozenset(
    {
        "torch._utils._rebuild_device_tensor_from_cpu_tensor",
        "torch._utils._rebuild_device_tensor_from_numpy",
        "torch._utils._rebuild_xla_tensor",
    }
)
"""Functions called with ``(data, dtype, device, requires_grad)``, for devices without storages: xla, maia."""

REVISION = 2
"""Revision of the rules for such tensors, in the ETags of files made of them. Raise it with each change."""


def is_on_device(node: Call) -> bool:
    """Tell whether a call makes a tensor of a device without storages."""
    return type(node.function) is Global and node.function.full_name in ON_DEVICE


def names_devices(skeleton: bytes) -> bool:
    """Tell whether a pickle names one of ON_DEVICE: much cheaper than a search of all its nodes."""
    return any(name.rpartition(".")[2].encode() in skeleton for name in ON_DEVICE)


def put_on(device: str, root: Node, work: Work) -> None:
    """Change the device to ``device`` in all calls of ON_DEVICE in a tree."""
    seen: set[int] = set()
    stack: list[Node] = [root]
    while stack:
        node = stack.pop()
        if id(node) in seen or not isinstance(node, (list, tuple, Dict, Call)):
            continue
        seen.add(id(node))
        inside = parts(node)
        work.spend(2 + len(inside))
        stack += inside
        if type(node) is Call and type(node.args) is tuple and len(node.args) == 4:
            args = node.args
            if is_on_device(node):
                node.args = _with_device(args, device)
            elif type(args[0]) is Global and args[0].full_name in ON_DEVICE and type(args[2]) is tuple:
                node.args = (*args[:2], _with_device(args[2], device), args[3])


def _with_device(args: tuple[Node, ...], device: str) -> tuple[Node, ...]:
    return (*args[:2], device, *args[3:]) if len(args) == 4 and type(args[2]) is str else args

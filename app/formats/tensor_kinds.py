"""Tensors without elements in the file, and class names of tensors that cannot be written."""

from ..values.dtype import DTYPES, DType
from .pickle.nodes import FROM_TYPE, Call, Global, Node
from .tensor_arguments import MAX_BYTES, MAX_DIMS
from .torch_tensors import LAZY, data_of

_META = "torch._utils._rebuild_meta_tensor_no_storage"


def without_bytes(node: Node) -> tuple[DType, tuple[int, ...] | None, tuple[int, ...]] | None:
    """Dtype, shape and stride of a tensor that has no storage: on the meta device, or lazy and without a shape yet."""
    data = data_of(node)
    if type(data) is not Call or type(data.function) is not Global or data.how != "reduce":
        return None
    if data.function.full_name in LAZY:
        return DTYPES["float32"], None, ()
    args = data.args
    if data.function.full_name != _META or type(args) is not tuple or len(args) != 4 or type(args[0]) is not Global:
        return None
    sizes = [numbers for numbers in args[1:3] if type(numbers) is tuple and len(numbers) <= MAX_DIMS]
    if args[0].name not in DTYPES or len(sizes) != 2 or len(sizes[0]) != len(sizes[1]):
        return None
    if not all(type(number) is int and 0 <= number <= MAX_BYTES for numbers in sizes for number in numbers):
        return None
    return DTYPES[args[0].name], sizes[0], sizes[1]


def kind_of(node: Node) -> str:
    """Return an object's class, or the function that makes the object, by its name in the pickle."""
    if type(node) is not Call:
        return type(node).__name__
    if type(node.function) is Global and node.function.full_name in FROM_TYPE and type(node.args) is tuple:
        return next((arg.full_name for arg in node.args[1:2] if type(arg) is Global), "torch.Tensor")
    return node.function.full_name if type(node.function) is Global else "call"

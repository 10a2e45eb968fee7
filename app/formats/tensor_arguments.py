"""Checks of a tensor's arguments: torch accepts them, and the tensor's elements are in the file."""

from ..errors import HostileCheckpoint
from ..values.dtype import DType
from .pickle.nodes import Call, Global, Node, StorageRef

MAX_DIMS = 64
MAX_BYTES = 2**63 - 1
"""Sizes, strides and offsets are 64-bit in torch; so is a tensor's size in bytes."""


def check_extent(
    storage: StorageRef,
    dtype: DType,
    offset: Node,
    shape: tuple[Node, ...],
    stride: tuple[Node, ...],
    per_byte: int = 1,
) -> None:
    """Raise HostileCheckpoint unless every element of the tensor lies within its storage.

    If ``per_byte`` elements share one byte, each run along the last dimension starts with a new byte.
    """
    if len(shape) != len(stride):
        raise broken("a tensor with different numbers of sizes and strides", "tensor-dimensions")
    if len(shape) > MAX_DIMS:
        raise broken(f"a tensor with {len(shape)} dimensions; at most {MAX_DIMS} are allowed", "tensor-dimensions")
    if type(offset) is not int or not 0 <= offset <= MAX_BYTES:
        raise broken("a tensor with an impossible storage_offset", "tensor-extent")
    count, end = 1, offset + 1
    for size, step in zip(shape, stride, strict=True):
        if type(size) is not int or type(step) is not int or not 0 <= size | step <= MAX_BYTES:
            raise broken("a tensor with an impossible size or stride", "tensor-extent")
        count *= size
        end += (size - 1) * step
    if count * dtype.itemsize > MAX_BYTES:
        raise broken("a tensor with more elements than can be counted", "tensor-extent")
    if per_byte > 1 and shape:
        end = max(end, count // (shape[-1] or 1) * -(-shape[-1] // per_byte) * per_byte)
    if count and -(-end // per_byte) * dtype.itemsize > storage.nbytes:
        raise broken(f"a tensor that extends beyond the end of its storage {storage.key!r}", "tensor-extent")


def check_requires_grad(value: Node, dtype: DType | None = None, *, or_none: bool = False) -> None:
    """Raise HostileCheckpoint for a value that torch refuses: it takes a bool, for most dtypes only False."""
    if type(value) is not bool and not (value is None and or_none):
        raise broken("a tensor whose requires_grad is neither True nor False", "requires-grad")
    if value and dtype is not None and not dtype.name.startswith(("float", "bfloat", "complex")):
        raise broken(
            f"a tensor of {dtype.name} with requires_grad, which only float and complex tensors can have",
            "requires-grad",
        )


def check_metadata(value: Node) -> None:
    """Raise HostileCheckpoint for conj and neg bits that torch refuses: it takes a dict, or nothing."""
    if type(value) in {bool, int, float, str, bytes, bytearray, tuple, list} and value:
        raise broken("a tensor whose metadata is not a dict", "tensor-arguments")


def integers_of(node: Node) -> tuple[Node, ...]:
    """Return sizes or strides as a tuple, also of a list or a ``torch.Size``."""
    if type(node) is tuple:
        return node
    if type(node) is Call and type(node.function) is Global and node.function.full_name == "torch.Size":
        node = node.args[0] if type(node.args) is tuple and len(node.args) == 1 else None
    if type(node) not in {list, tuple}:
        raise broken("a tensor whose sizes or strides are not a tuple", "tensor-arguments")
    return tuple(node)


def broken(what: str, rule: str) -> HostileCheckpoint:
    return HostileCheckpoint(f"the checkpoint is damaged or forged: it describes {what}", rule=rule)

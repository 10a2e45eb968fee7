"""Nodes of contiguous tensors, as torch.save describes them, for formats that have no pickle of their own."""

from ..values.dtype import DType
from .pickle.nodes import Call, Global, Node, StorageRef, TensorRef
from .tensor_arguments import check_extent

_UNTYPED = Global("torch.storage", "UntypedStorage")
_REBUILD = Global("torch._utils", "_rebuild_tensor_v2")
_REBUILD_WITH_DTYPE = Global("torch._utils", "_rebuild_tensor_v3")
_ORDERED_DICT = Global("collections", "OrderedDict")


def contiguous_storage(dtype: DType, nbytes: int, key: str) -> StorageRef:
    """Make the storage of a tensor of ``dtype``, on the CPU."""
    if dtype.storage_class is None:
        return StorageRef(_UNTYPED, None, key, "cpu", nbytes)
    return StorageRef(Global("torch", dtype.storage_class), dtype, key, "cpu", nbytes // dtype.itemsize)


def contiguous_tensor(dtype: DType, shape: tuple[int, ...], storage: StorageRef) -> TensorRef:
    """Make a contiguous tensor as torch saves it: no gradient, no hooks. Raises HostileCheckpoint if the storage is too
    short.
    """
    strides = [1] * len(shape)
    for i in range(len(strides) - 1, 0, -1):
        strides[i - 1] = strides[i] * max(shape[i], 1)
    check_extent(storage, dtype, 0, shape, tuple(strides))
    rest: tuple[Node, ...] = (False, Call(_ORDERED_DICT, ()))
    if storage.dtype is None:
        return TensorRef(
            _REBUILD_WITH_DTYPE, storage, 0, shape, tuple(strides), (*rest, Global("torch", dtype.name)), dtype
        )
    return TensorRef(_REBUILD, storage, 0, shape, tuple(strides), rest, dtype)

"""Storages and tensors from a pickle's persistent ids and calls, as in torch, checked before use.

References: torch/serialization.py (persistent ids), torch/_utils.py (``_rebuild_*``), torch/_weights_only_unpickler.py
(the names that ``weights_only=True`` allows).
"""

from collections.abc import Mapping

from ..errors import HostileCheckpoint, NotACheckpoint, ShardedTensor
from ..values.dtype import DTYPE_OF_STORAGE_CLASS, DTYPES, DType
from ..values.work import Work
from .devices import ON_DEVICE, is_on_device
from .pickle.machine import Builder
from .pickle.nodes import FROM_TYPE, Call, Global, Node, StorageRef, StorageView, TensorRef
from .tensor_arguments import (
    MAX_BYTES,
    MAX_DIMS,
    broken,
    check_extent,
    check_metadata,
    check_requires_grad,
    integers_of,
)
from .torch_names import is_allowed, is_sharded

__all__ = ["TorchHooks", "data_of", "is_allowed", "is_tensor", "quantized_of", "tensor_of"]

STORAGE_MODULES = frozenset({"torch", "torch.cuda", "torch.storage", "torch.xpu", "torch.hpu"})

_DENSE = {
    "torch._utils._rebuild_tensor": (4,),
    "torch._utils._rebuild_tensor_v2": (6, 7),
    "torch._utils._rebuild_tensor_v3": (7, 8),
}
"""Functions that view a storage as a dense tensor, and their numbers of arguments."""

PARAMETERS = frozenset(
    {
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch.nn.parameter.Parameter",  # called itself before torch 0.4
    }
)
_OTHER_TENSORS = frozenset(
    f"torch._utils.{name}"
    for name in (
        "_rebuild_qtensor",
        "_rebuild_sparse_tensor",
        "_rebuild_sparse_csr_tensor",
        "_rebuild_nested_tensor",
        "_rebuild_meta_tensor_no_storage",
        "_rebuild_wrapper_subclass",
    )
)
LAZY = frozenset({"torch.nn.parameter.UninitializedParameter", "torch.nn.parameter.UninitializedBuffer"})
FEW_DIMS = 6
"""Number of dimensions above which a tensor costs extra work."""

_QUANTIZED = "torch._utils._rebuild_qtensor"
_PER_BYTE = {"quint4x2": 2, "quint2x4": 4}
"""Elements in a byte, if more than one."""
_TENSOR_CALLS = _DENSE.keys() | PARAMETERS | FROM_TYPE | ON_DEVICE | _OTHER_TENSORS | LAZY


MAX_WRAPPED = 10
"""Levels of Parameters of Parameters; torch has one level."""


def data_of(node: Node) -> Node:
    """Unwrap a Parameter or a Tensor subclass, up to MAX_WRAPPED times; return any other node unchanged."""
    for _ in range(MAX_WRAPPED):
        if type(node) is not Call:
            break
        name = node.function.full_name if type(node.function) is Global else ""
        args = node.args
        if name in PARAMETERS and type(args) is tuple and args:
            node = args[0]
        elif name in FROM_TYPE and type(args) is tuple and len(args) == 4:
            if type(args[2]) is TensorRef:
                return args[2]
            if not (type(args[0]) is Global and args[0].full_name in PARAMETERS and type(args[2]) is tuple and args[2]):
                return node
            node = args[2][0]
        else:
            return node
    return node


def tensor_of(node: Node) -> TensorRef | None:
    """Return the dense tensor that a node is, or that it wraps as a Parameter, a Tensor subclass, or a tensor of a
    device without storages. None for other nodes.
    """
    data = data_of(node)
    if type(data) is Call and type(data.args) is tuple and len(data.args) == 4 and is_on_device(data):
        inner, dtype = data_of(data.args[0]), data.args[1]
        data = inner if type(inner) is TensorRef and type(dtype) is Global and dtype.name == inner.dtype.name else None
    return data if type(data) is TensorRef else None


def is_tensor(node: Node) -> bool:
    """Tell whether a node unpickles to a tensor: dense, Parameter, subclass, sparse, quantized, nested, meta."""
    if type(node) is TensorRef:
        return True
    return type(node) is Call and type(node.function) is Global and node.function.full_name in _TENSOR_CALLS


class TorchHooks:
    """Builds StorageRefs and TensorRefs while a checkpoint's pickle is parsed, and notes unsafe names.

    ``storages`` maps a key to the first StorageRef of that key, in order of appearance; ``unsafe_globals`` are the
    names outside of torch's weights_only list, in order of appearance.
    """

    def __init__(self, work: Work | None = None) -> None:
        self._work = work or Work()
        self.storages: dict[str, StorageRef] = {}
        self.unsafe_globals: list[str] = []
        self._dtypes: dict[Global, DType | None] = {}
        self._known: dict[tuple[str, Global], tuple[Node, Node, StorageRef]] = {}
        self.builders: Mapping[str, Builder] = {
            **dict.fromkeys(_DENSE, self._tensor),
            **dict.fromkeys(FROM_TYPE, self._from_type),
            **dict.fromkeys(PARAMETERS, build_parameter),
            _QUANTIZED: self._quantized,
        }

    def _tensor(self, function: Global, args: Node) -> Node:
        """Run ``build_tensor``, and spend work on many dimensions: two opcodes repeat a call with known arguments."""
        built = build_tensor(function, args)
        if type(built) is TensorRef and len(built.shape) > FEW_DIMS:
            self._work.spend(4 * len(built.shape))
        return built

    def _from_type(self, function: Global, args: Node) -> Node:
        self._work.spend(MAX_DIMS)
        return build_from_type(function, args)

    def _quantized(self, function: Global, args: Node) -> Node:
        self._work.spend(MAX_DIMS)
        return build_quantized(function, args)

    def named(self, name: Global, near: str | None) -> None:
        if is_sharded(name):
            place = "" if near is None else f" near {near[:200]!r}"
            raise ShardedTensor(
                f"the checkpoint contains a {name.full_name}{place}: one rank's shard of a distributed tensor. Gather "
                "the whole state_dict before saving (torch.distributed.checkpoint.state_dict.get_model_state_dict with "
                "StateDictOptions(full_state_dict=True, cpu_offload=True)), or save every rank's shards with "
                "torch.distributed.checkpoint",
                rule="sharded-tensor",
            )
        if not is_allowed(name):
            self.unsafe_globals.append(name.full_name)

    def persistent(self, pid: Node) -> StorageRef:
        """Return the storage that ``("storage", storage_class, key, location, numel)`` names."""
        if type(pid) is str:
            detail = (
                "pickle_protocol=0 cannot hold tensors (torch.load fails on it too): save with the default protocol"
            )
            raise NotACheckpoint(detail, rule="persistent-id")
        if type(pid) is not tuple or len(pid) != 5 or _text(pid[0]) != "storage":
            raise HostileCheckpoint("a persistent id that is not a storage", rule="persistent-id")
        _, storage_class, key, location, numel = pid
        if type(key) is not str or type(storage_class) is not Global:
            raise HostileCheckpoint("a storage without a key or a class", rule="persistent-id")
        known = self._known.get((key, storage_class))
        if known is not None and known[0] == numel and known[1] == location:
            return known[2]
        storage = self._storage(storage_class, key, _text(location), numel)
        self._known[key, storage_class] = numel, location, storage
        return storage

    def _storage(self, storage_class: Global, key: str, location: Node, numel: Node) -> StorageRef:
        if storage_class not in self._dtypes:
            self._dtypes[storage_class] = _dtype_of(storage_class)
        dtype = self._dtypes[storage_class]
        if type(location) is not str:
            raise HostileCheckpoint(f"storage {key!r} has no location", rule="persistent-id")
        if type(numel) is not int or not 0 <= numel * (dtype.itemsize if dtype else 1) <= MAX_BYTES:
            raise HostileCheckpoint(f"storage {key!r} has an impossible size", rule="storage-size")
        storage = StorageRef(storage_class, dtype, key, location, numel)
        first = self.storages.setdefault(key, storage)
        if first is storage:
            return storage
        if (first.nbytes, first.location) != (storage.nbytes, location):
            raise HostileCheckpoint(f"storage {key!r} has two sizes or two locations", rule="storage-size")
        return first if storage.nbytes else storage  # as in torch: built once, by the first class, unless it is empty


def build_tensor(function: Global, args: Node) -> Node:
    """Make a TensorRef of a call of ``_rebuild_tensor``, ``_v2`` or ``_v3``, and check its extent.

    A tensor that we cannot check stays a Call: one of a dtype that Stateroom does not know, or of a storage that the
    pickle itself computes.
    """
    if type(args) is not tuple or len(args) not in _DENSE[function.full_name]:
        raise broken("a tensor with the wrong number of arguments", "tensor-arguments")
    storage, offset, shape, stride, *rest = args
    if type(storage) is Call:
        return Call(function, args)
    if type(storage) is StorageView:
        return _build_on_view(function, storage, args)
    if type(storage) is not StorageRef:
        raise broken("a tensor without a storage", "tensor-arguments")
    dtype = storage.dtype or DTYPES["uint8"]
    if len(rest) >= 3 and function.name == "_rebuild_tensor_v3":
        named = rest[2]
        if type(named) is not Global or named.module != "torch":
            raise broken("a tensor without a dtype", "tensor-arguments")
        if named.name not in DTYPES:
            return Call(function, args)
        dtype = DTYPES[named.name]
    if type(shape) is not tuple or type(stride) is not tuple:
        shape, stride = integers_of(shape), integers_of(stride)
    check_extent(storage, dtype, offset, shape, stride)
    if rest and rest[0] is not False:
        check_requires_grad(rest[0], dtype, or_none=function.name == "_rebuild_tensor_v3")
    if len(rest) > (3 if function.name == "_rebuild_tensor_v3" else 2):
        check_metadata(rest[-1])
    return TensorRef(function, storage, offset, shape, stride, tuple(rest), dtype)


def _build_on_view(function: Global, view: StorageView, args: tuple[Node, ...]) -> Node:
    """Move a tensor from a part of a storage to the whole storage."""
    if function.name == "_rebuild_tensor_v3":
        raise broken("a view of a storage with another dtype", "storage-view")
    _, offset, shape, stride, *rest = args
    part = StorageRef(view.storage.storage_class, view.storage.dtype, view.storage.key, "", view.numel)
    tensor = build_tensor(function, (part, offset, shape, stride, *rest))
    tensor.storage = view.storage
    tensor.offset += view.offset
    return tensor


def build_from_type(function: Global, args: Node) -> Call:
    """Record a call of one of FROM_TYPE, with the TensorRef of a wrapped dense tensor. The wrapped tensor is checked
    like an unwrapped one.
    """
    if type(args) is not tuple or len(args) != 4 or type(args[2]) is not tuple:
        raise broken("a Tensor subclass with the wrong arguments", "tensor-arguments")
    rebuild, kind, arguments, state = args
    name = rebuild.full_name if type(rebuild) is Global else ""
    if name in _DENSE:
        tensor = build_tensor(rebuild, arguments)
        if type(tensor) is TensorRef:
            return Call(function, (rebuild, kind, tensor, state))
    elif name == _QUANTIZED:
        build_quantized(rebuild, arguments)
    elif name in PARAMETERS:
        build_parameter(rebuild, arguments)
    return Call(function, args)


def build_quantized(function: Global, args: Node) -> Call:
    """Check the extent of ``_rebuild_qtensor(storage, offset, shape, stride, ...)``; keep the Call."""
    if type(args) is not tuple or len(args) != 7 or type(args[0]) is not StorageRef:
        raise broken("a quantized tensor with the wrong arguments", "tensor-arguments")
    storage, offset, shape, stride, _, requires_grad, _ = args
    dtype = storage.dtype or DTYPES["uint8"]
    check_extent(storage, dtype, offset, integers_of(shape), integers_of(stride), _PER_BYTE.get(dtype.name, 1))
    check_requires_grad(requires_grad, dtype)
    return Call(function, args)


def build_parameter(function: Global, args: Node) -> Call:
    """Check ``_rebuild_parameter(data, requires_grad, hooks)``; keep the Call."""
    if type(args) is tuple and len(args) > 1:
        check_requires_grad(args[1])
    return Call(function, args)


def quantized_of(node: Node) -> TensorRef | None:
    """Return a quantized tensor's storage, shape and dtype as a dense tensor; None for any other node."""
    data = data_of(node)
    if type(data) is not Call or type(data.function) is not Global or data.function.full_name != _QUANTIZED:
        return None
    if data.how != "reduce":  # not checked by build_quantized, and no tensor in torch
        return None
    storage, offset, shape, stride, *_ = data.args
    dtype = storage.dtype or DTYPES["uint8"]
    return TensorRef(data.function, storage, offset, integers_of(shape), integers_of(stride), (), dtype)


def _dtype_of(storage_class: Global) -> DType | None:
    """Return the element type of a storage class; None for an untyped one."""
    if storage_class.module in STORAGE_MODULES:
        if storage_class.name == "UntypedStorage":
            return None
        if storage_class.name in DTYPE_OF_STORAGE_CLASS:
            return DTYPE_OF_STORAGE_CLASS[storage_class.name]
    raise broken(f"a storage of the unknown class {storage_class.full_name[:200]!r}", "storage-class")


def _text(node: Node) -> Node:
    """Decode Python 2's str that was kept as bytes."""
    return node.decode("ascii", "replace") if type(node) is bytes else node

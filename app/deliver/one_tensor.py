"""One tensor of a checkpoint, or a part of it, as contiguous elements. Pure."""

from collections.abc import Iterator

from ..errors import SelectionError
from ..formats.components import node_of, nodes_of
from ..formats.modules import state_dict_pairs
from ..formats.narrowing import narrowed
from ..formats.pickle.nodes import Global, Node, StorageRef, TensorRef
from ..formats.safetensors.contents import is_storable, source_of, why_not_contiguous
from ..formats.safetensors.write import Content
from ..formats.tensor_kinds import kind_of
from ..formats.torch_tensors import is_tensor, tensor_of
from ..formats.tree import walk
from ..formats.weights_only import is_leaf
from ..select.components import component_with_key, unknown_tensor
from ..select.one_tensor import TensorQuery
from ..values.dtype import DTYPES
from ..values.manifest import Manifest, dotted
from ..values.work import Work
from .cost import check_cost

_NOT_IN_A_MANIFEST = (b"conj", b"neg", b"_rebuild_qtensor")
"""Words in torch's pickles of views with unresolved signs, and of quantized tensors, which a manifest does not tell."""

_REBUILD = Global("torch._utils", "_rebuild_tensor_v2")


def one_tensor(root: Node, manifest: Manifest, query: TensorQuery, work: Work) -> Content:
    """Return the wanted part of a tensor. Raises SelectionError."""
    node = _find(root, manifest, query, work)
    ref, why = tensor_of(node), why_not_contiguous(node, manifest.byteorder)
    if ref is None or why is not None:
        raise _refusal(query, f"is {why}: it can be downloaded with state_dict, in format pt")
    return _content(ref, manifest, query, work)


def listed_tensor(manifest: Manifest, skeleton: bytes, query: TensorQuery, work: Work) -> Content | None:
    """Do as ``one_tensor`` by the manifest alone, without parsing the skeleton: for one tensor of thousands, that takes
    longer than all the rest. Return None where only the skeleton tells what the tensor is, or why there is none.
    """
    if manifest.byteorder == "big" or any(word in skeleton for word in _NOT_IN_A_MANIFEST):
        return None
    number = component_with_key(manifest, query.component, query.key)
    found = [each for each in manifest.tensors if each.component == number and each.is_at(query.key)]
    work.spend(len(manifest.tensors) // 8)
    if len(found) != 1 or found[0].storage is None or found[0].shape is None:
        return None
    tensor, storage = found[0], manifest.storage(found[0].storage)
    held = StorageRef(Global("torch", "UntypedStorage"), storage.dtype, storage.key, storage.location, 0)
    ref = TensorRef(_REBUILD, held, tensor.offset, tensor.shape or (), tensor.stride, (), tensor.dtype)
    return _content(ref, manifest, query, work)


def _content(ref: TensorRef, manifest: Manifest, query: TensorQuery, work: Work) -> Content:
    """Return the wanted part of a tensor that can be made contiguous."""
    dtype = ref.dtype if query.dtype is None or not ref.dtype.is_floating else DTYPES[query.dtype]
    if query.format == "safetensors" and not is_storable(dtype, ref.shape):
        raise _refusal(query, f"is of dtype {dtype.name}, which the format does not support: use format raw")
    part = narrowed(ref, query.region(ref.shape))
    storage = next(each for each in manifest.viewed if each.key == ref.storage.key)
    content = Content(query.key, dtype, part.shape, source_of(part, dtype, storage.span, manifest.byteorder))
    check_cost([content], manifest, work)
    return content


def _find(root: Node, manifest: Manifest, query: TensorQuery, work: Work) -> Node:
    """Find the tensor's node. Raises SelectionError."""
    number = component_with_key(manifest, query.component, query.key)
    values = list(_values(root, manifest, number, work))
    found = [node for key, node in values if key == query.key]
    if not found:
        raise unknown_tensor(query.key, [key for key, node in values if is_tensor(node)])
    if len(found) > 1:
        raise SelectionError(
            f"{query.key[:200]!r} is the name of {len(found)} values: their paths differ only in the types of their "
            "elements. Download the component with state_dict",
            code="tensor-ambiguous",
        )
    if not is_tensor(found[0]):
        raise _refusal(query, f"is not a tensor: it is {kind_of(found[0])}")
    return found[0]


def _values(root: Node, manifest: Manifest, number: int | None, work: Work) -> Iterator[tuple[str, Node]]:
    """Iterate over the keys, or dotted paths, and values of a component, or of the root's rest."""
    components = manifest.components
    if number is None:
        skip = set(map(id, nodes_of(root, components, work).values()))
        leaves = walk(root, lambda node: is_leaf(node) or id(node) in skip, work)
        return ((dotted(path), node) for path, node in leaves if id(node) not in skip)
    node = node_of(root, components, number, work)
    if components[number].kind == "optimizer":
        return ((dotted(path), value) for path, value in walk(node, is_leaf, work))
    return iter(state_dict_pairs(node, work))


def _refusal(query: TensorQuery, what: str) -> SelectionError:
    return SelectionError(f"{query.key[:200]!r} {what}", code="not-one-tensor")

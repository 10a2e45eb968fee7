"""Views: where the elements of a tensor lie, and whether there are numbers to be had of them. Pure."""

from collections.abc import Iterable, Iterator

from ..deliver.cost import check_cost
from ..errors import SelectionError
from ..formats.safetensors.write import Content
from ..values.checkpoint import Checkpoint
from ..values.conversion import Conversion, merged
from ..values.digest import BLOCK_SIZE, Digest
from ..values.dtype import DTYPES, DType
from ..values.manifest import Manifest, Storage, Tensor
from ..values.span import Span
from ..values.work import Work

PER_MESSAGE = 256 * 1024
"""Elements in a message to the child process, which divides the elements of each strip: 4 MiB of complex128."""

EASY = 1024 * 1024
"""Bytes of elements that can be gathered from anywhere in a block, however they lie there."""

_PACKED = frozenset({"quint4x2", "quint2x4", "float4_e2m1fn_x2"})
_QUANTIZED = frozenset({"quint8", "qint8", "qint32"})


def storage_of(manifest: Manifest, tensor: Tensor) -> Storage | None:
    return None if tensor.storage is None else manifest.storage(tensor.storage)


def elements_of(manifest: Manifest, tensor: Tensor) -> Conversion | None:
    """Return the tensor's elements in C order, little-endian; None if it has none in the file. A tensor of several
    elements a byte is the bytes of its whole storage.

    The sign bits of a negative or conjugate view, which torch has not applied when it saves one, are not applied.
    """
    storage = storage_of(manifest, tensor)
    if storage is None or tensor.shape is None or 0 in tensor.shape:
        return None
    if tensor.dtype.name in _PACKED:
        return _conversion(storage.span, DTYPES["uint8"], ((storage.span.length, 1),), manifest)
    itemsize = tensor.dtype.itemsize
    first = storage.span.start + tensor.offset * itemsize
    reach = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride, strict=True))
    span = Span(first, first + (reach + 1) * itemsize)
    return _conversion(span, tensor.dtype, merged(tensor.shape, tensor.stride), manifest)


def _conversion(span: Span, dtype: DType, dims: tuple[tuple[int, int], ...], manifest: Manifest) -> Conversion:
    return Conversion(span, dtype, dtype, dims, manifest.byteorder)


def digest_of_whole(manifest: Manifest, tensor: Tensor) -> Digest | None:
    """Return the digest of a tensor's elements, if they are the bytes of a blob as they are: as in most checkpoints."""
    storage = storage_of(manifest, tensor)
    if storage is None or storage.digest is None or tensor.shape is None or tensor.offset:
        return None
    if tensor.nbytes != storage.span.length or tensor.dtype.name in _PACKED:
        return None
    if manifest.byteorder == "big" and tensor.dtype.itemsize > 1:
        return None
    return storage.digest if _is_contiguous(tensor.shape, tensor.stride) else None


def _is_contiguous(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size != 1:
            if step != expected:
                return False
            expected *= size
    return True


def why_unreadable(checkpoint: Checkpoint, manifest: Manifest, tensor: Tensor, elements: Conversion) -> str | None:
    """Say why a tensor's elements cannot be read; None if they can."""
    if checkpoint.thinned_at is not None and _has_blobs(manifest, tensor):
        component = None if tensor.component is None else manifest.components[tensor.component]
        if component is not None and component.kind == "optimizer":
            return "the optimizers' bytes were removed, by the rule thin_after"
    if not elements.is_contiguous and (elements.size > EASY or elements.source.length > BLOCK_SIZE):
        try:
            content = Content(tensor.key, elements.to, tensor.shape or (), elements)
            check_cost((content,), manifest, Work.without_end())
        except SelectionError as error:
            if error.code == "too-expanded":
                return "a view that repeats its elements too often to be read"
            return "a view of elements that lie too far apart to be read"
    return None


def _has_blobs(manifest: Manifest, tensor: Tensor) -> bool:
    """Tell whether bytes of a tensor are outside of the frame."""
    places = () if tensor.storage is None else manifest.stored_in(tensor.storage)
    return any(manifest.storages[place].digest is not None for place in places)


def why_no_numbers(manifest: Manifest, tensor: Tensor) -> str | None:
    """Say why the elements of a tensor are not numbers that can be computed with; None if they are."""
    storage = storage_of(manifest, tensor)
    if tensor.shape is None:
        return "a lazy parameter that has seen no batch yet"
    if storage is None:
        return "on the meta device, without elements"
    if tensor.dtype.name in _PACKED:
        return f"of dtype {tensor.dtype.name}, which has several numbers in a byte"
    if tensor.dtype.name in _QUANTIZED:
        return "quantized: its scale is not in its storage"
    held = 1 if storage.dtype is None else storage.dtype.word
    if manifest.byteorder == "big" and tensor.dtype.word != held:
        return f"of dtype {tensor.dtype.name}, which torch.load does not swap in a big-endian checkpoint"
    return None


def messages_of(strips: Iterable[memoryview], itemsize: int) -> Iterator[memoryview]:
    """Cut strips of elements into messages of PER_MESSAGE elements. Only the last one is shorter."""
    size = PER_MESSAGE * itemsize
    for strip in strips:
        for start in range(0, len(strip), size):
            yield strip[start : start + size]

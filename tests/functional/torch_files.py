"""Files that torch writes, device tags included, and readers of their contents."""

import io
import struct
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch

Tag = str | Callable[[Any], str]

Save = Callable[..., bytes]
"""``saved``, in one of FORMATS."""

FORMATS: dict[str, dict[str, Any]] = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}
"""What tells torch.save to write its format of today, or that from before 1.6."""


def saved(obj: Any, device: Tag | None = None, **options: Any) -> bytes:
    """What ``torch.save`` writes. With ``device`` its storages claim to lie there: the tag that torch would have
    written on such a host, or one for each storage.
    """
    file = io.BytesIO()
    if device is None:
        torch.save(obj, file, **options)
    else:
        tag = device if callable(device) else lambda _: device
        with mock.patch.object(torch.serialization, "location_tag", tag):
            torch.save(obj, file, **options)
    return file.getvalue()


def loaded(data: bytes, *, weights_only: bool = True, map_location: Any = None) -> Any:
    """What a ``torch.load`` of it gives: a bare one, unless told otherwise."""
    return torch.load(io.BytesIO(data), weights_only=weights_only, map_location=map_location)


def locations(data: bytes, *, weights_only: bool = True) -> list[str]:
    """The locations in the persistent ids of a file, each once, in order."""
    found: list[str] = []

    def note(storage: Any, location: str) -> Any:
        found.append(location)
        return storage

    loaded(data, weights_only=weights_only, map_location=note)
    return list(dict.fromkeys(found))


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal in type, structure and every bit, tensors and arrays included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return _described(one) == _described(other) and (
            one.is_meta
            or all(np.array_equal(_bits(a), _bits(b)) for a, b in zip(_parts(one), _parts(other), strict=True))
        )
    if isinstance(one, float | complex):
        return struct.pack("dd", one.real, one.imag) == struct.pack("dd", other.real, other.imag)
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return (
            len(one) == len(other)
            and all(map(same, one.items(), other.items()))  # a key may be a tensor, which is equal to nothing
            and same(getattr(one, "__dict__", None), getattr(other, "__dict__", None))
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "__dict__"):
        return same(vars(one), vars(other))
    return bool(one == other) or one is other


def _described(tensor: torch.Tensor) -> tuple[Any, ...]:
    """All of a tensor but its numbers."""
    described: tuple[Any, ...] = (tensor.dtype, tensor.layout, tensor.device, tensor.requires_grad, tensor.is_nested)
    if not tensor.is_nested:
        described += (tensor.shape, tensor.is_conj(), tensor.is_neg())
    if tensor.layout is torch.strided and not tensor.is_nested:
        described += (tensor.stride(),)
    if tensor.is_quantized:
        described += (str(tensor.qscheme()),)
    return described


def _parts(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The dense tensors in which its numbers are."""
    tensor = tensor.detach()
    if tensor.layout is torch.sparse_coo:
        return tensor._indices(), tensor._values()
    if tensor.layout in {torch.sparse_csr, torch.sparse_bsr}:
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    if tensor.layout in {torch.sparse_csc, torch.sparse_bsc}:
        return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
    if tensor.is_quantized:
        if tensor.qscheme() is torch.per_tensor_affine:
            return tensor.int_repr(), torch.tensor([tensor.q_scale(), tensor.q_zero_point()])
        return tensor.int_repr(), tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
    return (tensor.resolve_conj().resolve_neg(),)


def _bits(tensor: torch.Tensor) -> Any:
    dense = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
    return dense.reshape(-1).view(torch.uint8).numpy() if dense.numel() else np.empty(0)

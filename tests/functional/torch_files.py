"""Files that torch writes, device tags included, and what a file says when it is read back."""

import io
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
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and one.stride() == other.stride()
            and one.requires_grad == other.requires_grad
            and np.array_equal(_bits(one), _bits(other))
        )
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return (
            list(one) == list(other)
            and all(same(one[key], other[key]) for key in one)
            and same(getattr(one, "__dict__", None), getattr(other, "__dict__", None))
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "__dict__"):
        return same(vars(one), vars(other))
    return bool(one == other) or one is other


def _bits(tensor: torch.Tensor) -> Any:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()

"""Tensors as the server describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._errors import understood


@dataclass(frozen=True)
class TensorInfo:
    """The description of a tensor, without its data. ``stride`` counts elements; ``bytes`` is the size of its elements.
    ``digest`` is that of its storage, None for one too small to be stored by itself; ``shared_with`` lists other keys
    that use that storage. ``component`` is None for a tensor outside every component, ``shape`` for a lazy parameter
    that has seen no batch yet.
    """

    component: str | None
    key: str
    dtype: str
    shape: tuple[int, ...] | None
    stride: tuple[int, ...]
    device: str
    bytes: int
    digest: str | None
    shared_with: tuple[str, ...] = ()


@understood("a tensor")
def tensor_of(data: Mapping[str, Any]) -> TensorInfo:
    """Parse the server's JSON."""
    return TensorInfo(
        component=data["component"],
        key=data["key"],
        dtype=data["dtype"],
        shape=None if data["shape"] is None else tuple(data["shape"]),
        stride=tuple(data["stride"]),
        device=data["device"],
        bytes=data["bytes"],
        digest=data["digest"],
        shared_with=tuple(data["shared_with"]),
    )

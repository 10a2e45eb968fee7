"""Fingerprints of loaded tensors: the digests of their storages tell which tensors of another checkpoint differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._torch import is_dense, require_torch
from .deferred import DeferredLoad

WHOLE = ""
"""Key of the fingerprint of a state that is loaded as a whole."""

Fingerprints = Mapping[str, object]


@dataclass(frozen=True)
class Change:
    """A checked state that brings a target to another checkpoint; None if the target has it already.

    ``keys`` are the keys whose tensors differ, ``bytes`` is the size of those that were fetched, and ``fingerprints``
    are those of the target with this state.
    """

    state: Any
    keys: tuple[str, ...]
    bytes: int
    fingerprints: Fingerprints


def fingerprints_of(
    state: Mapping[str, Any], keys_of: Mapping[int, Sequence[str]], deferred: DeferredLoad
) -> dict[str, object]:
    """Return the fingerprints of the tensors in the storages ``keys_of``, without those whose digest is unknown, and of
    tensors without elements.
    """
    is_tensor = require_torch("loading into a model").is_tensor
    found: dict[str, object] = {}
    for number, keys in keys_of.items():
        digest = deferred.digest(number)
        for key in keys if digest is not None else ():
            found[key] = (digest, *_view(state[key]))
    for key, value in state.items():
        if is_tensor(value) and is_dense(value) and not value.numel():
            found[key] = _view(value)
    return found


def _view(tensor: Any) -> tuple[object, ...]:
    return (
        tensor.dtype,
        tuple(tensor.shape),
        tensor.stride(),
        tensor.storage_offset(),
        tensor.is_conj(),
        tensor.is_neg(),
    )

"""Equality of two objects that torch has loaded, in all that their user can observe."""

import copyreg
import struct
from typing import Any

import torch

from tests.functional.torch_files import same

_SHARED = (dict, list, torch.Tensor)
_STORAGES = (torch.TypedStorage, torch.UntypedStorage)


def equal(one: Any, other: Any) -> bool:
    """Equal in type, in order and in every bit, NaNs too; and shared where it is shared: containers that are one object
    stay one, views of one storage stay views of one storage. Cycles are followed once.
    """
    return _Pairs().equal(one, other)


class _Pairs:
    """What stands for what, once it was met: both trees live as long as this, so an id is one object's."""

    def __init__(self) -> None:
        self._partner: dict[tuple[str, int], int] = {}
        self._alive: list[object] = []  # what was made to be compared: its ids must not be used again

    def equal(self, one: Any, other: Any) -> bool:
        todo = [(one, other)]
        while todo:
            a, b = todo.pop()
            if type(a) is not type(b):
                return False
            if isinstance(a, _SHARED):
                met = ("one", id(a)) in self._partner
                if not self._pair(id(a), id(b)):
                    return False
                if met:
                    continue
            if isinstance(a, dict):
                if len(a) != len(b):
                    return False
                for pair, its in zip(a.items(), b.items(), strict=True):
                    todo += zip(pair, its, strict=True)
                todo.append((getattr(a, "__dict__", None), getattr(b, "__dict__", None)))
            elif isinstance(a, list | tuple):
                if len(a) != len(b):
                    return False
                todo += zip(a, b, strict=True)
            elif isinstance(a, torch.Tensor):
                if _wraps(a):  # its numbers are in the tensors that it wraps
                    if (a.shape, a.dtype, a.device, a.requires_grad) != (b.shape, b.dtype, b.device, b.requires_grad):
                        return False
                elif not self._same_tensor(a, b):
                    return False
                attributes = _attributes(a), _attributes(b)
                self._alive += attributes
                todo.append(attributes)
            elif not _same_leaf(a, b):
                return False
        return True

    def _pair(self, one: int, other: int, what: str = "") -> bool:
        """Whether ``one`` stands for ``other`` and for nothing else."""
        forth = self._partner.setdefault((what + "one", one), other)
        back = self._partner.setdefault((what + "other", other), one)
        return forth == other and back == one

    def _same_tensor(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        if one.is_nested and one.layout is torch.strided:
            return all(map(torch.equal, _nested_parts(one), _nested_parts(other)))
        if one.layout is not torch.strided or one.is_nested or one.is_meta:
            return same(one, other)
        return self._same_places(one, other) and _same_numbers(one, other)

    def _same_places(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        """A part of a storage, which there was before 1.6, may have become the view of the whole that it was."""
        a, b = one.untyped_storage(), other.untyped_storage()
        if not a.nbytes():
            return not b.nbytes()
        if a.nbytes() > b.nbytes() or (a.nbytes() == b.nbytes() and one.storage_offset() != other.storage_offset()):
            return False
        whole = a.data_ptr() + (one.storage_offset() - other.storage_offset()) * one.itemsize
        return self._pair(whole, b.data_ptr(), "storage ")


def _wraps(tensor: torch.Tensor) -> bool:
    """Whether operations on the tensor are its class's own affair: it may have no memory to look at."""
    return getattr(type(tensor), "__torch_dispatch__", None) not in {None, torch.Tensor.__torch_dispatch__}


def _attributes(tensor: torch.Tensor) -> dict[str, Any]:
    # The names of slots are found as pickle finds them; typeshed leaves the function out.
    slots = copyreg._slotnames(type(tensor)) if _wraps(tensor) else []  # type: ignore[attr-defined]
    return {**vars(tensor), **{name: getattr(tensor, name) for name in slots if hasattr(tensor, name)}}


def _same_numbers(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.numel() * one.itemsize <= max(one.untyped_storage().nbytes(), 64):
        return same(one, other)
    # Expanded, maybe beyond all memory: the first element, and all the bytes there are, stand for it.
    flat = (1,) * one.dim()
    return (
        (one.shape, one.stride()) == (other.shape, other.stride())
        and bytes(one.untyped_storage()) == bytes(other.untyped_storage())
        and same(one.detach().as_strided(flat, flat), other.detach().as_strided(flat, flat))
    )


def _nested_parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Without following what its sizes say: nobody has checked that they lie within its numbers."""
    numbers = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
    sizes, strides = tensor._nested_tensor_size(), tensor._nested_tensor_strides()
    return [numbers, sizes, strides, tensor._nested_tensor_storage_offsets()]


def _same_leaf(one: Any, other: Any) -> bool:
    if isinstance(one, _STORAGES):
        if isinstance(one, torch.TypedStorage):
            if one.dtype != other.dtype:
                return False
            one, other = one._untyped_storage, other._untyped_storage
        if one.device.type == "meta":
            return one.device == other.device and one.nbytes() == other.nbytes()
        return bytes(one) == bytes(other)
    if isinstance(one, complex):
        return struct.pack("dd", one.real, one.imag) == struct.pack("dd", other.real, other.imag)
    if isinstance(one, set | frozenset):
        return sorted(map(repr, one)) == sorted(map(repr, other))
    return same(one, other)

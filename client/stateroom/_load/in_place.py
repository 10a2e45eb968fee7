"""Checkpoints received straight into a module's own memory, if the module cannot notice the difference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._torch import require_torch, walk
from .changes import WHOLE, Change, Fingerprints, fingerprints_of
from .deferred import DeferredLoad
from .memory import memory_at

_OWN_METHODS = (
    "load_state_dict",
    "state_dict",
    "_load_from_state_dict",
    "_save_to_state_dict",
    "get_extra_state",
    "set_extra_state",
)
_HOOKS = (
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
)


class Coming:
    """A state_dict: complete, or with bytes still to be received (``deferred``)."""

    def __init__(self, value: Any, deferred: DeferredLoad | None) -> None:
        self.value = value
        self._deferred = deferred
        self._aimed: dict[int, list[str]] = {}

    @property
    def touched(self) -> bool:
        """Return whether ``into`` may have changed the module by now."""
        return bool(self._aimed) and self._deferred is not None and self._deferred.has_begun

    @property
    def in_place(self) -> tuple[str, ...]:
        """Return the keys whose bytes have been received completely into a module's own memory."""
        whole = self._deferred.finished if self._deferred is not None else ()
        return tuple(key for number in whole for key in self._aimed.get(number, ()))

    def complete(self) -> Any:
        """Return the state_dict with all its bytes, received in its own memory."""
        if self._deferred is not None:
            self._deferred.fill()
        return self.value

    def since(self, known: Fingerprints, module: Any) -> Change:
        """Fetch the tensors that differ from those in the module, whose fingerprints are ``known``. In the state, the
        others are the module's own, which its load_state_dict copies to themselves.
        """
        if self._deferred is None:
            return Change(self.value, tuple(self.value), 0, {})
        keys_of = _keys_of(self.value, self._deferred.storages) or {}
        found = fingerprints_of(self.value, keys_of, self._deferred)
        own = module.state_dict(keep_vars=True)
        same = {key for key in found if key in own and known.get(key) == found[key]}
        unchanged = {number: keys for number, keys in keys_of.items() if same.issuperset(keys)}
        size = self._deferred.fill(without=unchanged)
        self.value.update((key, own[key]) for keys in unchanged.values() for key in keys)
        differing = tuple(key for key in self.value if key not in same)
        return Change(self.value if differing else None, differing, size, found)

    def whole_since(self, known: Fingerprints) -> Change:
        """Fetch the whole state, unless it is the one whose fingerprint is ``known``."""
        digests = None if self._deferred is None else self._deferred.digests
        if digests is not None and known.get(WHOLE) == digests:
            return Change(None, (), 0, known)
        keys = tuple(self.value)
        size = 0 if self._deferred is None else self._deferred.fill()
        return Change(self.value, keys, size, {} if digests is None else {WHOLE: digests})

    def into(self, module: Any) -> Any:
        """Return the state_dict with all its bytes, received in the module's own tensors where that is possible. These
        tensors are then its values, and the module's load_state_dict copies them to themselves.
        """
        if self._deferred is None or not is_unobserved(module):
            return self.complete()
        own = module.state_dict(keep_vars=True)
        self._aimed = _aimed(self.value, own, self._deferred.storages)
        instead = {}
        for number, keys in self._aimed.items():
            tensor = own[keys[0]]
            instead[number] = memory_at(tensor.data_ptr(), tensor.numel() * tensor.element_size())
            for key in keys:
                self.value[key] = own[key]
        self._deferred.fill(instead)
        return self.value


def is_unobserved(module: Any) -> bool:
    """Return whether only torch's own code sees what is loaded into a module: no hooks, no methods overridden outside
    of torch.nn, no parametrizations, none of torch's ways to replace parameters.
    """
    torch = require_torch("loading into a model")
    swaps = getattr(torch.__future__, "get_swap_module_params_on_conversion", lambda: False)
    return not swaps() and not any(map(_listens, module.modules()))


def _listens(module: Any) -> bool:
    torch = require_torch("loading into a model")
    if any(getattr(module, hooks, None) for hooks in _HOOKS) or torch.nn.utils.parametrize.is_parametrized(module):
        return True
    return any(name in vars(module) or not _is_of_torch(type(module), name) for name in _OWN_METHODS)


def _is_of_torch(kind: type, name: str) -> bool:
    owner = next((each for each in kind.__mro__ if name in vars(each)), kind)
    return owner.__module__ == "torch.nn" or owner.__module__.startswith("torch.nn.modules.")


def _aimed(state: Mapping[str, Any], own: Mapping[str, Any], storages: Mapping[int, Any]) -> dict[int, list[str]]:
    """Return the storages that can be received in a module's own tensors, each with the keys of these tensors.

    load_state_dict copies one tensor after another: if the module's tensors share memory, the last copy stays. Bytes
    received in place come before all copies, so they must not lie where another copy writes, and the storage must have
    no other reader in the state_dict. The result is empty if that cannot be told.
    """
    keys_of = _keys_of(state, storages)
    written = {key: own[key] for key in state if key in own}
    if keys_of is None or not all(map(is_plain, written.values())):
        return {}
    together = _overlapping(written)
    return {
        number: keys
        for number, keys in keys_of.items()
        if all(_fits(state[key], own.get(key), storages[number].nbytes()) for key in keys)
        and set(keys) == together[keys[0]]
        and len({own[key].data_ptr() for key in keys}) == 1
    }


def _keys_of(state: Mapping[str, Any], storages: Mapping[int, Any]) -> dict[int, list[str]] | None:
    """Return the keys of each storage that only keys of the state_dict read; None if the state_dict holds a value that
    may read any storage.
    """
    torch = require_torch("loading into a model")
    number_at = {each.data_ptr(): number for number, each in storages.items() if each.nbytes()}
    readers: dict[int, int] = {}
    for _, value in walk([state, vars(state) if hasattr(state, "__dict__") else {}]):
        if is_plain(value) and not getattr(value, "__dict__", None):
            number = number_at.get(value.untyped_storage().data_ptr(), -1)
            readers[number] = readers.get(number, 0) + 1
        elif not isinstance(value, (str, bytes, int, float, complex, type(None), torch.dtype, torch.device)):
            return None
    keys_of: dict[int, list[str]] = {}
    for key, value in state.items():
        if is_plain(value):
            keys_of.setdefault(number_at.get(value.untyped_storage().data_ptr(), -1), []).append(key)
    return {number: keys for number, keys in keys_of.items() if number != -1 and len(keys) == readers[number]}


def _overlapping(tensors: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return for each key the keys whose tensors overlap the span from its first to its last byte, itself included."""
    spans = []
    for key, tensor in tensors.items():
        if tensor.numel():
            reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
            start = tensor.data_ptr()
            spans.append((start, start + (reach + 1) * tensor.element_size(), key))
    together: dict[str, set[str]] = {key: {key} for key in tensors}
    last: set[str] = set()
    farthest = 0
    for start, end, key in sorted(spans):
        if start >= farthest:
            last = set()
        last.add(key)
        together[key] = last
        farthest = max(farthest, end)
    return together


def is_plain(value: Any) -> bool:
    """Return whether the value is a tensor of torch's own class, fully described by the elements in its storage."""
    torch = require_torch("loading into a model")
    return (
        type(value) in {torch.Tensor, torch.nn.Parameter}
        and value.layout == torch.strided
        and not value.is_quantized
        and not value.is_nested
    )


def _fits(tensor: Any, own: Any, size: int) -> bool:
    """Return whether the bytes of the tensor, ``size`` of them, are also those of ``own``."""
    return (
        own is not None
        and own.device.type == "cpu"
        and tensor.device.type == "cpu"
        and (own.dtype, own.shape) == (tensor.dtype, tensor.shape)
        and own.is_contiguous()
        and tensor.is_contiguous()
        and tensor.numel() * tensor.element_size() == size
        and not own.is_inference()
        and not any((each.is_conj() or each.is_neg()) for each in (own, tensor))
    )

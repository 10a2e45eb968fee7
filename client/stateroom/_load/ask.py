"""Asks modules which keys they accept: torch's and users' modules accept more than the names in their state_dict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .._torch import is_uninitialized, require_torch
from .in_place import is_plain


def missing_and_unexpected(
    module: Any, keys: Iterable[str], metadata: Mapping[str, Any] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the keys that ``load_state_dict`` of an unobserved module misses in a state_dict of these keys and this
    metadata, and the unexpected ones. The module gets its own tensors, which it copies to themselves.

    Raises the RuntimeError of load_state_dict.
    """
    torch = require_torch("loading into a model")
    own = module.state_dict(keep_vars=True)
    state = type(own)((key, own[key] if key in own else torch.empty(0)) for key in keys)
    if metadata is not None:
        state._metadata = metadata  # noqa: SLF001  torch keeps the versions of modules there
    found = module.load_state_dict(state, strict=False)
    return tuple(found.missing_keys), tuple(found.unexpected_keys)


@contextmanager
def undone_on_error(module: Any) -> Iterator[None]:
    """If the block raises, restore the module's tensors and their values."""
    torch = require_torch("loading into a model")
    names = ("_parameters", "_buffers", "_modules")
    held = [(vars(each)[name], dict(vars(each)[name])) for each in module.modules() for name in names]
    storages: dict[int, tuple[Any, Any]] = {}
    others: list[tuple[Any, Any]] = []
    for tensor in (*module.parameters(), *module.buffers()):
        if is_plain(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in storages:
                storages[storage.data_ptr()] = storage, storage.clone()
        elif not is_uninitialized(tensor):
            others.append((tensor.detach(), tensor.detach().clone()))
    try:
        yield
    except BaseException:
        for registry, entries in held:
            registry.clear()
            registry.update(entries)
        for storage, copy in storages.values():
            storage.copy_(copy)
        with torch.no_grad():
            for tensor, copy in others:
                tensor.copy_(copy)
        raise

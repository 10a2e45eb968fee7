"""All code that touches torch, which is imported only when it is first needed."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator, Mapping
from typing import IO, Any

from ._errors import InvalidRequest, ShardedTensor, TorchRequired, UnsafeGlobals
from ._printable import one_line

SHARDED = {"DTensor", "ShardedTensor"}
GATHER = (
    "gather it first, on every rank: torch.distributed.checkpoint.state_dict.get_model_state_dict(model, "
    "options=StateDictOptions(full_state_dict=True, cpu_offload=True)), or tensor.full_tensor()"
)


def require_torch(purpose: str) -> Any:
    """Import torch and return it. Raises TorchRequired."""
    try:
        import torch  # noqa: PLC0415  not at the top: the client imports without torch, and quickly
    except ImportError as error:
        raise TorchRequired(
            f"{purpose} needs torch, which cannot be imported here ({error}): pip install 'stateroom[torch]'"
        ) from error
    return torch


def rank() -> int:
    """Return this process's rank in its job: torch.distributed's, else torchrun's environment variable, else 0."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    return int(os.environ.get("RANK") or 0)


def load(file: IO[bytes], map_location: Any, *, weights_only: bool) -> Any:
    """Call torch.load. Raises UnsafeGlobals if torch refuses the file under ``weights_only``."""
    torch = require_torch("load()")
    file.seek(0)
    try:
        return torch.load(file, map_location=map_location, weights_only=weights_only)
    except pickle.UnpicklingError as error:
        if not weights_only:
            raise
        raise UnsafeGlobals(
            f"this version of torch refuses the file with weights_only=True: {one_line(error)}"
        ) from None


def allowed_globals() -> set[str]:
    """The names that the user has told torch to load with ``weights_only=True``."""
    serialization = require_torch("load()").serialization
    if not hasattr(serialization, "get_safe_globals"):  # before torch 2.4 there was no such list
        return set()
    pairs = ((entry if isinstance(entry, tuple) else (entry, None)) for entry in serialization.get_safe_globals())
    return {name or f"{function.__module__}.{function.__qualname__}" for function, name in pairs}


def unsafe_globals(file: IO[bytes]) -> tuple[str, ...] | None:
    """Return the globals in a torch.save file that ``weights_only=True`` refuses; None if this torch cannot tell."""
    serialization = require_torch("save()").serialization
    if not hasattr(serialization, "get_unsafe_globals_in_checkpoint"):  # before torch 2.6
        return None
    file.seek(0)
    try:
        return tuple(sorted(serialization.get_unsafe_globals_in_checkpoint(file)))
    except pickle.UnpicklingError:  # it lacks opcodes that torch.save writes, that of a very large int, say
        return None
    finally:
        file.seek(0)


def whole_modules(obj: Any) -> tuple[str, ...]:
    """Return the paths in the object where an nn.Module is stored instead of its state_dict."""
    torch = require_torch("save()")
    return tuple(path or "The object itself" for path, value in walk(obj) if isinstance(value, torch.nn.Module))


def refuse_shards(obj: Any, verdict: str) -> None:
    for path, value in walk(obj):
        tensors = _parameters(value) if hasattr(value, "named_parameters") else [("", value)]
        for name, tensor in tensors:
            if any(kind.__name__ in SHARDED and kind.__module__.startswith("torch.") for kind in type(tensor).__mro__):
                where = ".".join(filter(None, (path, name))) or "the object itself"
                raise ShardedTensor(
                    f"{where} is a {type(tensor).__name__}, one rank's shard of a tensor, and {verdict}; {GATHER}"
                )


def walk(obj: Any) -> Iterator[tuple[str, Any]]:
    """Yield every value in nested dicts, lists and tuples with its dotted path, or the object itself if it is no
    container. Each container is visited once.
    """
    seen: set[int] = set()
    todo: list[tuple[str, Any]] = [("", obj)]
    while todo:
        path, value = todo.pop()
        if id(value) in seen:
            continue
        if isinstance(value, (Mapping, list, tuple)):
            seen.add(id(value))
            todo += _held(path, value)
        else:
            yield path, value


def drain(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of a state_dict, or of an optimizer's, with their dotted keys. No reference to a yielded tensor
    or to its containers is kept, so that their memory is freed as soon as nobody else holds them.
    """
    torch = require_torch("iter_tensors()")
    todo: list[tuple[str, Any]] = [("", tree)]
    del tree
    while todo:  # no local variable here may refer to a tensor or its container
        if isinstance(todo[-1][1], torch.Tensor):
            yield todo.pop()
        else:
            todo += _held(*todo.pop())


def _held(path: str, value: Any) -> list[tuple[str, Any]]:
    """Return a container's values with dotted paths, the last first; nothing if the value is no container."""
    if not isinstance(value, (Mapping, list, tuple)):
        return []
    items = list(value.items() if isinstance(value, Mapping) else enumerate(value))
    return [(f"{path}.{key}" if path else str(key), item) for key, item in reversed(items)]


def unwrap(target: Any) -> Any:
    """Return the module inside DistributedDataParallel, DataParallel and torch.compile wrappers, however nested."""
    torch = require_torch("loading into a model")
    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(target, wrappers):
            target = target.module
        elif isinstance(target, torch.nn.Module) and hasattr(target, "_orig_mod"):
            target = target._orig_mod  # noqa: SLF001  torch.compile's OptimizedModule has its module there
        else:
            return target


def target_tensors(module: Any, *, lazy: bool = False) -> dict[str, Any]:
    """Return the tensors of a module's state_dict, which are its own memory. Raises if they cannot be written to; with
    ``lazy`` some may have no shape yet.
    """
    torch = require_torch("loading into a model")
    tensors = {key: value for key, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
    refuse_shards(tensors, "cannot be loaded into")
    unshaped = [key for key, tensor in tensors.items() if is_uninitialized(tensor)]
    if unshaped and not lazy:
        raise InvalidRequest(
            f"{unshaped[0]} is not initialized and has no shape yet; run one batch through the lazy module first"
        )
    unmade = [key for key, tensor in tensors.items() if tensor.is_meta]
    if unmade:
        raise InvalidRequest(
            f"{unmade[0]} is on the meta device and has no memory; call net.to_empty(device=...) first"
        )
    return tensors


def is_lazy(module: Any) -> bool:
    """Return whether some parameters take their shapes from their first data, which a checkpoint may be."""
    return any(is_uninitialized(tensor) for _, tensor in _parameters(module))


def is_uninitialized(value: Any) -> bool:
    return bool(require_torch("loading into a model").nn.parameter.is_lazy(value))


def is_dense(tensor: Any) -> bool:
    """Return whether the tensor is strided, as the server lists tensors: not sparse, not quantized."""
    return bool(tensor.layout == require_torch("loading into a model").strided and not tensor.is_quantized)


def _parameters(module: Any) -> Iterator[tuple[str, Any]]:
    yield from module.named_parameters()
    yield from module.named_buffers()

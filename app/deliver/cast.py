"""Casting of tensor elements as torch does it. Only this module imports torch: at the first cast, or in the background
before it.

Every NaN becomes the NaN that ``float("nan")`` is in its dtype: the NaN bits that torch keeps depend on the processor,
and an ETag promises the same bytes everywhere.
"""

import ctypes
import os
import warnings
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from ..errors import SelectionError

_importing = Lock()


def require_torch() -> Any:
    """Import torch. Raises SelectionError ``cast-unavailable`` if torch cannot be imported."""
    with _importing:
        return _import_torch()


def import_in_background() -> Thread | None:
    """Import torch in a thread, so that the first cast need not wait for it; None if torch is not installed.

    Join the thread before the process ends: libraries that are being loaded cannot be unloaded.
    """
    if find_spec("torch") is None:
        return None
    thread = Thread(target=_import_if_possible, name="import torch", daemon=True)
    thread.start()
    return thread


def _import_if_possible() -> None:
    with suppress(SelectionError):  # a request that needs torch says why it fails
        require_torch()


@lru_cache(maxsize=1)
def _import_torch() -> Any:
    _load_library()
    try:
        import torch  # noqa: PLC0415  the server starts, indexes and serves without torch
    except ImportError:
        raise SelectionError(
            "this server cannot cast tensors, because torch is not installed: leave out dtype and cast after loading, "
            "or install stateroom-server[cast] on the server",
            code="cast-unavailable",
        ) from None
    torch.set_num_threads(1)  # several threads cast at once already
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.frombuffer(b"\0", dtype=torch.uint8)  # warns once of a read-only buffer; nobody writes to it
    return torch


def _load_library() -> None:
    """Load the largest of torch's libraries, if found. Importing torch would hold the interpreter lock for 160 ms
    meanwhile; a call through ctypes lets the event loop run.
    """
    found = find_spec("torch")
    for folder in (found and found.submodule_search_locations) or ():
        with suppress(AttributeError, OSError):  # a system without dlopen, or one that hides it
            dlopen = ctypes.CDLL(None).dlopen
            dlopen.restype = ctypes.c_void_p
            dlopen(os.fsencode(Path(folder) / "lib" / "libtorch_cpu.so"), ctypes.c_int(os.RTLD_NOW))


def cast(data: memoryview | bytearray, dtype: str, to: str) -> bytearray:
    """Cast little-endian elements, at least one, from ``dtype`` to ``to``, rounded as ``Tensor.to`` does.

    Dtypes are torch's names; ``to`` is a float of 2 or 4 bytes.
    """
    torch = require_torch()
    source = torch.frombuffer(data, dtype=getattr(torch, dtype))
    if source.data_ptr() % source.itemsize:
        source = torch.frombuffer(bytearray(data), dtype=source.dtype)
    target = getattr(torch, to)
    made = bytearray(source.numel() * target.itemsize)
    values = torch.frombuffer(made, dtype=target)
    values.copy_(source)
    if values.sum().isnan():  # so if any value is NaN, and seldom else; testing each value takes ten times as long
        values.masked_fill_(values.isnan(), float("nan"))
    return made

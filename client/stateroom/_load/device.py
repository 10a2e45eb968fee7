"""Memory of another device, as a destination for bytes."""

from __future__ import annotations

import threading
from typing import Any

from .._torch import require_torch
from .memory import memory_at

_of_thread = threading.local()


class Device:
    """Bytes are received in a buffer in host memory, pinned for CUDA, and copied into a storage from there."""

    def __init__(self, storage: Any) -> None:
        torch = require_torch("loading")
        self._bytes = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)

    def room(self, at: int, spare: memoryview) -> memoryview:
        if self._bytes.device.type != "cuda":
            return spare
        return _pinned(len(spare))[: len(spare)]

    def put(self, at: int, received: memoryview) -> None:
        torch = require_torch("loading")
        self._bytes[at : at + len(received)].copy_(torch.frombuffer(received, dtype=torch.uint8))


def _pinned(size: int) -> memoryview:
    """Return this thread's buffer, which is reused."""
    buffer = getattr(_of_thread, "buffer", None)
    if buffer is None or buffer.numel() < size:
        torch = require_torch("loading")
        buffer = _of_thread.buffer = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    return memory_at(buffer.data_ptr(), buffer.numel())

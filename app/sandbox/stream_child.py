"""The child process of ``streaming``: set resource limits, answer jobs until the input ends."""

import importlib
import os
import resource
import struct
import sys
from collections import deque
from collections.abc import Iterator
from queue import SimpleQueue
from threading import Thread

from .streaming import MESSAGE

AHEAD = 6
"""Messages that are read ahead, at most."""

KEPT = 2
"""Messages that stay valid: the one taken last, and the one before."""


class Messages:
    """The messages on standard input, read ahead by a thread into buffers that are used again."""

    def __init__(self) -> None:
        self._free: SimpleQueue[bytearray] = SimpleQueue()
        self._full: SimpleQueue[tuple[bytearray, int] | None] = SimpleQueue()
        self._taken: deque[bytearray] = deque()
        for _ in range(AHEAD + KEPT):
            self._free.put(bytearray(MESSAGE))
        Thread(target=self._read, name="read", daemon=True).start()

    def take(self) -> memoryview | None:
        """Return the next message; None at the end of the input."""
        if len(self._taken) == KEPT:
            self._free.put(self._taken.popleft())
        full = self._full.get()
        if full is None:
            return None
        buffer, length = full
        self._taken.append(buffer)
        return memoryview(buffer)[:length]

    def job(self) -> Iterator[memoryview]:
        """Yield the messages up to the next empty one."""
        while message := self.take():
            yield message

    def _read(self) -> None:
        file = sys.stdin.fileno()
        size = bytearray(8)
        while _fill(file, memoryview(size)):
            (length,) = struct.unpack("<Q", size)
            buffer = self._free.get()
            if not _fill(file, memoryview(buffer)[:length]):
                break
            self._full.put((buffer, length))
        self._full.put(None)


def _fill(file: int, into: memoryview) -> bool:
    """Read until ``into`` is full; False if the input ends before."""
    while into:
        count = os.readv(file, [into])
        if not count:
            return False
        into = into[count:]
    return True


def main() -> None:
    module = sys.argv[1]
    seconds, memory = map(int, sys.argv[2:])
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    function = importlib.import_module(module).answer
    messages = Messages()
    while (head := messages.take()) is not None:
        data = messages.job()
        answer = function(bytes(head), data)
        for _ in data:
            pass
        sys.stdout.buffer.write(struct.pack("<Q", len(answer)) + answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

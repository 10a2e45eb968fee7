"""Streaming of bytes through one of our own modules in a child process, which holds a few of them at a time.

The parent sends jobs: a head, then messages of at most ``MESSAGE`` bytes, then an empty message. The child answers each
job with one message. The child reads ahead in a thread, so that it computes while the parent reads and verifies.
"""

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from ..concurrency.cancellation import current
from ..errors import Cancelled, StateroomError, StoreError
from . import MEMORY, kill_once, places

MESSAGE = 4 * 1024 * 1024
"""Most bytes in a message."""

START_SECONDS = 60
BYTES_PER_SECOND = 20_000_000
"""CPU time that the child may take: a start, and the bytes at a tenth of the usual pace or less."""


class Child:
    """A running child process. Not for use by two threads at once.

    ``ask`` raises Cancelled if nobody waits for the answers any more, StoreError (``parser-busy``) if the machine has
    too little memory, and StateroomError if the child fails.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None  # noqa: S101 - it was made with pipes
        assert process.stdout is not None  # noqa: S101 - as above
        self._process = process
        self._to, self._from = process.stdin.fileno(), process.stdout

    def ask(self, head: bytes, messages: Iterable[memoryview | bytes]) -> bytes:
        """Send a job, and return its answer."""
        try:
            self._send(head)
            for message in messages:
                if message:
                    self._send(message)
            self._send(b"")
            (length,) = struct.unpack("<Q", self._from.read(8))
            answer = self._from.read(length)
        except (BrokenPipeError, struct.error):
            raise self._failure() from None
        if len(answer) != length:
            raise self._failure()
        return answer

    def _send(self, message: memoryview | bytes) -> None:
        if len(message) > MESSAGE:
            raise ValueError(f"a message of {len(message):,} bytes is too long")
        _write(self._to, struct.pack("<Q", len(message)))
        _write(self._to, message)

    def _failure(self) -> StateroomError:
        code = self._process.wait()
        if current().is_given_up():
            return Cancelled("the request was cancelled")
        if code in {-signal.SIGKILL, -signal.SIGXCPU}:
            return StoreError("the server is too busy to read the tensors now; retry later", code="parser-busy")
        return StateroomError(f"the process that reads tensors ended with {code}")


def _write(file: int, data: memoryview | bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


@contextmanager
def streaming(module: str, nbytes: int) -> Iterator[Child]:
    """Run a child process that does each job with the function ``answer(head, messages)`` of ``module``. A message is
    valid until two more are taken.

    ``nbytes`` are the bytes that will be sent, which determine its CPU time. Waits for a place among all children of
    this server; raises Cancelled meanwhile.
    """
    work = current()
    with places.turn_in_thread(work.owner, work.is_given_up):
        seconds = START_SECONDS + nbytes // BYTES_PER_SECOND
        root = Path(__file__).parents[1]
        process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
            [sys.executable, "-m", f"{__package__}.stream_child", module, str(seconds), str(MEMORY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={
                "PYTHONPATH": str(root.parent),
                "PATH": os.defpath,
                "LC_ALL": "C.UTF-8",
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
            },
        )
        ended = Event()
        watch = Thread(target=kill_once, args=(work.is_given_up, process, ended), name="watch", daemon=True)
        watch.start()
        try:
            yield Child(process)
        finally:
            ended.set()
            watch.join()
            process.kill()
            process.communicate()

"""Running one of our own pure functions in a child process, with limits on its time and memory.

A large pickle parsed in a thread would make every other request wait for the interpreter lock, and a hostile one could
take the worker's memory with it. A child frees both. The function takes and returns byte strings; its errors are raised
again here.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Thread

from ..concurrency.cancellation import LOOK_SECONDS, current
from ..concurrency.fair_admission import FairPlaces
from ..errors import Cancelled, HostileCheckpoint, StateroomError, StoreError
from .wire import error_from_bytes, join_parts, split_parts

PureFunction = Callable[..., Sequence[bytes]]

CPU_SECONDS = 60
"""Indexing 400,000 tensors takes 10 to 14, planning them 16 to 24; our rules refuse hostile files earlier."""

MEMORY = 2 * 1024**3
"""Bytes of anonymous memory; file mappings do not count."""

WALL_SECONDS = 300

places = FairPlaces(1 + (os.cpu_count() or 1))
"""Children at once: one for each core, and one more for an owner without any. More would only take memory."""


def _never() -> bool:
    return False


def run(
    function: PureFunction,
    *parts: bytes | bytearray | memoryview,
    seconds: int = CPU_SECONDS,
    memory: int = MEMORY,
    cancelled: Callable[[], bool] = _never,
) -> list[bytes]:
    """Call ``function(*parts)`` in a child process and return its parts.

    ``function`` is a module-level function. ``cancelled`` is called every LOOK_SECONDS, during the wait for a place and
    for the child; once it returns True the child is killed.

    Raises the errors of ``function``; HostileCheckpoint (rule ``time`` or ``memory``) if the child exceeds its CPU time
    or memory; StoreError (``parser-busy``) if the machine has neither; Cancelled.
    """
    with places.turn_in_thread(current().owner, cancelled):
        return _run([function.__module__, function.__name__, str(seconds), str(memory)], join_parts(parts), cancelled)


def _run(arguments: Sequence[str], call: bytes, cancelled: Callable[[], bool]) -> list[bytes]:
    root = Path(__file__).parents[1]
    _check(cancelled)
    child = subprocess.Popen(  # noqa: S603 - our own interpreter, our own function
        [sys.executable, "-m", __name__, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PYTHONPATH": str(root.parent), "PATH": os.defpath, "LC_ALL": "C.UTF-8"},
    )
    ended = Event()
    watch = Thread(target=kill_once, args=(cancelled, child, ended), name="watch", daemon=True)
    watch.start()
    try:
        output, _ = child.communicate(call, timeout=WALL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise _busy() from error
    finally:
        ended.set()
        watch.join()
        child.kill()
        child.wait()
    _check(cancelled)
    if child.returncode == -signal.SIGXCPU:
        raise HostileCheckpoint("the file takes longer to read than any honest checkpoint", rule="time")
    if child.returncode == -signal.SIGKILL:  # sent by the kernel: the machine has run out of memory
        raise _busy()
    if child.returncode != 0 or not output:
        raise StateroomError("the parser process ended without a result")
    if output[:1] != b"+":
        raise error_from_bytes(output[1:])
    return split_parts(memoryview(output)[1:])


def kill_once(cancelled: Callable[[], bool], child: subprocess.Popen[bytes], ended: Event) -> None:
    """Kill the child once ``cancelled()`` is true. Returns then, or when ``ended`` is set."""
    while not ended.wait(LOOK_SECONDS):
        if cancelled():
            child.kill()
            return


def _check(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Cancelled("the request was cancelled before its file was read")


def _busy() -> StoreError:
    return StoreError("the server is too busy to read a large pickle now; retry later", code="parser-busy")

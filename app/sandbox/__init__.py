"""Running one of our own pure functions in a child process, with limits on its time and memory.

A large pickle parsed in a thread would make every other request wait for the interpreter lock, and a hostile one could
take the worker's memory with it. A child gives both back. The function takes and returns byte strings; errors come back
as what they were.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import HostileCheckpoint, StateroomError
from .wire import error_from_bytes, join_parts, split_parts

PureFunction = Callable[..., Sequence[bytes]]

CPU_SECONDS = 60
"""400,000 tensors take about 10; what cannot be honest is refused by its rules, long before this."""

MEMORY = 2 * 1024**3
"""Bytes of anonymous memory; file mappings do not count."""

WALL_SECONDS = 120


def run(
    function: PureFunction, *parts: bytes | bytearray | memoryview, seconds: int = CPU_SECONDS, memory: int = MEMORY
) -> list[bytes]:
    """Call ``function(*parts)`` in a child process and return its parts.

    ``function`` is a module-level function. Raises what it raised, and HostileCheckpoint (rule ``time`` or
    ``memory``) where it took more CPU time or memory than it may.
    """
    root = Path(__file__).parents[1]
    child = subprocess.Popen(  # noqa: S603 - our own interpreter, our own function
        [sys.executable, "-m", __name__, function.__module__, function.__name__, str(seconds), str(memory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PYTHONPATH": str(root.parent), "PATH": os.defpath, "LC_ALL": "C.UTF-8"},
    )
    try:
        output, _ = child.communicate(join_parts(parts), timeout=WALL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise _over("time") from error
    finally:
        child.kill()
        child.wait()
    if child.returncode in {-signal.SIGXCPU, -signal.SIGKILL}:  # at the limit, and a second after it
        raise _over("time")
    if child.returncode != 0 or not output:
        raise StateroomError("the parser's process ended without an answer")
    if output[:1] != b"+":
        raise error_from_bytes(output[1:])
    return split_parts(memoryview(output)[1:])


def _over(what: str) -> HostileCheckpoint:
    return HostileCheckpoint(f"the file takes more {what} to read than any honest checkpoint", rule=what)

"""Functions that tests run in a child process. This module imports little, so that the child starts soon."""

import os
import signal
from pathlib import Path


def too_much_memory() -> list[bytes]:
    return [bytes(8 * 1024**3)]


def too_much_time() -> list[bytes]:
    while True:
        pass


def crash() -> list[bytes]:
    raise RuntimeError("/secret/path")


def never_ends(path: bytes) -> list[bytes]:
    """Says which process it is, in a file that is complete once it is there."""
    started = Path(path.decode())
    started.with_suffix(".part").write_text(str(os.getpid()))
    started.with_suffix(".part").rename(started)
    while True:
        signal.pause()

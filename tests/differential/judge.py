"""Stock torch in a process of its own, because the deliberately damaged files that it reads may crash it."""

import io
import resource
import struct
import subprocess
import sys
import threading
import warnings
from enum import Enum
from typing import Any, BinaryIO

import torch

from tests.differential.equality import equal
from tests.support.server import ROOT, server_environment

PATIENCE = 60.0
"""Seconds in which torch has to have loaded a file of some kilobytes, on however busy a machine."""

MEMORY = 16 * 1024**3
"""Bytes of address space: a length that was damaged is answered with MemoryError, not with the machine's end."""


ORIGINAL, OURS, BY_ITSELF = b"1", b"2", b"3"
"""What the process is asked: to load a file and keep it, to load one and compare the two, to load one."""

LOADED = "loaded"


class Verdict(Enum):
    REFUSED = "stock torch does not read the original"
    EQUAL = "stock torch reads the same from both"
    DIFFERENT = "stock torch reads something else from ours"


class Judge:
    """Needs ``close``. Starts its process when it is asked, anew where the last file was its end."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.reason = ""

    def compare(self, original: bytes, ours: bytes) -> Verdict:
        """What torch.load(weights_only=True) makes of the two. ``reason`` says why where they are DIFFERENT."""
        if self._ask(ORIGINAL, original) != LOADED:
            return Verdict.REFUSED
        self.reason = self._ask(OURS, ours)
        return Verdict.EQUAL if self.reason == "equal" else Verdict.DIFFERENT

    def loads(self, data: bytes) -> bool:
        """Whether torch.load(weights_only=True, map_location="cpu") reads a file. ``reason`` says why where not."""
        self.reason = self._ask(BY_ITSELF, data)
        return self.reason == LOADED

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _ask(self, question: bytes, data: bytes) -> str:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                cwd=ROOT,
                env=server_environment({"OMP_NUM_THREADS": "1"}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Timer(PATIENCE, process.kill)
        late.start()
        try:
            send(process.stdin, question + data)
            return receive(process.stdout).decode()
        except (BrokenPipeError, EOFError):
            self.close()
            return "torch died of it"
        finally:
            late.cancel()


def send(file: BinaryIO, data: bytes) -> None:
    file.write(struct.pack("<Q", len(data)) + data)
    file.flush()


def receive(file: BinaryIO) -> bytes:
    head = file.read(8)
    if len(head) < 8:
        raise EOFError
    (length,) = struct.unpack("<Q", head)
    return file.read(length)


class Refusal(Exception):
    """What torch said instead of reading a file."""


def load(data: bytes, **options: Any) -> Any:
    try:
        return torch.load(io.BytesIO(data), weights_only=True, **options)
    except Exception as error:  # noqa: BLE001 - whatever torch says of a damaged file, it is a refusal
        return Refusal(str(error))


def _alike(expected: Any, found: Any) -> bool:
    try:
        return equal(expected, found)
    except Exception:  # torch has loaded what it cannot look at: then it can't at the original either
        try:
            equal(expected, expected)
        except Exception:  # noqa: BLE001 - an internal assertion, most often
            return True
        raise


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    expected: Any = None
    while True:
        try:
            request = receive(sys.stdin.buffer)
        except EOFError:
            return
        question, data = request[:1], request[1:]
        found = load(data, map_location="cpu") if question == BY_ITSELF else load(data)
        if isinstance(found, Refusal):
            answer = repr(found)
        elif question == OURS:
            answer = "equal" if _alike(expected, found) else "unequal"
        else:
            answer = LOADED
        if question == ORIGINAL:
            expected = found
        send(sys.stdout.buffer, answer.encode(errors="replace"))


if __name__ == "__main__":
    main()

"""Counters that outlive the process that counts: a page of a file, which another process reads."""

import mmap
import struct
import time
from dataclasses import astuple, dataclass
from pathlib import Path

_PAGE = struct.Struct("<QQQQ")


@dataclass(frozen=True, slots=True)
class Count:
    """``cpu`` is in nanoseconds, all that the process does besides reading included."""

    executions: int = 0
    accepted: int = 0
    slow: int = 0
    cpu: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: "Count") -> "Count":
        return Count(*(mine - its for mine, its in zip(astuple(self), astuple(other), strict=True)))


class Counts:
    """Goes on where the file ends that is there."""

    def __init__(self, path: Path) -> None:
        path.touch()
        with path.open("r+b") as file:
            file.truncate(_PAGE.size)
            self._page = mmap.mmap(file.fileno(), _PAGE.size)
        self._counted = list(_PAGE.unpack(self._page))
        self._cpu = time.process_time_ns()

    def add(self, *, accepted: bool, slow: bool) -> None:
        self._counted[0] += 1
        self._counted[1] += accepted
        self._counted[2] += slow
        cpu = time.process_time_ns()
        self._counted[3] += cpu - self._cpu
        self._cpu = cpu
        _PAGE.pack_into(self._page, 0, *self._counted)


def read_count(path: Path) -> Count:
    return Count(*_PAGE.unpack(path.read_bytes())) if path.exists() else Count()

"""Counters that outlive the process that counts: a page of a file, which another process reads."""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

_PAGE = struct.Struct("<QQQ")


@dataclass(frozen=True, slots=True)
class Count:
    executions: int = 0
    accepted: int = 0
    slow: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(self.executions + other.executions, self.accepted + other.accepted, self.slow + other.slow)


class Counts:
    """Goes on where the file ends that is there."""

    def __init__(self, path: Path) -> None:
        path.touch()
        with path.open("r+b") as file:
            file.truncate(_PAGE.size)
            self._page = mmap.mmap(file.fileno(), _PAGE.size)
        self._counted = list(_PAGE.unpack(self._page))

    def add(self, *, accepted: bool, slow: bool) -> None:
        self._counted[0] += 1
        self._counted[1] += accepted
        self._counted[2] += slow
        _PAGE.pack_into(self._page, 0, *self._counted)


def read_count(path: Path) -> Count:
    return Count(*_PAGE.unpack(path.read_bytes())) if path.exists() else Count()

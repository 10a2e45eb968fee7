"""The interface through which a reader tells of the bytes that it converts."""

from collections.abc import Iterator
from typing import Protocol

from ..values.conversion import Conversion
from .windows import Strip


class Followed(Protocol):
    """The CRC32s of conversions, learned from the converted bytes."""

    def follow(self, strip: Strip, data: memoryview) -> None: ...

    def find_out(self, conversion: Conversion) -> Iterator[None]: ...

    def of(self, conversion: Conversion) -> int: ...

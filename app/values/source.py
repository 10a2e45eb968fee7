"""Interface for reading the bytes of a file."""

from typing import Protocol


class ByteSource(Protocol):
    """A file's bytes, a slice at a time: a memoryview, or a file that is read on demand.

    Mapping a whole file into memory would cost too much: on recent kernels each access can map 2 MiB of the file, and
    147 accesses 300 MB.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes | memoryview: ...

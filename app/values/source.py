"""Where the bytes of a file are read from."""

from typing import Protocol


class ByteSource(Protocol):
    """A file's bytes, a slice at a time: a memoryview, or a file that is read as it is asked for.

    A whole file mapped into memory would do as well, but for what it costs: on recent kernels each touch of a file
    can map 2 MiB of it, and 147 touches are 300 MB.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes | memoryview: ...

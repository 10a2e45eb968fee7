"""A part of a file, read as a file of its own."""

from dataclasses import dataclass

from ..values.source import ByteSource
from ..values.span import Span


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes ``span`` of a file, as a file of its own."""

    whole: ByteSource
    span: Span

    def __len__(self) -> int:
        return self.span.length

    def __getitem__(self, part: slice, /) -> bytes | memoryview:
        start, stop, _ = part.indices(self.span.length)
        return self.whole[self.span.start + start : self.span.start + max(start, stop)]

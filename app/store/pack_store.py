"""The one interface to stored bytes. Every implementation passes tests/store/conformance.py."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..values.span import Span
from .files import Buffer


@dataclass(frozen=True, slots=True)
class StoredPack:
    """What the store holds under a name: a pack of ``size`` bytes, or what an interrupted write of one has left."""

    name: str
    size: int
    whole: bool


class PackStore(Protocol):
    """Packs by name. A pack is written once, whole, and never changes.

    Names are made of [a-z0-9] (anything else: ValueError). All methods may be called from several threads, and block:
    none belongs on an event loop. Every failure is a StoreError; no room left is StorageFull. When ``adopt``,
    ``create`` or ``write`` returns, the pack is as durable as this store makes things; when one raises, it has stored
    nothing.
    """

    def adopt(self, name: str, file: Path) -> None:
        """Make the whole of ``file`` a pack, and the file itself the store's: afterwards it is no longer at its path.
        A pack of that name that was there is replaced.
        """
        ...

    def create(self, name: str, source: Path, spans: Sequence[Span]) -> None:
        """Make a pack of ``spans`` of ``source``, one after another. The source stays as it is. A pack of that name
        that was there is replaced.
        """
        ...

    def write(self, name: str, buffers: Iterable[Buffer]) -> int:
        """Make a pack of ``buffers``, one after another, each asked for when the one before is written; its size.

        A pack of that name that was there is replaced. What ``buffers`` raises comes out as it is.
        """
        ...

    def read(self, name: str, span: Span) -> memoryview:
        """The bytes of ``span``, read-only and already in memory: touching them raises nothing later.

        Meant for windows of some 16 MiB; they are given back when the last view of them goes. Raises PackMissing,
        and DamagedBlob when the pack ends before the span does.
        """
        ...

    def size(self, name: str) -> int:
        """Bytes of a pack. Raises PackMissing."""
        ...

    def delete(self, name: str) -> int:
        """Remove a pack, and whatever an interrupted write of it left, as durably as it was made; tells how many bytes
        that was. No such pack is no error.
        """
        ...

    def walk(self) -> Iterator[StoredPack]:
        """All there is, in no order. What comes or goes meanwhile may be missing from it."""
        ...

    def ping(self) -> None:
        """Raise StoreError unless the store can be read and written."""
        ...

"""The interface to stored bytes. Every implementation passes tests/store/conformance.py."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from ..values.span import Span
from .files import Buffer
from .pack_list import Stretch
from .room import Room


@dataclass(frozen=True, slots=True)
class StoredPack:
    """An entry of the store: a pack of ``size`` bytes, or, if it is not ``whole``, what there is of one in the making
    or of an interrupted one. The pack of an area has the area's name here, and its lists are not counted.
    """

    name: str
    size: int
    whole: bool


@dataclass(frozen=True, slots=True)
class PresignedSpan:
    """Bytes ``span`` of the object at ``url``, which anybody who has the URL can read."""

    url: str
    span: Span


class PackStore(Protocol):
    """Packs by name. A pack is written once, whole, and never changes, and no other pack ever has its name.

    ``adopt``, ``create`` and ``write`` make a pack in one go. Uploads in parts ``put`` objects into an area, from any
    server that shares the store; ``join`` makes a pack of them, whose name ``keys.joined_name`` gives.

    Names are made of [a-z0-9] (anything else: ValueError). All methods may be called from several threads. They block,
    so never call one on an event loop. Every failure is a StoreError; StorageFull if no room is left. When a method
    that writes returns, what it wrote is as durable as this store makes packs. When one raises, no pack is there.
    """

    @property
    def windows_ahead(self) -> int:
        """Number of windows of some 16 MiB that a download should ask for before it needs them; 0 where the operating
        system reads ahead.
        """
        ...

    def presigned(self, name: str, spans: Sequence[Span], lifetime: timedelta) -> Sequence[Sequence[PresignedSpan]]:
        """Return for each of ``spans`` of a pack where its bytes can be had without the server for ``lifetime``: parts
        of objects, one after another. Empty for a span that cannot be had so. Raises PackMissing, DamagedBlob.
        """
        ...

    @property
    def room(self) -> Room:
        """The room for packs."""
        ...

    def adopt(self, name: str, file: Path) -> None:
        """Make all of ``file`` a pack. The store takes over the file, which is afterwards gone from its path."""
        ...

    def create(self, name: str, source: Path, spans: Sequence[Span]) -> None:
        """Make a pack of ``spans`` of ``source``, one after another. The source stays unchanged."""
        ...

    def write(self, name: str, buffers: Iterable[Buffer]) -> int:
        """Make a pack of ``buffers``, one after another, and return its size.

        Each buffer is requested when the one before is written or copied. An exception of ``buffers`` is passed on
        unchanged.
        """
        ...

    def put(self, area: str, name: str, data: Buffer) -> None:
        """Store an object of an area. Names are those of ``keys``. The same object again replaces the first."""
        ...

    def objects(self, area: str) -> Mapping[str, int]:
        """The sizes of the objects of an area, in bytes, by their names; none for an area that does not exist."""
        ...

    def read_object(self, area: str, name: str, span: Span) -> memoryview:
        """Return the bytes of ``span`` of an object, like ``read``. Raises PackMissing, DamagedBlob."""
        ...

    def join(self, name: str, stretches: Sequence[Stretch]) -> int:
        """Make the pack ``name`` of parts of objects of its area, and return its size in bytes."""
        ...

    def read(self, name: str, span: Span, *, ahead: bool = False) -> memoryview:
        """Return the bytes of ``span``, read-only and already in memory: later access raises nothing.

        Meant for windows of about 16 MiB. Their memory is freed with the last view of them. A read ``ahead`` of its
        need spares requests rather than time. Raises PackMissing, and DamagedBlob if the pack ends before the span
        does.
        """
        ...

    def size(self, name: str) -> int:
        """Size of a pack, in bytes; of a list of objects, the bytes before the first object that is missing or short.
        Raises PackMissing.
        """
        ...

    def delete(self, name: str) -> int:
        """Remove a pack, its area, and the remains of an interrupted write, as durably as it was made. Return the bytes
        freed. A missing pack is not an error.
        """
        ...

    def walk(self) -> Iterator[StoredPack]:
        """All entries, in no order. Packs added or removed during the walk may be missing."""
        ...

    def close(self) -> None:
        """End the threads of the store, if it has any."""
        ...

    def ping(self) -> None:
        """Raise StoreError unless the store can be read and written."""
        ...

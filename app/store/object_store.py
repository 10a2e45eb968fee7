"""The store that keeps packs as objects of an S3-compatible service, or of another one that obstore speaks to.

Every pack is a list of objects: see ``keys``. Objects are written by single PUTs, because a multipart upload that
breaks off leaves remains that no listing shows. No process may fork after it has used this store: the runtime of
obstore does not survive a fork.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import pairwise, starmap
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from ..errors import DamagedBlob, PackMissing, StoreError
from ..values.slices import slices
from ..values.span import Span
from ..values.tracing import as_step
from . import failures
from .files import Buffer, opened
from .keys import (
    PACKS,
    area_key,
    area_of,
    check_key,
    checked,
    is_area,
    is_in_area,
    list_key,
    listed_in,
    new_name,
    object_key,
    object_name,
)
from .pack_list import ObjectSpan, PackList, PackLists, Stretch
from .pack_store import PresignedSpan, StoredPack
from .remote_access import check_access
from .remote_errors import is_beyond_the_end, translated
from .room import Room
from .windows import read_window

OBJECT_SIZE = 16 * 1024 * 1024
"""Largest size of an object, in bytes, except a list."""

WRITERS = 4
"""Objects of one pack that are written at once."""

SMALLEST_RANGE = 2 * 1024 * 1024
"""Smallest part of a span that is worth a request of its own where somebody waits for it, in bytes."""

THREADS = 64
"""Ranges that are read at once, for all downloads."""

WINDOWS_AHEAD = 12

DELETED_AT_ONCE = 1000


class ObjectPackStore:
    """A PackStore under the root of ``objects``. ``pinged`` is the same store with short timeouts and no retries."""

    def __init__(self, objects: ObjectStore, pinged: ObjectStore | None = None) -> None:
        self._objects = objects
        self._pinged = pinged or objects
        self._lists = PackLists(self._load_list)
        self._readers = ThreadPoolExecutor(THREADS, "object-read")
        self._room = Room()
        self._is_written = False  # whether the last write succeeded; until then, a ping writes, too

    @property
    def windows_ahead(self) -> int:
        return WINDOWS_AHEAD

    def presigned(self, name: str, spans: Sequence[Span], lifetime: timedelta) -> Sequence[Sequence[PresignedSpan]]:
        if not isinstance(self._objects, (S3Store, GCSStore, AzureStore)):
            return [()] * len(spans)
        joined, area = self._lists.get(checked(name)), area_of(name)
        parts = [joined.parts(span) for span in spans]
        objects = list(dict.fromkeys(part for each in parts for part, _ in each))
        with translated(f"signing URLs of pack {name}"):
            signed = obstore.sign(self._objects, "GET", [object_key(area, each) for each in objects], lifetime)
        urls = dict(zip(objects, signed, strict=True))
        return [[PresignedSpan(urls[part], span) for part, span in each] for each in parts]

    @property
    def room(self) -> Room:
        return self._room

    def adopt(self, name: str, file: Path) -> None:
        with failures.translated(f"storing pack {checked(name)}"):
            size = file.stat().st_size
        self.create(name, file, [Span(0, size)])
        with failures.translated(f"storing pack {name}"):
            file.unlink()

    def create(self, name: str, source: Path, spans: Sequence[Span]) -> None:
        with failures.translated(f"storing pack {checked(name)}"), opened(source, os.O_RDONLY) as fd:
            pieces = (read_window(fd, piece) for span in spans for piece in _pieces(span))
            self._write(name, _gathered(pieces))

    def write(self, name: str, buffers: Iterable[Buffer]) -> int:
        return self._write(name, _gathered(memoryview(bytes(buffer)) for buffer in buffers))

    def _write(self, name: str, objects: Iterator[memoryview]) -> int:
        """Write objects, some side by side, and then their list."""
        area = area_of(name)
        stretches: list[Stretch] = []
        writing: deque[Future[None]] = deque()
        try:
            with ThreadPoolExecutor(WRITERS, "object-write") as threads:
                for data in objects:
                    stretch = Stretch(object_name(range(len(stretches), len(stretches) + 1)), 0, len(data))
                    stretches.append(stretch)
                    writing.append(threads.submit(self.put, area, stretch.object, data))
                    if len(writing) == WRITERS:
                        writing.popleft().result()
                for each in writing:
                    each.result()
            return self.join(name, stretches)
        except BaseException:
            self._remove(name)
            raise

    @as_step("store.put")
    def put(self, area: str, name: str, data: Buffer) -> None:
        self._put(object_key(area, name), data, f"storing an object of {area}")

    def objects(self, area: str) -> Mapping[str, int]:
        return {
            file: size for file, size in self._in_area(area) if is_in_area(area, file) and listed_in(area, file) is None
        }

    def read_object(self, area: str, name: str, span: Span) -> memoryview:
        return self._joined(area, [(name, span)], SMALLEST_RANGE)

    def join(self, name: str, stretches: Sequence[Stretch]) -> int:
        joined = PackList(stretches)
        self._put(list_key(name), joined.to_bytes(), f"storing pack {name}")
        self._lists.forget(name)
        return joined.size

    @as_step("store.read")
    def read(self, name: str, span: Span, *, ahead: bool = False) -> memoryview:
        smallest = OBJECT_SIZE if ahead else SMALLEST_RANGE
        return self._lists.read(checked(name), span, partial(self._joined, smallest=smallest))

    def _joined(self, area: str, parts: Sequence[ObjectSpan], smallest: int) -> memoryview:
        """Read parts of objects side by side, cut into ranges of ``smallest`` bytes or more."""
        ranges = [(object_key(area, name), each) for name, span in parts for each in _cut(span, smallest)]
        if len(ranges) == 1:
            return self._range(area, *ranges[0])
        return memoryview(b"".join(self._readers.map(lambda each: self._range(area, *each), ranges)))

    def size(self, name: str) -> int:
        area = area_of(name)
        files = dict(self._in_area(area))
        if f"{name}.list" not in files:
            self._lists.forget(name)
            raise PackMissing(f"pack {name} does not exist")
        return self._lists.get(name).there(files)

    def delete(self, name: str) -> int:
        area = area_of(name)
        files = [(file, size) for file, size in self._in_area(area) if is_in_area(area, file)]
        lists = [file for file, _ in files if listed_in(area, file) is not None]
        rest = {file: size for file, size in files if listed_in(area, file) is None}
        with translated(f"deleting pack {name}"):
            for keys in (lists, *slices(list(rest), DELETED_AT_ONCE)):
                if keys:
                    _delete(self._objects, [f"{area_key(area)}/{file}" for file in keys])
        self._lists.forget(name)
        return sum(rest.values())

    def walk(self) -> Iterator[StoredPack]:
        """All entries; an area's objects come one after another, because a listing is in order."""
        area, size, is_whole = "", 0, False
        for key, nbytes in self._listed(PACKS):
            match key.split("/"):
                case [_, folder, name, file] if is_area(name) and name[:2] == folder and is_in_area(name, file):
                    if name != area:
                        if area:
                            yield StoredPack(area, size, is_whole)
                        area, size, is_whole = name, 0, False
                    if listed_in(name, file) is None:
                        size += nbytes
                    else:
                        is_whole = True
        if area:
            yield StoredPack(area, size, is_whole)

    def ping(self) -> None:
        with translated("listing objects"):
            for _ in obstore.list(self._pinged, f"{PACKS}/00/none", chunk_size=1):
                break
        if not self._is_written:
            check_access(self._pinged, check_key(new_name()))
            self._is_written = True

    def close(self) -> None:
        self._readers.shutdown()

    def _put(self, key: str, data: Buffer, doing: str) -> None:
        self._is_written = False
        with translated(doing):
            obstore.put(self._objects, key, _flat(data), use_multipart=False)
        self._is_written = True

    def _range(self, area: str, key: str, span: Span) -> memoryview:
        """Read one range by one request. A short answer counts only if the object is as short."""
        with translated(f"reading pack {area}", pack=area):
            if span.length == 0:
                obstore.head(self._objects, key)
                return memoryview(b"")
            for _ in range(2):
                try:
                    data = memoryview(obstore.get_range(self._objects, key, start=span.start, end=span.end))
                except BaseError as error:
                    if is_beyond_the_end(error):
                        data = memoryview(b"")
                        break
                    raise
                if len(data) == span.length:
                    return data
            if obstore.head(self._objects, key)["size"] < span.end:
                raise DamagedBlob(f"stored bytes end before offset {span.end}")
        raise StoreError(f"the store gave {len(data)} bytes in place of {span.length}; try again")

    def _load_list(self, name: str) -> bytes:
        with translated(f"reading pack {name}", pack=name):
            return bytes(obstore.get(self._objects, list_key(name)).bytes())

    def _in_area(self, area: str) -> list[tuple[str, int]]:
        begin = f"{area_key(area)}/"
        return [(key.removeprefix(begin), size) for key, size in self._listed(area_key(area))]

    def _listed(self, prefix: str) -> Iterator[tuple[str, int]]:
        with translated("listing the store"):
            for chunk in obstore.list(self._objects, prefix):
                for each in chunk:
                    yield each["path"], each["size"]

    def _remove(self, name: str) -> None:
        """Remove what a write that failed may have left, or done although its answer was lost."""
        try:
            self.delete(name)
        except StoreError:
            return  # the pack's row stays, so the sweep removes it


def _pieces(span: Span) -> Iterator[Span]:
    """Cut a span into pieces of the size of an object."""
    for start in range(span.start, span.end, OBJECT_SIZE):
        yield Span(start, min(start + OBJECT_SIZE, span.end))


def _cut(span: Span, smallest: int) -> Iterator[Span]:
    """Cut a span evenly into as many pieces of at least ``smallest`` bytes as it has."""
    count = max(1, span.length // smallest)
    return starmap(Span, pairwise(span.start + span.length * i // count for i in range(count + 1)))


def _gathered(buffers: Iterable[memoryview]) -> Iterator[memoryview]:
    """Join small buffers to objects. Every object is memory of its own, because several are written at once."""
    gathered = bytearray()
    for buffer in buffers:
        if len(gathered) + len(buffer) > OBJECT_SIZE and gathered:
            yield memoryview(gathered)
            gathered = bytearray()
        if len(buffer) >= OBJECT_SIZE:
            yield buffer
        else:
            gathered += buffer
    if gathered:
        yield memoryview(gathered)


def _delete(objects: ObjectStore, keys: list[str]) -> None:
    """Delete objects. Some services report those that are gone as an error, S3 does not."""
    try:
        obstore.delete(objects, keys)
    except FileNotFoundError:
        for key in keys:
            with suppress(FileNotFoundError):
                obstore.delete(objects, key)


def _flat(data: Buffer) -> memoryview:
    return memoryview(data).cast("B")

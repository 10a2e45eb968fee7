"""Objects that torch builds before the bytes of their tensors have arrived.

torch.load reads a file with the real pickle, whose storages have only their sizes. It allocates memory for each storage
and asks for its bytes, which shows where they belong. If nothing looks at the bytes while the object is built, as the
server's index tells, they are left out, and all are received afterwards, in parallel.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import IO, Any, cast

from .._download.fetch_plan import Memory, Place
from .._download.layout import Layout, Stored
from .._download.receiver import Receiver
from .._errors import DigestMismatch, UnexpectedAnswer
from .._torch import load, require_torch
from .device import Device
from .memory import address_of, expect
from .virtual_zip import VirtualZip
from .zip_tail import crc32s_in

WINDOW = 16 * 1024 * 1024
"""Bytes fetched at once of storages that torch asks for one after another."""

NO_FUNCTION = "Callable map_location not supported"
"""Text of torch's error where tensors that wrap others, and some of other devices', refuse any function there."""


class _Copied(Exception):
    """torch gave its reader other memory than the storage's own."""


class DeferredLoad:
    """An object, ``value``, and its storages by their numbers; ``fill`` fetches their bytes."""

    def __init__(self, receiver: Receiver, layout: Layout, map_location: Any, *, weights_only: bool) -> None:
        self._receiver = receiver
        self._layout = layout
        self._map_location = map_location
        names = (type(None), str, dict, require_torch("loading").device)
        self._is_named = isinstance(map_location, names)  # torch calls whatever else it is given
        self._asked: tuple[int, int] | None = None
        self._window: dict[int, memoryview] = {}
        self._crc32s: dict[int, int] = {}
        self.storages: dict[int, Any] = {}
        if layout.pickle is None:
            raise ValueError("only a torch file has a pickle")
        receiver.expects(sum(each.size for each in (layout.pickle, *layout.storages)))
        pickle = bytearray(layout.pickle.size)
        receiver.fill([(layout.pickle, Memory(memoryview(pickle)))])
        sizes = [each.size for each in layout.storages]
        file = cast("IO[bytes]", VirtualZip(bytes(pickle), sizes, layout.byteorder, self._ask))
        if str(map_location) == "meta" or not self._is_named:
            self.value = load(file, map_location, weights_only=weights_only)
            return
        try:
            self.value = load(file, self._restore, weights_only=weights_only)
        except (_Copied, RuntimeError) as error:
            if isinstance(error, RuntimeError) and NO_FUNCTION not in str(error):
                raise
            # Torch gets the bytes of every storage when it asks for them.
            self._asked, self.storages = None, {}
            self._layout = layout.looked_at()
            self.value = load(file, map_location, weights_only=weights_only)

    @property
    def has_begun(self) -> bool:
        """Return whether ``fill`` is about to receive its first byte, or has."""
        return self._receiver.has_begun

    @property
    def finished(self) -> list[int]:
        """Return the numbers of the storages that are received whole."""
        return [n for n in self.storages if self._layout.storages[n].start in self._receiver.finished]

    def digest(self, number: int) -> str | None:
        """Return the digest of a storage's bytes and their byte order, None if the server has none."""
        digest = self._layout.storages[number].digest
        return None if digest is None else f"{digest} {self._layout.byteorder}"

    @property
    def digests(self) -> tuple[str, ...] | None:
        """Return the digests of the pickle and of all storages, which tell the whole object; None if one is missing."""
        found = [None if self._layout.pickle is None else self._layout.pickle.digest]
        found += [self.digest(number) for number in range(len(self._layout.storages))]
        known = tuple(each for each in found if each is not None)
        return known if len(known) == len(found) else None

    def fill(self, instead: Mapping[int, memoryview] = MappingProxyType({}), *, without: Collection[int] = ()) -> int:
        """Fetch all bytes that are still missing; those of the storages in ``instead`` go into other memory, and those
        of the storages in ``without`` are left out. Return the number of bytes.
        """
        places: dict[int, Place] = {}
        stored = self._layout.storages
        for number, storage in self.storages.items():
            if number in without:
                continue
            if number in instead:
                places[number] = Memory(instead[number])
            elif storage.device.type == "cpu":
                places[number] = Memory(expect(storage))
            elif self._is_checked_by_crc32(stored[number]):
                places[number] = Memory(memoryview(bytearray(stored[number].size)))
            else:
                places[number] = Device(storage)
        self._receiver.fill([(stored[number], place) for number, place in places.items()])
        for number, place in places.items():
            if isinstance(place, Memory) and self._is_checked_by_crc32(stored[number]):
                self._crc32s[number] = zlib.crc32(place.view)
                if self.storages[number].device.type != "cpu":
                    Device(self.storages[number]).put(0, place.view)
        self._check_crc32s()
        return sum(stored[number].size for number in places)

    def _ask(self, number: int, at: int, view: memoryview) -> None:
        stored = self._layout.storages[number]
        if stored.plain and (at, len(view)) == (0, stored.size) and self._is_named:
            self._asked = number, address_of(view)
            return
        if number not in self._window:
            self._fetch_from(number)
        view[:] = self._window[number][at : at + len(view)]

    def _fetch_from(self, number: int) -> None:
        """Fetch one storage, and as many of the next ones as fit into a window."""
        self._window, size = {}, 0
        for i in range(number, len(self._layout.storages)):
            size += self._layout.storages[i].size
            if self._window and size > WINDOW:
                break
            self._window[i] = memoryview(bytearray(self._layout.storages[i].size))
        self._receiver.fill([(self._layout.storages[i], Memory(view)) for i, view in self._window.items()])
        for i, view in self._window.items():
            if self._is_checked_by_crc32(self._layout.storages[i]):
                self._crc32s[i] = zlib.crc32(view)

    def _restore(self, storage: Any, location: str) -> Any:
        """Place a storage as torch.load does after reading it; for a storage whose bytes are still to come, only
        allocate its memory.
        """
        torch = require_torch("loading")
        where = self._map_location
        where = where.get(location, location) if isinstance(where, dict) else location if where is None else where
        asked, self._asked = self._asked, None
        if asked is None:
            return torch.serialization.default_restore_location(storage, str(where))
        number, address = asked
        if storage.data_ptr() != address:
            raise _Copied
        if storage.nbytes() != self._layout.storages[number].size:
            raise UnexpectedAnswer(f"the index has {self._layout.storages[number].size} bytes for storage {number}")
        device = torch.serialization.default_restore_location(torch.UntypedStorage(0), str(where)).device
        if device.type != "cpu":
            storage = torch.UntypedStorage(storage.nbytes(), device=device)
        self.storages[number] = storage
        return storage

    def _is_checked_by_crc32(self, stored: Stored) -> bool:
        return self._receiver.verifies and stored.size > 0 and not stored.blocks

    def _check_crc32s(self) -> None:
        """Check cast storages, which have no digest, by the checksums at the file's end."""
        if not self._crc32s:
            return
        layout = self._layout
        tail = Stored(layout.storages[-1].end, layout.size, None, ())
        data = bytearray(tail.size)
        self._receiver.fill([(tail, Memory(memoryview(data)))])
        expected = crc32s_in(bytes(data))
        for number, crc32 in self._crc32s.items():
            if expected.get(f"archive/data/{number}") != crc32:
                raise DigestMismatch(f"the download is damaged: data/{number} does not match its CRC-32")

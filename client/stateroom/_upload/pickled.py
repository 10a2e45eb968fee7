"""An object in the form of the file that torch.save would write, without writing it: tensors stay where they are."""

from __future__ import annotations

import ctypes
import io
import pickle
import sys
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._raw_file import RawFile
from .._torch import require_torch
from .split import MIN_STORAGE, MemorySplit
from .zip_writer import Record, around, zipped

HEADERS = 512
"""More bytes than a record's two headers and padding have, and than the end of a zip has."""


@dataclass(frozen=True)
class _Storage:
    """A storage whose bytes are elsewhere."""

    name: str
    size: int
    checksum: int


class Pickled:
    """An object pickled as by torch.save: its ``pickle``, and by their keys the storages that the pickle refers to.

    Raises the errors of torch.save.
    """

    def __init__(self, obj: Any) -> None:
        self.torch = require_torch("save()")
        self.storages: dict[str, Any] = {}
        self._keys: dict[int, str] = {}
        self._dtypes: dict[int, Any] = {}
        buffer = io.BytesIO()
        _Pickler(buffer, self._name).dump(obj)
        self.pickle = buffer.getvalue()

    def _name(self, obj: Any) -> tuple[Any, ...] | None:
        """Return the persistent id of a storage, as torch.load reads it; None for anything else."""
        torch = self.torch
        if isinstance(obj, torch.storage.TypedStorage):
            storage, dtype, size = obj._untyped_storage, obj.dtype, obj._size()  # noqa: SLF001  as torch.save does
            kind = getattr(torch, obj._pickle_storage_type())  # noqa: SLF001
        elif isinstance(obj, torch.UntypedStorage):
            storage, dtype, size, kind = obj, torch.uint8, obj.nbytes(), torch.UntypedStorage
        else:
            return None
        if storage.device.type != "meta" and storage.data_ptr():
            known = self._dtypes.setdefault(storage.data_ptr(), dtype)
            if known != dtype:
                raise RuntimeError(
                    "Cannot save multiple tensors or storages that view the same data as different types"
                )
        key = self._keys.setdefault(storage._cdata, str(len(self._keys)))  # noqa: SLF001
        self.storages[key] = storage
        return ("storage", kind, key, torch.serialization.location_tag(storage), size)

    def without_storages(self) -> io.BytesIO:
        """Return a file without storages, in which torch can look for the pickle's globals."""
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in self._records():
                archive.writestr(f"archive/{name}", data)
        file.seek(0)
        return file

    def memory(self) -> list[memoryview]:
        """Return the storages' bytes: the tensors' own memory, or copies of storages on other devices."""
        return on_host(self.torch, list(self.storages.values()))

    def release(self) -> None:
        """Drop all references to tensors; the storages' bytes must come from elsewhere from now on."""
        self.storages = dict.fromkeys(self.storages)

    def split(self, memory: Sequence[memoryview]) -> MemorySplit:
        """Return the file in parts, with the given storages' bytes. Their checksums are not computed."""
        (pieces, places), heads = self._zipped(memory, [0] * len(memory))
        spans = [(place, place + len(view)) for place, view in zip(places[heads:], memory)]
        return MemorySplit(pieces, [(start, end) for start, end in spans if end - start > MIN_STORAGE])

    def largest_size(self, memory: Sequence[memoryview]) -> int:
        """Return a number of bytes that the file does not exceed, without laying it out."""
        return len(self.pickle) + sum(map(len, memory)) + HEADERS * (len(memory) + len(self._records()) + 1)

    def file(self, memory: Sequence[memoryview]) -> io.BufferedReader:
        """Return the file, open for reading: nothing of the storages is copied."""
        return io.BufferedReader(MemoryFile(MemorySplit(self.pieces(memory), [])))

    def pieces(self, memory: Sequence[memoryview]) -> list[memoryview]:
        """Return the file as pieces, with checksums."""
        (pieces, _), _ = self._zipped(memory, [zlib.crc32(view) for view in memory])
        return pieces

    def around(self, checksum: int) -> tuple[bytes, bytes]:
        """Return the file's bytes before and after those of its only storage, whose CRC32 is given."""
        ((key, storage),) = self.storages.items()
        return around(self._heads(), _Storage(f"archive/data/{key}", storage.nbytes(), checksum))

    def _zipped(
        self, memory: Sequence[memoryview], checksums: Sequence[int]
    ) -> tuple[tuple[list[memoryview], list[int]], int]:
        """Return the pieces, the places of the records, and the number of records before the storages."""
        heads = self._heads()
        storages = [
            Record(f"archive/data/{key}", view, checksum)
            for key, view, checksum in zip(self.storages, memory, checksums)
        ]
        return zipped([*heads, *storages]), len(heads)

    def _heads(self) -> list[Record]:
        return [Record(f"archive/{name}", memoryview(data), zlib.crc32(data)) for name, data in self._records()]

    def _records(self) -> list[tuple[str, bytes]]:
        return [
            ("data.pkl", self.pickle),
            (".format_version", b"1"),
            ("byteorder", sys.byteorder.encode()),
            ("version", b"3\n"),
        ]


class MemoryFile(RawFile):
    """Pieces of memory, read as a file."""

    def __init__(self, pieces: MemorySplit) -> None:
        super().__init__(pieces.size)
        self._pieces = pieces

    def fill(self, at: int, view: memoryview) -> None:
        done = 0
        for piece in self._pieces.read(at, at + len(view)):
            view[done : done + len(piece)] = piece
            done += len(piece)


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, name: Any) -> None:
        super().__init__(file, protocol=2)
        self._name = name

    def persistent_id(self, obj: Any) -> Any:
        return self._name(obj)


def on_host(torch: Any, storages: Sequence[Any]) -> list[memoryview]:
    """Return the bytes of storages; those on another device are copied, in parallel, into pinned memory."""
    copies = []
    for storage in storages:
        if storage.device.type in {"cpu", "meta"}:
            copies.append(storage)
            continue
        copy = torch.empty(storage.nbytes(), dtype=torch.uint8, pin_memory=storage.device.type == "cuda")
        copies.append(copy.untyped_storage().copy_(storage, non_blocking=True))
    for device in {storage.device for storage in storages if storage.device.type == "cuda"}:
        torch.cuda.synchronize(device)
    return [memory_of(storage) for storage in copies]


def memory_of(storage: Any) -> memoryview:
    """Return the bytes of a storage of this host; the view keeps the storage alive."""
    if storage.device.type == "meta" or not storage.nbytes():
        return memoryview(b"")
    memory = (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
    memory.storage = storage
    return memoryview(memory).cast("B")

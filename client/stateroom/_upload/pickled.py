"""An object as the file that torch.save would write, without writing it: tensors stay where they are."""

from __future__ import annotations

import ctypes
import io
import pickle
import sys
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

from .._raw_file import RawFile
from .._torch import require_torch
from .split import MIN_STORAGE, MemorySplit
from .zip_writer import Record, zipped


class Pickled:
    """What torch.save makes of an object: its ``pickle``, and the storages that this names, by their keys.

    Raises what torch.save raises.
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
        """The persistent id of a storage, as torch.load reads it; None for anything else."""
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
        """A file from which torch reads which names the pickle holds."""
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in self._records():
                archive.writestr(f"archive/{name}", data)
        file.seek(0)
        return file

    def memory(self) -> list[memoryview]:
        """The storages' bytes: the very memory of the tensors, but copies of those that another device holds."""
        return on_host(self.torch, list(self.storages.values()))

    def release(self) -> None:
        """Keep no tensor alive any more; from now on only their bytes can be had, from elsewhere."""
        self.storages = dict.fromkeys(self.storages)

    def split(self, memory: Sequence[memoryview]) -> MemorySplit:
        """The file in parts, the storages' bytes as given. Nobody has computed their checksums."""
        (pieces, places), heads = self._zipped(memory, [0] * len(memory))
        spans = [(place, place + len(view)) for place, view in zip(places[heads:], memory)]
        return MemorySplit(pieces, [(start, end) for start, end in spans if end - start > MIN_STORAGE])

    def file(self, memory: Sequence[memoryview]) -> io.BufferedReader:
        """The file, to be read: nothing of the storages is copied."""
        return io.BufferedReader(MemoryFile(MemorySplit(self.pieces(memory), [])))

    def pieces(self, memory: Sequence[memoryview]) -> list[memoryview]:
        """The file, piece by piece, with checksums."""
        (pieces, _), _ = self._zipped(memory, [zlib.crc32(view) for view in memory])
        return pieces

    def _zipped(
        self, memory: Sequence[memoryview], checksums: Sequence[int]
    ) -> tuple[tuple[list[memoryview], list[int]], int]:
        """The pieces and places of its records, and how many of them come before the storages."""
        heads = [Record(f"archive/{name}", memoryview(data), zlib.crc32(data)) for name, data in self._records()]
        storages = [
            Record(f"archive/data/{key}", view, checksum)
            for key, view, checksum in zip(self.storages, memory, checksums)
        ]
        return zipped([*heads, *storages]), len(heads)

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
    """The bytes of storages; copies, in pinned memory and side by side, of those that another device holds."""
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
    """The bytes of a storage of this host, which the view keeps alive."""
    if storage.device.type == "meta" or not storage.nbytes():
        return memoryview(b"")
    memory = (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
    memory.storage = storage
    return memoryview(memory).cast("B")

"""fsspec: ``stateroom://namespace/name/RUN/FILE`` and ``stateroom://namespace/name@REF`` are files, or folders.

    with fsspec.open("stateroom://vision/classifier/run-7/last.pt", "wb") as file:
        torch.save(state, file)
    with fsspec.open("stateroom://vision/classifier@best") as file:
        state = torch.load(file)

Tried with fsspec 2026.9.0, which finds the protocol by itself.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .._checkpoint import Checkpoint
from .._client import Client
from .._download.requests import find_path, find_upload
from .._download.slices import ByteRanges
from .._errors import InvalidRequest, ModelNotFound, ServerError
from .._files import FileInfo
from .._model import Model
from ._files import PROTOCOL, parse

try:
    from fsspec import AbstractFileSystem
    from fsspec.spec import AbstractBufferedFile
except ImportError as error:
    raise ImportError(f"stateroom.integrations.fsspec needs fsspec ({error}): pip install fsspec") from error

BLOCK = 4 * 1024 * 1024
"""Bytes that an open file fetches at once."""

FOLDER = "folder"
"""The format of a checkpoint that is a folder."""

ANY = ""
"""A text that every slot is not less than."""


class StateroomFileSystem(AbstractFileSystem):
    """The files of a server. ``url`` and ``token`` are those of Client.

    A file ``namespace/name/RUN/FILE`` is the checkpoint in the slot FILE of a run, whose name may have slashes. Only
    checkpoints can be written: what torch.save writes, and safetensors files.
    """

    protocol = PROTOCOL

    def __init__(self, url: str | None = None, token: str | None = None, **storage_options: Any) -> None:
        super().__init__(**storage_options)
        self._client = Client(url, token)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        file = self._find(path)
        if file is None and not self._files_below(path):
            raise FileNotFoundError(path)
        return self._described(path, file)

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        itself = self._find(path)
        found: dict[str, _File | None] = {} if itself is None else {path: itself}
        for name, file in self._files_below(path).items():
            first, *deeper = name[len(path) + 1 :].split("/")
            found[f"{path}/{first}"] = None if deeper else file
        if not found:
            raise FileNotFoundError(path)
        return [self._described(name, found[name]) if detail else name for name in sorted(found)]

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Return whether there is such a file or folder. A server that fails raises its error."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        ranges = self._ranges(self._found(path))
        first, last, _ = slice(start, end).indices(ranges.layout.size)
        return bytes(ranges.read(first, max(first, last)))

    def cat_ranges(
        self,
        paths: Sequence[str],
        starts: int | Iterable[int | None],
        ends: int | Iterable[int | None],
        max_gap: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[bytes]:
        """Fetch ranges of files, with one look-up and as few requests as possible for each file."""
        starts = [starts] * len(paths) if isinstance(starts, int) else list(starts)
        ends = [ends] * len(paths) if isinstance(ends, int) else list(ends)
        if not len(paths) == len(starts) == len(ends):
            raise ValueError(f"{len(paths)} paths, {len(starts)} starts and {len(ends)} ends were given")
        data = [bytearray()] * len(paths)
        for path in dict.fromkeys(paths):
            ranges, wanted = self._ranges(self._found(path)), []
            for number, (each, start, end) in enumerate(zip(paths, starts, ends)):
                if each == path:
                    first, last, _ = slice(start, end).indices(ranges.layout.size)
                    data[number] = bytearray(max(0, last - first))
                    wanted.append((first, memoryview(data[number])))
            ranges.fill(wanted)
        return [bytes(each) for each in data]

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing: a folder is there once it has a file."""

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Do nothing: a folder is there once it has a file."""

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Move the checkpoints to the trash; with ``recursive``, also all that are below a folder."""
        for each in self.expand_path(path, recursive=recursive, maxdepth=maxdepth):
            if not recursive or self.isfile(each):  # a folder goes with its last file
                self.rm_file(each)

    def rm_file(self, path: str) -> None:
        """Move the checkpoint to the trash. Only files that have a slot are removed."""
        if parse(self._strip_protocol(path)).slot is None:
            raise InvalidRequest(f"{path!r} cannot be removed by its ref: use model.delete() with its version")
        checkpoint = self._found(path).checkpoint
        self._client.model(checkpoint.model, run="").delete(checkpoint)

    _rm = rm_file

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        with self.open(path1) as source, self.open(path2, "wb") as target:
            shutil.copyfileobj(source, target, BLOCK)

    def created(self, path: str) -> datetime:
        return self._found(path).checkpoint.created_at

    modified = created

    def ukey(self, path: str) -> str:
        """Return a text that is another one once the file has changed."""
        return str(self._found(path).checkpoint)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | str | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        cache_type: str = "blockcache",
        **kwargs: Any,
    ) -> AbstractBufferedFile:
        if mode == "rb":
            ranges, size = self._ranges(self._found(path)), block_size or BLOCK
            return _Reading(self, path, ranges, block_size=size, cache_type=cache_type, cache_options=cache_options)
        if mode != "wb":
            raise ValueError(f"mode {mode!r}: a file of {PROTOCOL}:// can be read (rb) or written anew (wb)")
        name = parse(path)
        if name.slot is None:
            raise InvalidRequest(f"{path!r} cannot be written: name a file, as in {PROTOCOL}://{name.model}/RUN/FILE")
        return _Writing(self, path, name.model_of(self._client), name.slot, autocommit=autocommit)

    def _described(self, path: str, file: _File | None) -> dict[str, Any]:
        """Describe a file, or a folder if there is none."""
        if file is None:
            return {"name": path, "size": 0, "type": "directory"}
        if file.inside is not None:
            size = file.inside.bytes
        elif file.checkpoint.digest is not None:
            size = file.checkpoint.bytes
        else:  # it came in parts: only an index tells whether it is as long as torch.save would have made it
            size = self._ranges(file).layout.size
        facts = ("version", "epoch", "step", "loss", "metrics")
        about = {name: getattr(file.checkpoint, name) for name in facts}
        return {"name": path, "size": size, "type": "file", "created": file.checkpoint.created_at, **about}

    def _found(self, path: str) -> _File:
        file = self._find(self._strip_protocol(path))
        if file is None:
            raise FileNotFoundError(path)
        return file

    def _find(self, path: str) -> _File | None:
        name = parse(path)
        checkpoint = name.find(self._client)
        if checkpoint is None:
            return None
        if name.path is not None:
            return next((_File(checkpoint, each) for each in checkpoint.files() if each.path == name.path), None)
        return None if name.ref is not None and checkpoint.format == FOLDER else _File(checkpoint)

    def _files_below(self, path: str) -> dict[str, _File]:
        """Return the files in a folder and in the folders below it, by their names."""
        name = parse(path)
        if name.ref is not None:
            checkpoint = name.find(self._client)
            if checkpoint is None or checkpoint.format != FOLDER:
                return {}
            files = {f"{name.model}@{name.ref}/{each.path}": _File(checkpoint, each) for each in checkpoint.files()}
        else:
            try:
                slotted = list(self._client.model(name.model, run="").checkpoints(where={"slot.ge": ANY}))
            except ModelNotFound:
                return {}
            files = {"/".join(filter(None, (each.model, each.run, each.slot))): _File(each) for each in slotted}
        return {name: file for name, file in files.items() if name.startswith(f"{path}/")}

    def _ranges(self, file: _File) -> ByteRanges:
        model = self._client.model(file.checkpoint.model, run="")
        api = model._api.in_background()  # noqa: SLF001  one package
        if file.inside is not None:
            return ByteRanges(find_path(api, file.checkpoint, file.inside.path))
        fetching = find_upload(api, file.checkpoint)
        if fetching is None:
            raise ServerError(
                f"the server at {self._client.url} does not say where the bytes of a file lie; upgrade it"
            )
        return ByteRanges(fetching)


@dataclass(frozen=True)
class _File:
    """The file of a checkpoint, or one that is ``inside`` of its folder."""

    checkpoint: Checkpoint
    inside: FileInfo | None = None


class _Reading(AbstractBufferedFile):
    def __init__(self, fs: StateroomFileSystem, path: str, ranges: ByteRanges, **options: Any) -> None:
        self._ranges = ranges
        super().__init__(fs, path, "rb", size=ranges.layout.size, **options)

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self._ranges.read(start, min(end, self._ranges.layout.size)))


class _Writing(AbstractBufferedFile):
    """A file that is written on this machine, and uploaded when it is closed, or at the end of a transaction."""

    def __init__(self, fs: StateroomFileSystem, path: str, model: Model, slot: str, *, autocommit: bool) -> None:
        super().__init__(fs, path, "wb", block_size=BLOCK, autocommit=autocommit)
        self._model = model
        self._slot = slot
        self._folder = tempfile.TemporaryDirectory(prefix="stateroom-")
        self._written = Path(self._folder.name) / slot

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        """Close the file. After an error, nothing is uploaded."""
        if kind is None:
            self.close()
        else:
            self.closed = True
            self.discard()

    def _upload_chunk(self, final: bool = False) -> bool:
        with self._written.open("ab") as file:
            file.write(self.buffer.getbuffer())
        if final and self.autocommit:
            self.commit()
        return True

    def commit(self) -> None:
        with self._folder:
            self._model.upload(self._written, slot=self._slot)

    def discard(self) -> None:
        self._folder.cleanup()

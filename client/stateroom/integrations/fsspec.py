"""fsspec: ``stateroom://namespace/name/RUN/FILE`` and ``stateroom://namespace/name@REF`` are files, or folders.

    with fsspec.open("stateroom://vision/classifier/run-7/last.pt", "wb") as file:
        torch.save(state, file)
    with fsspec.open("stateroom://vision/classifier@best") as file:
        state = torch.load(file)
    dcp.save(state, checkpoint_id="stateroom://vision/classifier/run-7/sharded")

Tried with fsspec 2026.9.0, which finds the protocol by itself.
"""

from __future__ import annotations

import io
import shutil
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from .._checkpoint import Checkpoint
from .._client import Client
from .._download.slices import ByteRanges
from .._errors import InvalidRequest, NotACheckpoint
from .._upload.loose import LooseFile, loose_files, remove_loose, write_loose
from .._warn import warn
from ._files import PROTOCOL, Name, parse
from ._saves import MOST_PLAIN, WRITTEN, Save, begin, check_name, is_of_save

try:
    from fsspec import AbstractFileSystem
except ImportError as error:
    raise ImportError(f"stateroom.integrations.fsspec needs fsspec ({error}): pip install fsspec") from error

from ._lookup import Lookup
from ._open_files import BLOCK, Found, Reading, Writing


class StateroomFileSystem(AbstractFileSystem):
    """The files of a server. ``url`` and ``token`` are those of Client.

    A file ``namespace/name/RUN/FILE`` is the checkpoint in the slot FILE of a run, whose name may have slashes. If that
    checkpoint is a folder, its files are below. Torch's FsspecWriter writes such a folder file by file. A small file
    that is no checkpoint is kept for a day.
    """

    protocol = PROTOCOL

    def __init__(self, url: str | None = None, token: str | None = None, **storage_options: Any) -> None:
        super().__init__(**storage_options)
        self._client = Client(url, token)
        self._files = Lookup(self._client)
        self._saves: dict[str, Save] = {}

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        """Return the one spelling of a name, without slashes around it."""
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        return super()._strip_protocol(path).strip("/")

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        file = self._files.find(path)
        if file is None and not self._files.below(path):
            raise FileNotFoundError(path)
        return self._described(path, file)

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        itself = self._files.find(path)
        found: dict[str, Found | None] = {} if itself is None else {path: itself}
        for name, file in self._files.below(path).items():
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
        ranges = self._files.bytes_of(self._found(path))
        if isinstance(ranges, bytes):
            return ranges[start:end]
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
            ranges, wanted = self._files.bytes_of(self._found(path)), []
            for number, (each, start, end) in enumerate(zip(paths, starts, ends)):
                if each != path:
                    continue
                if isinstance(ranges, bytes):
                    data[number] = bytearray(ranges[start:end])
                    continue
                first, last, _ = slice(start, end).indices(ranges.layout.size)
                data[number] = bytearray(max(0, last - first))
                wanted.append((first, memoryview(data[number])))
            if isinstance(ranges, ByteRanges):
                ranges.fill(wanted)
        return [bytes(each) for each in data]

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Begin a save to the folder: files that were written before do not become part of it. A folder is there once
        it has a file.
        """
        path = self._strip_protocol(path)
        name = parse(path)
        if name.slot is not None:
            self._saves[path] = begin(name.model_of(self._client), name.below)

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        self.makedirs(path)

    def mv(self, path1: str, path2: str, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any) -> None:
        """Move files. To rename ``.metadata.tmp`` to ``.metadata`` is to make a checkpoint of the folder's files."""
        old, new = self._strip_protocol(path1), self._strip_protocol(path2)
        folder, _, name = old.rpartition("/")
        if name == WRITTEN and old == f"{new}.tmp":
            self._save_to(folder).commit()
            self._saves.pop(folder, None)
        elif old != new:  # a copy of a file onto itself would be removed with it
            super().mv(path1, path2, recursive=recursive, maxdepth=maxdepth, **kwargs)

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Move the checkpoints to the trash; with ``recursive``, also all that are below a folder."""
        for each in self.expand_path(path):
            if recursive:
                self._remove_tree(self._strip_protocol(each), maxdepth)
            else:
                self.rm_file(each)

    def _remove_tree(self, path: str, maxdepth: int | None) -> None:
        name = parse(path)
        if name.ref is not None:
            raise _not_by_ref(path)
        below = {key: each for key, each in self._files.slotted(name).items() if f"{key}/".startswith(f"{path}/")}
        for key, checkpoint in below.items():
            if maxdepth is None or key[len(path) :].count("/") <= maxdepth:
                self._delete(checkpoint)
        if not remove_loose(self._files.api(name), name.below) and not below:
            raise FileNotFoundError(path)

    def rm_file(self, path: str) -> None:
        """Move the checkpoint to the trash. Only files that have a slot are removed."""
        path = self._strip_protocol(path)
        name = parse(path)
        if name.slot is None:
            raise _not_by_ref(path)
        file = self._files.find(path)
        if file is None and self._files.below(path):
            raise IsADirectoryError(f"{path!r} is a folder, which rm(recursive=True) removes")
        if file is None:
            raise FileNotFoundError(path)
        if isinstance(file, LooseFile):
            self._remove_loose_file(path, name)
        elif file.inside is None:
            self._delete(file.checkpoint)
            self._remove_loose_file(path, name)  # which the checkpoint has hidden
        elif not self._is_about_to_replace(path):
            raise InvalidRequest(
                f"{path!r} is a file of {file.checkpoint}, which is removed as a whole: rm(recursive=True)"
            )

    _rm = rm_file

    def _remove_loose_file(self, path: str, name: Name) -> None:
        """Remove the loose file at a path, if there is one, and no file in a folder of this name."""
        paths = [each.path for each in loose_files(self._files.api(name), name.below)]
        if name.below in paths and len(paths) > 1:
            raise IsADirectoryError(f"{path!r} is a folder, too, which rm(recursive=True) removes")
        if paths == [name.below]:
            remove_loose(self._files.api(name), name.below)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        with self.open(path1) as source, self.open(path2, "wb") as target:
            shutil.copyfileobj(source, target, BLOCK)

    def created(self, path: str) -> datetime:
        file = self._found(path)
        return file.written_at if isinstance(file, LooseFile) else file.checkpoint.created_at

    modified = created

    def ukey(self, path: str) -> str:
        """Return a text that is another one once the file has changed."""
        file = self._found(path)
        return f"loose file {file.number}" if isinstance(file, LooseFile) else str(file.checkpoint)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | str | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        cache_type: str = "blockcache",
        **kwargs: Any,
    ) -> io.IOBase:
        if mode == "rb":
            ranges, size = self._files.bytes_of(self._found(path)), block_size or BLOCK
            if isinstance(ranges, bytes):
                return io.BytesIO(ranges)
            return Reading(self, path, ranges, block_size=size, cache_type=cache_type, cache_options=cache_options)
        if mode != "wb":
            raise ValueError(f"mode {mode!r}: a file of {PROTOCOL}:// can be read (rb) or written anew (wb)")
        name = parse(path)
        if name.slot is None:
            raise InvalidRequest(f"{path!r} cannot be written: name a file, as in {PROTOCOL}://{name.model}/RUN/FILE")
        check_name(path)
        store = partial(self._store, path, name)
        if is_of_save(name.slot):
            store = partial(self._save_to(path.rpartition("/")[0]).write, name.slot)
        return Writing(path, store, autocommit=autocommit)

    def _store(self, path: str, name: Name, written: Path) -> None:
        """Upload a checkpoint. A small file of any other kind becomes a loose file, but never replaces a checkpoint."""
        try:
            name.model_of(self._client).upload(written, slot=name.slot)
        except NotACheckpoint as error:
            if written.stat().st_size > MOST_PLAIN or name.find(self._client) is not None:
                raise
            with written.open("rb") as file:
                write_loose(self._files.api(name), name.below, file, [], uuid.uuid4().hex)
            warn(f"{path} is kept for a day, because it is not a checkpoint: {error}")

    def _found(self, path: str) -> Found:
        return self._files.found(self._strip_protocol(path))

    def _described(self, path: str, file: Found | None) -> dict[str, Any]:
        """Describe a file, or a folder if there is none."""
        if file is None:
            return {"name": path, "size": 0, "type": "directory"}
        if isinstance(file, LooseFile):
            return {"name": path, "size": file.size, "type": "file", "created": file.written_at}
        if file.inside is not None:
            size = file.inside.bytes
        elif file.checkpoint.digest is not None:
            size = file.checkpoint.bytes
        else:  # it came in parts: only an index tells whether it is as long as torch.save would have made it
            size = self._files.ranges(file).layout.size
        facts = ("version", "epoch", "step", "loss", "metrics")
        about = {name: getattr(file.checkpoint, name) for name in facts}
        return {"name": path, "size": size, "type": "file", "created": file.checkpoint.created_at, **about}

    def _delete(self, checkpoint: Checkpoint) -> None:
        self._client.model(checkpoint.model, run="").delete(checkpoint)

    def _save_to(self, folder: str) -> Save:
        """Return the running save to a folder. Raises InvalidRequest for a path that cannot be a checkpoint's."""
        name = parse(folder)
        if name.slot is None:
            raise InvalidRequest(
                f"{PROTOCOL}://{folder} cannot be saved to: name a folder in it, as in {PROTOCOL}://{name.model}/RUN/FOLDER"
            )
        if folder not in self._saves:
            self._saves[folder] = begin(name.model_of(self._client), name.below)
        return self._saves[folder]

    def _is_about_to_replace(self, path: str) -> bool:
        """Tell whether ``path`` is a ``.metadata`` for which a new one was written, and only has to be renamed."""
        folder, _, name = path.rpartition("/")
        return f"{name}.tmp" == WRITTEN and folder in self._saves and self._saves[folder].is_described


def _not_by_ref(path: str) -> InvalidRequest:
    return InvalidRequest(f"{path!r} cannot be removed by its ref: use model.delete() with its version")

"""Saves of torch.distributed.checkpoint, file by file: N processes write a folder, and a rename is the commit.

FsspecWriter makes the folder in every process, before any of them writes; then each writes its ``__{rank}_0.distcp``,
and the coordinator ``.metadata.tmp``, which it renames. The files are loose until then. The rename makes a checkpoint
of those that ``.metadata`` names, if all of them were written in this save.
"""

from __future__ import annotations

import os
import pickletools
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from .._checkpoint import Checkpoint
from .._errors import Conflict, InvalidRequest, NotFound, ServerError, StateroomError
from .._model import Model
from .._query import optional
from .._threads import side_by_side
from .._upload.folder import DCP_ITEMS, DCP_METADATA
from .._upload.items import storages_of_items
from .._upload.loose import LooseFile, loose_files, newest_change, remove_loose, write_loose
from .._upload.requests import upload_split
from .._upload.sharded import ShardedFolder, ShardFile
from .._upload.split import MIN_STORAGE, Span

WRITTEN = f"{DCP_METADATA}.tmp"
"""The name of ``.metadata`` until it is renamed."""

MOST_PLAIN = 4 * 1024 * 1024
"""Most bytes of a file that is no checkpoint."""

_ITEMS = re.compile(r"__\d+_\d+\.distcp")
_OF_ONE_RANK = re.compile(r"__\d+\.metadata(\.tmp)?")


def is_of_save(name: str) -> bool:
    """Tell whether a file belongs to a save, by its name."""
    return "/" not in name and (name.endswith(DCP_ITEMS) or name == WRITTEN)


def check_name(path: str) -> None:
    """Raise InvalidRequest for a file that cannot be written by itself."""
    name = path.rpartition("/")[2]
    for segment in path.split("/"):
        if segment in {".", ".."}:
            raise InvalidRequest(f"{path!r} has the segment {segment!r}: name the file without it")
    if name == DCP_METADATA:
        raise InvalidRequest(
            f"{path!r} cannot be written: write {WRITTEN} and rename it, as torch's FsspecWriter does, once all other "
            "files are there; or upload a whole folder with model.upload()"
        )
    if _OF_ONE_RANK.fullmatch(name):
        raise InvalidRequest(
            f"{path!r} cannot be written: with use_collectives=False there is no checkpoint of all processes; leave "
            "use_collectives out"
        )


@dataclass
class Save:
    """A save to the folder ``path`` of a model. ``begun`` is the number of the newest loose file before it began."""

    model: Model
    path: str
    begun: int
    writer: str = field(default_factory=lambda: f"{uuid.uuid4().hex}-{os.getpid()}")
    is_described: bool = False

    def write(self, name: str, file: Path) -> None:
        """Write a file of the folder. Tensors that the server has are not sent."""
        api = self.model._api.in_background()  # noqa: SLF001  one package
        with file.open("rb") as opened:
            storages = _storages(opened, file.stat().st_size) if name.endswith(DCP_ITEMS) else []
            write_loose(api, f"{self.path}/{name}", opened, storages, self.writer)
        self.is_described = self.is_described or name == WRITTEN

    def commit(self) -> Checkpoint:
        """Make a checkpoint of the files of this save, in the slot that the folder names.

        Raises FileNotFoundError without a written ``.metadata``, and Conflict if a file was written by another save.
        """
        api = self.model._api.in_background()  # noqa: SLF001  one package
        there = loose_files(api, self.path)
        found = {name: each for each in there if is_of_save(name := self._name_of(each))}
        if WRITTEN not in found:
            raise FileNotFoundError(f"{self.model.name}/{self.path}/{WRITTEN}")
        self._check(found[WRITTEN])
        try:
            metadata = found[WRITTEN].read()
            files = self._files(found, _names_in(metadata))
            pieces = side_by_side(LooseFile.pieces, files, api.transfers.connections)
        except NotFound as error:
            raise Conflict(f"{error}: another save to the folder goes on; nothing was saved") from None
        folder = ShardedFolder(
            [
                ShardFile(DCP_METADATA, [metadata]),
                *(ShardFile(self._name_of(each), some) for each, some in zip(files, pieces)),
            ]
        )
        params = optional(run=self.model.run, slot=self.path.rpartition("/")[2])
        checkpoint = upload_split(api, folder, params, original=True, label=self.model.name, key=uuid.uuid4().hex)
        if checkpoint is None:
            raise ServerError(
                f"the server at {api.http.url} lost again and again what was sent to it: nothing was saved"
            )
        with suppress(StateroomError):  # the save is done; what stays goes after a day
            if len(found) == len(there):
                remove_loose(api, self.path, max(each.number for each in there))
            else:  # files of other kinds stay
                for each in found.values():
                    remove_loose(api, each.path, each.number)
        return checkpoint

    def _name_of(self, file: LooseFile) -> str:
        """Return the file's path in the folder."""
        return file.path[len(self.path) + 1 :]

    def _files(self, found: Mapping[str, LooseFile], named: set[str]) -> list[LooseFile]:
        """Return the files with items that ``.metadata`` names. Raises Conflict if they are not those of this save,
        InvalidRequest for none.
        """
        for name in sorted(named - found.keys()):
            if _ITEMS.fullmatch(name):  # any other text may be the key of a tensor
                raise Conflict(
                    f"{self.model.name}/{self.path}/{name}, which {WRITTEN} names, was not written, or was removed by "
                    "another save meanwhile: nothing was saved. Save again"
                )
        files = [found[name] for name in sorted(named & found.keys())]
        if not files:
            raise InvalidRequest(
                f"{self.model.name}/{self.path}/{WRITTEN} names no file that was written: nothing was saved. A "
                "checkpoint needs a tensor, and all files of a save lie in one folder"
            )
        for each in files:
            self._check(each)
        return files

    def _check(self, file: LooseFile) -> None:
        """Raise Conflict unless the file was written once since this save began: by a process of this save."""
        if file.number <= self.begun:
            why = "was written before this save began"
        elif file.replaced is not None and file.replaced > self.begun:
            why = "was written by another save meanwhile"
        else:
            return
        raise Conflict(
            f"{self.model.name}/{file.path} {why}: nothing was saved. Let one job at a time save to a folder, and save "
            "again"
        )


def begin(model: Model, path: str) -> Save:
    """Begin a save. Files that were written before do not become part of it."""
    return Save(model, path, newest_change(model._api.in_background(), path))  # noqa: SLF001  one package


def _storages(file: IO[bytes], size: int) -> list[Span]:
    """Return the spans of the blobs in a file of items: the whole, if its items cannot be read."""
    found = storages_of_items(file, size)
    if found is None:
        return [(0, size)] if size > MIN_STORAGE else []
    return found


def _names_in(metadata: bytes) -> set[str]:
    """Return the names of files with items in the pickle ``.metadata``, which is not run. Raises InvalidRequest."""
    try:
        texts = {argument for _, argument, _ in pickletools.genops(metadata) if isinstance(argument, str)}
    except Exception as error:  # noqa: BLE001  a damaged pickle raises anything
        raise InvalidRequest(
            f"{WRITTEN} is not the file that FsspecWriter writes ({error}): nothing was saved"
        ) from None
    return {text for text in texts if text.endswith(DCP_ITEMS)}

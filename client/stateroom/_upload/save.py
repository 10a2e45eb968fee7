"""Saving of checkpoints: in parts if that sends less, otherwise in one piece."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from .. import _torch
from .._api import ModelApi
from .._checkpoint import Checkpoint, SpooledCheckpoint
from .._errors import InvalidRequest, NotFound
from .._log import LOG
from .._printable import printable
from .._types import Params
from .._warn import warn
from .folder import FolderSplit, FolderZip, files_in
from .outbox import spooled_text
from .pickled import Pickled
from .requests import upload, upload_split
from .split import Split, split_file

IN_PARTS_FROM = 4 * 1024 * 1024
"""Size of the smallest file, in bytes, that is sent in parts; a smaller one is sent in one request."""


def save_object(api: ModelApi, obj: Any, params: Params) -> Checkpoint:
    """Implement Model.save."""
    pickled, is_judged = pickled_of(obj)
    checkpoint = send(api, pickled, pickled.memory(), params)
    if isinstance(checkpoint, SpooledCheckpoint):
        warn(spooled_text(checkpoint))
    if not is_judged and checkpoint.unsafe_globals:
        modules = _torch.whole_modules(obj)
        warn(unsafe_text(checkpoint.unsafe_globals, modules))
    return checkpoint


def pickled_of(obj: Any) -> tuple[Pickled, bool]:
    """Pickle the object. Return the pickle, and whether this torch can tell which globals ``weights_only=True`` does
    not load; it warns of those. Raises the errors of torch.save.
    """
    pickled = Pickled(obj)
    unsafe = _torch.unsafe_globals(pickled.without_storages())
    if unsafe:
        warn(unsafe_text(unsafe, _torch.whole_modules(obj)))
    return pickled, unsafe is not None


def refuse(obj: Any) -> None:
    """Raise TorchRequired without torch, and ShardedTensor for an object with shards."""
    _torch.require_torch("save()")
    _torch.refuse_shards(obj, "cannot be saved as a whole")


def send(api: ModelApi, pickled: Pickled, memory: Sequence[memoryview], params: Params) -> Checkpoint:
    """Upload a pickled object; ``memory`` holds its storages' bytes. Spools it if the server is away and there is a
    spool.
    """
    key = new_key()

    def directly() -> Checkpoint:
        checkpoint = None
        if pickled.largest_size(memory) >= IN_PARTS_FROM:  # a small file is not laid out twice
            checkpoint = _in_parts(api, pickled.split(memory), params, original=False, label=api.model, key=key)
        return checkpoint or upload(api, pickled.file(memory), params, label=api.model, key=key)

    if api.transfers.outbox is None:
        return directly()
    return api.transfers.outbox.send(api.model, params, key, directly, lambda: pickled.pieces(memory))


def upload_file(
    api: ModelApi, file: IO[bytes], params: Params, *, label: str, key: str, original: bool = True
) -> Checkpoint:
    """Upload an open file, from its beginning. Without ``original`` it is stored as a save is."""
    split = split_file(file)
    checkpoint = None
    if split is not None:
        checkpoint = _in_parts(api, split, params, original=original, label=label, key=key)
    if checkpoint is None:
        file.seek(0)
        checkpoint = upload(api, file, params, label=label, key=key)
    return checkpoint


def upload_folder(api: ModelApi, folder: Path, params: Params, *, key: str) -> Checkpoint:
    """Upload all files of a folder as one checkpoint."""
    zipped = FolderZip(files_in(folder), api.transfers.connections)
    label = folder.absolute().name
    storages = zipped.storages
    checkpoint = None
    if storages is not None:
        checkpoint = _in_parts(api, FolderSplit(zipped, storages), params, original=True, label=label, key=key)
    if checkpoint is None:
        file = BufferedReader(zipped)
        checkpoint = upload(api, file, params, label=label, key=key)
    return checkpoint


def new_key() -> str:
    """Return an idempotency key, for one upload and all its tries."""
    return uuid.uuid4().hex


def _in_parts(
    api: ModelApi, split: Split, params: Params, *, original: bool, label: str, key: str
) -> Checkpoint | None:
    """Return None if it must be sent in one piece: it is small, or the server or its proxy takes no parts."""
    if split.size < IN_PARTS_FROM:
        return None
    why = "its parts reach other servers than the one they were announced to"
    try:
        checkpoint = upload_split(api, split, params, original=original, label=label, key=key)
    except (NotFound, InvalidRequest) as error:
        if error.code not in {"no-such-route", "split-mismatch"}:
            raise
        checkpoint, why = None, error.code
    if checkpoint is None:
        LOG.info("%s is sent in one request instead of in parts: %s.", printable(label), why)
    return checkpoint


def unsafe_text(unsafe: Sequence[str], modules: Sequence[str] = ()) -> str:
    whole = f" {printable(modules[0])} is a whole module: save its state_dict() instead." if modules else ""
    held = ", ".join(map(printable, unsafe))
    return f"load() will need weights_only=False for this checkpoint, because it contains {held}.{whole}"

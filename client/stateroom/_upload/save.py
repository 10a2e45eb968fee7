"""Putting checkpoints in: in parts where that saves something, else in one piece."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import IO, Any

from .. import _torch
from .._api import ModelApi
from .._checkpoint import Checkpoint, SpooledCheckpoint
from .._errors import InvalidRequest, NotFound
from .._log import LOG
from .._printable import printable
from .._types import Params
from .._warn import warn
from .outbox import spooled_text
from .pickled import Pickled
from .requests import upload, upload_split
from .split import Split, split_file

IN_PARTS_FROM = 4 * 1024 * 1024
"""Bytes; what is smaller goes in one request."""


def save_object(api: ModelApi, obj: Any, params: Params) -> Checkpoint:
    """As Model.save says."""
    pickled, is_judged = pickled_of(obj)
    checkpoint = send(api, pickled, pickled.memory(), params)
    if isinstance(checkpoint, SpooledCheckpoint):
        warn(spooled_text(checkpoint))
    if not is_judged and checkpoint.unsafe_globals:
        modules = _torch.whole_modules(obj)
        warn(unsafe_text(checkpoint.unsafe_globals, modules))
    return checkpoint


def pickled_of(obj: Any) -> tuple[Pickled, bool]:
    """What is to be sent; and whether this torch can tell what of it ``weights_only=True`` does not load, which is then
    warned of. Raises what torch.save raises.
    """
    pickled = Pickled(obj)
    unsafe = _torch.unsafe_globals(pickled.without_storages())
    if unsafe:
        warn(unsafe_text(unsafe, _torch.whole_modules(obj)))
    return pickled, unsafe is not None


def refuse(obj: Any) -> None:
    """Raises TorchRequired, and ShardedTensor."""
    _torch.require_torch("save()")
    _torch.refuse_shards(obj, "cannot be saved as a whole")


def send(api: ModelApi, pickled: Pickled, memory: Sequence[memoryview], params: Params) -> Checkpoint:
    """``memory`` are the storages' bytes. A SpooledCheckpoint where the server is away and there is a spool."""
    key = new_key()

    def directly() -> Checkpoint:
        checkpoint = _in_parts(api, pickled.split(memory), params, original=False, label=api.model, key=key)
        return checkpoint or upload(api, pickled.file(memory), params, label=api.model, key=key)

    if api.transfers.outbox is None:
        return directly()
    return api.transfers.outbox.send(api.model, params, key, directly, lambda: pickled.pieces(memory))


def upload_file(
    api: ModelApi, file: IO[bytes], params: Params, *, label: str, key: str, original: bool = True
) -> Checkpoint:
    """Store an open file, from its beginning. Without ``original`` it is stored as a save is."""
    split = split_file(file)
    checkpoint = None
    if split is not None:
        checkpoint = _in_parts(api, split, params, original=original, label=label, key=key)
    if checkpoint is None:
        file.seek(0)
        checkpoint = upload(api, file, params, label=label, key=key)
    return checkpoint


def new_key() -> str:
    """An idempotency key, for one upload and all its tries."""
    return uuid.uuid4().hex


def _in_parts(
    api: ModelApi, split: Split, params: Params, *, original: bool, label: str, key: str
) -> Checkpoint | None:
    """None where it has to go in one piece: it is small, or the server or what is before it would have it so."""
    if split.size < IN_PARTS_FROM:
        return None
    why = "parts do not find the server that they were announced to"
    try:
        checkpoint = upload_split(api, split, params, original=original, label=label, key=key)
    except (NotFound, InvalidRequest) as error:
        if error.code not in {"no-such-route", "split-mismatch"}:
            raise
        checkpoint, why = None, error.code
    if checkpoint is None:
        LOG.info("%s is sent in one piece instead of in parts: %s.", printable(label), why)
    return checkpoint


def unsafe_text(unsafe: Sequence[str], modules: Sequence[str] = ()) -> str:
    whole = f" {printable(modules[0])} is a whole module: save its state_dict() instead." if modules else ""
    held = ", ".join(map(printable, unsafe))
    return f"load() will need weights_only=False for this checkpoint, which holds {held}.{whole}"

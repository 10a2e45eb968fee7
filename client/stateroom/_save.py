"""Putting checkpoints in: in parts where that saves something, else in one piece."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Sequence
from typing import IO, Any

from . import _torch
from ._checkpoint import Checkpoint, SpooledCheckpoint
from ._errors import InvalidRequest, NotFound, StateroomWarning
from ._outbox import spooled_text
from ._pickled import Pickled
from ._printable import printable
from ._query import Params
from ._routes import Routes
from ._split import Split, split_file

IN_PARTS_FROM = 4 * 1024 * 1024
"""Bytes; what is smaller goes in one request."""


def save_object(routes: Routes, obj: Any, params: Params) -> Checkpoint:
    """As Model.save says."""
    pickled, is_judged = pickled_of(obj)
    checkpoint = send(routes, pickled, pickled.memory(), params)
    if isinstance(checkpoint, SpooledCheckpoint):
        warnings.warn(spooled_text(checkpoint), StateroomWarning, stacklevel=3)
    if not is_judged and checkpoint.unsafe_globals:
        modules = _torch.whole_modules(obj)
        warnings.warn(unsafe_text(checkpoint.unsafe_globals, modules), StateroomWarning, stacklevel=3)
    return checkpoint


def pickled_of(obj: Any) -> tuple[Pickled, bool]:
    """What is to be sent; and whether this torch can tell what of it ``weights_only=True`` does not load, which is then
    warned of: the user's call is two calls above. Raises what torch.save raises.
    """
    pickled = Pickled(obj)
    unsafe = _torch.unsafe_globals(pickled.without_storages())
    if unsafe:
        warnings.warn(unsafe_text(unsafe, _torch.whole_modules(obj)), StateroomWarning, stacklevel=4)
    return pickled, unsafe is not None


def refuse(obj: Any) -> None:
    """Raises TorchRequired, and ShardedTensor."""
    _torch.require_torch("save()")
    _torch.refuse_shards(obj, "cannot be saved as a whole")


def send(routes: Routes, pickled: Pickled, memory: Sequence[memoryview], params: Params) -> Checkpoint:
    """``memory`` are the storages' bytes. A SpooledCheckpoint where the server is away and there is a spool."""
    key = new_key()

    def directly() -> Checkpoint:
        checkpoint = _in_parts(routes, pickled.split(memory), params, original=False, label=routes.model, key=key)
        return checkpoint or routes.upload(pickled.file(memory), params, label=routes.model, key=key)

    if routes.outbox is None:
        return directly()
    return routes.outbox.send(routes.model, params, key, directly, lambda: pickled.pieces(memory))


def upload_file(
    routes: Routes, file: IO[bytes], params: Params, *, label: str, key: str, original: bool = True
) -> Checkpoint:
    """Store an open file, from its beginning. Without ``original`` it is stored as a save is."""
    split = split_file(file)
    checkpoint = None
    if split is not None:
        checkpoint = _in_parts(routes, split, params, original=original, label=label, key=key)
    if checkpoint is None:
        file.seek(0)
        checkpoint = routes.upload(file, params, label=label, key=key)
    return checkpoint


def new_key() -> str:
    """An idempotency key, for one upload and all its tries."""
    return uuid.uuid4().hex


def _in_parts(
    routes: Routes, split: Split, params: Params, *, original: bool, label: str, key: str
) -> Checkpoint | None:
    """None where it has to go in one piece: it is small, or the server or what is before it would have it so."""
    if split.size < IN_PARTS_FROM:
        return None
    try:
        return routes.upload_split(split, params, original=original, label=label, key=key)
    except (NotFound, InvalidRequest) as error:
        if error.code not in {"no-such-route", "split-mismatch"}:
            raise
        return None


def unsafe_text(unsafe: Sequence[str], modules: Sequence[str] = ()) -> str:
    whole = f" {printable(modules[0])} is a whole module: save its state_dict() instead." if modules else ""
    held = ", ".join(map(printable, unsafe))
    return f"load() will need weights_only=False for this checkpoint, which holds {held}.{whole}"

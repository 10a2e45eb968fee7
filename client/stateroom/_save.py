"""Putting checkpoints in: in parts where that saves something, else in one piece."""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import IO, Any

from . import _torch
from ._checkpoint import Checkpoint
from ._errors import InvalidRequest, NotFound, StateroomWarning
from ._pickled import Pickled
from ._query import Params
from ._routes import Routes
from ._split import Split, split_file

IN_PARTS_FROM = 4 * 1024 * 1024
"""Bytes; what is smaller goes in one request."""


def save_object(routes: Routes, obj: Any, params: Params) -> Checkpoint:
    """As Model.save says."""
    _torch.require_torch("save()")
    _torch.refuse_shards(obj, "cannot be saved as a whole")
    pickled = Pickled(obj)
    unsafe = _torch.unsafe_globals(pickled.without_storages())
    if unsafe:
        _warn_of(unsafe, obj)
    split = pickled.split()
    checkpoint = _in_parts(routes, split, params, original=False, label=routes.model)
    if checkpoint is None:
        file = BytesIO()
        _torch.save(obj, file)
        checkpoint = routes.upload(file, params, label=routes.model)
    if unsafe is None and checkpoint.unsafe_globals:
        _warn_of(checkpoint.unsafe_globals, obj)
    return checkpoint


def upload_file(routes: Routes, file: IO[bytes], params: Params, *, label: str) -> Checkpoint:
    """Store an open file, from its beginning."""
    split = split_file(file)
    checkpoint = None if split is None else _in_parts(routes, split, params, original=True, label=label)
    if checkpoint is None:
        file.seek(0)
        checkpoint = routes.upload(file, params, label=label)
    return checkpoint


def _in_parts(routes: Routes, split: Split, params: Params, *, original: bool, label: str) -> Checkpoint | None:
    """None where it has to go in one piece: it is small, or the server would have it so."""
    if split.size < IN_PARTS_FROM:
        return None
    try:
        return routes.upload_split(split, params, original=original, label=label)
    except (NotFound, InvalidRequest) as error:
        if error.code not in {"no-such-route", "split-mismatch"}:
            raise
        return None


def _warn_of(unsafe: tuple[str, ...], obj: Any) -> None:
    modules = _torch.whole_modules(obj)
    whole = f" {modules[0]} is a whole module: save its state_dict() instead." if modules else ""
    message = f"load() will need weights_only=False for this checkpoint, which holds {', '.join(unsafe)}.{whole}"
    warnings.warn(message, StateroomWarning, stacklevel=4)

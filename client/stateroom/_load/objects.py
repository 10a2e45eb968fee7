"""Loading of objects from checkpoints: in parallel by the index, or as one file if the server has no index."""

from __future__ import annotations

from math import prod
from typing import IO, Any

from .._api import ModelApi
from .._checkpoint import Checkpoint
from .._download.fetch_plan import Memory
from .._download.index import Fetching
from .._download.requests import (
    fetch_file_into,
    fetch_original_into,
    fetched_file,
    fetched_match,
    fetched_state_dict,
    find_file,
    find_matched,
    find_state_dict,
    find_tensor,
)
from .._errors import NotFound, UnexpectedAnswer
from .._query import Ref, Selection, TensorPart, device_tag
from .._torch import load, require_torch
from .deferred import DeferredLoad
from .in_place import Coming
from .memory import expect


def load_state_dict(api: ModelApi, ref: Ref, selection: Selection, map_location: Any, *, label: str) -> Any:
    """Implement Model.state_dict."""
    require_torch("state_dict()")
    device = device_tag(map_location)
    derived = _derived(map_location)
    fetching = find_state_dict(api, ref, selection, device, label=label, derived=derived, in_place=False)
    if fetching is not None:
        deferred = _deferred(fetching, map_location, weights_only=True)
        deferred.fill()
        return deferred.value
    with fetched_state_dict(api, ref, selection, device, label=label) as file:
        return load(file, map_location, weights_only=True)


def load_object(api: ModelApi, checkpoint: Checkpoint, map_location: Any, *, weights_only: bool) -> Any:
    """Implement Model.load. An object that needs ``weights_only=False`` may look at its tensors while it is built."""
    device = device_tag(map_location)
    fetching = find_file(api, checkpoint, device, derived=_derived(map_location))
    if fetching is not None:
        deferred = _deferred(fetching, map_location, weights_only=weights_only)
        deferred.fill()
        return deferred.value
    with fetched_file(api, checkpoint, device) as file:
        return load(file, map_location, weights_only=weights_only)


def load_tensor(api: ModelApi, ref: Ref, part: TensorPart, device: Any, *, label: str) -> Any:
    """Implement Model.tensor."""
    torch = require_torch("tensor()")
    fetching = find_tensor(api, ref, part, "raw", label=label)
    form = fetching.tensor
    dtype = getattr(torch, form.dtype, None) if form is not None else None
    if form is None or form.shape is None or not isinstance(dtype, torch.dtype):
        raise UnexpectedAnswer(f"this torch has no dtype for {form}")
    if prod(form.shape) * torch.empty(0, dtype=dtype).element_size() != form.bytes:
        raise UnexpectedAnswer(f"a tensor of {form} does not have {form.bytes:,} bytes")
    tensor = torch.empty(form.shape, dtype=dtype)
    if form.bytes:
        fetching.receiver.fill([(fetching.layout.storages[0], Memory(expect(tensor.untyped_storage())))])
    return tensor if device is None else tensor.to(device)


def write_file(api: ModelApi, file: IO[bytes], checkpoint: Checkpoint, device: str | None) -> None:
    """Implement Model.download."""
    if device is None:
        try:
            fetch_original_into(api, file, checkpoint)
        except NotFound as error:
            if error.code != "no-original":
                raise
        else:
            return
    fetch_file_into(api, file, checkpoint, device)


def component_of(api: ModelApi, checkpoint: Checkpoint, selection: Selection, *, label: str) -> Coming:
    """Load one component into this machine's own memory."""
    fetching = find_state_dict(api, checkpoint, selection, "cpu", label=label, derived=False, in_place=True)
    if fetching is not None:
        return _coming(fetching)
    with fetched_state_dict(api, checkpoint, selection, "cpu", label=label) as file:
        return Coming(load(file, "cpu", weights_only=True), None)


def matched(api: ModelApi, download: str | None, *, label: str) -> Coming:
    """Load the tensors that a match named for download."""
    if download is None:
        return Coming({}, None)
    fetching = find_matched(api, download, label=label)
    if fetching is not None:
        return _coming(fetching)
    with fetched_match(api, download, label=label) as file:
        return Coming(load(file, "cpu", weights_only=True), None)


def _coming(fetching: Fetching) -> Coming:
    deferred = _deferred(fetching, "cpu", weights_only=True)
    return Coming(deferred.value, deferred)


def _deferred(fetching: Fetching, map_location: Any, *, weights_only: bool) -> DeferredLoad:
    return DeferredLoad(fetching.receiver, fetching.layout, map_location, weights_only=weights_only)


def _derived(map_location: Any) -> bool:
    """Return whether cast tensors need digests: only a load into CPU memory can check them by their checksum."""
    return map_location is not None and not str(map_location).startswith(("cpu", "meta"))

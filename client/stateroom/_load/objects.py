"""Objects out of checkpoints: by the index and in parallel, or of a server that has none as one file."""

from __future__ import annotations

from typing import IO, Any

from .._api import ModelApi
from .._checkpoint import Checkpoint
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
)
from .._errors import NotFound
from .._query import Ref, Selection, device_tag
from .._torch import load, require_torch
from .deferred import DeferredLoad
from .in_place import Coming


def load_state_dict(api: ModelApi, ref: Ref, selection: Selection, map_location: Any, *, label: str) -> Any:
    """As Model.state_dict says."""
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
    """As Model.load says. What only ``weights_only=False`` loads may look at its tensors while it is built."""
    device = device_tag(map_location)
    fetching = find_file(api, checkpoint, device, derived=_derived(map_location))
    if fetching is not None:
        deferred = _deferred(fetching, map_location, weights_only=weights_only)
        deferred.fill()
        return deferred.value
    with fetched_file(api, checkpoint, device) as file:
        return load(file, map_location, weights_only=weights_only)


def write_file(api: ModelApi, file: IO[bytes], checkpoint: Checkpoint, device: str | None) -> None:
    """As Model.download says."""
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
    """One component, for this machine's own memory."""
    fetching = find_state_dict(api, checkpoint, selection, "cpu", label=label, derived=False, in_place=True)
    if fetching is not None:
        return _coming(fetching)
    with fetched_state_dict(api, checkpoint, selection, "cpu", label=label) as file:
        return Coming(load(file, "cpu", weights_only=True), None)


def matched(api: ModelApi, download: str | None, *, label: str) -> Coming:
    """What a match said to download."""
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
    """Whether digests are needed of what is cast: its checksum is made of this machine's memory."""
    return map_location is not None and not str(map_location).startswith(("cpu", "meta"))

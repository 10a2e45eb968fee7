"""Objects out of checkpoints: by the index and in parallel, or of a server that has none as one file."""

from __future__ import annotations

from typing import IO, Any

from ._checkpoint import Checkpoint
from ._errors import NotFound
from ._fetch import Fetching
from ._in_place import Coming
from ._query import Ref, Selection, device_tag
from ._routes import Routes
from ._torch import load, require_torch


def load_state_dict(routes: Routes, ref: Ref, selection: Selection, map_location: Any, *, label: str) -> Any:
    """As Model.state_dict says."""
    require_torch("state_dict()")
    device = device_tag(map_location)
    derived = _derived(map_location)
    fetching = routes.state_dict_fetching(ref, selection, device, label=label, derived=derived, in_place=False)
    if fetching is not None:
        hollow = fetching.hollow(map_location, weights_only=True)
        hollow.fill()
        return hollow.value
    with routes.state_dict(ref, selection, device, label=label) as file:
        return load(file, map_location, weights_only=True)


def load_object(routes: Routes, checkpoint: Checkpoint, map_location: Any, *, weights_only: bool) -> Any:
    """As Model.load says. What only ``weights_only=False`` loads may look at its tensors while it is built."""
    device = device_tag(map_location)
    fetching = routes.file_fetching(checkpoint, device, derived=_derived(map_location))
    if fetching is not None:
        hollow = fetching.hollow(map_location, weights_only=weights_only)
        hollow.fill()
        return hollow.value
    with routes.file(checkpoint, device) as file:
        return load(file, map_location, weights_only=weights_only)


def write_file(routes: Routes, file: IO[bytes], checkpoint: Checkpoint, device: str | None) -> None:
    """As Model.download says."""
    if device is None:
        try:
            routes.original_into(file, checkpoint)
        except NotFound as error:
            if error.code != "no-original":
                raise
        else:
            return
    routes.file_into(file, checkpoint, device)


def component_of(routes: Routes, checkpoint: Checkpoint, selection: Selection, *, label: str) -> Coming:
    """One component, for this machine's own memory."""
    fetching = routes.state_dict_fetching(checkpoint, selection, "cpu", label=label, derived=False, in_place=True)
    if fetching is not None:
        return _coming(fetching)
    with routes.state_dict(checkpoint, selection, "cpu", label=label) as file:
        return Coming(load(file, "cpu", weights_only=True), None)


def matched(routes: Routes, download: str | None, *, label: str) -> Coming:
    """What a match said to download."""
    if download is None:
        return Coming({}, None)
    fetching = routes.matched_fetching(download, label=label)
    if fetching is not None:
        return _coming(fetching)
    with routes.matched(download, label=label) as file:
        return Coming(load(file, "cpu", weights_only=True), None)


def _coming(fetching: Fetching) -> Coming:
    hollow = fetching.hollow("cpu", weights_only=True)
    return Coming(hollow.value, hollow)


def _derived(map_location: Any) -> bool:
    """Whether digests are needed of what is cast: its checksum is made of this machine's memory."""
    return map_location is not None and not str(map_location).startswith(("cpu", "meta"))

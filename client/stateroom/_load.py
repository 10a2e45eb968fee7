"""Objects out of checkpoints: by the index and in parallel, or of a server that has none as one file."""

from __future__ import annotations

from typing import Any

from ._checkpoint import Checkpoint
from ._query import Ref, Selection, device_tag
from ._routes import Routes
from ._torch import load, require_torch


def load_state_dict(routes: Routes, ref: Ref, selection: Selection, map_location: Any, *, label: str) -> Any:
    """As Model.state_dict says."""
    require_torch("state_dict()")
    device = device_tag(map_location)
    fetching = routes.state_dict_fetching(ref, selection, device, label=label, derived=_derived(map_location))
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


def _derived(map_location: Any) -> bool:
    """Whether digests are needed of what is cast: its checksum is made of this machine's memory."""
    return map_location is not None and not str(map_location).startswith(("cpu", "meta"))

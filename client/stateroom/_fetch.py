"""Downloads by their index: what lies where is asked first, and fetched in parallel then.

Whatever can't be had that way, of a server that has no index, is None here; there is always the file as one body.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from ._errors import CheckpointNotFound, InvalidRequest, ModelNotFound, NotFound
from ._hollow import Hollow
from ._http import Http, json_of
from ._layout import Layout, layout_of
from ._progress import Progress
from ._query import Params
from ._receive import Receiver, Tally


@dataclass(frozen=True)
class Fetching:
    """A file that can be fetched. ``left_out`` are values that it can't hold, as text."""

    layout: Layout
    receiver: Receiver
    left_out: str | None

    def looked_at(self) -> Fetching:
        """The same, of something that may look at its tensors while it is built."""
        return replace(self, layout=self.layout.looked_at())

    def hollow(self, map_location: Any, *, weights_only: bool) -> Hollow:
        return Hollow(self.receiver, self.layout, map_location, weights_only=weights_only)


def fetching(
    http: Http, path: str, params: Params, *, label: str, connections: int, verify: bool, progress: Progress | None
) -> Fetching | None:
    """By the index at ``path``; None where there is none, or one that tells too little."""
    patience = http.patience()
    try:
        response = http.open(path, params, {}, patience)
    except NotFound as error:
        if isinstance(error, (ModelNotFound, CheckpointNotFound)):
            raise
        return None
    except InvalidRequest as error:
        if error.code == "unknown-parameter":
            return None
        raise
    try:
        if "json" not in response.headers.get("Content-Type", ""):
            return None  # an older server took "index" for the name of the file
        response.read()
    finally:
        response.close()
    layout = layout_of(json_of(response))
    if layout is None:
        return None
    wanted = [*layout.storages, *([layout.pickle] if layout.pickle else [])]
    tally = Tally(label, sum(each.size for each in wanted), progress)
    receiver = Receiver(http, layout, connections=connections, verify=verify, tally=tally)
    left_out = response.headers.get("Stateroom-Left-Out")
    return Fetching(layout, receiver, unquote(left_out) if left_out else None)

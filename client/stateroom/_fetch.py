"""Downloads by their index: what lies where is asked first, and fetched in parallel then.

Whatever can't be had that way, of a server that has no index, is None here; there is always the file as one body.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from ._errors import CheckpointNotFound, InvalidRequest, ModelNotFound, NotFound, StateroomWarning
from ._hollow import Hollow
from ._http import Http, json_of
from ._layout import Layout, layout_of
from ._printable import printable
from ._query import Params
from ._receive import Receiver


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


def find_layout(http: Http, path: str, params: Params) -> tuple[Layout, str | None] | None:
    """From the index at ``path``, with what the file leaves out; None where there is none, or one that tells too
    little.
    """
    try:
        response = http.open(path, params, {}, http.patience())
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
    layout = layout_of(json_of(response), http.path_of)
    left_out = response.headers.get("Stateroom-Left-Out")
    return None if layout is None else (layout, unquote(left_out) if left_out else None)


def warn_of_left_out(left_out: str, label: str, *, is_zip: bool, stacklevel: int) -> None:
    """``left_out`` are values that the file can't hold, ``stacklevel``, seen from here, is where the user's call is."""
    kept = "a state_dict" if is_zip else "a safetensors file"
    lost = f"{printable(left_out)} of {printable(label)} cannot be kept in {kept} and is left out; load() gives it"
    warnings.warn(lost, StateroomWarning, stacklevel=stacklevel)

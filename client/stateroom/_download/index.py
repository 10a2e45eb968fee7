"""Downloads by index: the client first asks where each storage lies in the file, and then fetches in parallel.

If the server has no usable index, functions here return None, and the file can be fetched as one body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import unquote

from .._errors import CheckpointNotFound, InvalidRequest, ModelNotFound, NotFound, TensorNotFound, understood
from .._http.last_answers import is_recalled
from .._http.session import Http, json_of
from .._inside import TensorForm
from .._log import LOG
from .._printable import printable
from .._types import Params
from .._warn import warn
from .layout import Layout, layout_of
from .receiver import Receiver

VERIFIES = {"Stateroom-Verifies": "client"}


@dataclass(frozen=True)
class Fetching:
    """A file that can be fetched. ``left_out`` describes, as text, the values that the file cannot hold. ``tensor`` is
    the form of the only tensor, in a file of one.
    """

    layout: Layout
    receiver: Receiver
    left_out: str | None
    tensor: TensorForm | None = None

    def looked_at(self) -> Fetching:
        """Return a copy for an object that may look at its tensors while it is built."""
        return replace(self, layout=self.layout.looked_at())


@dataclass(frozen=True)
class Index:
    """A download's layout, and ``left_out`` and ``tensor`` as in Fetching. ``offline``: the server is not reached."""

    layout: Layout
    left_out: str | None
    offline: bool
    tensor: TensorForm | None


def find_layout(http: Http, path: str, params: Params, *, verifies: bool = False) -> Index | None:
    """Fetch the index at ``path``; ``verifies`` tells that the bytes will be verified. Return None if there is no
    index, or one that tells too little.
    """
    try:
        if http.falls_back:
            response = http.look_up("GET", path, params)
        else:
            response = http.open(path, params, VERIFIES if verifies else {}, http.retry_policy())
    except NotFound as error:
        if isinstance(error, (ModelNotFound, CheckpointNotFound, TensorNotFound)):
            raise
        _say_there_is_none(path, "the server has no such route")
        return None
    except InvalidRequest as error:
        if error.code == "unknown-parameter":
            _say_there_is_none(path, "the server has another version")
            return None
        raise
    try:
        if "json" not in response.headers.get("Content-Type", ""):
            _say_there_is_none(path, "an older server sent the file instead")
            return None
        response.read()
    finally:
        response.close()
    layout = layout_of(json_of(response), http.path_of)
    left_out = response.headers.get("Stateroom-Left-Out")
    if layout is None:
        return None
    tensor = _tensor_form(response.headers, layout)
    return Index(layout, unquote(left_out) if left_out else None, is_recalled(response), tensor)


@understood("the form of a tensor")
def _tensor_form(headers: Mapping[str, str], layout: Layout) -> TensorForm | None:
    """Return the form of the tensor that a file is made of; None for another file."""
    dtype, shape = headers.get("Stateroom-Dtype"), headers.get("Stateroom-Shape")
    if dtype is None or shape is None:
        return None
    sizes = tuple(int(size) for size in shape.split(",") if size.strip())
    if any(size < 0 for size in sizes):
        raise ValueError(f"a tensor of shape {shape!r}")
    return TensorForm(dtype, sizes, sum(each.size for each in layout.storages))


def _say_there_is_none(path: str, why: str) -> None:
    LOG.info("No index at %s: %s. The file is downloaded over one connection.", printable(path), why)


def warn_of_left_out(left_out: str, label: str, *, is_zip: bool) -> None:
    """Warn of ``left_out``, the values that the file cannot hold."""
    kept = "a state_dict" if is_zip else "a safetensors file"
    warn(
        f"{printable(left_out)} of {printable(label)} cannot be stored in {kept} and is left out; use load() to get it"
    )

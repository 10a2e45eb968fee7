"""Loading: each process receives the parts of tensors that it has, and all values."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from ..._checkpoint import Checkpoint
from ..._client import Client
from ..._errors import Conflict, InvalidRequest
from ..._model import Model
from ..._query import Ref, Selection
from ..._types import Patterns, Prefixes, Rename
from .components import open_components
from .saved import open_saved


class _Opened(Protocol):
    """A checkpoint, of which nothing but the places of its tensors has been fetched."""

    @property
    def checkpoint(self) -> Checkpoint: ...

    @property
    def metadata(self) -> Metadata: ...

    def read(self, items: Sequence[ReadItem], planner: LoadPlanner) -> None: ...


class StateroomReader(StorageReader):
    """Reads a checkpoint, whatever its format, and however many processes saved and load it.

    ``model`` is a Model, or the name of one on the server of STATEROOM_URL. Each process receives only the parts that
    its tensors have. The coordinator resolves the ref, so that all processes load the same version. A ``checkpoint_id``
    that is passed to ``dcp.load`` takes the place of ``ref``.

    What ``StateroomWriter`` saved is loaded as it was saved, with all values. Of any other checkpoint, and with any of
    the following arguments, tensors of components are loaded. ``component`` and the selection are those of
    ``Model.state_dict``; ``add_prefix="model."`` is for a state_dict that hangs below ``"model"``. For several
    components, ``component`` maps each place in the state_dict to the component that belongs there:
    ``{"model": "model_state_dict", "optimizer": "optimizer_state_dict"}``.

    Values for which torch.load needs ``weights_only=False`` raise UnsafeGlobals, unless it is given here.
    """

    def __init__(
        self,
        model: Model | str,
        ref: Ref = "latest",
        *,
        component: str | Mapping[str, str] | None = None,
        include: Patterns = (),
        exclude: Patterns = (),
        strip_prefix: Prefixes = None,
        add_prefix: str | None = None,
        rename: Rename = (),
        dtype: Any = None,
        dtype_exclude: Patterns = (),
        weights_only: bool = True,
    ) -> None:
        self._model = Client().model(model) if isinstance(model, str) else model
        self._api = self._model._api.in_background()  # noqa: SLF001  one package
        self._ref = ref
        if isinstance(component, Mapping) and add_prefix is not None:
            raise InvalidRequest("give either add_prefix or a mapping of components, which says where each belongs")
        components = component if isinstance(component, Mapping) else {"": component}
        self._selections = {
            place: Selection(name, strip_prefix, include, exclude, rename, add_prefix, dtype, dtype_exclude)
            for place, name in components.items()
        }
        self._weights_only = weights_only
        self._opened: _Opened | None = None

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return isinstance(checkpoint_id, str)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        self._opened = None
        if checkpoint_id is not None:
            self._ref = os.fspath(checkpoint_id)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        self._opened = self._open(self._ref)
        return self._opened.metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None: ...

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Tell all processes which version the coordinator found."""
        version = self._opened_before().checkpoint.version
        return [replace(plan, storage_data=version) for plan in plans]

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        opened = self._opened_before()
        if opened.checkpoint.version != plan.storage_data:
            opened = self._moved_to(plan.storage_data, plan.items)
        opened.read(plan.items, planner)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _open(self, ref: Ref) -> _Opened:
        checkpoint = self._api.checkpoint(ref)
        if self._selections == {"": Selection()}:
            saved = open_saved(self._api, checkpoint, weights_only=self._weights_only)
            if saved is not None:
                return saved
        return open_components(self._api, checkpoint, self._selections)

    def _opened_before(self) -> _Opened:
        if self._opened is None:
            raise RuntimeError("read_metadata() was not called")
        return self._opened

    def _moved_to(self, version: int, items: Sequence[ReadItem]) -> _Opened:
        """Open the coordinator's version, which has to have the tensors that this process has planned to read."""
        planned, opened = self._opened_before(), self._open(version)
        for key in {item.storage_index.fqn for item in items}:
            if _form(planned.metadata, key) != _form(opened.metadata, key):
                raise Conflict(
                    f"{self._ref!r} moved from {planned.checkpoint} to {opened.checkpoint} meanwhile, and {key} is not "
                    "the same in both: load again, or give the version"
                )
        return opened


def _form(metadata: Metadata, key: str) -> object:
    """Return what a plan to read an item relies on."""
    found = metadata.state_dict_metadata.get(key)
    return [each.sizes for each in found.chunks] if isinstance(found, TensorStorageMetadata) else type(found)

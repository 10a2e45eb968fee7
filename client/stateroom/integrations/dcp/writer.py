"""Saving: each process sends its shards, and the coordinator makes a checkpoint of all of them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, SupportsFloat, SupportsInt

from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from ..._checkpoint import Checkpoint
from ..._client import Client
from ..._errors import InvalidRequest, NotFound, ServerError
from ..._model import Model
from ..._origins import BY_ITSELF
from ..._printable import printable
from ..._query import Ref, upload_params
from ..._upload.requests import upload_split
from ..._upload.sharded import ShardedFolder, ShardFile
from . import metadata as metadata_file
from .shards import write_items


class StateroomWriter(StorageWriter):
    """Saves a checkpoint from all processes of a job, for ``dcp.save`` and ``dcp.async_save``.

    ``model`` is a Model, or the name of one on the server of STATEROOM_URL. Each process sends its own shards, straight
    from the memory of its tensors, and only what the server does not hold. The checkpoint appears, whole, when all
    processes have sent theirs; if one fails, nothing does. It has the files that ``FileSystemWriter`` would write.

    ``alias`` is a name that means this checkpoint from then on. A ``checkpoint_id`` that is passed to ``dcp.save``
    takes its place. The other arguments are those of ``Model.save``. Afterwards ``checkpoint`` is the new checkpoint,
    on the coordinator; None on other processes, and after a save by another process
    (``AsyncCheckpointerType.PROCESS``).
    """

    def __init__(
        self,
        model: Model | str,
        *,
        alias: str | None = None,
        epoch: SupportsInt | None = None,
        step: SupportsInt | None = None,
        loss: SupportsFloat | None = None,
        metrics: Mapping[str, SupportsFloat] | None = None,
        tags: Mapping[str, str] | None = None,
        parent: Ref | None = BY_ITSELF,
        warm_started_from: Ref | None = BY_ITSELF,
        ttl: str | None = None,
        slot: str | None = None,
        scan: bool = False,
    ) -> None:
        # It is pickled for a save by another process: a Model makes a client of its own there.
        self._model = Client().model(model) if isinstance(model, str) else model
        self._alias = alias
        self._origins = parent, warm_started_from
        self._params = upload_params(
            run=self._model.run,
            epoch=epoch,
            step=step,
            loss=loss,
            metrics=metrics,
            tags=tags,
            ttl=ttl,
            slot=slot,
            scan=scan,
        )
        self._id: str | None = None
        self._save_id = metadata_file.save_id(uuid.uuid4().hex)
        self.checkpoint: Checkpoint | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "checkpoint": None}

    @property
    def checkpoint_id(self) -> str | None:
        """The id that this save was given, if it was given one."""
        return self._id

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return isinstance(checkpoint_id, str)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        self._id = None if checkpoint_id is None else os.fspath(checkpoint_id)
        self._save_id = metadata_file.save_id(uuid.uuid4().hex)
        self.checkpoint = None

    def storage_meta(self) -> StorageMeta:
        return StorageMeta(checkpoint_id=self._id, save_id=self._save_id)

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        if not kwargs.get("use_collectives", True):
            raise InvalidRequest(
                "StateroomWriter cannot save with use_collectives=False: a checkpoint is made of the shards of all "
                "processes at once; leave use_collectives out"
            )

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Give the file of each process its name. Called by the coordinator alone."""
        if self._named is not None:
            with suppress(NotFound):
                self._model.alias_at(self._named)  # raises for a name that cannot be an alias, before bytes are sent
        return [replace(plan, storage_data=f"__{rank}_0.distcp") for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        done: Future[list[WriteResult]] = Future()
        api = self._model._api.in_background()  # noqa: SLF001  one package
        done.set_result(write_items(api, plan.items, planner.resolve_data, plan.storage_data, self._model.name))
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Commit the checkpoint. Called by the coordinator alone, after all processes have sent their shards."""
        _check_complete(metadata, [result.index for each in results for result in each])
        metadata.version = metadata_file.VERSION
        metadata.storage_data = {result.index: result.storage_data.place for each in results for result in each}
        metadata.storage_meta = self.storage_meta()
        files = [ShardFile(metadata_file.FILE, [metadata_file.written(metadata)]), *_files(results)]
        self.checkpoint = self._commit(ShardedFolder(files))
        metadata.storage_meta.checkpoint_id = str(self.checkpoint)
        if self._named is not None:
            self._model.alias(self._named, self.checkpoint)

    @property
    def _named(self) -> str | None:
        return self._alias if self._id is None else self._id

    def _commit(self, folder: ShardedFolder) -> Checkpoint:
        api = self._model._api.in_background()  # noqa: SLF001  one package
        with self._model._origins.taken(*self._origins) as origins:  # noqa: SLF001
            params = [*self._params, *origins]
            checkpoint = upload_split(api, folder, params, original=True, label=self._model.name, key=uuid.uuid4().hex)
        if checkpoint is None:
            raise ServerError(
                f"the server at {api.http.url} lost again and again what was sent to it: nothing was saved"
            )
        return checkpoint


def _files(results: Sequence[Sequence[WriteResult]]) -> list[ShardFile]:
    """Return the files of the processes that have any item."""
    return [
        ShardFile(each[0].storage_data.place.relative_path, [p for result in each for p in result.storage_data.pieces])
        for each in results
        if each
    ]


def _check_complete(metadata: Metadata, written: Sequence[MetadataIndex]) -> None:
    """Raise InvalidRequest unless every item of the checkpoint has been written, once."""
    expected = set()
    for fqn, each in metadata.state_dict_metadata.items():
        if isinstance(each, TensorStorageMetadata):
            expected |= {MetadataIndex(fqn, chunk.offsets) for chunk in each.chunks}
        else:
            expected.add(MetadataIndex(fqn))
    found = set(written)
    if missing := expected - found:
        some = printable(min(index.fqn for index in missing))
        raise InvalidRequest(
            f"{len(missing)} items of the checkpoint came from no process, for example of {some}: nothing was saved"
        )
    if len(found) != len(written):
        raise InvalidRequest(
            f"{len(written) - len(found)} items of the checkpoint came from several processes: nothing was saved"
        )

"""The checkpoints of one model: save, look up, load and download."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, SupportsFloat, SupportsInt, overload

from . import _torch
from ._alias import UNCHECKED, Alias, AliasChange, Aliases
from ._api import ModelApi
from ._checkpoint import Checkpoint, ModelSummary
from ._download.atomic_file import appearing, named_in
from ._download.requests import fetch_folder_into, fetch_state_dict_into, fetch_tensor_into
from ._download.to_folder import appearing_folder
from ._errors import CheckpointNotFound, InvalidRequest, ModelNotFound, UnsafeGlobals
from ._event import After, Event, Events, Kinds
from ._history import HistoryEntry
from ._html import html_table
from ._inside import Diff, Stats
from ._load.following import Apply, Following, Update
from ._load.load_into import load_into, warmstart
from ._load.objects import load_object, load_state_dict, load_tensor, write_file
from ._merge import Method, Sources, Wanted, last_of, merge, sources_of
from ._origins import BY_ITSELF, Origins
from ._printable import printable
from ._query import Ref, Selection, TensorPart, changes, device_tag, upload_params
from ._report import SHOWN, Report
from ._retention import UNCHANGED, KeepBest, RetentionPreview, rules_of
from ._tensor_info import TensorInfo
from ._types import Format, Patterns, Prefixes, Rename, Resize
from ._upload.background import Options, SaveQueue
from ._upload.job import SaveJob
from ._upload.requests import upload
from ._upload.save import new_key, refuse, save_object, upload_file, upload_folder
from ._webhook import Webhook, WebhookDelivery, Webhooks

if TYPE_CHECKING:
    import torch


class Model:
    """The checkpoints of one model, ``namespace/name``; with ``run``, only those of that run.

    A ref is a Checkpoint, an int or a str: ``12``, ``latest``, ``best``, ``min:NAME``, ``max:NAME``, ``epoch:N``,
    ``step:N``, or an alias. Every method raises the StateroomError for the server's answer: ModelNotFound,
    CheckpointNotFound, Unauthorized, ServerUnavailable and so on. ``Client.model`` returns a Model.
    """

    def __init__(self, api: ModelApi, save_queue: Callable[[], SaveQueue], again: Callable[[str, str], Model]) -> None:
        self._api = api
        self._save_queue = save_queue
        self._again = again
        self._aliases = Aliases(api)
        self._webhooks = Webhooks(api)
        self._origins = Origins(api.model)

    @property
    def name(self) -> str:
        return self._api.model

    @property
    def run(self) -> str | None:
        return self._api.run

    def __repr__(self) -> str:
        return f"Model({self.name!r})" if self.run is None else f"Model({self.name!r}, run={self.run!r})"

    def _repr_html_(self) -> str:
        run = "" if self.run is None else f", run {self.run}"
        return html_table(f"{self.name}{run}", (), [("server", self._api.http.url)])

    def __reduce__(self) -> tuple[Any, ...]:
        """A deep copy shares the client; a pickled copy has a client of its own."""
        return self._again, (self.name, self.run or "")

    # Save and change checkpoints

    def upload(
        self,
        file: str | os.PathLike[str] | IO[bytes],
        *,
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
    ) -> Checkpoint:
        """Upload a file that torch.save or safetensors wrote: a path, or a file open for reading bytes, from its
        current position. Of a folder, all files are uploaded as one checkpoint: shards of one state_dict are merged,
        and files of any other kind are kept as they are.

        Epoch, step and loss that are left out are read from the file. ``parent``, ``warm_started_from``, ``ttl``,
        ``slot`` and ``scan`` are those of ``save``. Raises RefusedCheckpoint or one of its subclasses for a file that
        is not a valid checkpoint, and DigestMismatch if the server stored other bytes than were sent.
        """
        params = upload_params(
            run=self.run,
            epoch=epoch,
            step=step,
            loss=loss,
            metrics=metrics,
            tags=tags,
            ttl=ttl,
            slot=slot,
            scan=scan,
        )
        with self._origins.taken(parent, warm_started_from) as origins:
            params += origins
            if not isinstance(file, (str, os.PathLike)):
                return upload(self._api, file, params, label=self.name, key=new_key())
            path = Path(file)
            if path.is_dir():
                return upload_folder(self._api, path, params, key=new_key())
            with path.open("rb") as opened:
                return upload_file(self._api, opened, params, label=path.name, key=new_key())

    @overload
    def save(
        self,
        obj: Any,
        *,
        epoch: SupportsInt | None = ...,
        step: SupportsInt | None = ...,
        loss: SupportsFloat | None = ...,
        metrics: Mapping[str, SupportsFloat] | None = ...,
        tags: Mapping[str, str] | None = ...,
        parent: Ref | None = ...,
        warm_started_from: Ref | None = ...,
        ttl: str | None = ...,
        slot: str | None = ...,
        scan: bool = ...,
        rank_zero_only: Literal[False],
    ) -> Checkpoint: ...

    @overload
    def save(
        self,
        obj: Any,
        *,
        epoch: SupportsInt | None = ...,
        step: SupportsInt | None = ...,
        loss: SupportsFloat | None = ...,
        metrics: Mapping[str, SupportsFloat] | None = ...,
        tags: Mapping[str, str] | None = ...,
        parent: Ref | None = ...,
        warm_started_from: Ref | None = ...,
        ttl: str | None = ...,
        slot: str | None = ...,
        scan: bool = ...,
        rank_zero_only: bool = ...,
    ) -> Checkpoint | None: ...

    def save(
        self,
        obj: Any,
        *,
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
        rank_zero_only: bool = True,
    ) -> Checkpoint | None:
        """Save any object that torch.save accepts.

        ``parent`` is the checkpoint that training went on from, and ``warm_started_from`` the one whose tensors it
        began with: a Checkpoint, a version number, ``namespace/name@N``, or None. Left out, they are what this Model
        has loaded since its last save, by ``load_into``, or by ``load`` if the checkpoint has an optimizer; and by
        ``warmstart``.

        In a distributed job, ranks other than 0 do nothing and get None, unless ``rank_zero_only`` is False. Raises
        ShardedTensor, on every rank that calls, before anything is sent, if the object holds one rank's part of a
        tensor. Warns (StateroomWarning) of values that ``weights_only=True`` will not load. For a large object, only
        the storages that the server does not hold are sent, straight from the tensors' memory: nothing may write to
        them meanwhile. After the time ``ttl``, such as ``"30d"``, the checkpoint goes to the trash by itself. In a
        ``slot``, such as ``"last"``, it replaces the checkpoint that its run has there, once it is stored. With
        ``scan``, the server then looks for NaN and infinities (``Checkpoint.nonfinite_tensors``).
        """
        refuse(obj)
        if rank_zero_only and _torch.rank() != 0:
            return None
        params = upload_params(
            run=self.run,
            epoch=epoch,
            step=step,
            loss=loss,
            metrics=metrics,
            tags=tags,
            ttl=ttl,
            slot=slot,
            scan=scan,
        )
        with self._origins.taken(parent, warm_started_from) as origins:
            return save_object(self._api, obj, params + origins)

    def save_async(
        self,
        obj: Any,
        *,
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
        rank_zero_only: bool = True,
        droppable: bool = False,
        raise_errors: bool = False,
    ) -> SaveJob:
        """Save in the background: return once the tensors are copied. They may change from then on.

        The client reuses the copy's memory for the next save, until it is closed. Saves are sent one after another;
        while one is sent and another waits, a third call blocks. With ``droppable``, a newer save of this model and run
        replaces this one if it has not begun by then. A failed save is reported by a StateroomWarning at the client's
        next ``save_async`` or ``close``, or raised there with ``raise_errors``, unless ``result()`` has raised it
        before.
        """
        queue = self._save_queue()
        queue.tell()
        refuse(obj)
        if rank_zero_only and _torch.rank() != 0:
            job = SaveJob()
            job.end(None)
            return job
        params = upload_params(
            run=self.run,
            epoch=epoch,
            step=step,
            loss=loss,
            metrics=metrics,
            tags=tags,
            ttl=ttl,
            slot=slot,
            scan=scan,
        )
        with self._origins.taken(parent, warm_started_from) as origins:
            params += origins
            job = queue.save(self._api.in_background(), obj, params, Options(droppable, raise_errors))
        self._origins.follow(job, origins)
        return job

    def merge(
        self,
        of: Sources = (),
        *,
        last: int | None = None,
        where: Mapping[str, Any] | None = None,
        method: Method = "average",
        decay: float | None = None,
        t: float | None = None,
        normalize: bool | None = None,
        component: str | None = None,
        epoch: SupportsInt | None = None,
        step: SupportsInt | None = None,
        loss: SupportsFloat | None = None,
        metrics: Mapping[str, SupportsFloat] | None = None,
        tags: Mapping[str, str] | None = None,
        ttl: str | None = None,
        slot: str | None = None,
        scan: bool = False,
    ) -> Checkpoint:
        """Have the server merge the state_dicts of checkpoints to a new one: nothing is downloaded.

        ``of`` lists the checkpoints, the oldest first: refs, or pairs of a ref and a weight; ``namespace/name@ref`` is
        one of another model. Or ``last`` is the number of the last ones of this model (of its run, if it has one) that
        are no merges themselves, as far as ``where`` (that of ``checkpoints``) lets them pass.

        ``average`` divides by the sum of the weights; ``linear`` takes any weights, but ``normalize`` has to say
        whether those that do not sum to 1 are divided by their sum; ``ema`` is the moving average with ``decay``;
        ``slerp`` the spherical interpolation of two, at ``t`` from the first (0) to the second (1). Integers are those
        of the last one, dtypes those of the first. Raises InvalidRequest (``not-mergeable``) for other keys or shapes.
        """
        if (last is None) == (not of):
            raise InvalidRequest("give the checkpoints to merge, or the number of the last ones, and not both")
        wanted = Wanted(method, component, decay, t, normalize)
        checkpoints, weights = sources_of(of, self._anywhere)
        if last is not None:
            checkpoints = last_of(last, self.checkpoints(where=where))
            weights = [None] * len(checkpoints)
        params = upload_params(
            run=self.run,
            epoch=epoch,
            step=step,
            loss=loss,
            metrics=metrics,
            tags=tags,
            ttl=ttl,
            slot=slot,
            scan=scan,
        )
        return merge(self._api, wanted, checkpoints, weights, params, new_key())

    def update(
        self,
        ref: Ref,
        *,
        metrics: Mapping[str, SupportsFloat | None] | None = None,
        tags: Mapping[str, str | None] | None = None,
    ) -> Checkpoint:
        """Set metrics and tags, and remove those given as None; all others stay."""
        return self._api.update(ref, changes(metrics, tags))

    def delete(self, ref: Ref, *, purge: bool = False) -> datetime | None:
        """Delete one checkpoint by its version number; a moving ref such as ``latest`` is refused. It goes to the
        trash. Returns until when ``restore`` can bring it back, None if the server has no trash.

        With ``purge`` it is deleted for good, also from the trash. Raises Conflict for one with an alias or a pin.
        """
        return self._api.delete(ref, purge=purge)

    def restore(self, version: Ref) -> Checkpoint:
        """Bring a checkpoint back from the trash, with its metrics and tags. Raises Gone (a NotFound) if it was purged.

        One that a rule of the server had removed comes back pinned, or the rule would remove it again.
        """
        return self._api.restore(version)

    def pin(self, ref: Ref, *, reason: str | None = None) -> Checkpoint:
        """Keep a checkpoint: nobody and no rule deletes it until ``unpin``."""
        return self._api.pin(ref, reason)

    def unpin(self, ref: Ref) -> None:
        """Remove a checkpoint's pin, if it has one."""
        self._api.unpin(ref)

    def set_best(self, by: str) -> ModelSummary:
        """Define the ref ``best``: ``min:NAME`` or ``max:NAME``, of ``loss`` or a metric."""
        return self._api.set_best(by)

    # Retention

    def retention(
        self,
        rules: None = UNCHANGED,
        *,
        keep_last: int | None = None,
        keep_best: KeepBest | None = None,
        keep_every: Mapping[str, int] | None = None,
        keep_for: str | None = None,
        thin_after: int | None = None,
    ) -> Mapping[str, Any] | None:
        """Set which checkpoints the server keeps: of each run, those that any rule keeps; all others go to the trash,
        except the newest, and those with an alias or a pin. Returns the rules, None if the model has none.

        ``keep_last``: the newest. ``keep_best``: by a metric, as in ``{"max:val_acc": 2}``. ``keep_every``:
        ``{"epochs": 10}`` or ``{"steps": 5000}``. ``keep_for``: the younger, as in ``"30d"``. ``thin_after``: all but
        the newest lose their optimizers' bytes. ``retention()`` changes nothing; ``retention(None)`` removes all rules.
        """
        wanted = rules_of(keep_last, keep_best, keep_every, keep_for, thin_after)
        if rules is None:
            if wanted:
                raise InvalidRequest("retention(None) removes all rules: give no others")
            return self._api.set_retention(None)
        return self._api.set_retention(wanted) if wanted else self._api.retention()

    def preview_retention(
        self,
        rules: None = UNCHANGED,
        *,
        keep_last: int | None = None,
        keep_best: KeepBest | None = None,
        keep_every: Mapping[str, int] | None = None,
        keep_for: str | None = None,
        thin_after: int | None = None,
    ) -> RetentionPreview:
        """Say what the rules of ``retention`` would do now, or without any, what the model's own rules will do."""
        wanted = rules_of(keep_last, keep_best, keep_every, keep_for, thin_after)
        return self._api.preview_retention(wanted or rules)

    # Aliases

    def alias(self, name: str, ref: Ref, *, expect: Ref | None = UNCHECKED, note: str | None = None) -> Alias:
        """Point an alias at a checkpoint: from then on it is a ref, as in ``model.state_dict("prod")``. An alias that
        does not exist yet is made.

        With ``expect``, a version, the alias moves only if it means that version now; with ``expect=None`` only if
        there is none yet. Else raises PreconditionFailed: of two programs that move it at once, exactly one succeeds.
        ``note`` says why, and is kept with the change.
        """
        return self._aliases.move(name, ref, expect, note)

    def aliases(self) -> list[Alias]:
        """Return all aliases, sorted by name."""
        return self._aliases.all()

    def alias_at(self, name: str) -> Alias:
        """Return an alias: what it means, since when, and by whom."""
        return self._aliases.get(name)

    def rollback(self, name: str, *, expect: Ref | None = UNCHECKED) -> Alias:
        """Move an alias to the version that it meant before its last move; a second rollback undoes the first.
        ``expect`` is that of ``alias``.
        """
        return self._aliases.roll_back(name, expect)

    def unalias(self, name: str, *, expect: Ref | None = UNCHECKED) -> None:
        """Remove an alias; the checkpoint stays. ``expect`` is that of ``alias``."""
        self._aliases.remove(name, expect)

    def protect_alias(self, name: str, *, protected: bool = True) -> Alias:
        """Let only tokens of scope admin move and remove an alias, or any token of scope write again."""
        return self._aliases.protect(name, protected=protected)

    def alias_history(self, name: str) -> Iterator[AliasChange]:
        """Iterate over the changes of an alias, newest first, also of one that was removed."""
        return self._aliases.history(name)

    # Follow changes

    def events(self, after: After = None, *, follow: bool = False, kinds: Kinds = ()) -> Iterator[Event]:
        """Iterate over the changes of this model, oldest first: all that are kept, or those after the event ``after``
        (an id, or ``"newest"``). With ``follow`` it goes on with each change as it happens, and never ends by itself.
        ``kinds`` are those wanted, such as ``"checkpoint-created"`` or ``["alias-moved", "alias-removed"]``.

        Raises EventsExpired if events after ``after`` have been deleted.
        """
        return Events(self._api.http, f"{self._api.path}/events").read(after, kinds, follow=follow)

    def follow(
        self,
        target: torch.nn.Module | Mapping[str, Any],
        ref: Ref,
        *,
        strict: bool = True,
        apply: Apply = "auto",
        callback: Callable[[Update], object] | None = None,
    ) -> Following:
        """Load the checkpoint that ``ref`` means now, and each one that it means later. ``target`` and ``strict`` are
        those of ``load_into``.

        Returns an iterator over Updates, which waits for the next move. Only tensors whose bytes changed are fetched.
        All are checked before the first one is put into the target, which happens while the next update is asked for,
        or with ``apply="manual"``, in ``update.apply()``. With ``callback``, the first update is loaded before this
        returns, and a daemon thread loads the later ones and calls back for each; around a forward pass,
        ``with following.frozen():`` then keeps the weights as they are. Once the first checkpoint is loaded, it waits
        through outages of any length. It ends with the error if the token is revoked, or the model or ref is gone.
        """
        return Following(self._api, target, ref, strict=strict, apply=apply, callback=callback)

    def add_webhook(self, url: str, *, kinds: Kinds = (), secret: str | None = None) -> Webhook:
        """Have the server send each event of this model to ``url``, or only those of ``kinds``, signed with ``secret``
        (``whsec_`` and base64). The returned Webhook has the secret, which the server makes if none is given.
        """
        return self._webhooks.add(url, kinds, secret)

    def webhooks(self) -> list[Webhook]:
        """Return all webhooks of this model, oldest first, without their secrets."""
        return self._webhooks.all()

    def webhook_deliveries(self, id: str) -> Iterator[WebhookDelivery]:  # noqa: A002  the server's word for it
        """Iterate over the deliveries to a webhook, newest first."""
        return self._webhooks.deliveries(id)

    def remove_webhook(self, id: str) -> None:  # noqa: A002  as above
        """Remove a webhook with its log of deliveries."""
        self._webhooks.remove(id)

    # Look up checkpoints

    def checkpoint(self, ref: Ref) -> Checkpoint:
        return self._api.checkpoint(ref)

    def checkpoints(
        self,
        *,
        order: str | None = None,
        where: Mapping[str, Any] | None = None,
        limit: int | None = None,
        trash: bool = False,
    ) -> Iterator[Checkpoint]:
        """Iterate over the checkpoints, newest first unless ``order`` names a field (``-loss``: descending). Each page
        is fetched when it is needed; ``limit`` is the most checkpoints to return.

        ``where`` holds filters in the server's syntax: ``{"epoch.ge": 3, "metric.acc.lt": 0.5, "tag.author": "me"}``
        (lt, le, gt, ge; a bare name means equal). With ``trash``, the checkpoints in the trash are listed instead,
        without order and filters.
        """
        params = [] if order is None else [("order", order)]
        params += [("trash", "true")] if trash else []
        params += [(name, str(value)) for name, value in (where or {}).items()]
        if limit is not None:
            params.append(("limit", str(max(1, min(limit, 100)))))
        return islice(self._api.checkpoints(params), limit)

    def history(self) -> Iterator[HistoryEntry]:
        """Iterate over the numbers of every checkpoint there ever was, oldest first: also of deleted ones."""
        return self._api.history()

    def tensors(self, ref: Ref, *, component: str | None = None) -> Iterator[TensorInfo]:
        """Iterate over the tensors of a checkpoint, or of one component, in the file's order: key, dtype, shape,
        device, bytes. No tensor data is fetched, and torch is not needed. An optimizer's keys are dotted
        (``state.0.exp_avg``).
        """
        return self._api.tensors(self._pinned(ref), component)

    def param_groups(self, ref: Ref, component: str) -> list[Mapping[str, Any]]:
        """Return an optimizer's param_groups as JSON values: ``model.param_groups("latest", "optimizer_state_dict")``.

        Raises UnknownComponent, and InvalidRequest for a component that is not an optimizer's.
        """
        return self._api.param_groups(self._pinned(ref), component)

    def stats(self, ref: Ref, *, component: str | None = None, include: Patterns = ()) -> Stats:
        """Return the extremes, mean, std, norm, zeros, NaN, infinities and a histogram of each tensor, or of those of
        one ``component`` and of the keys that match ``include``. The server computes them, once; torch is not needed.
        """
        return self._api.stats(self._pinned(ref), component, include)

    def diff(self, base: Ref, other: Ref, *, component: str | None = None, numeric: bool = False) -> Diff:
        """Compare two checkpoints key by key: what is the same, changed, added, removed or moved from ``base`` to
        ``other``, which may be of another model (``"namespace/name@ref"``, or a Checkpoint).

        Nothing is downloaded. With ``numeric``, the server reads the changed tensors and measures how far they are
        apart. ``component`` is the base's; the other's is that of the same name, or its only one.
        """
        return self._api.diff(self._pinned(base), self._named(other), component, numeric=numeric)

    def _named(self, ref: Ref) -> str:
        """Return the name of a checkpoint that may be of another model."""
        if isinstance(ref, Checkpoint) and ref.model != self.name:
            return str(ref)
        if isinstance(ref, str) and "@" in ref and "/" in ref.partition("@")[0]:
            return ref
        return f"{self.name}@{self._api.ref(self._pinned(ref))}"

    def _anywhere(self, ref: Ref) -> Checkpoint:
        """Look up a checkpoint, which may be of another model."""
        model, at, there = ref.partition("@") if isinstance(ref, str) else ("", "", "")
        return self._api.elsewhere(model).checkpoint(there) if at and "/" in model else self._pinned(ref)

    # Load and download checkpoints

    def load(self, ref: Ref, map_location: Any = None, *, weights_only: bool = True, default: Any = ...) -> Any:
        """Load the object as it was saved, with every field. ``map_location`` is that of torch.load.

        Raises UnsafeGlobals, before anything is fetched, for a checkpoint that ``weights_only=True`` cannot load.
        ``weights_only=False`` unpickles the checkpoint, which runs code of whoever saved it. ``default`` is returned if
        the model or checkpoint does not exist, as in the first run of a job.
        """
        _torch.require_torch("load()")
        try:
            checkpoint = self._api.checkpoint(ref)
        except (ModelNotFound, CheckpointNotFound):
            if default is ...:
                raise
            return default
        if weights_only:
            _refuse_unsafe(checkpoint)
        loaded = load_object(self._api, checkpoint, map_location, weights_only=weights_only)
        if any(component.kind == "optimizer" for component in checkpoint.components):
            self._origins.resumed(checkpoint)
        return loaded

    def state_dict(
        self,
        ref: Ref,
        *,
        component: str | None = None,
        map_location: Any = None,
        include: Patterns = (),
        exclude: Patterns = (),
        strip_prefix: Prefixes = None,
        add_prefix: str | None = None,
        rename: Rename = (),
        dtype: Any = None,
        dtype_exclude: Patterns = (),
    ) -> dict[str, Any]:
        """Load one component as a dict of keys to tensors; only selected tensors are downloaded.

        An optimizer's state_dict keeps its nesting. The selection is applied in this order: ``strip_prefix`` (keys
        without the prefix are kept; several prefixes are stripped in turn), ``include`` and ``exclude`` (globs in which
        ``*`` crosses dots, or ``re:`` and an expression for the whole key), ``rename`` (prefix to prefix, or ``re:``
        and an expression to a text), ``add_prefix``, ``dtype`` (float32, float16 or bfloat16: the server casts floating
        tensors, except those whose new key matches ``dtype_exclude``). ``map_location`` is that of torch.load. Raises
        NoKeysMatched, UnknownComponent, ComponentAmbiguous.
        """
        selection = Selection(component, strip_prefix, include, exclude, rename, add_prefix, dtype, dtype_exclude)
        if self._api.http.falls_back:  # what a ref means offline is what it meant for all methods
            ref = self._pinned(ref)
        state: dict[str, Any] = load_state_dict(self._api, ref, selection, map_location, label=self._label(ref))
        return state

    def iter_tensors(
        self,
        ref: Ref,
        *,
        component: str | None = None,
        map_location: Any = None,
        include: Patterns = (),
        exclude: Patterns = (),
        strip_prefix: Prefixes = None,
        add_prefix: str | None = None,
        rename: Rename = (),
        dtype: Any = None,
        dtype_exclude: Patterns = (),
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Iterate over the tensors of ``state_dict`` with their keys (an optimizer's dotted: ``state.0.exp_avg``). A
        tensor's memory is freed once the caller drops it.
        """
        yield from _torch.drain(
            self.state_dict(
                ref,
                component=component,
                map_location=map_location,
                include=include,
                exclude=exclude,
                strip_prefix=strip_prefix,
                add_prefix=add_prefix,
                rename=rename,
                dtype=dtype,
                dtype_exclude=dtype_exclude,
            )
        )

    def tensor(
        self,
        ref: Ref,
        key: str,
        *,
        rows: slice | None = None,
        dim: int | None = None,
        shard: tuple[int, int] | None = None,
        dtype: Any = None,
        device: Any = None,
        component: str | None = None,
    ) -> torch.Tensor:
        """Load one tensor, or a part of it, of which only the bytes are downloaded: ``rows=slice(0, 10)`` along its
        first dimension, and of these the ``shard=(number, count)``, from 0 on, that ``torch.chunk(count, dim)`` makes
        (one without elements, if torch makes fewer). An optimizer's key is dotted (``state.0.exp_avg``).

        ``dtype`` is that of ``state_dict``. Without ``component``, the key is that of the model, or of the only
        component that has it. Raises TensorNotFound, ComponentAmbiguous, and SelectionError for rows that are not there
        and for a tensor that is not dense.
        """
        part = TensorPart(key, component, rows, dim, shard, dtype)
        if self._api.http.falls_back:
            ref = self._pinned(ref)
        tensor: torch.Tensor = load_tensor(self._api, ref, part, device, label=f"{key} of {self._label(ref)}")
        return tensor

    def warmstart(
        self,
        net: torch.nn.Module,
        ref: Ref,
        *,
        component: str | None = None,
        include: Patterns = (),
        exclude: Patterns = (),
        strip_prefix: Prefixes = None,
        add_prefix: str | None = None,
        rename: Rename = (),
        resize: Resize = "none",
        dtype: Any = None,
    ) -> Report:
        """Load every tensor whose key and shape fit into the model's own memory, in the model's dtype and on its
        devices. Only those bytes are downloaded. The selection is that of ``state_dict``.

        With ``resize="slice"``, a tensor of another shape but as many dimensions gives the corner that both have
        (``resized_keys``); the rest of the model's tensor stays as it is. With ``dtype="target"``, the server casts
        tensors to the model's dtypes where that saves bytes; with a dtype, it casts all, as for ``state_dict``.

        Raises NoKeysMatched if no tensor fits, and then leaves the model as it was. DataParallel,
        DistributedDataParallel and torch.compile wrappers are unwrapped first.
        """
        selection = Selection(component, strip_prefix, include, exclude, rename, add_prefix, dtype=dtype, resize=resize)
        report = warmstart(self._api, net, self._pinned(ref) if self._api.http.falls_back else ref, selection)
        self._origins.warm_started(report.checkpoint)
        return report

    def load_into(
        self,
        target: torch.nn.Module | Mapping[str, Any],
        ref: Ref,
        *,
        strict: bool = True,
        staged: bool = False,
    ) -> Report:
        """Load a checkpoint into a model, or its components into models and optimizers:
        ``{"model_state_dict": net, "optimizer_state_dict": optimizer}``.

        Keys and shapes are compared before anything is downloaded; raises StateDictMismatch if load_state_dict would
        refuse. With ``staged``, everything is downloaded and checked before any target is touched, which takes the
        memory for it; without, components are loaded one after another. Raises PartialLoadError if it fails after a
        target was touched. Keys in the report and in the error begin with the component's name if a dict was given; an
        optimizer is one key. A checkpoint that filled every target is the ``parent`` of this Model's next save.
        """
        report = load_into(self._api, target, ref, strict=strict, staged=staged)
        if not (report.missing_keys or report.mismatched_keys):
            self._origins.resumed(report.checkpoint)
        return report

    def download(self, ref: Ref, path: str | os.PathLike[str], map_location: Any = None) -> Path:
        """Write a checkpoint to a file, which appears under its name only when it is complete and checked.

        Without ``map_location``, the file is the uploaded one, byte for byte, or if ``save`` sent only the tensors, the
        one that torch.save would have written. With a device (a str or a torch.device), it is the same checkpoint with
        its tensors on that device. If ``path`` is a folder, the file is named ``NAME-vVERSION.pt``, or ``.safetensors``
        for such an upload. A folder that was uploaded is written as a folder: ``path`` must be new, or an empty folder.
        """
        device = _device(map_location)
        checkpoint = self._api.checkpoint(ref)
        if checkpoint.format == "folder" and device is None:
            with appearing_folder(Path(path)) as folder:
                fetch_folder_into(self._api, folder, checkpoint)
            return Path(path)
        is_safetensors = device is None and checkpoint.format == "safetensors"
        suffix = ".safetensors" if is_safetensors else ".pt"
        path = named_in(Path(path), self.name, checkpoint.version, suffix)
        with appearing(path) as file:
            write_file(self._api, file, checkpoint, device)
        return path

    def download_state_dict(
        self,
        ref: Ref,
        path: str | os.PathLike[str],
        *,
        component: str | None = None,
        map_location: Any = None,
        include: Patterns = (),
        exclude: Patterns = (),
        strip_prefix: Prefixes = None,
        add_prefix: str | None = None,
        rename: Rename = (),
        dtype: Any = None,
        dtype_exclude: Patterns = (),
        format: Format = "pt",  # noqa: A002  the server's word for it
    ) -> Path:
        """Write the result of ``state_dict`` to a file for ``torch.load``, or a safetensors file, in the way of
        ``download``; torch is not needed. If ``path`` is a folder, the file is named ``NAME-vVERSION-state_dict.pt``,
        or ``.safetensors``. A safetensors file cannot name a device.
        """
        device = _device(map_location)
        selection = Selection(
            component, strip_prefix, include, exclude, rename, add_prefix, dtype, dtype_exclude, format
        )
        checkpoint = self._api.checkpoint(ref)
        path = named_in(Path(path), self.name, checkpoint.version, f"-state_dict.{format}")
        with appearing(path) as file:
            fetch_state_dict_into(self._api, file, checkpoint, selection, device)
        return path

    def download_tensor(
        self,
        ref: Ref,
        key: str,
        path: str | os.PathLike[str],
        *,
        rows: slice | None = None,
        dim: int | None = None,
        shard: tuple[int, int] | None = None,
        dtype: Any = None,
        component: str | None = None,
    ) -> Path:
        """Write the result of ``tensor`` to a safetensors file, in the way of ``download``; torch is not needed. If
        ``path`` is a folder, the file is named ``NAME-vVERSION-tensor.safetensors``.
        """
        part = TensorPart(key, component, rows, dim, shard, dtype)
        checkpoint = self._api.checkpoint(ref)
        path = named_in(Path(path), self.name, checkpoint.version, "-tensor.safetensors")
        with appearing(path) as file:
            fetch_tensor_into(self._api, file, checkpoint, part)
        return path

    def _label(self, ref: Ref) -> str:
        return str(ref) if isinstance(ref, Checkpoint) else f"{self.name} {ref}"

    def _pinned(self, ref: Ref) -> Checkpoint:
        """Resolve a ref once: a moving ref must not change between several requests."""
        return ref if isinstance(ref, Checkpoint) else self._api.checkpoint(ref)


def _device(map_location: Any) -> str | None:
    device = device_tag(map_location)
    if map_location is not None and device is None:
        raise InvalidRequest(
            f"map_location={map_location!r} is not a device: a file is made for a device such as 'cpu' or 'cuda:0'"
        )
    return device


def _refuse_unsafe(checkpoint: Checkpoint) -> None:
    allowed = _torch.allowed_globals() if checkpoint.unsafe_globals else set()
    unsafe = tuple(name for name in checkpoint.unsafe_globals if name not in allowed)
    if unsafe:
        names = [repr(each.name) for each in checkpoint.components]
        more = ", ..." if len(names) > SHOWN else ""
        held = ", ".join(map(printable, unsafe))
        parts = f"state_dict() can load its components without that: {', '.join(names[:SHOWN])}{more}. "
        raise UnsafeGlobals(
            f"{checkpoint} contains {held}, which weights_only=True refuses. {parts if names else ''}"
            "If you trust its source, pass weights_only=False, or allow them with "
            "torch.serialization.add_safe_globals",
            unsafe,
        )

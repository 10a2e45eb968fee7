"""Modules that follow a ref: each time it means another checkpoint, the tensors that differ are fetched and loaded."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Literal

from .._api import ModelApi
from .._checkpoint import Checkpoint
from .._errors import (
    CheckpointNotFound,
    DigestMismatch,
    InvalidRequest,
    PartialLoadError,
    SelectionError,
    ServerError,
    StateDictMismatch,
)
from .._http.retry import RetryPolicy
from .._log import LOG
from .._query import Ref
from .changes import Change, Fingerprints
from .gate import Gate
from .load_into import long, named_in, partial, targets_of
from .targets import Target

if TYPE_CHECKING:
    from typing_extensions import Self

Apply = Literal["auto", "manual"]

UNFIT = (StateDictMismatch, SelectionError, DigestMismatch, PartialLoadError)
"""Errors of one checkpoint: the next one may be loaded."""


class Update:
    """One move of the followed ref: from ``previous``, None at the first, to ``checkpoint``.

    ``changed`` are the keys whose tensors differ, and ``bytes`` is the size of the tensors that were fetched for them.
    ``applied`` tells whether the tensors are in the target.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        previous: Checkpoint | None,
        changes: Mapping[str | None, Change],
        apply: Callable[[Update], None],
    ) -> None:
        self.checkpoint = checkpoint
        self.previous = previous
        self.changed = tuple(key for name, change in changes.items() for key in long(change.keys, name))
        self.bytes = sum(change.bytes for change in changes.values())
        self.applied = False
        self._apply = apply

    def apply(self) -> None:
        """Put the tensors into the target, all of them or none; nothing is fetched any more. Does nothing if it is done
        already.

        Raises InvalidRequest for an update that a newer one has replaced, inside ``frozen()``, and after ``close()``.
        """
        if not self.applied:
            self._apply(self)

    def __repr__(self) -> str:
        return f"Update({self.previous} -> {self.checkpoint}, {len(self.changed)} keys changed)"


class Following(Iterator[Update]):
    """The updates of a target that follows a ref; ``Model.follow`` returns it.

    Without a callback it is an iterator, and weights change only while the next update is asked for. With one, a daemon
    thread loads each update and calls back; ``error`` is what ended that thread, None while it runs. ``current`` is the
    checkpoint in the target, None before the first, and after an update that failed when it was put in. ``close()``, or
    leaving a ``with`` block, ends both.
    """

    def __init__(
        self,
        api: ModelApi,
        target: Any,
        ref: Ref,
        *,
        strict: bool,
        apply: Apply,
        callback: Callable[[Update], object] | None,
    ) -> None:
        if apply not in {"auto", "manual"}:
            raise InvalidRequest(f"apply={apply!r} is neither 'auto' nor 'manual'")
        self._api = api
        self._named = named_in(target)
        self._ref = ref
        self._strict = strict
        self._is_automatic = apply == "auto"
        self._gate = Gate()
        self._closed = threading.Event()
        self._putting = threading.Lock()
        self._etag: str | None = None
        self._seen: int | None = None
        self._offer: tuple[Update, Sequence[tuple[Target, Change]]] | None = None
        self._loaded: dict[str | None, Fingerprints] = {}
        self.current: Checkpoint | None = None
        self.error: BaseException | None = None
        self._callback = callback
        if callback is not None:
            callback(self._first())
            threading.Thread(target=self._run, args=(callback,), name=f"follow {api.model}", daemon=True).start()

    def frozen(self) -> AbstractContextManager[None]:
        """Return a context in which the weights stay as they are: ``with following.frozen(): net(batch)``.

        Any number of threads may be inside. An update waits until they have left, and those that come later wait until
        it is applied.
        """
        return self._gate.reading()

    def close(self) -> None:
        """End it: no weight changes after this, and the iterator and the thread end. It does not wait for the thread,
        which may still wait for an answer.
        """
        self._closed.set()
        with self._putting:
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Update:
        """Wait for the next update. Raises errors that do not pass by themselves: Unauthorized, ModelNotFound and so
        on; after StateDictMismatch, one may ask again and wait for the next move.
        """
        if self._callback is not None:
            raise InvalidRequest("this follows with a callback, and has no updates to iterate over")
        self._gate.check_outside()
        try:
            return self._first() if self._seen is None else self._next()
        except _Closed:
            raise StopIteration from None

    def _run(self, callback: Callable[[Update], object]) -> None:
        """Call back for each update until it is closed, or an error does not pass."""
        try:
            while True:
                try:
                    update = self._next()
                except UNFIT as error:
                    LOG.warning("Waiting for the next move of %s: %s", self._ref, error)
                    continue
                try:
                    callback(update)
                except Exception:  # noqa: BLE001  a bug of the user's, for which the model must not grow old
                    LOG.exception("The callback failed for %r.", update)
        except _Closed:
            return
        except Exception as error:  # noqa: BLE001  the thread ends with it, and says so
            self.error = error
            LOG.exception("%s of %s is not followed any more.", self._ref, self._api.model)

    def _first(self) -> Update:
        """Load the checkpoint that the ref means now, with the client's own retries."""
        checkpoint, self._etag = self._api.checkpoint_now(self._ref)
        if self._closed.is_set():
            raise _Closed("following has ended")
        update = self._fetch(checkpoint)
        if self._is_automatic:
            update.apply()
        return update

    def _next(self) -> Update:
        """Wait until the ref means another checkpoint, however long the server is away."""
        retry = self._api.http.endless_retries(self._pause)
        while True:
            try:
                checkpoint = self._look(retry)
                if checkpoint is None:
                    continue
                if not self._is_news(checkpoint):
                    self._seen = checkpoint.version
                    continue
                update = self._fetch(checkpoint)
            except ServerError as error:
                self._etag = None
                retry.failed(error)
            except CheckpointNotFound as error:  # it may have been deleted right after the look
                if self._etag is None:
                    raise
                self._etag = None
                retry.failed(error)
            else:
                if self._is_automatic:
                    update.apply()
                return update

    def _look(self, retry: RetryPolicy) -> Checkpoint | None:
        """Return the checkpoint that the ref means when its description changes; None if it does not for a while."""
        if self._closed.is_set():
            raise _Closed("following has ended")
        found = self._api.checkpoint_unless(self._etag, self._ref, self._api.http.long_poll_seconds, retry)
        if self._closed.is_set():
            raise _Closed("following has ended")
        if found is None:
            retry.succeeded()
            return None
        checkpoint, self._etag = found
        return checkpoint

    def _is_news(self, checkpoint: Checkpoint) -> bool:
        """Return whether it is neither the one seen last nor, unless another one is offered, the loaded one."""
        is_loaded = self.current is not None and checkpoint.version == self.current.version
        return checkpoint.version != self._seen and not (is_loaded and self._offer is None)

    def _fetch(self, checkpoint: Checkpoint) -> Update:
        """Fetch and check all that differs from what is loaded; the target is not touched."""
        try:
            targets = targets_of(self._api, checkpoint, self._named, strict=self._strict)
            changes = {name: each.fetch_change(self._loaded.get(name, {})) for name, each in zip(self._named, targets)}
        except UNFIT:
            self._seen = checkpoint.version
            raise
        update = Update(checkpoint, self.current, changes, self._put)
        self._offer = update, list(zip(targets, changes.values()))
        self._seen = checkpoint.version
        return update

    def _put(self, update: Update) -> None:
        with self._gate.writing(), self._putting:
            if self._closed.is_set():
                raise _Closed(f"{update!r} is not applied: following has ended")
            if self._offer is None or self._offer[0] is not update:
                raise InvalidRequest(f"{update!r} is not applied: a newer update has replaced it")
            changes, self._offer = self._offer[1], None
            try:
                self._put_all(update, changes)
            except BaseException:
                self._loaded, self.current = {}, None  # unknown: the next update loads everything
                raise
            self._loaded = {name: change.fingerprints for name, (_, change) in zip(self._named, changes)}
            self.current = update.checkpoint
            update.applied = True

    def _put_all(self, update: Update, changes: Sequence[tuple[Target, Change]]) -> None:
        done: list[str] = []
        touched = False
        for name, (target, change) in zip(self._named, changes):
            try:
                if change.state is not None:
                    target.put(change.state)
            except Exception as error:
                if not (touched or target.touched):
                    raise
                raise partial(update.checkpoint, done, update.changed, error) from error
            touched = touched or target.touched
            done += long(change.keys, name)

    def _pause(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise _Closed("following has ended")


class _Closed(InvalidRequest):
    """Following was ended, perhaps by another thread."""

"""Background saves: a snapshot is taken at once, and sent by a thread that lives while there is one to send.

The thread is no daemon, so the interpreter waits for it at exit.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._api import ModelApi
from .._checkpoint import Checkpoint, SpooledCheckpoint
from .._errors import Superseded
from .._printable import one_line, printable
from .._types import Params
from .._warn import warn
from .job import SaveJob
from .outbox import spooled_text
from .pickled import Pickled
from .save import pickled_of, send, unsafe_text
from .snapshot import Buffer, Buffers, is_pinned, size_of, snapshot

SNAPSHOTS = 2
"""Largest number of snapshots in memory: one is sent, one waits."""


@dataclass(frozen=True)
class Options:
    """``droppable``: a newer save of the same model and run may replace this one before it is begun. ``raise_errors``:
    the next call raises this save's error instead of a warning.
    """

    droppable: bool
    raise_errors: bool


@dataclass(frozen=True)
class _Save:
    api: ModelApi
    params: Params
    options: Options
    pickled: Pickled
    is_judged: bool
    buffer: Buffer
    memory: Sequence[memoryview]
    job: SaveJob

    @property
    def line(self) -> tuple[str, str | None]:
        return self.api.model, self.api.run

    def send(self) -> Checkpoint | BaseException:
        try:
            return send(self.api, self.pickled, self.memory, self.params)
        except BaseException as error:  # noqa: BLE001  the job reports every error
            return error


@dataclass(frozen=True)
class _News:
    """A message for the next call, which warns of it, or raises ``error`` if that was asked for."""

    text: str
    job: SaveJob
    error: BaseException | None = None


class SaveQueue:
    """The background saves of one client in one process, sent in order, one at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._snapshots = 0  # taken, or about to be
        self._waiting: list[_Save] = []
        self._is_sending = False
        self._buffers = Buffers()
        self._news: list[_News] = []
        weakref.finalize(self, _tell_at_last, self._news, os.getpid())

    def save(self, api: ModelApi, obj: Any, params: Params, options: Options) -> SaveJob:
        """Wait for room, take the snapshot, and return. Raises the errors of ``save`` before it sends."""
        self._make_room((api.model, api.run))
        buffer = None
        try:
            pickled, is_judged = pickled_of(obj)
            with self._changed:
                buffer = self._buffers.take(pickled.torch, size_of(pickled), pinned=is_pinned(pickled))
            memory = snapshot(pickled, buffer)
        except BaseException:
            with self._changed:
                self._let_go(buffer)
            raise
        save = _Save(api, params, options, pickled, is_judged, buffer, memory, SaveJob())
        with self._changed:
            self._waiting.append(save)
            begins, self._is_sending = not self._is_sending, True
        if begins and threading.main_thread().is_alive():
            threading.Thread(target=self._send_all, name="stateroom-save", daemon=False).start()
        elif begins:
            self._send_all()  # the interpreter is ending, and would not wait for another thread
        return save.job

    def drain(self) -> None:
        """Wait until every save is sent or has failed; then free the memory."""
        with self._changed:
            self._changed.wait_for(lambda: not self._snapshots)
            self._buffers.clear()

    def tell(self, *, may_raise: bool = True) -> None:
        """Warn of the failures since the last call; raise the first one that was to be raised."""
        with self._changed:
            news = [each for each in self._news if not each.job.is_heard_of]
            self._news.clear()
        raised = next((each for each in news if each.error is not None and may_raise), None)
        for each in news:
            if each is not raised:
                warn(each.text)
        if raised is not None and raised.error is not None:
            raise raised.error

    def _make_room(self, line: tuple[str, str | None]) -> None:
        """Wait until there is room for one more snapshot, or drop one."""
        with self._changed:
            while self._snapshots >= SNAPSHOTS:
                dropped = next((save for save in self._waiting if save.options.droppable and save.line == line), None)
                if dropped is None:
                    self._changed.wait()
                else:
                    self._waiting.remove(dropped)
                    self._let_go(dropped.buffer)
                    dropped.job.end(
                        Superseded(
                            f"the save was dropped before it began, because a newer save of {line[0]} replaced it"
                        )
                    )
            self._snapshots += 1

    def _let_go(self, buffer: Buffer | None) -> None:
        if buffer is not None:
            self._buffers.give(buffer)
        self._snapshots -= 1
        self._changed.notify_all()

    def _send_all(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._is_sending = False
                    return
                save = self._waiting.pop(0)
            outcome = save.send()
            with self._changed:
                self._let_go(save.buffer)
                self._news += _news_of(save, outcome)
                save.job.end(outcome)


def _news_of(save: _Save, outcome: Checkpoint | BaseException) -> list[_News]:
    if isinstance(outcome, BaseException):
        why = one_line(outcome) or type(outcome).__name__
        text = f"a background save of {printable(save.api.model)} failed: {why}"
        return [_News(text, save.job, outcome if save.options.raise_errors else None)]
    if isinstance(outcome, SpooledCheckpoint):
        return [_News(spooled_text(outcome), save.job)]
    if outcome.unsafe_globals and not save.is_judged:
        return [_News(unsafe_text(outcome.unsafe_globals), save.job)]
    return []


def _tell_at_last(news: Sequence[_News], pid: int) -> None:
    """Warn of failures that no later call can report: the client is gone, or the interpreter ends."""
    if os.getpid() == pid:
        for each in news:
            if not each.job.is_heard_of:
                warn(each.text)

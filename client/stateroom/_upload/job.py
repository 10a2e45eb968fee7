"""A save in the background."""

from __future__ import annotations

import os
from threading import Event

from .._checkpoint import Checkpoint
from .._errors import InvalidRequest


class SaveJob:
    """The result of ``save_async``."""

    def __init__(self) -> None:
        self._ended = Event()
        self._pid = os.getpid()
        self._checkpoint: Checkpoint | None = None
        self._error: BaseException | None = None
        self.is_heard_of = False

    def done(self) -> bool:
        """Return whether the save is stored, has failed, or was superseded."""
        return self._ended.is_set()

    def result(self, timeout: float | None = None) -> Checkpoint | None:
        """Wait for the save and return its checkpoint; None on the ranks that save nothing.

        Raises the upload's error, which is then not reported by a warning any more; Superseded, if a newer save took
        its place; TimeoutError after ``timeout`` seconds.
        """
        if self._pid != os.getpid() and not self.done():
            raise InvalidRequest("a save is waited for in the process that began it, not in one forked from it")
        if not self._ended.wait(timeout):
            raise TimeoutError(f"the save has not ended after {timeout} seconds")
        if self._error is not None:
            self.is_heard_of = True
            raise self._error
        return self._checkpoint

    def end(self, outcome: Checkpoint | BaseException | None) -> None:
        """Record the outcome; called by the sender."""
        if isinstance(outcome, BaseException):
            self._error = outcome
        else:
            self._checkpoint = outcome
        self._ended.set()

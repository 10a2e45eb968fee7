"""A save in the background."""

from __future__ import annotations

import concurrent.futures
import os
from typing import TYPE_CHECKING, Optional

from .._checkpoint import Checkpoint
from .._errors import InvalidRequest

if TYPE_CHECKING:
    _Future = concurrent.futures.Future[Optional[Checkpoint]]
else:
    _Future = concurrent.futures.Future


class SaveJob(_Future):
    """The result of ``save_async``: a ``concurrent.futures.Future``, for ``wait``, ``as_completed`` and callbacks too.

    It cannot be cancelled: ``cancel()`` returns False.
    """

    def __init__(self) -> None:
        super().__init__()
        self.set_running_or_notify_cancel()
        self._pid = os.getpid()
        self.is_heard_of = False

    def result(self, timeout: float | None = None) -> Checkpoint | None:
        """Wait for the save and return its checkpoint; None on the ranks that save nothing.

        Raises the upload's error, which is then not reported by a warning any more; Superseded, if a newer save took
        its place; TimeoutError after ``timeout`` seconds.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error
        return super().result()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the save and return the upload's error; None if the save is stored. Raises TimeoutError."""
        if self._pid != os.getpid() and not self.done():
            raise InvalidRequest("wait for a save in the process that began it, not in a process forked from it")
        try:
            error = super().exception(timeout)
        except concurrent.futures.TimeoutError:
            raise TimeoutError(f"the save has not ended after {timeout} seconds") from None
        self.is_heard_of = self.is_heard_of or error is not None
        return error

    def end(self, outcome: Checkpoint | BaseException | None) -> None:
        """Record the outcome; called by the sender."""
        if isinstance(outcome, BaseException):
            self.set_exception(outcome)
        else:
            self.set_result(outcome)

"""A lock for many readers and one writer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .._errors import InvalidRequest


class Gate:
    """Many readers may hold it at once, or one writer alone.

    Nobody waits for ever: a writer that waits keeps the entrance, so that later readers come after it. A reader may
    enter again in its own thread.
    """

    def __init__(self) -> None:
        self._entrance = threading.Lock()
        self._left = threading.Condition()
        self._readers = 0
        self._of_thread = threading.local()

    @contextmanager
    def reading(self) -> Iterator[None]:
        depth = self._depth
        if not depth:
            with self._entrance, self._left:
                self._readers += 1
        self._of_thread.depth = depth + 1
        try:
            yield
        finally:
            self._of_thread.depth = self._depth - 1
            if not self._depth:
                with self._left:
                    self._readers -= 1
                    self._left.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Raises InvalidRequest in a thread that reads, which would wait for itself."""
        self.check_outside()
        with self._entrance, self._left:
            self._left.wait_for(lambda: not self._readers)
            yield

    def check_outside(self) -> None:
        """Raise InvalidRequest if this thread reads."""
        if self._depth:
            raise InvalidRequest("the weights cannot change inside frozen(): leave it first")

    @property
    def _depth(self) -> int:
        return getattr(self._of_thread, "depth", 0)

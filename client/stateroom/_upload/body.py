"""A file as a request's body."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from .._digest import Hasher
from .._errors import DigestMismatch, InvalidRequest
from .._printable import printable
from .._progress import Progress

READ_SIZE = 1024 * 1024


class Body:
    """A file as a request's body, from its current position to its end, hashed while it is sent.

    ``size`` is None for a file that cannot be measured (a pipe), which cannot be sent twice either.
    """

    def __init__(self, file: IO[bytes], *, label: str, progress: Progress | None, verify: bool) -> None:
        self._file = file
        self._label = label
        self._progress = progress
        self._verify = verify
        self.size: int | None = None
        self.hasher = Hasher()
        if file.seekable():
            self._start = file.tell()
            self.size = file.seek(0, 2) - self._start

    def __call__(self) -> Iterator[bytes]:
        """Yield the bytes, from the first."""
        self.hasher = Hasher()
        sent = 0
        if self.size is not None:
            self._file.seek(self._start)
        while data := self._file.read(READ_SIZE):
            if isinstance(data, str):
                raise InvalidRequest("the file is opened as text; open it with mode 'rb'")
            sent += len(data)
            if self.size is not None and sent > self.size:
                break
            if self._verify:
                self.hasher.update(data)
            if self._progress is not None:
                self._progress(self._label, sent, self.size)
            yield data
        if self.size is not None and sent != self.size:
            raise InvalidRequest(f"the file changed while it was sent: it had {self.size} bytes, and {sent} were read")

    def check(self, digest: str) -> None:
        """Raise DigestMismatch unless the server has stored the bytes that were sent."""
        if self._verify and self.size not in {None, self.hasher.size}:
            for _ in self():  # the answer came before the last try's end: an earlier try has sent everything
                pass
        if self._verify and self.hasher.digest() != digest:
            raise DigestMismatch(f"the server stored {printable(digest)}, but {self.hasher.digest()} was sent")

"""Uploads in parts: announce the blocks, send those that the server doesn't have, commit. A broken upload is resumed.

Any of several servers behind one address may answer each request.
"""

from __future__ import annotations

import http.client as http_client
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from threading import Event, Lock
from typing import Any, Callable
from urllib.parse import urlsplit

import httpx

from .._digest import BLOCK_SIZE
from .._errors import Conflict, DigestMismatch, NotFound, ServerUnavailable, StateroomError, understood
from .._http.raw import BROKEN, connect, is_answered, is_proxied, read_answer
from .._http.session import Http, Params, json_of
from .._printable import printable
from .._progress import Progress
from .._threads import side_by_side
from .split import Split

SEND_SIZE = 1024 * 1024

ROUNDS = 100
"""Largest number of times that an upload starts again, because another client has committed the same bytes, or blocks
that the server had are gone. All rounds but the first send little.
"""

ROUNDS_IN_VAIN = 3
"""Largest number of failed rounds that had most of the file to send."""


class NegotiatedUpload:
    """The upload of one checkpoint to ``path``, the address where uploads of its model are announced.

    ``connections`` is the number of parts sent at once.
    """

    def __init__(
        self, http: Http, path: str, split: Split, *, connections: int, label: str, progress: Progress | None
    ) -> None:
        self._http = http
        self._path = path
        self._split = split
        self._connections = connections
        self._label = label
        self._progress = progress
        self._lock = Lock()
        self._stop = Event()
        self._proxied = is_proxied(http.url)
        self._idle: list[http_client.HTTPConnection] = []
        self._digests: list[str] = []
        self._failure: BaseException | None = None
        self._sent = 0
        self._total = 0

    def run(self, params: Params, *, original: bool, key: str) -> Any:
        """Return the checkpoint's JSON; None if the server loses again and again what was sent. The file then has to be
        sent in one piece with the same ``key``, which makes one checkpoint of all tries. Raises the server's errors,
        and DigestMismatch if the bytes changed while they were sent.
        """

        def commit(url: str) -> Any:
            answer = self._http.send("POST", f"{url}/commit", params, headers={"Idempotency-Key": key}, safe=True)
            return json_of(answer)

        return self._run(self._announcement(original, parent=dict(params).get("parent")), commit)

    def stage(self) -> bool:
        """Send blobs ahead of the checkpoint that will refer to them: the split has no frame. Return False if the
        server loses again and again what was sent. Raises the errors of ``run``.
        """

        def stage(url: str) -> bool:
            self._http.send("POST", f"{url}/stage", safe=True)
            return True

        return self._run(self._announcement(original=True, parent=None), stage) is not None

    def _run(self, announcement: Mapping[str, Any], end: Callable[[str], Any]) -> Any:
        """Announce, send, and ``end`` the upload with the URL that it is given; begin again as often as it may help."""
        in_vain = 0
        try:
            for left in reversed(range(ROUNDS)):
                self._total = 0
                try:
                    upload, _ = self._http.json("POST", self._path, body=announcement, safe=True)
                    return end(self._send_missing(upload))
                except (NotFound, Conflict) as error:
                    # Another client has committed the same bytes, or the server's blocks are gone: announce again.
                    if error.code not in {"upload-gone", "missing-blobs"} or not left:
                        raise
                    in_vain += 2 * self._total > self._split.size
                if in_vain == ROUNDS_IN_VAIN:
                    with suppress(StateroomError):  # nobody resumes it, and the server removes it after a day
                        self._http.json("DELETE", self._http.path_of(upload["url"]))
                    return None
        finally:
            self._stop.set()
            for wire in self._idle:
                wire.close()
        raise AssertionError("the last round returns or raises")

    def _announcement(self, original: bool, parent: str | None) -> dict[str, Any]:
        self._digests = side_by_side(self._split.digest, range(len(self._split.blocks)), self._connections)
        announcement = {
            "size": self._split.size,
            "storages": self._split.storages,
            "blocks": self._digests,
            "original": original,
        }
        return announcement if parent is None else {**announcement, "parent": parent}

    def _send_missing(self, upload: Any) -> str:
        """Send what the server lacks, and return the upload's URL."""
        with understood("an upload"):
            url: str = self._http.path_of(upload["url"])
            self._sent, self._total = 0, int(upload["missing_bytes"])
            parts = list(self._parts(upload["missing"], int(upload["part_size"])))
        self._split.check(parts)
        self._failure = None
        self._stop.clear()
        side_by_side(lambda part: self._send_or_stop(url, part), parts, self._connections)
        return url

    def _parts(self, missing: Iterable[tuple[int, int]], part_size: int) -> Iterator[range]:
        """Yield runs of blocks, at most as large as a part may be, and small enough that a lost one costs little."""
        size = min(part_size, max(BLOCK_SIZE, self._total // (4 * self._connections)))
        for first, end in missing:
            start, length = first, 0
            if not 0 <= first < end <= len(self._digests):
                raise IndexError(f"blocks {first} to {end}")
            for number in range(first, end):
                more = self._split.length(number)
                if length + more > size and number > start:
                    yield range(start, number)
                    start, length = number, 0
                length += more
            yield range(start, end)

    def _send_or_stop(self, url: str, part: range) -> None:
        """Send one part; an error, also Ctrl+C, ends the waits of all other threads."""
        try:
            self._send(url, part)
        except BaseException as error:
            with self._lock:
                self._failure = self._failure or error
            self._stop.set()
            raise

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise self._failure or ServerUnavailable("the upload has ended")  # the error of the other part

    def _send(self, url: str, part: range) -> None:
        """Send one part, as often as necessary. A part whose connection is lost is halved, because a proxy may end
        every connection before so much is through.
        """
        retry = self._http.retry_policy(self._wait)
        parts = [part]
        while parts:
            part = parts[-1]
            length = sum(self._split.length(number) for number in part)
            sent = [0]
            try:
                response = self._put(f"{url}/blocks/{part.start}-{part.stop}", self._watched(part, sent), length)
            except BROKEN as failure:
                self._moved(-sent[0])
                self._http.lost(failure, retry)
                if len(part) > 1:
                    half = len(part) // 2
                    parts[-1:] = [part[half:], part[:half]]
                continue
            if response.is_success:
                self._moved(length - sent[0])
                retry.succeeded()
                parts.pop()
                continue
            self._moved(-sent[0])
            try:
                self._http.refused(response, retry, safe=True)
            except StateroomError as error:
                if error.code != "digest-mismatch":
                    raise
                self._check_unchanged(part)
                retry.failed(error)

    def _put(self, path: str, body: Iterable[memoryview], length: int) -> httpx.Response:
        """PUT the body once and return the answer. Raises one of BROKEN."""
        if self._proxied:
            headers = {"Content-Length": str(length)}
            return self._http.put(path, headers, map(bytes, body))
        try:
            wire = self._idle.pop()
        except IndexError:
            wire = connect(self._http)
        try:
            wire.putrequest("PUT", urlsplit(self._http.url).path + path, skip_accept_encoding=True)
            for name, value in {**self._http.headers, "Content-Length": str(length)}.items():
                wire.putheader(name, value)
            wire.endheaders()
            with suppress(BrokenPipeError, ConnectionResetError):  # the server may have answered why
                for view in body:
                    wire.send(view)
                    if is_answered(wire):  # a refusal: the rest would be sent in vain
                        break
            response = read_answer(self._http, "PUT", path, wire.getresponse())
        except BaseException:
            wire.close()
            raise
        if response.is_success:
            self._idle.append(wire)
        else:
            wire.close()
        return response

    def _watched(self, part: range, sent: list[int]) -> Iterator[memoryview]:
        """Yield the bytes of a part, counting them as they are sent."""
        for number in part:
            for view in self._split.views(number):
                for start in range(0, len(view), SEND_SIZE):
                    piece = view[start : start + SEND_SIZE]
                    yield piece
                    sent[0] += len(piece)
                    self._moved(len(piece))

    def _moved(self, count: int) -> None:
        with self._lock:
            self._sent += count
            if self._progress is not None and self._total:
                self._progress(self._label, self._sent, self._total)

    def _check_unchanged(self, part: range) -> None:
        """Raise DigestMismatch if a part was changed in memory rather than by the network."""
        for number in part:
            if self._split.digest(number) != self._digests[number]:
                raise DigestMismatch(
                    f"{printable(self._label)} changed while it was sent: do not write to its tensors until save() "
                    "returns, or use save_async(), which takes a snapshot first"
                )

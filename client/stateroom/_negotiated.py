"""Uploads in parts: say what there is, send what the server doesn't have, commit. Whatever breaks off goes on later."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import Any
from urllib.parse import urlsplit

import httpx

from ._errors import Conflict, DigestMismatch, NotFound, ServerUnavailable, StateroomError
from ._http import Http, Params, json_of
from ._progress import Progress
from ._split import Split
from ._wire import BROKEN, answer_of, connect, is_proxied

ROUNDS = 5
"""How often an upload begins anew, or is told that something is missing after all."""


class NegotiatedUpload:
    """One checkpoint on its way to ``path``, the address where uploads of its model are announced.

    ``connections`` is how many parts travel at once.
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
        self._sent = 0
        self._total = 0

    def run(self, params: Params, *, original: bool) -> Any:
        """The checkpoint's JSON. Raises what the server says, and DigestMismatch where the bytes changed while they
        were sent.
        """
        key = uuid.uuid4().hex  # a commit whose answer is lost is asked for again, and is one
        announcement = self._announcement(original)
        for left in reversed(range(ROUNDS)):
            try:
                upload, _ = self._http.json("POST", self._path, body=announcement, safe=True)
                return self._send_and_commit(upload, params, key)
            except (NotFound, Conflict) as error:
                # Another client has committed the same bytes, or what the server had has gone: there is news to hear.
                if error.code not in {"upload-gone", "missing-blobs"} or not left:
                    raise
        raise AssertionError("the last round returns or raises")

    def _announcement(self, original: bool) -> dict[str, Any]:
        with ThreadPoolExecutor(self._connections) as threads:
            blocks = list(threads.map(self._split.digest, range(len(self._split.blocks))))
        return {"size": self._split.size, "storages": self._split.storages, "blocks": blocks, "original": original}

    def _send_and_commit(self, upload: Any, params: Params, key: str) -> Any:
        self._sent, self._total = 0, upload["missing_bytes"]
        parts = list(self._parts(upload["missing"], upload["part_size"]))
        failed = Event()

        def send(part: range) -> None:
            if not failed.is_set():
                try:
                    self._send(upload["url"], part)
                except BaseException:
                    failed.set()
                    raise

        with ThreadPoolExecutor(min(self._connections, max(1, len(parts)))) as threads:
            for _ in threads.map(send, parts):
                pass
        headers = {"Idempotency-Key": key}
        return json_of(self._http.send("POST", f"{upload['url']}/commit", params, headers=headers, safe=True))

    def _parts(self, missing: Iterable[tuple[int, int]], part_size: int) -> Iterator[range]:
        """Runs of blocks as large as a part may be, and small enough that every connection has some."""
        size = min(part_size, max(1, -(-self._total // self._connections)))
        for first, end in missing:
            start, length = first, 0
            for number in range(first, end):
                more = self._split.length(number)
                if length + more > size and number > start:
                    yield range(start, number)
                    start, length = number, 0
                length += more
            yield range(start, end)

    def _send(self, url: str, part: range) -> None:
        """Send one part, as often as it takes."""
        path = f"{url}/blocks/{part.start}-{part.stop}"
        length = sum(self._split.length(number) for number in part)
        patience = self._http.patience()
        while True:
            before = self._sent
            try:
                response = self._put(path, part, length)
            except BROKEN as failure:
                self._take_back(before)
                patience.failed(ServerUnavailable(f"the connection to {self._http.url} failed: {failure!r}"))
                continue
            if response.is_success:
                return
            self._http.refused(response, patience, safe=True)

    def _put(self, path: str, part: range, length: int) -> httpx.Response: ...

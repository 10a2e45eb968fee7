"""The last answers of a server, for the time when it is not reached."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

import httpx

from .._errors import NotFound, ServerUnavailable
from .._log import LOG
from .._printable import printable

PATIENCE = 2.0
"""Seconds to retry a server before its last answer is used."""

AWAY = 10.0
"""Seconds for which a server that was not reached is not tried again."""

KEPT_HEADERS = (
    "Content-Type",
    "ETag",
    "Stateroom-Checkpoint",
    "Stateroom-Dtype",
    "Stateroom-Left-Out",
    "Stateroom-Shape",
)

_RECALLED = "stateroom.recalled"


class Store(Protocol):
    """A place for files by name."""

    def keep(self, name: str, data: bytes) -> None: ...

    def read(self, name: str) -> bytes | None: ...


class LastAnswers:
    """The last answer to each request that only reads, kept in ``store`` by the server's URL and the request.

    The token is not part of that: the store belongs to one user, who has read all that is in it.
    """

    def __init__(self, url: str, store: Store) -> None:
        self._url = url
        self._store = store
        self._away_until = 0.0

    def reached(self) -> None:
        self._away_until = 0.0

    def ask(
        self, send: Callable[[], httpx.Response], method: str, path: str, params: Iterable[tuple[str, str]], body: Any
    ) -> httpx.Response:
        """Return the answer that ``send`` gets, and keep it; if the server is not reached, return the last answer to
        the same request. Raises the ServerUnavailable of ``send`` if there is none.
        """
        name = self._name(method, path, params, body)
        failure = ServerUnavailable(f"no Stateroom server responds at {self._url}")
        if time.monotonic() >= self._away_until:
            try:
                answer = send()
            except ServerUnavailable as error:
                failure = error
                self._away_until = time.monotonic() + AWAY
            except NotFound:
                self._store.keep(name, b"")
                raise
            else:
                self.keep(answer, method, path, params, body)
                return answer
        found = self._recalled(name, httpx.Request(method, self._url + path))
        if found is None:
            failure.detail = f"{failure.detail}; and the cache does not have the last answer of {printable(path)}"
            failure.args = (failure.detail,)
            raise failure
        LOG.info("%s is not reached: the last answer of %s is used.", self._url, printable(path))
        return found

    def keep(
        self, answer: httpx.Response, method: str, path: str, params: Iterable[tuple[str, str]], body: Any = None
    ) -> None:
        """Keep an answer; that of a moving ref also as the answer of the version that it means."""
        headers = {key: answer.headers[key] for key in KEPT_HEADERS if key in answer.headers}
        data = json.dumps([headers, answer.text]).encode()
        self._store.keep(self._name(method, path, params, body), data)
        permanent = urlsplit(answer.headers.get("Content-Location", ""))
        if method == "GET" and permanent.path:
            self._store.keep(self._name(method, permanent.path, parse_qsl(permanent.query), None), data)

    def _name(self, method: str, path: str, params: Iterable[tuple[str, str]], body: Any) -> str:
        request = json.dumps([self._url, method, path, [list(each) for each in params], body])
        return f"answer-{sha256(request.encode()).hexdigest()}"

    def _recalled(self, name: str, request: httpx.Request) -> httpx.Response | None:
        data = self._store.read(name)
        try:
            headers, text = json.loads(data or b"")
            response = httpx.Response(200, headers=headers, text=text, request=request)
        except (ValueError, TypeError, AttributeError):  # damaged, or there is none
            return None
        response.headers.update(headers)
        response.extensions[_RECALLED] = True
        return response


def is_recalled(response: httpx.Response) -> bool:
    """Return whether the answer is an earlier one, because the server is not reached."""
    return _RECALLED in response.extensions

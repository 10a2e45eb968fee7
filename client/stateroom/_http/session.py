"""Requests to one server over a pool of connections, with retries."""

from __future__ import annotations

import math
import os
import socket
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx

from .._errors import InvalidRequest, ServerUnavailable, StateroomError, UnexpectedAnswer, error_of, understood
from .._printable import one_line
from .._version import __version__
from .address import address_of, path_of
from .last_answers import PATIENCE, LastAnswers, Store
from .retry import RETRY_SECONDS, Limit, Notice, RetryPolicy, is_hopeless, retry_after
from .tls import tls_context

Params = Sequence[tuple[str, str]]

NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
NOT_TAKEN = (408, 429, 503)  # the server says that it did nothing
NOT_MODIFIED = 304
SHUTTING_DOWN = "shutting-down"
LOST_ON_THE_WAY = (502, 504)  # sent by a proxy: the server may have acted
LONGEST_POLL = 30  # seconds
UPLOAD_BYTES_PER_SECOND = 10e6  # a slow disk's, for the time that the server may take to store an upload


class Http:
    """An HTTP session with one server. Threads may share it; a forked process gets connections of its own.

    ``timeout`` is in seconds, for each wait on the network and not for a whole transfer. Failed requests are retried
    for ``retry_seconds``, or ``retries`` times.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        timeout: float,
        retries: int | None,
        retry_seconds: float = RETRY_SECONDS,
        last_answers: Store | None = None,
    ) -> None:
        address = address_of(url, token)
        self.url = address.url
        self.timeout = timeout
        self._limit = Limit(retries, retry_seconds)
        self._notice = Notice(self.url)
        self._was_reached = False
        self._last = None if last_answers is None else LastAnswers(self.url, last_answers)
        self.headers = {"User-Agent": f"stateroom/{__version__}", "Accept-Encoding": "identity"}
        if address.authorization is not None:
            self.headers["Authorization"] = address.authorization
        # One client per process: a child must neither write to its parent's connections nor close them.
        self._clients: dict[int, httpx.Client] = {os.getpid(): self._new_client()}

    def retry_policy(self, sleep: Callable[[float], object] = time.sleep) -> RetryPolicy:
        return RetryPolicy(self._limit, self._notice, sleep)

    @property
    def long_poll_seconds(self) -> int:
        """The time for which one request may wait for a change: less than the client waits for an answer."""
        return max(1, min(LONGEST_POLL, int(self.timeout / 2)))

    def endless_retries(self, sleep: Callable[[float], object]) -> RetryPolicy:
        """Return a policy that never gives up; ``sleep`` may raise to end it."""
        return RetryPolicy(Limit(None, math.inf), self._notice, sleep)

    def close(self) -> None:
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def json(
        self, method: str, path: str, params: Params = (), *, body: Any = None, safe: bool | None = None
    ) -> tuple[Any, httpx.Headers]:
        """Return the answer's JSON (None if it is empty) and its headers. ``safe``: the request is idempotent."""
        response = self.send(method, path, params, json=body, safe=method == "GET" if safe is None else safe)
        return (json_of(response) if response.content else None), response.headers

    def json_unless(
        self, etag: str | None, path: str, params: Params, wait: int, retry: RetryPolicy
    ) -> tuple[Any, str | None] | None:
        """Return the JSON of a GET and its ETag; None if it has the ETag ``etag`` for ``wait`` seconds more."""
        headers = {} if etag is None else {"If-None-Match": etag}
        while True:
            response = self.open(path, [*params, ("wait", str(wait))], headers, retry)
            try:
                if response.status_code == NOT_MODIFIED:
                    return None
                response.read()
                if self._last is not None:
                    self._last.keep(response, "GET", path, params)
                return json_of(response), response.headers.get("ETag")
            except httpx.TransportError as failure:
                self.lost(failure, retry)
            finally:
                response.close()

    def pages(self, path: str, params: Params) -> Iterator[Any]:
        """Yield the items of a listing; each page is fetched when it is needed."""
        cursor: list[tuple[str, str]] = []
        while True:
            page, _ = self.json("GET", path, [*params, *cursor])
            with understood("a page of a listing"):
                items, after = list(page["items"]), page["next"]
            yield from items
            if after is None:
                return
            if not isinstance(after, str) or [("cursor", after)] == cursor:
                raise UnexpectedAnswer(f"the listing at {self.url}{path} repeats a page and never ends")
            cursor = [("cursor", after)]

    def path_of(self, said: object) -> str:
        """Return the path that an answer of this server names. Raises UnexpectedAnswer for an address elsewhere."""
        return path_of(said, self.url)

    def send(
        self,
        method: str,
        path: str,
        params: Params = (),
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        content: Callable[[], Iterable[bytes]] | None = None,
        replayable: bool = True,
        safe: bool = False,
        size: int = 0,
        retry: RetryPolicy | None = None,
    ) -> httpx.Response:
        """Send a request and return the answer, with its body read. ``content`` makes the body anew for each try;
        without ``replayable`` there is one try.

        A request that is not ``safe`` is retried only if the server cannot have acted on it.
        """
        timeout = self._timeouts(storing=size / UPLOAD_BYTES_PER_SECOND)
        retry = retry or (self.retry_policy() if replayable else RetryPolicy(Limit(0), self._notice))
        while True:
            try:
                response = self._client().request(
                    method,
                    self.url + path,
                    params=httpx.QueryParams(list(params)) or None,
                    headers=headers,
                    json=json,
                    content=content() if content else None,
                    timeout=timeout,
                )
            except httpx.InvalidURL as failure:
                raise InvalidRequest(f"the request cannot be sent: {failure}; split it into smaller requests") from None
            except httpx.TransportError as failure:
                if not (safe or isinstance(failure, NEVER_SENT)):
                    raise self.unreachable(failure) from None
                self.lost(failure, retry)
                continue
            self._reached()
            if response.is_success:
                return response
            self.refused(response, retry, safe=safe)

    @property
    def falls_back(self) -> bool:
        """Return whether ``look_up`` may return an earlier answer."""
        return self._last is not None

    def look_up(self, method: str, path: str, params: Params = (), *, json: Any = None) -> httpx.Response:
        """Send a request that changes nothing. A session with a store for last answers tries for a short time; if the
        server is not reached, it returns the last answer (see ``is_recalled``).
        """
        if self._last is None:
            return self.send(method, path, params, json=json, safe=True)
        seconds = 0.0 if self._limit.is_none else min(PATIENCE, self._limit.seconds)
        retry = RetryPolicy(Limit(None, seconds), self._notice)

        def send() -> httpx.Response:
            return self.send(method, path, params, json=json, safe=True, retry=retry)

        return self._last.ask(send, method, path, params, json)

    def is_ready(self) -> bool:
        """Return whether the server answers, is not about to stop, and has its database and store. One try."""
        try:
            return self._client().get(f"{self.url}/readyz", timeout=self._timeouts()).status_code < 500
        except httpx.TransportError:
            return False

    def put(self, path: str, headers: Mapping[str, str], content: Iterable[bytes]) -> httpx.Response:
        """Send a PUT in one try and return the answer, read, whatever its status. Raises httpx.TransportError."""
        return self._client().put(self.url + path, headers=headers, content=content, timeout=self._timeouts())

    def open(self, path: str, params: Params, headers: Mapping[str, str], retry: RetryPolicy) -> httpx.Response:
        """Send a GET and return the answer with its body not yet read: the caller closes it. It may be a 304."""
        while True:
            client = self._client()
            query = httpx.QueryParams(list(params))
            try:
                request = client.build_request("GET", self.url + path, params=query or None, headers=headers)
                response = client.send(request, stream=True)
                self._reached()
                if response.is_success or response.status_code == NOT_MODIFIED:
                    return response
                response.read()
            except httpx.InvalidURL as failure:
                raise InvalidRequest(f"the request cannot be sent: {failure}; split it into smaller requests") from None
            except httpx.TransportError as failure:
                self.lost(failure, retry)
                continue
            self.refused(response, retry, safe=True)

    def refused(self, response: httpx.Response, retry: RetryPolicy, *, safe: bool) -> None:
        """Wait as the server asks if another try may help; otherwise raise the error for its answer."""
        error = error_of(response)
        wait = retry_after(response.headers.get("Retry-After"))
        if error.code == "too-many-uploads" and wait is not None:
            retry.queued(error, wait)
        elif (
            response.status_code in NOT_TAKEN
            or error.code == SHUTTING_DOWN
            or (safe and response.status_code in LOST_ON_THE_WAY)
        ):
            retry.failed(error, wait=wait)
        else:
            raise error

    def lost(self, failure: Exception, retry: RetryPolicy) -> None:
        """Wait for another try after a connection failed; raise an error if no try is left or none would help."""
        if is_hopeless(failure, was_reached=self._was_reached):
            raise self.unreachable(failure) from None
        retry.failed(self.unreachable(failure))

    def unreachable(self, failure: Exception) -> StateroomError:
        what = one_line(failure) or type(failure).__name__
        if isinstance(failure, (*NEVER_SENT, ConnectionRefusedError, socket.gaierror)):
            return ServerUnavailable(f"no Stateroom server responds at {self.url} ({what}); is STATEROOM_URL right?")
        if isinstance(failure, httpx.LocalProtocolError):
            return InvalidRequest(f"the request cannot be sent: {what}")
        return ServerUnavailable(f"the connection to {self.url} failed: {what}")

    def _reached(self) -> None:
        self._was_reached = True
        if self._last is not None:
            self._last.reached()

    def _timeouts(self, storing: float = 0.0) -> httpx.Timeout:
        return httpx.Timeout(
            connect=min(self.timeout, 10.0), read=self.timeout + storing, write=self.timeout, pool=None
        )

    def _new_client(self) -> httpx.Client:
        # Over http:// there is nothing to verify, and no context to wait for; no redirect leads to https://.
        verify = tls_context() if urlsplit(self.url).scheme == "https" else False
        client = httpx.Client(headers=self.headers, timeout=self._timeouts(), verify=verify)
        weakref.finalize(self, _close_at_home, client, os.getpid())  # if close() is not called
        return client

    def _client(self) -> httpx.Client:
        client = self._clients.get(os.getpid())
        return client if client is not None else self._clients.setdefault(os.getpid(), self._new_client())


def json_of(response: httpx.Response) -> Any:
    """Return an answer's JSON. Raises UnexpectedAnswer if it is not JSON: something else answers at this address."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        url = response.request.url
        raise UnexpectedAnswer(f"the server at {url} is not a Stateroom server: its response is not JSON") from None


def _close_at_home(client: httpx.Client, pid: int) -> None:
    """Close the client, but not in a forked process: the connections are its parent's."""
    if os.getpid() == pid:
        client.close()

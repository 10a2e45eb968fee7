"""Middleware that logs each request in one line and counts it in the metrics."""

import logging
import re
import secrets
import time
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...values.checkpoint import is_name
from ...values.tracing import Trace, Tracer, trace_with
from ..metrics import Metrics
from ..request_id import KEY
from .proxies import Proxies

_requests = logging.getLogger("stateroom.requests")
"""Logger with one record for each request, its fields in ``extra={"fields": {...}}``."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,100}")
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Routes that machines call every few seconds; only failures are logged."""

NO_ROUTE = "none"
NOT_ANSWERED = 0
"""Status of a request whose client disconnected before the response."""


class Telemetry:
    """The outermost middleware, which sees the bytes and the status that really go over the wire.

    The request id is the one that the client or a proxy sent, if it is short and plain; else a new one. Inner layers
    see the address of the client that ``proxies`` ask for.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, proxies: Proxies, tracer: Tracer | None = None) -> None:
        self.app = app
        self.metrics = metrics
        self.proxies = proxies
        self.tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif self.tracer is None or scope["path"] in _QUIET:
            await self._answer(scope, receive, send, None)
        else:
            with self.tracer.request(scope["method"], scope["headers"]) as trace:
                trace_with(trace)
                await self._answer(scope, receive, send, trace)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, trace: Trace | None) -> None:
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        scope = dict(scope)  # inner layers change it, and the server reads its own again
        scope[KEY] = given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        address = self.proxies.client(scope)
        scope["client"] = None if address is None else (address, 0)
        method, began = scope["method"], time.monotonic()
        status, received, sent, is_whole = NOT_ANSWERED, 0, 0, False
        checkpoint = None

        async def watched_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def watched_send(message: Message) -> None:
            nonlocal status, sent, is_whole, checkpoint
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.get("headers", [])
                checkpoint = next((v.decode("latin-1") for n, v in headers if n == b"stateroom-checkpoint"), None)
                message = {**message, "headers": [*headers, (b"x-request-id", scope[KEY].encode())]}
            await send(message)
            sent += len(message.get("body", b""))
            is_whole = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self.app(scope, watched_receive, watched_send)
        finally:
            seconds = time.monotonic() - began
            route = getattr(scope.get("route"), "path_format", NO_ROUTE)
            self.metrics.received.inc(received)
            self.metrics.sent.inc(sent)
            self.metrics.requests.labels(method, route, str(status)).observe(seconds)
            if trace is not None:
                _describe(trace, scope, route, status, received, sent)
            if route not in _QUIET or status >= HTTPStatus.BAD_REQUEST:
                fields: dict[str, Any] = {
                    "request_id": scope[KEY],
                    "method": method,
                    "route": route,
                    "path": scope["path"],
                    "ref": scope.get("path_params", {}).get("ref"),
                    "checkpoint": checkpoint,
                    "token": _token_of(scope),
                    "address": address,
                    "status": status,
                    "bytes_in": received,
                    "bytes_out": sent,
                    "seconds": round(seconds, 6),
                    **({} if trace is None else {"trace": trace.id}),
                }
                _requests.info("request", extra={"fields": fields if is_whole else {**fields, "cut": True}})


def _describe(trace: Trace, scope: Scope, route: str, status: int, received: int, sent: int) -> None:
    """Add what is known of a request to its trace. A path or a query may hold secrets, so neither is in it."""
    method, parameters = scope["method"], scope.get("path_params", {})
    facts: dict[str, str | int | bool] = {
        "http.request.method": method,
        "http.request.body.size": received,
        "http.response.body.size": sent,
        "stateroom.request_id": scope[KEY],
    }
    if route != NO_ROUTE:
        facts["http.route"] = route
    if status != NOT_ANSWERED:
        facts["http.response.status_code"] = status
    namespace, name = (parameters.get(each) for each in ("namespace", "name"))
    if is_name(str(namespace)):
        facts["stateroom.namespace"] = str(namespace)
        if is_name(str(name)):
            facts["stateroom.model"] = f"{namespace}/{name}"
    failed = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == NOT_ANSWERED
    trace.describe(method if route == NO_ROUTE else f"{method} {route}", facts, failed=failed)


def _token_of(scope: Scope) -> str | None:
    """Return the name of the caller's token; of one that was refused, what is known of it."""
    state = scope.get("state", {})
    refused: str | None = state.get("refused")
    return getattr(state.get("grant"), "name", None) or refused

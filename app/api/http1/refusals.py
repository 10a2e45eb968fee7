"""Problems that end a connection before the application has seen a request."""

import logging
import secrets
from collections.abc import Iterable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from ...errors import IncompleteUpload
from ..problems import Problem, of_status, problem_of
from .head import MAX_HEAD_BYTES, MAX_HEADERS

_requests = logging.getLogger("stateroom.requests")

NOT_HTTP = of_status(400, "The request is not valid HTTP/1.1.")
ENDED_EARLY = problem_of(IncompleteUpload("The connection closed before the whole body arrived."))
SHUTTING_DOWN = problem_of(
    IncompleteUpload(
        "The server is shutting down, and nothing of the upload was stored. Send it again.", code="shutting-down"
    )
)


def too_large(target: bytes) -> Problem:
    """Return the problem of a head with more than MAX_HEAD_BYTES bytes or MAX_HEADERS fields."""
    if len(target) > MAX_HEAD_BYTES // 2:
        return of_status(
            414, f"The URL is too long: a request may have at most {MAX_HEAD_BYTES:,} bytes before its body."
        )
    limits = f"{MAX_HEAD_BYTES:,} bytes and {MAX_HEADERS} header fields"
    return of_status(431, f"A request may have at most {limits} before its body.")


def too_many_connections(count: int) -> Problem:
    detail = f"{count:,} connections are open, the most that this server accepts; retry later"
    headers = {"Retry-After": "5"}
    return Problem(503, "Too many connections at once", detail, code="too-many-connections", headers=headers)


def last_answer(
    problem: Problem, default_headers: Iterable[tuple[bytes, bytes]], client: tuple[str, int] | None, *, is_logged: bool
) -> bytes:
    """Encode ``problem`` as the last bytes that a connection sends. Log it, with the peer's address, unless it
    ``is_logged`` by the application, which saw the request, or no request came: whoever scans ports has no line.
    """
    response = problem.response()
    fields = [*default_headers, *response.raw_headers, (b"connection", b"close")]
    if not is_logged and problem is not NOT_HTTP:
        request_id = secrets.token_hex(8)
        fields.append((b"x-request-id", request_id.encode()))
        _log(request_id, problem, None if client is None else client[0], len(response.body))
    head = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
    return STATUS_LINE[response.status_code] + head + b"\r\n" + bytes(response.body)


def _log(request_id: str, problem: Problem, address: str | None, sent: int) -> None:
    """Log a request that was refused unread, in the form of all requests. Nothing that it said is believed or told."""
    fields = {
        "request_id": request_id,
        "method": None,
        "route": "none",
        "path": None,
        "ref": None,
        "checkpoint": None,
        "token": None,
        "address": address,
        "status": problem.status,
        "code": problem.code,
        "bytes_in": 0,
        "bytes_out": sent,
        "seconds": 0.0,
    }
    _requests.info("request", extra={"fields": fields})

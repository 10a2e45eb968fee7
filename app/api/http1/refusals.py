"""Problems that end a connection before the application has seen a request."""

from collections.abc import Iterable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from ...errors import IncompleteUpload
from ..problems import Problem, of_status, problem_of
from .head import MAX_HEAD_BYTES, MAX_HEADERS

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


def last_answer(problem: Problem, default_headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Encode ``problem`` as the last bytes that a connection sends."""
    response = problem.response()
    fields = [*default_headers, *response.raw_headers, (b"connection", b"close")]
    head = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
    return STATUS_LINE[response.status_code] + head + b"\r\n" + bytes(response.body)

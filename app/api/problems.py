"""Errors as HTTP responses: RFC 9457 problem details, from one table.

A problem's detail is the error's own text, which is written for the user. The problem of an unexpected exception shows
only a request id.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from .. import errors
from .openapi.introspect import methods_at
from .request_id import request_id

_log = logging.getLogger("stateroom.failures")


@dataclass(frozen=True, slots=True)
class Kind:
    """The status and the title that all problems of one kind share; ``retry_after`` is in seconds."""

    status: int
    title: str
    retry_after: int | None = None


KINDS: Mapping[type[errors.StateroomError] | str, Kind] = {
    errors.StateroomError: Kind(500, "The server failed"),
    errors.InvalidRequest: Kind(422, "The request is invalid"),
    errors.RefusedCheckpoint: Kind(422, "The upload was refused"),
    errors.NotACheckpoint: Kind(422, "The upload is not a checkpoint"),
    errors.HostileCheckpoint: Kind(422, "The upload breaks a rule for checkpoint files"),
    errors.NoTensors: Kind(422, "The upload holds no tensor"),
    errors.BadFolder: Kind(422, "The folder cannot be stored"),
    errors.ShardedTensor: Kind(422, "The upload holds one rank's shard of a tensor"),
    errors.SelectionError: Kind(422, "The selection cannot be served"),
    errors.Unmergeable: Kind(422, "The checkpoints cannot be merged"),
    errors.NotFound: Kind(404, "Not found"),
    errors.Gone: Kind(410, "No longer available"),
    errors.EventsExpired: Kind(410, "Events have been deleted"),
    errors.Conflict: Kind(409, "The request conflicts with what is stored"),
    errors.KeyInUse: Kind(409, "Another upload with this Idempotency-Key was stored first"),
    errors.CrossSite: Kind(403, "Writes by web pages of other sites are not allowed"),
    errors.PreconditionFailed: Kind(412, "A precondition of the request does not hold"),
    errors.IncompleteUpload: Kind(400, "The upload is incomplete"),
    errors.TooLarge: Kind(413, "The request is too large"),
    errors.QuotaExceeded: Kind(507, "The namespace's quota is used up"),
    errors.TooManyUploads: Kind(503, "Too many uploads at once", retry_after=5),
    errors.Cancelled: Kind(503, "The request was cancelled", retry_after=1),
    errors.ServerBusy: Kind(503, "The server is busy", retry_after=5),
    errors.StoreError: Kind(503, "The store failed", retry_after=5),
    errors.PackMissing: Kind(500, "Stored bytes are missing"),
    errors.DamagedBlob: Kind(500, "Stored bytes are damaged"),
    errors.StorageFull: Kind(507, "The storage is full"),
    errors.MissingBlobs: Kind(409, "Stored bytes that the upload needs are gone"),
    "malformed-request": Kind(400, "The request is malformed"),
    "request-timeout": Kind(408, "The request took too long to arrive"),
    "shutting-down": Kind(503, "The server is shutting down", retry_after=5),
    "cast-unavailable": Kind(501, "This server cannot cast tensors"),
    "unknown-tensor": Kind(404, "The checkpoint has no such tensor"),
    "no-original": Kind(404, "The checkpoint has no uploaded file"),
}
"""Kinds by error code; for a code without an entry, by the exact class of the error."""

STATUS_CODES: Mapping[int, tuple[str, str]] = {
    400: ("malformed-request", "The request is malformed"),
    401: ("unauthorized", "A token is needed"),
    403: ("forbidden", "The request is not allowed"),
    404: ("no-such-route", "There is nothing at this URL"),
    405: ("method-not-allowed", "The method is not allowed here"),
    408: ("request-timeout", "The request took too long to arrive"),
    414: ("uri-too-long", "The URL is too long"),
    431: ("head-too-large", "The request headers are too large"),
    503: ("not-ready", "The server is not ready"),
}
"""Code and title of each error that HTTP itself defines, by status."""


MAX_DETAIL = 2_000
MAX_NAME = 300
MAX_NEAR = 100
MAX_DIGESTS = 1_000
"""Most characters of a problem's detail and of a name in its members, and most names and digests that it lists: texts
that a user sent or stored may be long.
"""


def cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length] + "..."


@dataclass(frozen=True, slots=True)
class Problem:
    """An RFC 9457 problem. ``members`` are its extension members beside ``code``."""

    status: int
    title: str
    detail: str
    code: str
    members: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        content = {
            "type": f"urn:stateroom:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": cut(self.detail, MAX_DETAIL),
            "code": self.code,
            **self.members,
        }
        headers = {"Cache-Control": "no-store", **self.headers}
        return Response(json.dumps(content), self.status, headers, media_type="application/problem+json")


def kind_of(error: errors.StateroomError) -> Kind:
    """Return the kind of ``error``. Raises KeyError for a class without an entry, which a test rules out."""
    return KINDS.get(error.code) or KINDS[type(error)]


def problem_of(error: errors.StateroomError) -> Problem:
    """Convert one of our errors to a problem, with the members of its class."""
    kind = kind_of(error)
    members: dict[str, Any] = {}
    match error:
        case errors.RefusedCheckpoint():
            found = {name: getattr(error, name) for name in ("rule", "where")}
            members = {name: cut(text, MAX_NAME) for name, text in found.items() if text is not None}
        case errors.SelectionError() if error.near:
            members = {"near": [cut(name, MAX_NAME) for name in error.near[:MAX_NEAR]]}
        case errors.Unmergeable():
            members = {"mismatched": [_cut_texts(each) for each in error.mismatched]}
        case errors.MissingBlobs():
            members = {"digests": list(error.digests[:MAX_DIGESTS])}
        case errors.PreconditionFailed() if error.state is not None:
            members = {"state": error.state}
        case errors.EventsExpired():
            members = {"after": error.after}
    headers = {} if kind.retry_after is None else {"Retry-After": str(kind.retry_after)}
    if isinstance(error, errors.PreconditionFailed) and error.etag is not None:
        headers["ETag"] = f'"{error.etag}"'
    return Problem(kind.status, kind.title, error.detail, error.code, members, headers)


def _cut_texts(fields: Mapping[str, str | None]) -> dict[str, str | None]:
    return {name: None if text is None else cut(text, MAX_NAME) for name, text in fields.items()}


def invalid(mistakes: Sequence[Mapping[str, Any]]) -> Problem:
    """Convert pydantic's ``errors()`` to one problem, without the values that were sent."""

    def place(loc: Iterable[Any]) -> str:
        return cut(".".join(map(str, loc)), MAX_NAME)

    if any(mistake["type"] == "json_invalid" for mistake in mistakes):
        return Problem(400, KINDS["malformed-request"].title, "The body is not valid JSON.", "malformed-request")
    found = [{"where": place(mistake["loc"]), "detail": cut(mistake["msg"], MAX_NAME)} for mistake in mistakes[:20]]
    detail = "; ".join(f"{one['where']}: {one['detail']}" if one["where"] else one["detail"] for one in found)
    return Problem(422, KINDS[errors.InvalidRequest].title, detail, "invalid-value", {"errors": found})


def internal_error(request_id: str) -> Response:
    """Return the response to an unexpected exception."""
    detail = "The server failed on this request. Its log has the details, under this request id."
    kind = KINDS[errors.StateroomError]
    return Problem(kind.status, kind.title, detail, "internal-error", {"request_id": request_id}).response()


def of_status(status: int, detail: str) -> Problem:
    """Return the problem for a status in STATUS_CODES."""
    code, title = STATUS_CODES[status]
    return Problem(status, title, detail, code)


def of_http(error: HTTPException, request: Request) -> Problem:
    """Convert an error of a route, or of routing itself."""
    fallback = HTTPStatus(error.status_code)
    code, title = STATUS_CODES.get(error.status_code, (fallback.phrase.lower().replace(" ", "-"), fallback.phrase))
    detail = error.detail if error.detail != fallback.phrase else f"{title}."
    headers = dict(error.headers or {})
    # Starlette knows only the methods of the first route at this path, and the document none of the pages.
    if error.status_code == 405 and (methods := methods_at(request.app, request.scope["path"])):
        headers["Allow"] = ", ".join(methods)
    return Problem(error.status_code, title, detail, code, headers=headers)


def _first_cause(error: BaseException) -> str:
    """Return the text of the failure that led to ``error``, for the log: it may hold addresses of the server."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())


def of_error(error: Exception, request: Request) -> Problem:
    """Convert an error of ANSWERED, and log what the problem does not tell of it. Raises any other error."""
    match error:
        case errors.StateroomError():
            if type(error) is errors.StoreError:  # the others say all, or are logged where they are found
                _log.warning("request %s: %s: %s", request_id(request.scope), error.detail, _first_cause(error))
            return problem_of(error)
        case RequestValidationError():
            return invalid(error.errors())
        case HTTPException():
            return of_http(error, request)
    raise error


ANSWERED = (errors.StateroomError, RequestValidationError, HTTPException)
"""The errors that are answered with a problem. Any other is a failure of the server."""


def _by_link(request: Request) -> bool:
    """Return whether the caller came by a link, and may learn of its one download only."""
    grant = getattr(request.state, "grant", None)
    return grant is not None and grant.by_link


class NoAnswer(Response):
    """A response that sends nothing, for a client that has disconnected. It is not a failure of the server."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pass


async def _answer(request: Request, error: Exception) -> Response:
    match error:
        case errors.NotFound() if _by_link(request):
            return problem_of(errors.NotFound("The file that this link points to no longer exists.")).response()
        case errors.Cancelled():
            return NoAnswer()
    return of_error(error, request).response()


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` with a problem."""
    for kind in ANSWERED:
        app.add_exception_handler(kind, _answer)

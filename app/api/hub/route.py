"""The class of the hub's routes: an error is a problem, with the headers by which the hub's clients know it."""

import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from ...errors import Cancelled
from ..problems import ANSWERED, Problem, of_error
from ..responses.json import NO_STORE

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

CODE, MESSAGE = "X-Error-Code", "X-Error-Message"

_NOT_FOUND = {
    "model-not-found": "RepoNotFound",
    "bad-model-name": "RepoNotFound",
    "checkpoint-not-found": "RevisionNotFound",
    "alias-not-found": "RevisionNotFound",
    "bad-ref": "RevisionNotFound",
    "file-not-found": "EntryNotFound",
}
"""The hub's names for what is not there, by our codes."""

_WRONG_TOKEN = "Invalid credentials in Authorization header"  # noqa: S105 - a message that clients look for


class HubRoute(APIRoute):
    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except Cancelled:
                raise
            except ANSWERED as error:
                return refusal(request, of_error(error, request))

        return handled


def answer(value: Any, media_type: str = "application/json") -> Response:
    """Answer with JSON, which no cache keeps."""
    return Response(json.dumps(value), media_type=media_type, headers={"Cache-Control": NO_STORE})


def refusal(request: Request, problem: Problem) -> Response:
    """Answer with a problem. Clients decide by the code, and show the message."""
    name = _NOT_FOUND.get(problem.code)
    is_wrong = problem.status == 401 and "Authorization" in request.headers
    message = _WRONG_TOKEN if is_wrong else problem.detail
    headers = {**problem.headers, MESSAGE: " ".join(message.split()).encode("ascii", "replace").decode()[:500]}
    if name is None:
        return replace(problem, headers=headers).response()
    return replace(problem, status=404, headers={**headers, CODE: name}).response()

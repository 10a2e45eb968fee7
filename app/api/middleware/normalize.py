"""Middleware that normalizes requests before routing, and turns unexpected exceptions into problems."""

import logging
import re
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..problems import internal_error
from ..request_id import request_id

_log = logging.getLogger("stateroom")
_IS_HEAD = "stateroom.is_head"
_ENCODED_SLASH = re.compile(rb"%2f", re.IGNORECASE)


def is_head(scope: Scope) -> bool:
    """Return whether the request was a HEAD, which is routed as a GET."""
    return bool(scope.get(_IS_HEAD))


class Normalize:
    """Middleware with three rules.

    - A HEAD runs as the same GET, and the response body is dropped.
    - ``%2F`` in a path stays inside its segment: ``max:val%2Facc`` is one ref.
    - An unexpected exception becomes a problem with a request id, which is logged with the traceback. If the head was
      sent already, the connection is aborted, so that a short body never looks whole.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        head = scope["method"] == "HEAD"
        if head:
            scope.update({"method": "GET", _IS_HEAD: True})
        if _ENCODED_SLASH.search(scope["raw_path"]):
            scope["path"] = unquote(_ENCODED_SLASH.sub(b"%252F", scope["raw_path"]).decode("ascii"))
        started = False

        async def pass_on(message: Message) -> None:
            nonlocal started
            started = True
            if head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            await self.app(scope, receive, pass_on)
        except Exception as error:
            name = request_id(scope)
            _log.error("request %s (%s %s) failed", name, scope["method"], scope["path"], exc_info=error)
            if started:
                raise
            await internal_error(name)(scope, receive, pass_on)

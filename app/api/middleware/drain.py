"""Middleware that reads and drops the unread rest of a request's body, so that the response arrives."""

import asyncio
from contextlib import suppress
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_SECONDS = 30.0
"""Seconds that a refused client may go on sending before it is cut off."""


class Drain:
    """Middleware that sends a response at once, and ends it when the request's body has ended.

    Most clients send a whole body before they read the response. A connection that is closed while bytes arrive is
    reset, which loses a response that was not read yet. The body of a refused request is read for at most
    LINGER_SECONDS, the body of a successful one until it stops arriving.

    A client that waits for "100 Continue" gets ``Connection: close``: neither side may know whether a body follows.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self.app(scope, receive, send)
            return
        asked, unread = False, True
        patience: float | None = LINGER_SECONDS

        async def watched_receive() -> Message:
            nonlocal asked, unread
            asked = True
            message = await receive()
            unread = _more_follows(message)
            return message

        async def watched_send(message: Message) -> None:
            nonlocal patience
            if not unread:
                await send(message)
                return
            if message["type"] == "http.response.start":
                patience = LINGER_SECONDS if message["status"] >= HTTPStatus.MULTIPLE_CHOICES else None
                if not asked and _waits_to_continue(scope):
                    message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
            elif not message.get("more_body", False):
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        while _more_follows(await receive()):
                            pass
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        await self.app(scope, watched_receive, watched_send)


def _more_follows(message: Message) -> bool:
    return message["type"] == "http.request" and bool(message.get("more_body", False))


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in scope["headers"]
    )


def _waits_to_continue(scope: Scope) -> bool:
    return any(name == b"expect" and value.lower() == b"100-continue" for name, value in scope["headers"])

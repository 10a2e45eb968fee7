"""Events as a stream of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from ...catalog import events
from ...errors import StateroomError
from ...values.event import EventFilter, EventPage
from ..middleware.normalize import is_head
from ..requests.auth import judge_again
from ..services import Services
from ..threads import disconnected
from .event_views import EventView
from .json import NO_STORE

KEEP_ALIVE_SECONDS = 15.0
"""Longest silence of a stream: proxies cut silent connections, and the permission is checked again by then."""

PAGE = 100
"""Most events that a stream reads from the catalog at once."""

MEDIA_TYPE = "text/event-stream"

_RETRY = b"retry: 1000\n\n"


def wants_stream(request: Request) -> bool:
    """Return whether the client asks for a stream, as EventSource does."""
    accepted = ",".join(request.headers.getlist("accept")).split(",")
    return any(each.partition(";")[0].strip().lower() == MEDIA_TYPE for each in accepted)


class EventStream(Response):
    """A response that sends the events of ``page``, and then those that come, until the client goes, the server stops,
    or the caller may no longer read them.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self, request: Request, services: Services, wanted: EventFilter, page: EventPage, view: type[EventView]
    ) -> None:
        # nginx would collect what comes
        super().__init__(headers={"Cache-Control": NO_STORE, "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._request = request
        self._services = services
        self._wanted = wanted
        self._page = page
        self._view = view

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if not is_head(scope):
            gone = asyncio.create_task(disconnected(receive))
            sending = asyncio.create_task(self._send(send))
            try:
                await asyncio.wait((gone, sending), return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    return
                sending.result()
            finally:
                for task in (gone, sending):
                    task.cancel()
                    with suppress(asyncio.CancelledError, Exception):  # its error was raised, or no longer matters
                        await task
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send) -> None:
        with self._services.metrics.waiting_clients.track_inprogress(), suppress(StateroomError, HTTPException):
            await send({"type": "http.response.body", "body": _RETRY, "more_body": True})
            async for page in self._pages():
                await judge_again(self._request, self._services)
                await send({"type": "http.response.body", "body": self._encoded(page), "more_body": True})

    async def _pages(self) -> AsyncIterator[EventPage]:
        """Yield pages of events, and an empty one after each silence. End when the server stops."""
        page = self._page
        services = self._services
        while not services.watch.stopped:
            yield page
            found = await services.watch.beyond(page.last, self._wanted, KEEP_ALIVE_SECONDS)
            page = await services.asks.run(partial(self._read, page.last)) if found is None else found

    def _read(self, after: int) -> EventPage:
        with self._services.catalog.read() as session:
            return events.list_events(session, self._wanted, after, PAGE)

    def _encoded(self, page: EventPage) -> bytes:
        """Encode a page. An id without data tells the client where to go on, past events of no interest to it."""
        texts = [f"id: {event.id}\ndata: {self._view.of(event).model_dump_json()}\n\n" for event in page.items]
        if not page.items or page.items[-1].id != page.last:
            texts.append(f": keep-alive\nid: {page.last}\n\n")
        return "".join(texts).encode()

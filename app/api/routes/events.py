"""Routes for events: what has changed, and what changes next, by long-poll or as a stream."""

import time
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from ...catalog import ReadSession, events
from ...catalog.models import get_model
from ...errors import InvalidRequest
from ...values.checkpoint import ModelName
from ...values.event import EventFilter, EventKind, EventPage
from ..openapi.problems import OF_A_MODEL, refusals
from ..requests.auth import ADMIN_EVERYWHERE, READ, judge_again
from ..requests.params import Model, Namespace, Wait
from ..responses.event_stream import EventStream, wants_stream
from ..responses.event_views import AuditedEventList, AuditedEventView, EventList, EventView
from ..responses.json import NO_STORE, json_answer
from ..services import Services, ServicesDep
from ..threads import unless_gone

router = APIRouter(tags=["events"])

NEWEST = "newest"

_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}
_LONG: dict[int | str, dict[str, Any]] = {**refusals(410), **_STREAM}


class Asked:
    """The parameters of a request for events. Create it as a dependency."""

    def __init__(
        self,
        after: Annotated[
            str | None,
            Query(description="the `last` of the previous answer, or `newest`; without, from the oldest that is kept"),
        ] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        wait: Wait = 0,
        kind: Annotated[list[EventKind], Query(description="only events of this kind; may be repeated")] = [],  # noqa: B006 - FastAPI copies it
        last_event_id: Annotated[str | None, Header(description="as `after`; EventSource sends it")] = None,
    ) -> None:
        self.after = last_event_id if last_event_id is not None else after
        self.limit = limit
        self.wait = wait
        self.kinds = frozenset(kind)


AskedDep = Annotated[Asked, Depends()]


@router.get(
    "/v1/models/{namespace}/{name}/events",
    summary="List or follow the events of a model",
    dependencies=READ,
    response_model=EventList,
    responses={**_LONG, **refusals(*OF_A_MODEL)},
)
async def of_a_model(request: Request, services: ServicesDep, model: Model, asked: AskedDep) -> Response:
    """Events after the event `after`, oldest first. With `wait`, a request that finds none is answered when there is
    one, or after `wait` seconds. With `Accept: text/event-stream` the events go on coming.
    """
    return await _answer(request, services, EventFilter(model.namespace, model.name, asked.kinds), asked)


@router.get(
    "/v1/namespaces/{namespace}/events",
    summary="List or follow the events of a namespace",
    dependencies=READ,
    response_model=EventList,
    responses=_LONG,
)
async def of_a_namespace(
    request: Request,
    services: ServicesDep,
    namespace: Namespace,
    asked: AskedDep,
) -> Response:
    """Events of all models in a namespace, as for one model."""
    return await _answer(request, services, EventFilter(namespace, None, asked.kinds), asked)


@router.get(
    "/v1/events",
    summary="List or follow all events: the audit log",
    dependencies=ADMIN_EVERYWHERE,
    response_model=AuditedEventList,
    responses=_LONG,
)
async def of_all(request: Request, services: ServicesDep, asked: AskedDep) -> Response:
    """Events of all namespaces and of tokens, refusals included, with the address of each client."""
    return await _answer(request, services, EventFilter(kinds=asked.kinds), asked)


async def _answer(request: Request, services: Services, wanted: EventFilter, asked: Asked) -> Response:
    page = await services.asks.run(partial(_read, services, wanted, asked.after, asked.limit))
    is_audit = wanted.namespace is None
    if wants_stream(request):
        return EventStream(request, services, wanted, page, AuditedEventView if is_audit else EventView)
    if not page.items and asked.wait:
        page = await unless_gone(request, _wait(services, wanted, page, asked))
        await judge_again(request, services)
    answer = AuditedEventList.of(page) if is_audit else EventList.of(page)
    return json_answer(request, answer, {"Cache-Control": NO_STORE})


async def _wait(services: Services, wanted: EventFilter, page: EventPage, asked: Asked) -> EventPage:
    """Return the next page that is not empty, or an empty one at the end of the wait."""
    ends = time.monotonic() + asked.wait
    with services.metrics.waiting_clients.track_inprogress():
        while not page.items:
            found = await services.watch.beyond(page.last, wanted, ends - time.monotonic())
            if found is not None:
                return found.cut(asked.limit)
            page = await services.asks.run(partial(_read, services, wanted, str(page.last), asked.limit))
        return page


def _read(services: Services, wanted: EventFilter, after: str | None, limit: int) -> EventPage:
    with services.catalog.read() as session:
        page = events.list_events(session, wanted, _number(session, after), limit)
        if not page.items and wanted.namespace is not None and wanted.name is not None:
            get_model(session, ModelName(wanted.namespace, wanted.name))  # raises
        return page


def _number(session: ReadSession, after: str | None) -> int | None:
    """Return the id that ``after`` stands for. Raises InvalidRequest, code ``bad-after``."""
    if after is None:
        return None
    if after == NEWEST:
        return events.newest(session)
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        detail = f"{after[:40]!r} is not the id of an event: use `last` of an answer, or newest"
        raise InvalidRequest(detail, code="bad-after")
    return int(after)

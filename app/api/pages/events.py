"""The pages of events: what happened to a model, and the audit log of the server, newest first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from ...catalog import ReadSession, events
from ...catalog.models import get_model
from ...values.event import Event, EventFilter, EventKind
from ..requests.auth import AUDIT_PAGE, PAGE
from ..requests.params import Model
from ..services import ServicesDep, in_turn
from .route import PageRoute
from .templates import page

ROWS = 100

router = APIRouter(include_in_schema=False, route_class=PageRoute)

Before = Annotated[int | None, Query(ge=1, le=2**63 - 1)]
Kind = Annotated[str, Query(max_length=100)]


@dataclass(frozen=True, slots=True)
class Shown:
    """The events before the event ``before``. ``newest`` is the newest of the server when they were read."""

    items: Sequence[Event]
    newest: int
    before: int | None
    kind: EventKind | None

    @property
    def older(self) -> int | None:
        """The ``before`` of the next page, None if this is the last."""
        return self.items[-1].id if len(self.items) == ROWS else None


@router.get("/models/{namespace}/{name}/events", dependencies=PAGE)
@in_turn
def events_of_a_model(
    request: Request, services: ServicesDep, model: Model, before: Before = None, kind: Kind = ""
) -> Response:
    """The events of a model."""
    with services.catalog.read() as session:
        get_model(session, model)
        shown = _shown(session, EventFilter(model.namespace, model.name), before, kind)
    return page(request, "events.html", name=model, shown=shown, kinds=list(EventKind))


@router.get("/events", dependencies=AUDIT_PAGE)
@in_turn
def events_of_all(request: Request, services: ServicesDep, before: Before = None, kind: Kind = "") -> Response:
    """The audit log: the events of the whole server, with the address of whoever made each change."""
    with services.catalog.read() as session:
        shown = _shown(session, EventFilter(), before, kind)
    return page(request, "events.html", name=None, shown=shown, kinds=list(EventKind))


def _shown(s: ReadSession, wanted: EventFilter, before: int | None, kind: str) -> Shown:
    only = next((each for each in EventKind if each == kind), None)
    kinds = frozenset() if only is None else frozenset([only])
    newest = events.newest(s)  # first: what comes after it may be shown already, and is never missed
    items = events.events_before(s, EventFilter(wanted.namespace, wanted.name, kinds), before, ROWS)
    return Shown(items, newest, before, only)

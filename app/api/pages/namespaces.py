"""The page of the namespaces: what each holds, and how much it may hold."""

from fastapi import APIRouter, Request, Response

from ...catalog.namespaces import list_namespaces
from ..requests.auth import ADMIN_PAGE, Caller
from ..services import ServicesDep, in_turn
from .route import PageRoute
from .templates import page

ROWS = 100

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/namespaces", dependencies=ADMIN_PAGE)
@in_turn
def namespaces_page(request: Request, services: ServicesDep, caller: Caller, cursor: str | None = None) -> Response:
    """The namespaces that the caller may administer, by name."""
    with services.catalog.read() as session:
        found = list_namespaces(session, limit=ROWS, cursor=cursor, only=caller.namespaces)
    return page(
        request,
        "namespaces.html",
        items=found.items,
        cursor=cursor,
        next=found.next,
        may_limit=caller.namespaces is None,
    )

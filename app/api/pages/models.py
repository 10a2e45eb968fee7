"""The start page: the models."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from ...catalog.overview import list_overviews
from ..requests.auth import PAGE, Caller
from ..services import ServicesDep, in_turn
from .route import PageRoute
from .templates import page

MODELS = 30
"""Models on one page."""

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/", dependencies=PAGE)
@in_turn
def models(
    request: Request,
    services: ServicesDep,
    caller: Caller,
    q: Annotated[str, Query(max_length=200)] = "",
    cursor: str | None = None,
) -> Response:
    """The models that the caller may see, by name; with ``q`` only those whose name contains it."""
    search = q.strip().replace("\0", "")
    with services.catalog.read() as session:
        found = list_overviews(session, limit=MODELS, cursor=cursor, only=caller.namespaces, search=search)
    return page(
        request,
        "models.html",
        search=search,
        models=found.items,
        cursor=cursor,
        next=found.next,
        base_url=str(request.base_url).rstrip("/"),
    )

"""The page of a model's trash, from which checkpoints come back."""

from fastapi import APIRouter, Request, Response

from ...catalog.trash import list_trash
from ..requests.auth import PAGE
from ..requests.params import Model
from ..services import ServicesDep, in_turn
from .route import PageRoute
from .templates import page

ROWS = 50

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/models/{namespace}/{name}/trash", dependencies=PAGE)
@in_turn
def trash_page(request: Request, services: ServicesDep, model: Model, cursor: str | None = None) -> Response:
    """The checkpoints in a model's trash, newest version first."""
    with services.catalog.read() as session:
        found = list_trash(session, model, limit=ROWS, cursor=cursor)
    return page(request, "trash.html", name=model, items=found.items, cursor=cursor, next=found.next)

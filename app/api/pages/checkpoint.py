"""The page of a checkpoint: what is known of it without its tensors."""

from fastapi import APIRouter, Request, Response

from ...catalog.checkpoints import resolve
from ..requests.auth import PAGE
from ..requests.params import Model, Ref, Run
from ..responses.views import CheckpointView
from ..services import ServicesDep, in_turn
from .route import PageRoute
from .templates import page

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/models/{namespace}/{name}/checkpoints/{ref}", dependencies=PAGE)
@in_turn
def checkpoint_page(request: Request, services: ServicesDep, model: Model, ref: Ref, run: Run = None) -> Response:
    """The checkpoint that ``ref`` means now."""
    with services.catalog.read() as session:
        found = resolve(session, model, ref, run)
    return page(request, "checkpoint.html", name=model, ref=ref, checkpoint=found, view=CheckpointView.of(found))

"""The history of a model, which removing checkpoints does not shorten."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from ...catalog.history import history
from ..openapi.problems import KNOWN, OF_A_MODEL, refusals
from ..requests.auth import READ
from ..requests.params import Cursor, Model, Run
from ..responses.json import json_answer
from ..responses.model_views import HistoryPage
from ..services import ServicesDep, in_turn

router = APIRouter(prefix="/v1/models/{namespace}/{name}", tags=["models"])


@router.get(
    "/history",
    summary="List the numbers of every checkpoint there ever was",
    dependencies=READ,
    response_model=HistoryPage,
    responses=KNOWN | refusals(*OF_A_MODEL),
)
@in_turn
def list_history(
    request: Request,
    services: ServicesDep,
    model: Model,
    run: Run = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Cursor = None,
) -> Response:
    """Oldest version first: epoch, step, loss and metrics, also of checkpoints in the trash and of purged ones."""
    with services.catalog.read() as session:
        page = history(session, model, run=run, limit=limit, cursor=cursor)
    return json_answer(request, HistoryPage.of(page.items, page.next))

"""The lineage of a checkpoint: what it was trained from, and what was trained from it."""

from fastapi import APIRouter, Request, Response

from ...catalog.checkpoints import resolve
from ...catalog.lineage import ancestors, descendants
from ..openapi.problems import KNOWN, OF_A_MODEL, refusals
from ..requests.auth import READ, Caller
from ..requests.params import Model, Ref, Run
from ..responses.json import identity_headers, json_answer
from ..responses.lineage import LineageView
from ..services import ServicesDep, in_turn

router = APIRouter(prefix="/v1/models/{namespace}/{name}/checkpoints/{ref}", tags=["checkpoints"])


@router.get(
    "/lineage",
    summary="Get ancestors and descendants",
    dependencies=READ,
    response_model=LineageView,
    responses=KNOWN | refusals(*OF_A_MODEL),
)
@in_turn
def show(request: Request, services: ServicesDep, caller: Caller, model: Model, ref: Ref, run: Run = None) -> Response:
    """Deleted checkpoints stay in it by name. A token that is limited to a namespace sees of other namespaces only the
    names that checkpoints of its own give.
    """
    with services.catalog.read() as session:
        checkpoint = resolve(session, model, ref, run)
        view = LineageView.of(
            checkpoint,
            ancestors(session, checkpoint, caller.namespaces),
            descendants(session, checkpoint, caller.namespaces),
        )
    return json_answer(request, view, identity_headers(request, checkpoint, ref))

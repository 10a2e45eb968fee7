"""Routes that pin checkpoints, so that nothing removes them."""

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from ...catalog.checkpoints import pin, resolve, unpin
from ..openapi.problems import OF_A_BODY, OF_A_MODEL, refusals
from ..requests.auth import WRITE
from ..requests.bodies import JsonBodyDep, documented_body
from ..requests.params import Model, Ref, Run
from ..responses.json import check_write, identity_headers, json_answer, nothing
from ..responses.views import CheckpointView
from ..services import ServicesDep, in_turn

router = APIRouter(prefix="/v1/models/{namespace}/{name}/checkpoints/{ref}/pin", tags=["checkpoints"])


class NewPin(BaseModel):
    """`reason` says why the checkpoint has to stay."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = None


@router.put(
    "",
    summary="Pin a checkpoint",
    dependencies=WRITE,
    response_model=CheckpointView,
    responses=refusals(*OF_A_MODEL, *OF_A_BODY, 507),
    openapi_extra=documented_body(NewPin),
)
@in_turn
def pin_checkpoint(
    request: Request,
    services: ServicesDep,
    model: Model,
    ref: Ref,
    body: JsonBodyDep,
    run: Run = None,
) -> Response:
    """A pinned checkpoint is not deleted, by nobody and by no rule, until its pin is removed."""
    asked = body.read(NewPin)
    services.room.check(0)
    with services.catalog.write(model.namespace) as session:
        version = resolve(session, model, ref, run).version
        check_write(request, nothing)
        checkpoint = pin(session, model, version, asked.reason)
    return json_answer(request, CheckpointView.of(checkpoint), identity_headers(request, checkpoint, ref))


@router.delete(
    "",
    summary="Remove a checkpoint's pin",
    dependencies=WRITE,
    status_code=204,
    responses=refusals(*OF_A_MODEL, 507),
)
@in_turn
def unpin_checkpoint(request: Request, services: ServicesDep, model: Model, ref: Ref, run: Run = None) -> Response:
    """A checkpoint without a pin stays as it is."""

    def work() -> None:
        with services.catalog.write(model.namespace) as session:
            version = resolve(session, model, ref, run).version
            check_write(request, nothing)
            unpin(session, model, version)

    services.room.freeing(work)
    return Response(status_code=204)

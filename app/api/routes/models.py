"""Routes for models, which are lines of checkpoints."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ...catalog.checkpoints import resolve
from ...catalog.models import delete_empty, get_model, list_models, set_best
from ...catalog.retention import set_rules
from ...catalog.session import ReadSession
from ...errors import InvalidRequest, NotFound
from ...values.checkpoint import Checkpoint, ModelName
from ..openapi.problems import KNOWN, OF_A_BODY, OF_A_MODEL, refusals
from ..requests.auth import ADMIN, READ, WRITE, Caller
from ..requests.bodies import JsonBodyDep, documented_body
from ..requests.params import Cursor, Model
from ..requests.retention import RetentionRules
from ..responses.json import check_write, etag_of, json_answer
from ..responses.model_views import ModelDetails, ModelPage, ModelView
from ..services import ServicesDep, in_turn

router = APIRouter(tags=["models"])


class ModelChange(BaseModel):
    """`best` is `min:NAME` or `max:NAME`, where NAME is `loss` or a metric. `retention` null removes the
    rules, so that those of the namespace hold. Fields that are left out stay.
    """

    model_config = ConfigDict(extra="forbid")

    best: str = Field("", examples=["max:val_acc"])
    retention: RetentionRules | None = None


def _details(session: ReadSession, name: ModelName) -> ModelDetails:
    def one(ref: str) -> Checkpoint | None:
        try:
            return resolve(session, name, ref)
        except NotFound:
            return None

    return ModelDetails.with_checkpoints(get_model(session, name), one("latest"), one("best"))


@router.get("/v1/models", summary="List the models", dependencies=READ, response_model=ModelPage, responses=KNOWN)
@in_turn
def index(
    request: Request,
    services: ServicesDep,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Cursor = None,
) -> Response:
    """Models, sorted by name. A token that is limited to namespaces sees only the models in them."""
    with services.catalog.read() as session:
        page = list_models(session, limit=limit, cursor=cursor, only=caller.namespaces)
    return json_answer(request, ModelPage(items=[ModelView.of(model) for model in page.items], next=page.next))


@router.get(
    "/v1/models/{namespace}/{name}",
    summary="Get a model",
    dependencies=READ,
    response_model=ModelDetails,
    responses=KNOWN | refusals(*OF_A_MODEL),
)
@in_turn
def show(request: Request, services: ServicesDep, model: Model) -> Response:
    """A model with its latest and its best checkpoint."""
    with services.catalog.read() as session:
        view = _details(session, model)
    return json_answer(request, view)


@router.patch(
    "/v1/models/{namespace}/{name}",
    summary="Change a model",
    dependencies=WRITE,
    response_model=ModelDetails,
    responses=refusals(*OF_A_MODEL, *OF_A_BODY, 507),
    openapi_extra=documented_body(ModelChange),
)
@in_turn
def change(request: Request, services: ServicesDep, model: Model, body: JsonBodyDep) -> Response:
    """Set the meaning of the ref `best`, or the rules of retention: they apply after the next commit, and at each
    sweep.
    """
    asked = body.read(ModelChange)
    if not asked.model_fields_set:
        raise InvalidRequest("there is nothing to change: give best or retention", code="invalid-value")
    rules = None if asked.retention is None else asked.retention.rules()
    services.room.check(0)
    with services.catalog.write(model.namespace) as session:
        check_write(request, lambda: etag_of(_details(session, model)))
        if "best" in asked.model_fields_set:
            set_best(session, model, asked.best)
        if "retention" in asked.model_fields_set:
            set_rules(session, model, rules)
        view = _details(session, model)
    return json_answer(request, view)


@router.delete(
    "/v1/models/{namespace}/{name}",
    summary="Delete a model without checkpoints",
    dependencies=ADMIN,
    status_code=204,
    responses=refusals(*OF_A_MODEL, 409, 507),
)
@in_turn
def remove(request: Request, services: ServicesDep, model: Model) -> Response:
    """A model with checkpoints is refused. A later upload makes the model again, and its versions go on counting."""

    def work() -> None:
        with services.catalog.write(model.namespace) as session:
            check_write(request, lambda: etag_of(_details(session, model)))
            delete_empty(session, model)

    services.room.freeing(work)
    return Response(status_code=204)

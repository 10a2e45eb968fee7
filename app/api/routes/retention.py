"""The route that says what rules of retention would do."""

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from ...catalog.retention import rules_of
from ..openapi.problems import OF_A_BODY, OF_A_MODEL, refusals
from ..requests.auth import READ
from ..requests.bodies import JsonBodyDep, documented_body
from ..requests.params import Model
from ..requests.retention import RetentionRules
from ..responses.json import NO_STORE, check_write, json_answer, nothing
from ..responses.model_views import RetentionPreview
from ..services import ServicesDep, in_turn

router = APIRouter(prefix="/v1/models/{namespace}/{name}/retention", tags=["models"])


class PreviewedRules(BaseModel):
    """Left out: the rules that the model has; null: no rules."""

    model_config = ConfigDict(extra="forbid")

    retention: RetentionRules | None = None


@router.post(
    "/preview",
    summary="Say what rules of retention would do",
    dependencies=READ,
    response_model=RetentionPreview,
    responses=refusals(*OF_A_MODEL, *OF_A_BODY),
    openapi_extra=documented_body(PreviewedRules),
)
@in_turn
def preview_retention(request: Request, services: ServicesDep, model: Model, body: JsonBodyDep) -> Response:
    """Lists what would go to the trash, be thinned, or stay, with the reasons. Changes nothing."""
    asked = body.read(PreviewedRules)
    check_write(request, nothing)
    if "retention" in asked.model_fields_set:
        rules = None if asked.retention is None else asked.retention.rules()
    else:
        with services.catalog.read() as session:
            rules = rules_of(session, model)
    view = RetentionPreview.of(services.retention.preview(model, rules))
    return json_answer(request, view, {"Cache-Control": NO_STORE})

"""Routes for webhooks: URLs that are told of a model's events."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ...catalog import webhooks
from ...notify.outgoing import check_url
from ...values.event import EventKind
from ..openapi.problems import KNOWN, OF_A_BODY, OF_A_MODEL, refusals
from ..requests.auth import ADMIN, Caller
from ..requests.bodies import JsonBodyDep, documented_body
from ..requests.params import Cursor, Model
from ..responses.json import NO_STORE, check_write, json_answer, nothing
from ..responses.webhook_views import DeliveryPage, NewWebhookView, WebhookList, WebhookView
from ..services import ServicesDep, in_turn

router = APIRouter(prefix="/v1/models/{namespace}/{name}/webhooks", tags=["webhooks"])

Id = Annotated[str, Path(description="the webhook's id", examples=["wh0123456789abcdef"])]


class NewWebhook(BaseModel):
    """`kinds` are the events to send, all by default. `secret` is `whsec_` and base64; without, one is made."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(description="http or https, to a public address")
    kinds: list[EventKind] = Field([], max_length=100)
    secret: str | None = None


@router.post(
    "",
    summary="Add a webhook",
    dependencies=ADMIN,
    status_code=201,
    response_model=NewWebhookView,
    responses=refusals(*OF_A_MODEL, *OF_A_BODY, 409, 507),
    openapi_extra=documented_body(NewWebhook),
)
@in_turn
def add_webhook(request: Request, services: ServicesDep, caller: Caller, model: Model, body: JsonBodyDep) -> Response:
    """The server then sends each event of the model to the URL, signed as Standard Webhooks has it. The secret is shown
    only now.
    """
    asked = body.read(NewWebhook)
    check_write(request, nothing)
    services.room.check(0)
    check_url(asked.url, private=services.webhook_private)
    with services.catalog.write(model.namespace) as session:
        made = webhooks.add(session, model, asked.url, sorted(set(asked.kinds)), asked.secret, caller.name)
    return json_answer(request, NewWebhookView.of(made), {"Cache-Control": NO_STORE}, status=201)


@router.get(
    "",
    summary="List the webhooks",
    dependencies=ADMIN,
    response_model=WebhookList,
    responses=KNOWN | refusals(*OF_A_MODEL),
)
@in_turn
def list_webhooks(request: Request, services: ServicesDep, model: Model) -> Response:
    """All webhooks of a model, oldest first, without their secrets."""
    with services.catalog.read() as session:
        found = webhooks.list_webhooks(session, model)
    return json_answer(request, WebhookList(items=[WebhookView.of(webhook) for webhook in found]))


@router.delete(
    "/{webhook}",
    summary="Remove a webhook",
    dependencies=ADMIN,
    status_code=204,
    responses=refusals(*OF_A_MODEL, 507),
)
@in_turn
def remove_webhook(request: Request, services: ServicesDep, model: Model, webhook: Id) -> Response:
    """Nothing more is sent to it, and its log of deliveries is gone."""
    check_write(request, nothing)
    services.room.freeing(lambda: webhooks.remove(services.catalog, model, webhook))
    return Response(status_code=204)


@router.get(
    "/{webhook}/deliveries",
    summary="List the deliveries to a webhook",
    dependencies=ADMIN,
    response_model=DeliveryPage,
    responses=KNOWN | refusals(*OF_A_MODEL),
)
@in_turn
def list_deliveries(
    request: Request,
    services: ServicesDep,
    model: Model,
    webhook: Id,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Cursor = None,
) -> Response:
    """Newest first. A delivery is tried again, later and later, for a day; until then those after it wait."""
    with services.catalog.read() as session:
        page = webhooks.list_deliveries(session, model, webhook, limit=limit, cursor=cursor)
    return json_answer(request, DeliveryPage.of(page.items, page.next))

"""Routes that list, get and change checkpoints."""

import re
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict

from ...catalog.checkpoints import list_checkpoints, resolve, update
from ...catalog.listing import Filter, Listing
from ...catalog.trash import list_trash
from ...errors import InvalidRequest
from ...values.checkpoint import Checkpoint, ModelName
from ...values.event import EventFilter
from ..openapi.problems import KNOWN, OF_A_BODY, OF_A_MODEL, refusals
from ..requests.auth import READ, WRITE, judge_again
from ..requests.bodies import JsonBodyDep, documented_body
from ..requests.params import Cursor, Model, Ref, Run, Wait, dynamic_parameters
from ..responses.json import REVALIDATE, check_write, etag_of, identity_headers, json_answer, view_json
from ..responses.views import CheckpointPage, CheckpointView
from ..services import FoundNow, Services, ServicesDep, in_turn
from ..threads import unless_gone

router = APIRouter(prefix="/v1/models/{namespace}/{name}/checkpoints", tags=["checkpoints"])

_OPERATOR = re.compile(r"(.+)\.(lt|le|gt|ge)", re.DOTALL)
_PLAIN = frozenset({"run", "order", "limit", "cursor", "trash"})
_NEWEST_FIRST = "-version"
_COMPARED = ("version", "epoch", "step", "loss", "bytes", "created_at", "slot", "nonfinite_tensors")


def parse_filters(given: Iterable[tuple[str, str]]) -> tuple[Filter, ...]:
    """Parse ``epoch.ge=3`` and ``tag.x=y``. The catalog refuses unknown fields."""
    filters = []
    for name, value in given:
        if name not in _PLAIN:
            match = _OPERATOR.fullmatch(name)
            filters.append(Filter(match[1], match[2], value) if match else Filter(name, "eq", value))
    return tuple(filters)


class CheckpointChange(BaseModel):
    """Metrics and tags to set, or to remove where null; all others stay."""

    model_config = ConfigDict(extra="forbid")

    metrics: dict[str, float | None] = {}
    tags: dict[str, str | None] = {}


@router.get(
    "",
    summary="List checkpoints",
    dependencies=READ,
    response_model=CheckpointPage,
    responses=KNOWN | refusals(*OF_A_MODEL),
    openapi_extra=dynamic_parameters(
        **{name: f"only checkpoints with this {name}" for name in _COMPARED},
        **{f"{name}.{{operator}}": "the operator is `lt`, `le`, `gt` or `ge`" for name in _COMPARED},
        **{
            "metric.{name}": "only checkpoints with this value of the metric",
            "metric.{name}.{operator}": "the operator is `lt`, `le`, `gt` or `ge`",
            "tag.{name}": "only checkpoints with this value of the tag",
        },
    ),
)
@in_turn
def index(
    request: Request,
    services: ServicesDep,
    model: Model,
    run: Run = None,
    order: Annotated[
        str, Query(description="field to sort by; `-` before it sorts in descending order")
    ] = _NEWEST_FIRST,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Cursor = None,
    trash: Annotated[bool, Query(description="list the trash instead, newest version first")] = False,
) -> Response:
    """Checkpoints without a finite value of the sort field come last; equal ones are sorted newest first."""
    filters = parse_filters(request.query_params.multi_items())
    if trash and (filters or order != _NEWEST_FIRST):
        raise InvalidRequest("the trash takes no filter and no order: leave them out", code="bad-filter")
    with services.catalog.read() as session:
        if trash:
            page = list_trash(session, model, run=run, limit=limit, cursor=cursor)
        else:
            page = list_checkpoints(session, model, Listing(run, order, limit, cursor, filters))
    return json_answer(request, CheckpointPage.of(page.items, page.next))


@router.get(
    "/{ref}",
    summary="Get a checkpoint",
    dependencies=READ,
    response_model=CheckpointView,
    responses=KNOWN | refusals(*OF_A_MODEL),
)
async def show(
    request: Request, services: ServicesDep, model: Model, ref: Ref, run: Run = None, wait: Wait = 0
) -> Response:
    """The response names the version that the ref resolved to: `Stateroom-Checkpoint: vision/resnet50@12`. With `wait`
    and `If-None-Match`, a 304 comes only after `wait` seconds: before that, the request waits for a change.
    """
    ends = time.monotonic() + wait
    found = await services.find_now(model, ref, run, _json_of)
    answer = _shown(request, found, ref)
    while answer.status_code == HTTPStatus.NOT_MODIFIED and (left := ends - time.monotonic()) > 0:
        news = await unless_gone(request, _next_event(services, model, found.at, left))
        await judge_again(request, services)
        if news is None:
            break
        found = await services.find_now(model, ref, run, _json_of, news)
        answer = _shown(request, found, ref)
    return answer


def _json_of(checkpoint: Checkpoint) -> bytes:
    return view_json(CheckpointView.of(checkpoint))


def _shown(request: Request, found: FoundNow, ref: str) -> Response:
    # Metrics and tags may change under a number too: a cache has to revalidate this.
    headers = {**identity_headers(request, found.checkpoint, ref), "Cache-Control": REVALIDATE}
    return json_answer(request, found.json, headers)


async def _next_event(services: Services, model: ModelName, at: int, seconds: float) -> int | None:
    """Wait for an event of the model beyond the event ``at``, and return its id, or that of a later one. None after
    ``seconds``, and if the server stops.
    """
    with services.metrics.waiting_clients.track_inprogress():
        found = await services.watch.beyond(at, EventFilter(model.namespace, model.name), seconds)
    if found is None:
        return at
    return found.last if found.items else None


@router.patch(
    "/{ref}",
    summary="Change metrics and tags",
    dependencies=WRITE,
    response_model=CheckpointView,
    responses=refusals(*OF_A_MODEL, *OF_A_BODY, 507),
    openapi_extra=documented_body(CheckpointChange),
)
@in_turn
def change(
    request: Request, services: ServicesDep, model: Model, ref: Ref, body: JsonBodyDep, run: Run = None
) -> Response:
    """Set or remove metrics and tags, for example after an evaluation. Everything else is fixed at upload."""
    asked = body.read(CheckpointChange)
    services.room.check(0)
    with services.catalog.write(model.namespace) as session:
        before = resolve(session, model, ref, run)
        check_write(request, lambda: etag_of(CheckpointView.of(before)))
        checkpoint = update(session, model, before.version, asked.metrics, asked.tags)
    return json_answer(request, CheckpointView.of(checkpoint), identity_headers(request, checkpoint, ref))

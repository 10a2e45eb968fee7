"""Routes for namespaces: what each holds, and its quotas."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StrictInt

from ...catalog.namespaces import QUOTAS, get_namespace, list_namespaces, set_quotas, set_retention
from ...catalog.rows import MAX_INTEGER
from ...catalog.session import ReadSession
from ...errors import NotFound
from ..openapi.problems import KNOWN, OF_A_BODY, refusals
from ..requests.auth import ADMIN, Caller
from ..requests.bodies import JsonBodyDep, documented_body
from ..requests.params import Cursor, Namespace
from ..requests.retention import RetentionRules
from ..responses.json import check_write, etag_of, json_answer
from ..responses.namespaces import NamespacePage, NamespaceView
from ..services import ServicesDep, in_turn

router = APIRouter(prefix="/v1/namespaces", tags=["namespaces"])

Quota = Annotated[StrictInt, Field(ge=0, le=MAX_INTEGER)]


class NamespaceChange(BaseModel):
    """A field that is left out stays as it is; null removes a quota, or the rules."""

    model_config = ConfigDict(extra="forbid")

    quota_bytes: Quota | None = Field(default=None, description="most bytes in the store", examples=[500_000_000_000])
    quota_checkpoints: Quota | None = Field(default=None, description="most checkpoints", examples=[None])
    retention: RetentionRules | None = Field(default=None, description="the rules of models without their own")


@router.get("", summary="List the namespaces", dependencies=ADMIN, response_model=NamespacePage, responses=KNOWN)
@in_turn
def index(
    request: Request,
    services: ServicesDep,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Cursor = None,
) -> Response:
    """Namespaces that hold something or have a quota, sorted by name. A token that is limited to namespaces sees only
    those.
    """
    with services.catalog.read() as session:
        page = list_namespaces(session, limit=limit, cursor=cursor, only=caller.namespaces)
    return json_answer(request, NamespacePage.of(page.items, page.next))


@router.get(
    "/{namespace}",
    summary="Get a namespace",
    dependencies=ADMIN,
    response_model=NamespaceView,
    responses=KNOWN | refusals(404),
)
@in_turn
def show(request: Request, services: ServicesDep, namespace: Namespace) -> Response:
    """Its quotas, and what it holds: the numbers that the quotas limit are exact."""
    with services.catalog.read() as session:
        found = get_namespace(session, namespace)
    return json_answer(request, NamespaceView.of(found))


@router.put(
    "/{namespace}",
    summary="Set quotas and rules of retention",
    dependencies=ADMIN,
    response_model=NamespaceView,
    responses=refusals(*OF_A_BODY, 507),
    openapi_extra=documented_body(NamespaceChange),
)
@in_turn
def change(
    request: Request, services: ServicesDep, caller: Caller, namespace: Namespace, body: JsonBodyDep
) -> Response:
    """Fields that are left out stay. A quota below what is there deletes nothing: it refuses what would be added. The
    namespace need not hold anything yet. Quotas take a token that is not limited to a namespace.
    """
    asked = body.read(NamespaceChange)
    given = asked.model_fields_set
    quotas = {name: getattr(asked, name) for name in QUOTAS if name in given}
    rules = None if asked.retention is None else asked.retention.rules()
    if quotas and caller.namespaces is not None:
        raise HTTPException(403, "Setting a quota needs a token that is not limited to a namespace.")
    services.room.check(0)
    with services.catalog.write(namespace) as session:
        check_write(request, lambda: _etag(session, namespace))
        changed = set_quotas(session, namespace, quotas)
        if "retention" in given:
            changed = set_retention(session, namespace, rules)
    return json_answer(request, NamespaceView.of(changed))


def _etag(session: ReadSession, namespace: str) -> str | None:
    """Return the ETag of the namespace, None if there is none."""
    try:
        return etag_of(NamespaceView.of(get_namespace(session, namespace)))
    except NotFound:
        return None

"""Routes for tokens: for those who may do everything everywhere."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ...access.grants import OPEN
from ...catalog import tokens
from ...errors import InvalidRequest
from ...values.checkpoint import is_name
from ...values.expiry import parse_expiry
from ...values.token import MOST_NAMESPACES, Scope, Token, is_token_name, new_token
from ..openapi.problems import KNOWN, OF_A_BODY, refusals
from ..requests.auth import ADMIN_EVERYWHERE, Caller
from ..requests.bodies import JsonBodyDep, documented_body
from ..requests.params import Cursor
from ..responses.json import NO_STORE, check_write, json_answer, nothing
from ..responses.token_views import NewTokenView, TokenPage
from ..services import ServicesDep, in_turn

router = APIRouter(prefix="/v1/tokens", tags=["tokens"])

NameOrId = Annotated[str, Path(description="the token's name or its id", examples=["trainer"])]


class NewToken(BaseModel):
    """`namespaces` null, the default, is everywhere. `expires` is `90d`, `12h`, a date or a time; null: never."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="1 to 64 letters, digits, `.`, `_` or `-`", examples=["trainer"])
    scope: Scope
    namespaces: list[str] | None = Field(None, min_length=1, max_length=MOST_NAMESPACES, examples=[["vision"]])
    expires: str | None = Field(None, max_length=64, examples=["90d"])


@router.get("", summary="List the tokens", dependencies=ADMIN_EVERYWHERE, response_model=TokenPage, responses=KNOWN)
@in_turn
def list_tokens(
    request: Request,
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Cursor = None,
) -> Response:
    """All tokens, also expired and revoked ones, by name, and without their secrets."""
    with services.catalog.read() as session:
        page = tokens.token_page(session, limit=limit, cursor=cursor)
    return json_answer(request, TokenPage.of(page.items, page.next))


@router.post(
    "",
    summary="Make a token",
    dependencies=ADMIN_EVERYWHERE,
    status_code=201,
    response_model=NewTokenView,
    responses=refusals(*OF_A_BODY, 409, 507),
    openapi_extra=documented_body(NewToken),
)
@in_turn
def make_token(request: Request, services: ServicesDep, caller: Caller, body: JsonBodyDep) -> Response:
    """The token is shown only in this answer. A server that never had a token gets its first one by
    `stateroom-server token add`, on its own machine.
    """
    asked = body.read(NewToken)
    check_write(request, nothing)
    if caller == OPEN:
        raise HTTPException(403, "This server has no tokens: make the first one with stateroom-server token add.")
    token, text = _new(asked)
    services.room.check(0)
    with services.catalog.write() as session:
        tokens.add(session, token)
    return json_answer(request, NewTokenView.made(token, text), {"Cache-Control": NO_STORE}, status=201)


@router.delete(
    "/{token}",
    summary="Revoke a token",
    dependencies=ADMIN_EVERYWHERE,
    status_code=204,
    responses=refusals(404, 507),
)
@in_turn
def revoke_token(request: Request, services: ServicesDep, token: NameOrId) -> Response:
    """Every server refuses it within seconds, and the links and sessions made with it. Its name stays taken."""
    check_write(request, nothing)

    def work() -> None:
        with services.catalog.write() as session:
            tokens.revoke(session, token, datetime.now(UTC))

    services.room.freeing(work)
    return Response(status_code=204)


def _new(asked: NewToken) -> tuple[Token, str]:
    """Return the token that was asked for, and its text. Raises InvalidRequest."""
    now = datetime.now(UTC)
    if not is_token_name(asked.name):
        raise InvalidRequest(
            f"{asked.name[:100]!r} is not a valid token name: use 1 to 64 letters, digits, '.', '_' or '-', beginning "
            "with a letter or digit, and not the form of an id",
            code="bad-token-name",
        )
    for namespace in asked.namespaces or ():
        if not is_name(namespace):
            detail = f"{namespace[:100]!r} is not a valid namespace: that of the model vision/resnet50 is vision"
            raise InvalidRequest(detail, code="bad-model-name")
    try:
        expires_at = None if asked.expires is None else parse_expiry(asked.expires, now)
    except ValueError as error:
        raise InvalidRequest(str(error), code="bad-expiry") from None
    namespaces = None if asked.namespaces is None else frozenset(asked.namespaces)
    return new_token(asked.name, asked.scope, namespaces, now, expires_at)

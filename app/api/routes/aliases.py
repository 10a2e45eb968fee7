"""Routes for aliases: names of a model's checkpoints that can be moved, by compare-and-swap if asked."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StrictInt

from ...access.grants import Grant
from ...catalog import aliases
from ...catalog.session import WriteSession
from ...errors import PreconditionFailed
from ...values.alias import Alias
from ...values.checkpoint import ModelName
from ...values.token import Scope
from ..openapi.problems import KNOWN, OF_A_BODY, OF_A_MODEL, refusals
from ..requests.auth import ADMIN, READ, WRITE, Caller
from ..requests.bodies import JsonBodyDep, documented_body
from ..requests.params import Cursor, Model, Run
from ..requests.paths import path_value
from ..responses.json import check_write, json_answer
from ..responses.model_views import AliasChangePage, AliasList, AliasView
from ..services import ServicesDep, in_turn

router = APIRouter(prefix="/v1/models/{namespace}/{name}/aliases", tags=["aliases"])

_OF_A_CHANGE: dict[str, Any] = {"response_model": AliasView, "responses": refusals(*OF_A_MODEL, *OF_A_BODY, 409, 507)}


class AliasMove(BaseModel):
    """`ref` picks the checkpoint: `12`, `best`, another alias. `note` says why."""

    model_config = ConfigDict(extra="forbid")

    ref: str | StrictInt = Field(examples=["12"])
    note: str | None = None


class AliasProtection(BaseModel):
    """Moving and removing a protected alias takes a token of scope admin."""

    model_config = ConfigDict(extra="forbid")

    protected: bool


async def alias_name(alias: Annotated[str, Path(description="the alias", examples=["prod"])]) -> str:
    return aliases.check_alias(path_value(alias))


Name = Annotated[str, Depends(alias_name)]


@router.get(
    "", summary="List the aliases", dependencies=READ, response_model=AliasList, responses=KNOWN | refusals(*OF_A_MODEL)
)
@in_turn
def list_aliases(request: Request, services: ServicesDep, model: Model) -> Response:
    """All aliases of a model, sorted by name."""
    with services.catalog.read() as session:
        found = aliases.list_aliases(session, model)
    return json_answer(request, AliasList(items=[AliasView.of(alias) for alias in found]))


@router.get(
    "/{alias}",
    summary="Get an alias",
    dependencies=READ,
    response_model=AliasView,
    responses=KNOWN | refusals(*OF_A_MODEL),
)
@in_turn
def get_alias(request: Request, services: ServicesDep, model: Model, alias: Name) -> Response:
    """Its ETag is its revision, which grows with each change: with `If-Match`, a move is a compare-and-swap."""
    with services.catalog.read() as session:
        found = aliases.get_alias(session, model, alias)
    return _answer(request, found)


@router.put(
    "/{alias}",
    summary="Move an alias, or make it",
    dependencies=WRITE,
    openapi_extra=documented_body(AliasMove),
    **_OF_A_CHANGE,
)
@in_turn
def move_alias(
    request: Request,
    services: ServicesDep,
    caller: Caller,
    model: Model,
    alias: Name,
    body: JsonBodyDep,
    run: Run = None,
) -> Response:
    """With `If-Match: "REVISION"` the alias moves only if nobody else has moved it since; with `If-None-Match: *` only
    if there is none. Else 412, with the current `state`. A protected alias takes a token of scope admin.
    """
    asked = body.read(AliasMove)
    services.room.check(0)
    with services.catalog.write(model.namespace) as session:
        now = changing(session, request, caller, model, alias)
        version = aliases.find_target(session, model, str(asked.ref), run)
        moved = aliases.move(session, model, alias, version, asked.note, caller.name)
    return _answer(request, moved, status=201 if now is None else 200)


@router.patch(
    "/{alias}",
    summary="Protect an alias",
    dependencies=ADMIN,
    openapi_extra=documented_body(AliasProtection),
    **_OF_A_CHANGE,
)
@in_turn
def protect_alias(
    request: Request, services: ServicesDep, caller: Caller, model: Model, alias: Name, body: JsonBodyDep
) -> Response:
    """A protected alias is moved and removed only by a token of scope admin."""
    asked = body.read(AliasProtection)
    services.room.check(0)
    with services.catalog.write(model.namespace) as session:
        changing(session, request, caller, model, alias)
        changed = aliases.protect(session, model, alias, asked.protected, caller.name)
    return _answer(request, changed)


@router.delete(
    "/{alias}",
    summary="Remove an alias",
    dependencies=WRITE,
    status_code=204,
    responses=refusals(*OF_A_MODEL, 507),
)
@in_turn
def remove_alias(request: Request, services: ServicesDep, caller: Caller, model: Model, alias: Name) -> Response:
    """The checkpoint and the alias's history stay. A protected alias takes a token of scope admin."""

    def work() -> None:
        with services.catalog.write(model.namespace) as session:
            changing(session, request, caller, model, alias)
            aliases.remove(session, model, alias, caller.name)

    services.room.freeing(work)
    return Response(status_code=204)


@router.post("/{alias}/rollback", summary="Move an alias back", dependencies=WRITE, **_OF_A_CHANGE)
@in_turn
def roll_back_alias(request: Request, services: ServicesDep, caller: Caller, model: Model, alias: Name) -> Response:
    """To the version that it meant before its last move; a second rollback undoes the first."""
    services.room.check(0)
    with services.catalog.write(model.namespace) as session:
        changing(session, request, caller, model, alias)
        moved = aliases.roll_back(session, model, alias, caller.name)
    return _answer(request, moved)


@router.get(
    "/{alias}/history",
    summary="List the changes of an alias",
    dependencies=READ,
    response_model=AliasChangePage,
    responses=KNOWN | refusals(*OF_A_MODEL),
)
@in_turn
def list_alias_changes(
    request: Request,
    services: ServicesDep,
    model: Model,
    alias: Name,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Cursor = None,
) -> Response:
    """Newest first; also of an alias that was removed."""
    with services.catalog.read() as session:
        page = aliases.history(session, model, alias, limit=limit, cursor=cursor)
    return json_answer(request, AliasChangePage.of(page.items, page.next))


def _answer(request: Request, alias: Alias, *, status: int = 200) -> Response:
    return json_answer(request, AliasView.of(alias), status=status, etag=str(alias.revision))


def changing(session: WriteSession, request: Request, caller: Grant, model: ModelName, name: str) -> Alias | None:
    """Return the alias before a change, None if there is none. Raises PreconditionFailed, and HTTPException (403) for a
    protected alias that the caller may not change.
    """
    now = aliases.find_alias(session, model, name)
    if now is not None and now.protected and not caller.scope.covers(Scope.ADMIN):
        needed = f"The alias {name} is protected: this request needs a token of scope {Scope.ADMIN}"
        raise HTTPException(403, f"{needed}; this one has {caller.scope}.")
    try:
        check_write(request, lambda: None if now is None else str(now.revision))
    except PreconditionFailed as error:
        state = None if now is None else AliasView.of(now).model_dump(mode="json")
        raise PreconditionFailed(error.detail, etag=error.etag, state=state) from None
    return now

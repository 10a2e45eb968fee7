"""Routes of tags, which are aliases where they can be, and of branches, of which there is only one."""

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from ...catalog import aliases, hub
from ...catalog.checkpoints import resolve
from ...errors import Conflict, InvalidRequest, NotFound
from ..requests.auth import WRITE_PAGE, Caller
from ..requests.bodies import JsonBodyDep
from ..requests.params import Model
from ..requests.paths import path_value
from ..routes.aliases import changing
from ..services import ServicesDep, in_turn
from .bodies import read
from .commits import MAIN, find, is_tag
from .head import head_of
from .route import HubRoute, answer

router = APIRouter(route_class=HubRoute, include_in_schema=False)


class NewTag(BaseModel):
    tag: str


@router.post("/api/models/{namespace}/{name}/tag/{revision}", dependencies=WRITE_PAGE)
async def tag(services: ServicesDep, caller: Caller, model: Model, revision: str, body: JsonBodyDep) -> Response:
    """Make an alias, or a tag where the name, such as ``v1``, cannot be an alias."""
    name = read(body, NewTag).tag
    checkpoint = await find(services, model, path_value(revision))

    def make() -> None:
        services.room.check(0)
        with services.catalog.write(model.namespace) as session:
            version = resolve(session, model, str(checkpoint.version)).version
            if is_tag(name):
                hub.tag(session, model, name, version)
            elif name == MAIN:
                raise InvalidRequest("main is the branch: choose another tag", code="bad-alias")
            elif aliases.find_alias(session, model, name) is not None:
                raise Conflict(f"{model} has a tag {name!r} already", code="tag-exists")
            else:
                aliases.move(session, model, name, version, None, caller.name)

    await services.asks.run(make)
    return answer({})


@router.delete("/api/models/{namespace}/{name}/tag/{tag}", dependencies=WRITE_PAGE)
@in_turn
def delete_tag(request: Request, services: ServicesDep, caller: Caller, model: Model, tag: str) -> Response:
    """Remove a tag. The commit stays, and so does the history of an alias. A protected one takes the scope admin."""
    name = path_value(tag)

    def work() -> None:
        with services.catalog.write(model.namespace) as session:
            if is_tag(name):
                hub.untag(session, model, name)
            else:
                changing(session, request, caller, model, name)
                aliases.remove(session, model, name, caller.name)

    services.room.freeing(work)
    return answer({})


@router.post("/api/models/{namespace}/{name}/branch/{branch}", dependencies=WRITE_PAGE)
@in_turn
def create_branch(services: ServicesDep, model: Model, branch: str) -> Response:
    """Refuse another branch: commits go to the newest version. An alias would be a branch that takes no commits."""
    head_of(services, model)
    if path_value(branch) == MAIN:
        raise Conflict(f"{model} has the branch main already", code="branch-exists")
    raise InvalidRequest(
        "there is one branch here, main: mark a version with a tag instead, or use another repository",
        code="invalid-value",
    )


@router.delete("/api/models/{namespace}/{name}/branch/{branch}", dependencies=WRITE_PAGE)
@in_turn
def delete_branch(services: ServicesDep, model: Model, branch: str) -> Response:
    head_of(services, model)
    if path_value(branch) == MAIN:
        raise InvalidRequest("main is the only branch, and cannot be deleted", code="invalid-value")
    raise NotFound(f"{model} has no branch {path_value(branch)[:200]!r}", code="bad-ref")

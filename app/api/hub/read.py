"""Routes by which the clients of the Hugging Face Hub read: repositories, trees, and files by revision and path.

Their queries have parameters that we do not need, and future ones will have others: unknown ones are ignored.
"""

import json
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from ...catalog.aliases import list_aliases
from ...catalog.checkpoints import resolve
from ...catalog.listing import Listing, list_checkpoints
from ...catalog.models import get_model, list_models
from ...catalog.session import ReadSession
from ...concurrency.cancellation import current
from ...errors import NotFound
from ...values.checkpoint import Checkpoint, ModelName
from ..problems import problem_of
from ..requests.auth import PAGE, Caller
from ..requests.params import Model
from ..requests.paths import path_value
from ..responses.downloads import DownloadResponse
from ..responses.json import FOREVER, NO_STORE, REVALIDATE, shown_to
from ..services import Services, ServicesDep, in_turn
from .commits import MAIN, commit_of, find, is_commit
from .route import HubRoute, refusal
from .views import commit_view, refs, repository, tree

MOST_COMMITS = 50
MOST_TAGS = 100

router = APIRouter(route_class=HubRoute, include_in_schema=False)

COMMIT = "X-Repo-Commit"


@router.get("/api/whoami-v2", dependencies=PAGE)
async def whoami(caller: Caller) -> Response:
    name = caller.name or "anonymous"
    return _json(
        {
            "type": "user",
            "id": name,
            "name": name,
            "fullname": name,
            "orgs": [],
            "auth": {
                "type": "access_token",
                "accessToken": {"displayName": name, "role": "read" if caller.scope == "read" else "write"},
            },
        }
    )


@router.get("/api/models", dependencies=PAGE)
@in_turn
def models(
    services: ServicesDep,
    caller: Caller,
    author: str | None = None,
    search: str = "",
    limit: Annotated[int, Query(ge=1)] = 1000,
) -> Response:
    """Models, of one namespace if ``author`` is given, with ``search`` in their names."""
    only = caller.namespaces
    if author is not None:
        only = frozenset({author} if only is None else only & {author})
    with services.catalog.read() as session:
        found = list_models(session, limit=min(limit, 1000), cursor=None, only=only)
    return _json([repository(each.name, None) for each in found.items if search.lower() in str(each.name).lower()])


@router.get("/api/models/{namespace}/{name}", dependencies=PAGE)
async def model_info(request: Request, services: ServicesDep, model: Model) -> Response:
    try:
        return await _info(request, services, model, MAIN)
    except NotFound as error:
        if error.code != "checkpoint-not-found":
            raise
        return _json(repository(model, None))


@router.get("/api/models/{namespace}/{name}/revision/{revision}", dependencies=PAGE)
async def revision_info(request: Request, services: ServicesDep, model: Model, revision: str) -> Response:
    return await _info(request, services, model, path_value(revision))


async def _info(request: Request, services: Services, model: ModelName, revision: str) -> Response:
    checkpoint = await find(services, model, revision)
    files = await services.plan(request, services.deliver.files, checkpoint)
    return _json(repository(model, checkpoint, files))


@router.get("/api/models/{namespace}/{name}/tree/{revision}", dependencies=PAGE)
@router.get("/api/models/{namespace}/{name}/tree/{revision}/{folder:path}", dependencies=PAGE)
async def tree_of(
    request: Request, services: ServicesDep, model: Model, revision: str, folder: str = "", recursive: bool = False
) -> Response:
    checkpoint = await find(services, model, path_value(revision))
    files = await services.plan(request, services.deliver.files, checkpoint)
    shown = partial(tree, files, commit_of(checkpoint), path_value(folder).strip("/"), recursive=recursive)
    return _json(await services.plan(request, shown))


@router.get("/api/models/{namespace}/{name}/refs", dependencies=PAGE)
@in_turn
def refs_of(services: ServicesDep, model: Model) -> Response:
    with services.catalog.read() as session:
        aliases = list_aliases(session, model)[:MOST_TAGS]
        tags = [(each.name, resolve(session, model, each.name)) for each in aliases if each.version is not None]
        return _json(refs(resolve(session, model, "latest"), tags))


@router.get("/api/models/{namespace}/{name}/commits/{revision}", dependencies=PAGE)
async def commits(services: ServicesDep, model: Model, revision: str) -> Response:
    """The newest checkpoints, up to that of the revision."""
    newest = await find(services, model, path_value(revision))

    def listed() -> list[Checkpoint]:
        with services.catalog.read() as session:
            return _up_to(session, newest)

    return _json([commit_view(each) for each in await services.asks.run(listed)])


def _up_to(session: ReadSession, newest: Checkpoint) -> list[Checkpoint]:
    get_model(session, newest.model)
    page = list_checkpoints(session, newest.model, Listing(limit=MOST_COMMITS))
    return [each for each in page.items if each.version <= newest.version]


@router.get("/{namespace}/{name}/resolve/{revision}/{path:path}", dependencies=PAGE)
async def file(request: Request, services: ServicesDep, model: Model, revision: str, path: str) -> Response:
    """A file's bytes. A client asks for the head first: it names the commit, by which it asks from then on."""
    revision = path_value(revision)
    checkpoint = await find(services, model, revision)
    commit = {COMMIT: commit_of(checkpoint)}
    try:
        download = await services.plan(request, services.deliver.file_at, checkpoint, path_value(path))
    except NotFound as error:
        answer = refusal(request, problem_of(error))
        answer.headers.update(commit)
        return answer
    lifetime = FOREVER if is_commit(revision) else REVALIDATE
    headers = {**commit, "Cache-Control": shown_to(request) + lifetime}
    return DownloadResponse(download, headers, services.streams, caller=current().owner)


def _json(value: Any) -> Response:
    return Response(json.dumps(value), media_type="application/json", headers={"Cache-Control": NO_STORE})

"""Routes by which the clients of the Hugging Face Hub read: repositories, trees, and files by revision and path.

Their queries have parameters that we do not need, and future ones will have others: unknown ones are ignored.
"""

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from ...catalog import hub
from ...catalog.aliases import list_aliases
from ...catalog.checkpoints import resolve
from ...catalog.listing import Listing, list_checkpoints
from ...catalog.models import get_model, list_models
from ...catalog.session import ReadSession
from ...concurrency.cancellation import current
from ...deliver.files import StoredPath
from ...errors import NotFound
from ...values.checkpoint import Checkpoint, ModelName
from ...values.draft import Draft
from ..problems import problem_of
from ..requests.auth import PAGE, Caller
from ..requests.bodies import JsonBodyDep
from ..requests.params import Model
from ..requests.paths import path_value
from ..responses.downloads import DownloadResponse
from ..responses.json import FOREVER, NO_STORE, REVALIDATE, shown_to
from ..services import Services, ServicesDep, in_turn
from .bodies import form
from .commits import MAIN, commit_of, find, is_commit
from .head import find_or_draft
from .route import HubRoute, answer, refusal
from .views import commit_view, entries, refs, repository, tree

MOST_COMMITS = 50
MOST_TAGS = 100

router = APIRouter(route_class=HubRoute, include_in_schema=False)

COMMIT = "X-Repo-Commit"


@router.get("/api/whoami-v2", dependencies=PAGE)
async def whoami(caller: Caller) -> Response:
    name = caller.name or "anonymous"
    return answer(
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
    return answer(
        [repository(each.name, None, None) for each in found.items if search.lower() in str(each.name).lower()]
    )


@router.get("/api/models/{namespace}/{name}", dependencies=PAGE)
async def model_info(request: Request, services: ServicesDep, model: Model) -> Response:
    try:
        return await _info(request, services, model, MAIN)
    except NotFound as error:
        if error.code != "checkpoint-not-found":
            raise
        return answer(repository(model, None, None))


@router.get("/api/models/{namespace}/{name}/revision/{revision}", dependencies=PAGE)
async def revision_info(request: Request, services: ServicesDep, model: Model, revision: str) -> Response:
    return await _info(request, services, model, path_value(revision))


async def _info(request: Request, services: Services, model: ModelName, revision: str) -> Response:
    found = await find_or_draft(services, model, revision)
    files = await _files(request, services, found)
    sha256s = await services.asks.run(partial(_sha256s, services, found))
    at = found.created_at
    return answer(repository(model, _commit(found), at, files, sha256s, blobs="blobs" in request.query_params))


@router.get("/api/models/{namespace}/{name}/tree/{revision}", dependencies=PAGE)
@router.get("/api/models/{namespace}/{name}/tree/{revision}/{folder:path}", dependencies=PAGE)
async def tree_of(
    request: Request, services: ServicesDep, model: Model, revision: str, folder: str = "", recursive: bool = False
) -> Response:
    found = await find_or_draft(services, model, path_value(revision))
    files = await _files(request, services, found)
    shown = partial(tree, files, _commit(found), path_value(folder).strip("/"), recursive=recursive)
    return answer(await services.plan(request, shown))


@router.post("/api/models/{namespace}/{name}/paths-info/{revision}", dependencies=PAGE)
async def paths_info(
    request: Request, services: ServicesDep, model: Model, revision: str, body: JsonBodyDep
) -> Response:
    """Describe some files and folders, which the body, a form, names. Those that are not there are left out."""
    paths = form(body).get("paths", [])
    found = await find_or_draft(services, model, path_value(revision))
    files = await _files(request, services, found)
    return answer(await services.plan(request, entries, files, _commit(found), paths))


@router.get("/api/models/{namespace}/{name}/refs", dependencies=PAGE)
@in_turn
def refs_of(services: ServicesDep, model: Model) -> Response:
    with services.catalog.read() as session:
        aliases = list_aliases(session, model)[:MOST_TAGS]
        tags = [(each.name, resolve(session, model, each.name)) for each in aliases if each.version is not None]
        tags += [(name, resolve(session, model, str(version))) for name, version in hub.tags(session, model).items()]
        return answer(refs(resolve(session, model, "latest"), tags[:MOST_TAGS]))


@router.get("/api/models/{namespace}/{name}/commits/{revision}", dependencies=PAGE)
async def commits(services: ServicesDep, model: Model, revision: str) -> Response:
    """The newest checkpoints, up to that of the revision."""
    newest = await find(services, model, path_value(revision))

    def listed() -> list[Any]:
        with services.catalog.read() as session:
            found = _up_to(session, newest)
            made = hub.commits(session, [each.id for each in found])
        return [commit_view(each, made.get(each.id)) for each in found]

    return answer(await services.asks.run(listed))


def _up_to(session: ReadSession, newest: Checkpoint) -> list[Checkpoint]:
    get_model(session, newest.model)
    page = list_checkpoints(session, newest.model, Listing(limit=MOST_COMMITS))
    return [each for each in page.items if each.version <= newest.version]


@router.get("/{namespace}/{name}/resolve/{revision}/{path:path}", dependencies=PAGE)
async def file(request: Request, services: ServicesDep, model: Model, revision: str, path: str) -> Response:
    """A file's bytes. A client asks for the head first: it names the commit, by which it asks from then on."""
    revision = path_value(revision)
    checkpoint = await find_or_draft(services, model, revision)
    if isinstance(checkpoint, Draft):
        return _of_draft(request, checkpoint, path_value(path))
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


def _of_draft(request: Request, draft: Draft, path: str) -> Response:
    commit, file = {COMMIT: draft.commit}, draft.files.get(path)
    if file is None or file.content is None:
        why = "the repository has no such file" if file is None else "it can be read after the first checkpoint file"
        missing = refusal(request, problem_of(NotFound(f"{path[:200]!r}: {why}", code="file-not-found")))
        missing.headers.update(commit)
        return missing
    etag = hashlib.sha1(file.content, usedforsecurity=False).hexdigest()
    headers = {**commit, "ETag": f'"{etag}"', "Cache-Control": NO_STORE}
    return Response(file.content, media_type="application/octet-stream", headers=headers)


def _commit(found: Checkpoint | Draft) -> str:
    return found.commit if isinstance(found, Draft) else commit_of(found)


async def _files(request: Request, services: Services, found: Checkpoint | Draft) -> list[StoredPath]:
    if isinstance(found, Draft):
        return [StoredPath(path, file.size) for path, file in sorted(found.files.items())]
    return await services.plan(request, services.deliver.files, found)


def _sha256s(services: Services, found: Checkpoint | Draft) -> Mapping[str, str]:
    """Return the SHA-256s that are known of the files, by path."""
    if isinstance(found, Draft):
        return {path: file.sha256 for path, file in found.files.items() if file.sha256 is not None}
    with services.catalog.read() as session:
        commit = hub.commits(session, [found.id]).get(found.id)
    return {} if commit is None else commit.sha256s

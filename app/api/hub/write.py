"""Routes by which the clients of the Hugging Face Hub write: repositories, commits and tags.

A commit that changes something is the next checkpoint of its model. See docs/hugging-face.md.
"""

from functools import partial
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import BaseModel, Field

from ...access.grants import Grant
from ...catalog import hub, namespaces
from ...catalog.models import get_model
from ...errors import InvalidRequest, NotFound, PreconditionFailed
from ...ingest.body import Chunks
from ...ingest.receive import held_by
from ...values.checkpoint import Checkpoint, CheckpointName, Fields, ModelName, is_name
from ...values.draft import Draft
from ...values.folder import is_checkpoint_name
from ...values.hub import HubCommit, NewHubCommit
from ..admission import check_size
from ..requests.auth import WRITE_PAGE, Caller, judge_again
from ..requests.bodies import LARGE, JsonBodyDep, json_body
from ..requests.params import Model
from ..requests.paths import path_value
from ..routes.uploads import count_bytes, counted
from ..services import Services, ServicesDep, in_turn
from .bodies import read
from .commit_body import Asked, parse_commit
from .commits import MAIN, commit_of
from .compose import Given, Sent, Source, changes, drafted, folder, planned, sha256s_of
from .head import Head, head_of
from .route import HubRoute, answer

router = APIRouter(route_class=HubRoute, include_in_schema=False)

SMALL_FILE = 256 * 1024
"""Most bytes of a file that a commit contains. Larger ones are sent ahead."""

LARGEST_DRAFT = 4 * 1024 * 1024
"""Most bytes of the small files of a draft."""

MOST_FILES = 1_000
"""Most files that a client asks about at once."""

TRIES = 5
"""Times that a commit without a parent is made anew, because another commit came first."""


class NewRepository(BaseModel):
    name: str
    organization: str | None = None
    type: str | None = None


class AskedFile(BaseModel):
    path: str
    size: int = Field(ge=0)


class AskedFiles(BaseModel):
    files: list[AskedFile] = Field(max_length=MOST_FILES)


class Card(BaseModel):
    content: str


@router.post("/api/repos/create", dependencies=WRITE_PAGE)
@in_turn
def create(request: Request, services: ServicesDep, caller: Caller, body: JsonBodyDep) -> Response:
    """Make a model without checkpoints. It is shown where the hub's clients look, and nowhere else."""
    asked = read(body, NewRepository)
    if asked.type not in {None, "model"}:
        raise InvalidRequest(f"there are only models here, no {asked.type[:50]}s", code="invalid-value")
    model = _named(asked, caller)
    services.room.check(0)
    with services.catalog.write(model.namespace) as session:
        is_new = hub.find_draft(session, model) is None
        try:
            get_model(session, model)
            is_new = False
        except NotFound:
            namespaces.check_room(session, model.namespace, 0)
            hub.begin_draft(session, model)
    shown = answer({"url": f"{_base(request)}/{model}", "id": str(model), "name": str(model)})
    shown.status_code = 200 if is_new else 409
    return shown


def _named(asked: NewRepository, caller: Grant) -> ModelName:
    namespace = asked.organization or caller.name or "anonymous"
    if not (is_name(namespace) and is_name(asked.name)):
        detail = f"{namespace[:200]}/{asked.name[:200]} is not a valid name of a model"
        raise InvalidRequest(detail, code="invalid-value")
    if not caller.holds_in(namespace):
        raise HTTPException(403, f"This token is not valid in the namespace {namespace}.")
    return ModelName(namespace, asked.name)


@router.post("/api/validate-yaml", dependencies=WRITE_PAGE)
@in_turn
def validate(services: ServicesDep, body: JsonBodyDep) -> Response:
    """Accept any model card: it is kept as it is."""
    read(body, Card)
    return answer({"errors": [], "warnings": []})


@router.post("/api/models/{namespace}/{name}/preupload/{revision}", dependencies=WRITE_PAGE)
async def preupload(
    request: Request, services: ServicesDep, model: Model, revision: str, body: JsonBodyDep
) -> Response:
    """Tell for each file whether it is part of the commit, or is sent ahead, and its SHA-256 in the head if known."""
    _check_branch(revision)
    asked = read(body, AskedFiles)
    head = await services.plan(request, head_of, services, model)

    def shown(file: AskedFile) -> dict[str, Any]:
        is_small = file.size <= SMALL_FILE
        known = None if is_small else head.sha256s.get(file.path)
        mode = "regular" if is_small else "lfs"
        return {"path": file.path, "uploadMode": mode, "shouldIgnore": False, "oid": known}

    return answer({"files": list(map(shown, asked.files)), "commitOid": head.commit})


@router.post("/api/models/{namespace}/{name}/commit/{revision}", dependencies=WRITE_PAGE)
async def commit(request: Request, services: ServicesDep, model: Model, revision: str) -> Response:
    """Make the next checkpoint: the files of the newest one, changed as the body says."""
    _check_branch(revision)
    if request.query_params.get("create_pr") not in {None, "", "0", "false"}:
        raise InvalidRequest("there are no pull requests here: commit to main", code="invalid-value")
    async with json_body(request, services, LARGE, held_by(None)) as body:
        asked = await services.plan(request, parse_commit, body.lines())
        with services.admission.taken():
            made = await _commit(request, services, model, asked)
    url = f"{_base(request)}/{model}/commit/{made}"
    return answer({"success": True, "commitOid": made, "commitUrl": url, "hookOutput": ""})


async def _commit(request: Request, services: Services, model: ModelName, asked: Asked) -> str:
    for left in reversed(range(TRIES)):
        head = await services.plan(request, head_of, services, model)
        files = await services.plan(request, planned, services, head, asked)
        if head.commit is not None and not await changes(services, head, files):
            return head.commit
        if asked.parent not in {None, head.commit}:
            raise hub.moved(model)
        try:
            if head.checkpoint is None and not any(map(is_checkpoint_name, files)):
                return (await services.asks.run(partial(_keep, services, head, files))).commit
            made, _ = await counted(services, _store(request, services, head, asked, files))
            count_bytes(services, made)
            return commit_of(made)
        except PreconditionFailed:
            if asked.parent is not None or not left:
                raise
    raise AssertionError("a try returns or raises")


async def _store(
    request: Request, services: Services, head: Head, asked: Asked, files: dict[str, Source]
) -> tuple[Checkpoint, bool]:
    """Store the folder as the next checkpoint, and return it and False, because it is new."""
    parent = None if head.checkpoint is None else CheckpointName(head.model, head.version)
    check_size(sum(file.size for file in files.values()), services.admission.max_bytes)
    new_bytes = sum(file.size for file in files.values() if isinstance(file, Given | Sent))
    text = HubCommit(asked.title, asked.message, sha256s_of(head, files))
    fields = Fields(parent=parent, hub=NewHubCommit(head.version, text))

    def check() -> None:
        with services.catalog.read() as session:
            namespaces.check_room(session, head.model.namespace, new_bytes)

    await services.asks.run(check)
    upload = await services.ingest.receive(Chunks(folder(services, head, files)), None, parent)
    judge = partial(judge_again, request, services)
    return await services.commit(request, upload, head.model, fields, judge), False


def _keep(services: Services, head: Head, files: dict[str, Source]) -> Draft:
    """Keep files without tensors until a commit brings some. Blocks."""
    kept = drafted(files)
    if sum(len(file.content or b"") for file in kept.values()) > LARGEST_DRAFT:
        detail = f"before its first checkpoint file a model holds up to {LARGEST_DRAFT:,} bytes: commit them together"
        raise InvalidRequest(detail, code="invalid-value")
    services.room.check(0)
    with services.catalog.write(head.model.namespace) as session:
        if head.draft is None:  # all its checkpoints were deleted
            hub.begin_draft(session, head.model)
        before = head.draft or hub.find_draft(session, head.model)
        assert before is not None  # noqa: S101 - it was just made
        return hub.change_draft(session, before, kept)


def _check_branch(revision: str) -> None:
    if path_value(revision) not in {MAIN, "latest", "refs/heads/main"}:
        raise InvalidRequest(f"there is one branch here, main, and no {revision[:200]!r}", code="invalid-value")


def _base(request: Request) -> str:
    return str(request.base_url).rstrip("/")

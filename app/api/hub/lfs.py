"""Routes by which clients of the Hugging Face Hub send large files ahead of a commit: the batch API of Git LFS.

Reference: https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md, with the transfer ``basic``.
"""

from datetime import timedelta
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from ...access.grants import Signer
from ...access.signatures import Resource
from ...catalog import hub
from ...concurrency.cancellation import current
from ...errors import InvalidRequest, NotFound
from ...ingest.receive import held_by
from ...values.checkpoint import ModelName
from ..admission import check_size, declared_size
from ..requests.auth import SIGNATURE, UPLOAD_LINK, WRITE_PAGE, Caller, judge_again
from ..requests.bodies import JsonBodyDep, RequestBody
from ..requests.params import Model
from ..responses.json import NO_STORE
from ..services import Services, ServicesDep, in_turn
from .bodies import read
from .head import head_of
from .route import HubRoute, answer

router = APIRouter(route_class=HubRoute, include_in_schema=False)

LFS = "application/vnd.git-lfs+json"
LIFETIME = timedelta(hours=12)
"""Time for which a client may begin to send a file."""

MOST = 1_000
"""Most objects of one batch."""

SHA256 = r"^[0-9a-f]{64}$"


class LfsObject(BaseModel):
    oid: str = Field(pattern=SHA256)
    size: int = Field(ge=1, le=2**62)


class Batch(BaseModel):
    operation: str
    objects: list[LfsObject] = Field(max_length=MOST)


@router.post("/{namespace}/{name}.git/info/lfs/objects/batch", dependencies=WRITE_PAGE)
async def batch(request: Request, services: ServicesDep, caller: Caller, model: Model, body: JsonBodyDep) -> Response:
    """Tell where to send each file. One without actions is held already."""
    asked = read(body, Batch)
    if asked.operation != "upload":
        raise InvalidRequest("operation must be upload; files are downloaded by /resolve/", code="invalid-value")
    signer = await services.access.signer(caller)
    known = await services.plan(request, _known, services, model, asked)
    base = str(request.base_url).rstrip("/")
    found = [_action(base, signer, model, each, known) for each in asked.objects]
    return answer({"transfer": "basic", "objects": found}, LFS)


def _known(services: Services, model: ModelName, asked: Batch) -> dict[str, int]:
    """Return the sizes of the objects that need not be sent, by SHA-256. Raises QuotaExceeded and TooLarge."""
    head = head_of(services, model)
    known = {sha256: head.files[path].size for path, sha256 in head.sha256s.items() if path in head.files}
    with services.catalog.read() as session:
        staged = hub.staged(session, model.namespace, [each.oid for each in asked.objects])
        known |= {sha256: each.size for sha256, each in staged.items()}
        missing = [each.size for each in asked.objects if each.oid not in known]
        for size in missing:
            check_size(size, services.admission.max_bytes)
        hub.check_room(session, model.namespace, sum(missing))
    return known


def _action(base: str, signer: Signer, model: ModelName, asked: LfsObject, known: dict[str, int]) -> dict[str, Any]:
    shown: dict[str, Any] = {"oid": asked.oid, "size": asked.size}
    if asked.oid in known:
        if known[asked.oid] != asked.size:
            detail = f"the object has {known[asked.oid]:,} bytes, not {asked.size:,}"
            return shown | {"error": {"code": 422, "message": detail}}
        return shown
    path, query = f"/{model}.git/lfs/{asked.oid}", [("size", str(asked.size))]
    signature, _ = signer.sign(Resource(path, query), LIFETIME)
    href = f"{base}{path}?{urlencode([*query, (SIGNATURE, str(signature))], quote_via=quote)}"
    verify = f"{base}/{model}.git/info/lfs/verify"
    return shown | {"actions": {"upload": {"href": href}, "verify": {"href": verify}}}


@router.put("/{namespace}/{name}.git/lfs/{sha256}", dependencies=UPLOAD_LINK)
async def put(
    request: Request,
    services: ServicesDep,
    model: Model,
    sha256: Annotated[str, Path(pattern=SHA256)],
    size: Annotated[int, Query(ge=1)],
) -> Response:
    """Keep the body for commits to come. Nothing is kept unless it has this SHA-256 and this size."""
    limit = services.admission.max_bytes
    declared = declared_size(request, limit)
    if declared not in {None, size}:
        raise InvalidRequest(f"the body has {declared:,} bytes, not {size:,}", code="invalid-value")
    check_size(size, limit)

    def check() -> None:
        with services.catalog.read() as session:
            hub.check_room(session, model.namespace, size)

    await services.asks.run(check)
    with services.admission.taken():
        async with services.streams.memory.reserved(held_by(size), current().owner):
            upload = await services.ingest.receive(RequestBody(request, limit), size, sha256=sha256)
        stage = partial(services.ingest.stage, upload, model.namespace, sha256)
        await services.finish(request, upload, stage, partial(judge_again, request, services))
    return Response(headers={"ETag": f'"{sha256}"', "Cache-Control": NO_STORE})


@router.post("/{namespace}/{name}.git/info/lfs/verify", dependencies=WRITE_PAGE)
@in_turn
def verify(services: ServicesDep, model: Model, body: JsonBodyDep) -> Response:
    """Confirm that a file has arrived."""
    asked = read(body, LfsObject)
    with services.catalog.read() as session:
        there = hub.staged(session, model.namespace, [asked.oid]).get(asked.oid)
    if there is None or there.size != asked.size:
        raise NotFound(f"no {asked.size:,} bytes with the SHA-256 {asked.oid} have arrived", code="file-not-found")
    return answer({"oid": asked.oid, "size": asked.size}, LFS)

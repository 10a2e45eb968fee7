"""Negotiated uploads: a checkpoint is announced, its missing blocks are sent, and it is committed."""

import re
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Annotated, Any

from anyio import from_thread
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from ...concurrency.cancellation import current
from ...errors import InvalidRequest, TooLarge
from ...ingest.blocks import held_by
from ...ingest.negotiated import MAX_PART_SIZE, Progress
from ...values.checkpoint import Checkpoint, CheckpointName, own_parent
from ...values.digest import BLOCK_DIGEST_SIZE
from ...values.span import Span
from ...values.split import MAX_STORAGES, Split
from ..admission import IdempotencyKey, check_size, declared_size
from ..openapi.problems import OF_A_BODY, refusals
from ..requests.auth import WRITE, judge_again
from ..requests.bodies import LARGE, RequestBody, documented_body, json_body
from ..requests.params import Model
from ..requests.upload_fields import PARAMETERS, parse_fields, parse_origin
from ..responses.json import check_write, etag_of, json_answer, nothing, view_json
from ..responses.views import CheckpointView
from ..services import ServicesDep
from ..threads import unless_gone
from .uploads import check_origins, counted, stored_answer

router = APIRouter(prefix="/v1/uploads/{namespace}/{name}", tags=["negotiated uploads"])

_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NO_STORE = {"Cache-Control": "no-store"}


def _digest(text: Any) -> bytes:
    if not isinstance(text, str) or _HEX.fullmatch(text) is None:
        raise InvalidRequest(
            f"the digest of a block must be {2 * BLOCK_DIGEST_SIZE} lower-case hex digits", code="bad-split"
        )
    return bytes.fromhex(text)


def _span(pair: Any) -> Span:
    match pair:
        case [int(start), int(end)]:
            return Span(start, end)
    raise ValueError("a storage must be `[start, end)`, two integers")


BlockDigest = Annotated[
    bytes, PlainValidator(_digest), WithJsonSchema({"type": "string", "pattern": f"^{_HEX.pattern}$"})
]
Stretch = Annotated[
    Span,
    PlainValidator(_span),
    WithJsonSchema({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}),
]


class Announcement(BaseModel):
    """A file, split into its storages and the rest of it, its frame. Offsets and sizes are bytes."""

    model_config = ConfigDict(extra="forbid")

    size: int = Field(description="size of the file")
    storages: list[Stretch] = Field(
        max_length=MAX_STORAGES,
        description="`[start, end)` of every storage of more than 4096 bytes, in file order",
    )
    blocks: list[BlockDigest] = Field(
        description="BLAKE3 digests, in hex, of all blocks of 16 MiB: the frame's, then each storage's"
    )
    original: bool = Field(
        default=True, description="false: there is no original file to download, so CRC32s in a zip may be 0"
    )
    parent: str | None = Field(
        default=None,
        description="as at the commit; until then, retention keeps this checkpoint if it is in the same namespace",
    )

    def split(self) -> Split:
        """Return the split. Raises InvalidRequest ``bad-split``."""
        return Split(self.size, self.storages, b"".join(self.blocks))


class UploadView(BaseModel):
    """The progress of an upload."""

    id: str
    kept_until: datetime = Field(description="expiry of the upload; extended by every part that arrives")
    part_size: int = Field(description="most bytes of one part")
    missing_bytes: int
    missing: list[tuple[int, int]] = Field(description="blocks to send, as ranges `[first, end)` of block numbers")
    url: str

    @classmethod
    def of(cls, progress: Progress) -> "UploadView":
        upload = progress.upload
        return cls.model_construct(  # nothing to check, and checking many runs is one long call
            id=upload.id,
            kept_until=upload.kept_until,
            part_size=MAX_PART_SIZE,
            missing_bytes=progress.nbytes,
            missing=[(run.start, run.stop) for run in progress.missing],
            url=f"/v1/uploads/{upload.model}/{upload.id}",
        )

    @classmethod
    def answer(cls, progress: Progress) -> tuple[str, bytes]:
        """Return the upload's URL and its JSON. Call it in a thread: there may be as many runs as blocks."""
        view = cls.of(progress)
        return view.url, view_json(view)


UploadId = Annotated[str, Path(pattern="^[a-z0-9]{3,64}$")]
_FIRST = Path(ge=0, description="number of the first block")
_END = Path(ge=1, description="number after that of the last block")


@router.post(
    "",
    summary="Announce an upload",
    dependencies=WRITE,
    status_code=201,
    response_model=UploadView,
    responses=refusals(*OF_A_BODY, 507),
    openapi_extra=documented_body(Announcement),
)
async def announce(request: Request, services: ServicesDep, model: Model) -> Response:
    """Announce the blocks of a file, and get the list of blocks that the server does not have."""

    def read() -> tuple[Split, bool, CheckpointName | None]:
        announced = body.read(Announcement)
        check_size(announced.size, services.admission.max_bytes)
        parent = None if announced.parent is None else parse_origin("parent", announced.parent)
        return announced.split(), announced.original, own_parent(model, parent)

    def begin() -> tuple[str, bytes]:
        # The parsed body is freed before the rest is done: a split takes much less memory.
        return UploadView.answer(services.ingest.negotiated.begin(model, *read()))

    check_write(request, nothing)
    async with json_body(request, services, LARGE) as body:
        url, view = await unless_gone(request, services.plans.run(begin))
    return json_answer(request, view, {**_NO_STORE, "Location": url}, status=201)


@router.get(
    "/{upload_id}",
    summary="List the missing blocks of an upload",
    dependencies=WRITE,
    response_model=UploadView,
    responses=refusals(410, 422, 503),
)
async def progress(request: Request, services: ServicesDep, model: Model, upload_id: UploadId) -> Response:
    """The blocks that are still to be sent, to resume an interrupted upload."""

    def find() -> bytes:
        return UploadView.answer(services.ingest.negotiated.progress(model, upload_id))[1]

    return json_answer(request, await unless_gone(request, services.plans.run(find)), _NO_STORE)


@router.put(
    "/{upload_id}/blocks/{first}-{end}",
    summary="Send a part",
    dependencies=WRITE,
    status_code=204,
    response_class=Response,
    responses=refusals(*OF_A_BODY, 410, 507),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def receive(
    request: Request,
    services: ServicesDep,
    model: Model,
    upload_id: UploadId,
    first: Annotated[int, _FIRST],
    end: Annotated[int, _END],
) -> Response:
    """The blocks `[first, end)`, one after another. Sending a part again does no harm."""
    size = declared_size(request, MAX_PART_SIZE)
    upload = await services.asks.run(partial(services.ingest.negotiated.find, model, upload_id))
    numbers = _numbers(upload.split, first, end, size)
    check_write(request, nothing)
    memory = services.streams.memory.reserved(held_by(upload.split, numbers), current().owner)
    with services.admission.taken():
        async with memory:
            await services.ingest.negotiated.receive(upload, numbers, RequestBody(request, MAX_PART_SIZE))
    await judge_again(request, services)
    return Response(status_code=204)


def _numbers(split: Split, first: int, end: int, size: int | None) -> range:
    """Check a part. Raises InvalidRequest ``bad-part``, TooLarge."""
    if not first < end <= split.count:
        raise InvalidRequest(
            f"the upload has no blocks [{first}, {end}): it has {split.count} blocks, numbered from 0", code="bad-part"
        )
    numbers = range(first, end)
    if (length := split.length(numbers)) > MAX_PART_SIZE:
        raise TooLarge(f"blocks [{first}, {end}) have {length:,} bytes; a part may have at most {MAX_PART_SIZE:,}")
    if size not in {None, length}:
        raise InvalidRequest(
            f"blocks [{first}, {end}) have {length:,} bytes, but the body has {size:,}", code="bad-part"
        )
    return numbers


@router.post(
    "/{upload_id}/commit",
    summary="Commit an upload",
    dependencies=WRITE,
    status_code=201,
    response_model=CheckpointView,
    responses=refusals(409, 410, 422, 503, 507),
    openapi_extra=PARAMETERS,
)
async def commit(
    request: Request, services: ServicesDep, model: Model, upload_id: UploadId, key: IdempotencyKey
) -> Response:
    """Turn the upload into a checkpoint. 409: blocks are missing; get their list, send them, and commit again."""
    fields = replace(parse_fields(request.query_params.multi_items()), idempotency_key=key)
    check_write(request, nothing)
    await check_origins(request, services, fields)

    def work() -> tuple[Checkpoint, bool]:
        from_thread.run(judge_again, request, services)  # the request may have waited long for this thread
        return services.ingest.negotiated.commit(model, upload_id, fields)

    checkpoint, replayed = await counted(services, unless_gone(request, services.commits.run(work)))
    return stored_answer(request, services, checkpoint, replayed=replayed)


@router.post(
    "/{upload_id}/stage",
    summary="Keep the blobs of an upload",
    dependencies=WRITE,
    status_code=204,
    response_class=Response,
    responses=refusals(409, 410, 422, 503, 507),
)
async def stage(request: Request, services: ServicesDep, model: Model, upload_id: UploadId) -> Response:
    """Store the blobs of an upload without a frame, for a checkpoint that another upload commits: each process of a
    job sends its part. 409: blocks are missing.
    """
    check_write(request, nothing)

    def work() -> None:
        from_thread.run(judge_again, request, services)  # the request may have waited long for this thread
        services.ingest.negotiated.stage(model, upload_id)

    await unless_gone(request, services.commits.run(work))
    return Response(status_code=204)


@router.delete(
    "/{upload_id}",
    summary="Abandon an upload",
    dependencies=WRITE,
    status_code=204,
    response_class=Response,
    responses=refusals(410, 422, 503),
)
async def abandon(request: Request, services: ServicesDep, model: Model, upload_id: UploadId) -> Response:
    """Remove the blocks that have arrived. An idle upload is removed after a day."""
    negotiated = services.ingest.negotiated

    def work() -> None:
        check_write(request, lambda: etag_of(UploadView.of(negotiated.progress(model, upload_id))))
        negotiated.abandon(model, upload_id)

    await services.asks.run(partial(services.room.freeing, work))
    return Response(status_code=204)

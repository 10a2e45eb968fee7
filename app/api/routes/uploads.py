"""Uploads of a checkpoint: as the raw body, or as a form with a part ``file``, or with several for a folder."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from ...access.grants import Grant
from ...catalog import idempotency, lineage, namespaces
from ...catalog.checkpoints import list_checkpoints
from ...catalog.listing import Listing
from ...catalog.session import ReadSession
from ...concurrency.cancellation import current
from ...concurrency.clean_up import clean_up
from ...errors import InvalidRequest, KeyInUse, NotFound, StateroomError
from ...ingest.body import Chunks
from ...ingest.receive import SpooledUpload, held_by
from ...values.checkpoint import Checkpoint, CheckpointName, Fields, ModelName, own_parent
from ..admission import IdempotencyKey, declared_size
from ..openapi.problems import OF_A_BODY, refusals
from ..requests.auth import WRITE, judge_again
from ..requests.bodies import RequestBody
from ..requests.digests import SentSha256
from ..requests.forms import HELD, Form
from ..requests.multipart import MAX_FORM_BYTES, Multipart, boundary_of
from ..requests.params import Model
from ..requests.upload_fields import PARAMETERS, parse_fields
from ..responses.json import check_write, etag_of, json_answer
from ..responses.views import CheckpointPage, CheckpointView, checkpoint_url
from ..services import Services, ServicesDep

router = APIRouter(prefix="/v1/models/{namespace}/{name}/checkpoints", tags=["checkpoints"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
        "additionalProperties": {"type": "string"},
    }
}
_DOCUMENTED = PARAMETERS | {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": _BINARY, "multipart/form-data": _FORM},
    }
}
_ROUTE: dict[str, Any] = {
    "dependencies": WRITE,
    "status_code": 201,
    "response_model": CheckpointView,
    "responses": refusals(*OF_A_BODY, 507),
    "openapi_extra": _DOCUMENTED,
}


@router.post("", summary="Upload", **_ROUTE)
@router.put("", summary="Upload (curl -T)", **_ROUTE)
async def upload(
    request: Request, services: ServicesDep, model: Model, key: IdempotencyKey, sha256: SentSha256
) -> Response:
    """The body is the file, with any Content-Type, or a multipart form with a part `file` and the same fields. A form
    with several parts `file` is a folder: the file name of each is its path in the folder.
    """
    checkpoint, replayed = await counted(services, _take_in(request, services, model, key, sha256))
    return stored_answer(request, services, checkpoint, replayed=replayed)


async def check_origins(request: Request, services: Services, fields: Fields) -> None:
    """Raise InvalidRequest, code ``unknown-parent``, if a checkpoint that ``fields`` name never existed."""
    grant: Grant = request.state.grant

    def look_up() -> None:
        with services.catalog.read() as session:
            lineage.check_origins(session, fields, grant.namespaces)

    if fields.parent is not None or fields.warm_started_from is not None:
        await services.asks.run(look_up)


async def counted(services: Services, storing: Awaitable[tuple[Checkpoint, bool]]) -> tuple[Checkpoint, bool]:
    """Await ``storing``, which gives a checkpoint and whether an earlier try made it, and count how it ends."""
    outcome = "internal-error"
    try:
        checkpoint, replayed = await storing
        outcome = "replayed" if replayed else "stored"
    except StateroomError as error:
        outcome = error.code
        raise
    except HTTPException:
        outcome = "forbidden"
        raise
    except asyncio.CancelledError:
        outcome = "cancelled"
        raise
    finally:
        services.metrics.uploads.labels(outcome).inc()
    return checkpoint, replayed


def stored_answer(request: Request, services: Services, checkpoint: Checkpoint, *, replayed: bool) -> Response:
    """Return the response to an upload, stored now or in an earlier try."""
    url = checkpoint_url(checkpoint.model, checkpoint.version)
    headers = {"Location": url, "Stateroom-Checkpoint": f"{checkpoint.model}@{checkpoint.version}"}
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    else:
        count_bytes(services, checkpoint)
    return json_answer(request, CheckpointView.of(checkpoint), headers, status=201)


def count_bytes(services: Services, checkpoint: Checkpoint) -> None:
    """Count the bytes of a checkpoint that was stored now."""
    services.metrics.stored.inc(checkpoint.new_bytes)
    services.metrics.deduplicated.inc(max(0, checkpoint.nbytes - checkpoint.new_bytes))


async def _take_in(
    request: Request, services: Services, model: ModelName, key: str | None, sha256: str | None
) -> tuple[Checkpoint, bool]:
    """Return the checkpoint, and whether an earlier upload with this key made it. Most refusals precede the body."""
    in_query = request.query_params.multi_items()
    fields = parse_fields(in_query)
    await check_origins(request, services, fields)
    size = declared_size(request, services.admission.max_bytes)
    boundary = boundary_of(request.headers.get("Content-Type"))
    caller = current().owner
    if boundary is not None and sha256 is not None:
        raise InvalidRequest(
            "Repr-Digest and Content-Digest of a form are digests of the form, not of the file in it: send the file "
            "itself as the body, or leave them out",
            code="bad-digest",
        )
    first = await services.asks.run(partial(_first_or_admitted, request, services, model, key, size))
    if first is not None:
        is_other = boundary is None and size not in {None, first.nbytes}
        if is_other or (sha256 is not None and first.sha256 not in {None, sha256}):
            raise _reused(first)
        return first, True
    with services.admission.taken():
        body = RequestBody(request, services.admission.max_bytes)
        if boundary is None:
            async with services.streams.memory.reserved(held_by(size), caller):
                parent = own_parent(model, fields.parent)
                upload = await services.ingest.receive(body, size, parent, sha256=sha256)
        else:
            async with services.streams.memory.reserved(held_by(None) + MAX_FORM_BYTES + HELD, caller):
                upload, fields = await _receive_form(
                    request, services, Multipart(boundary), body, own_parent(model, fields.parent)
                )
        try:
            named = replace(fields, idempotency_key=key)
            return await services.commit(request, upload, model, named, partial(judge_again, request, services)), False
        except KeyInUse:
            first = None if key is None else await services.uploaded_as(model, key)
            if first is None:  # and deleted since
                raise
            # A negotiated upload has no digest: this is the same client, which could not send all parts.
            if first.nbytes != upload.size or first.digest not in {None, upload.digest}:
                raise _reused(first) from None
            return first, True


async def _receive_form(
    request: Request, services: Services, parts: Multipart, body: RequestBody, parent: CheckpointName | None
) -> tuple[SpooledUpload, Fields]:
    """Receive a form. Return its file, or its files as a folder, and the fields of the form and of the query."""
    form = Form(parts, body.chunks())
    fields = Fields()

    async def then_fields(files: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Raise a wrong field from inside the body, so that its receiver drops the bytes that have arrived."""
        nonlocal fields
        async for chunk in files:
            yield chunk
        if parts.has_ended:
            fields = parse_fields([*request.query_params.multi_items(), *parts.fields])
            await check_origins(request, services, fields)

    await form.begin()
    first = None
    if not form.is_folder:
        first = await services.ingest.receive(Chunks(then_fields(form.first())), None, parent)
        if not form.is_folder:
            return first, fields
    try:
        return await services.ingest.receive(Chunks(then_fields(form.folder(first))), None, parent), fields
    finally:
        if first is not None:
            await clean_up(services.ingest.discard, first)


def _first_or_admitted(
    request: Request, services: Services, model: ModelName, key: str | None, size: int | None
) -> Checkpoint | None:
    """Return the checkpoint that an earlier upload with this key made. If there is none, check the preconditions of the
    request, and raise QuotaExceeded if the namespace has no room for all bytes of the upload: how many of them are
    stored already is unknown before the body is read.
    """
    with services.catalog.read() as session:
        first = None if key is None else idempotency.find(session, model, key)
        if first is None:
            check_write(request, partial(_listed, session, model))
            namespaces.check_room(session, model.namespace, size or 0)
    return first


def _listed(session: ReadSession, model: ModelName) -> str | None:
    """Return the ETag of the list of a model's checkpoints, None if there is no such model."""
    try:
        page = list_checkpoints(session, model, Listing())
    except NotFound:
        return None
    return etag_of(CheckpointPage.of(page.items, page.next))


def _reused(first: Checkpoint) -> InvalidRequest:
    return InvalidRequest(
        f"this Idempotency-Key was used for another file, {first.model}@{first.version}: use a new key for every "
        "upload, and the same key only for its retries",
        code="idempotency-key-reused",
    )

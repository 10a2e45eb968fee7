"""A checkpoint arrives: as the raw body, or as the part ``file`` of a form."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response

from ...values.checkpoint import Checkpoint, ModelName
from ..answers import json_answer
from ..bodies import chunks_of
from ..fields import PARAMETERS, parse_fields
from ..multipart import Multipart, boundary_of
from ..params import Model
from ..services import Parts, Services
from ..views import CheckpointView, checkpoint_url

router = APIRouter(prefix="/v1/models/{namespace}/{name}/checkpoints", tags=["checkpoints"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary"}},
        "additionalProperties": {"type": "string"},
    }
}
_DOCUMENTED = PARAMETERS | {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": _BINARY, "multipart/form-data": _FORM},
    }
}


@router.post("", summary="Upload", status_code=201, response_model=CheckpointView, openapi_extra=_DOCUMENTED)
@router.put("", summary="Upload (curl -T)", status_code=201, response_model=CheckpointView, openapi_extra=_DOCUMENTED)
async def upload(request: Request, services: Parts, model: Model) -> Response:
    """The body is the file, whatever its Content-Type, or a form with a part `file` and the same fields."""
    checkpoint = await _receive(request, services, model)
    url = checkpoint_url(checkpoint.model, checkpoint.version)
    headers = {"Location": url, "Stateroom-Checkpoint": f"{checkpoint.model}@{checkpoint.version}"}
    return json_answer(request, CheckpointView.of(checkpoint), headers, status=201)


async def _receive(request: Request, services: Services, model: ModelName) -> Checkpoint:
    in_query = request.query_params.multi_items()
    fields = parse_fields(in_query)  # before the body: what is wrong with them need not wait for it
    body = chunks_of(request)
    boundary = boundary_of(request.headers.get("Content-Type"))
    if boundary is None:
        upload = await services.ingest.receive(body, _declared_size(request))
    else:
        form = Multipart(boundary)

        async def file_then_fields() -> AsyncIterator[bytes]:
            """A wrong field is a failure of the body, so that whoever stores it drops what has arrived."""
            nonlocal fields
            async for chunk in form.file(body):
                yield chunk
            fields = parse_fields([*in_query, *form.fields])

        upload = await services.ingest.receive(file_then_fields(), None)
    return await services.commit(upload, model, fields)


def _declared_size(request: Request) -> int | None:
    length = request.headers.get("Content-Length")
    return None if length is None else int(length)

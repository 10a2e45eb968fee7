"""The whole checkpoint: as saved but for its devices, or as uploaded, byte for byte."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from ...select.query import parse_device
from ...values.checkpoint import Checkpoint
from ..auth import DOWNLOAD, READ
from ..downloads import FILE_RESPONSES, download_answer
from ..params import Model, Ref, Run
from ..services import Parts

router = APIRouter(prefix="/v1/models/{namespace}/{name}/checkpoints/{ref}", tags=["files"])


@router.get(
    "/file", summary="Download a checkpoint", dependencies=READ, response_class=Response, responses=FILE_RESPONSES
)
@router.get(
    "/file/{filename}",
    summary="Download a checkpoint under a name",
    dependencies=DOWNLOAD,
    response_class=Response,
    responses=FILE_RESPONSES,
)
async def file(
    request: Request,
    services: Parts,
    model: Model,
    ref: Ref,
    run: Run = None,
    device: Annotated[str | None, Query(description="where `torch.load` puts it; left out: as saved")] = None,
    weights_only: Annotated[bool, Query(description="false: also what only an unsafe load can read")] = True,
    filename: str | None = None,
) -> Response:
    """Every field as it was saved."""
    location = None if device is None else parse_device(device)

    def answer(checkpoint: Checkpoint) -> Response:
        download = services.deliver.file(checkpoint, location, weights_only=weights_only)
        return download_answer(request, services.streams, checkpoint, ref, download, filename)

    return await services.from_inside(model, ref, run, answer)


@router.get(
    "/original", summary="Download the upload", dependencies=READ, response_class=Response, responses=FILE_RESPONSES
)
@router.get(
    "/original/{filename}",
    summary="Download the upload under a name",
    dependencies=DOWNLOAD,
    response_class=Response,
    responses=FILE_RESPONSES,
)
async def original(
    request: Request, services: Parts, model: Model, ref: Ref, run: Run = None, filename: str | None = None
) -> Response:
    """Byte for byte."""

    def answer(checkpoint: Checkpoint) -> Response:
        download = services.deliver.original(checkpoint)
        return download_answer(request, services.streams, checkpoint, ref, download, filename)

    return await services.from_inside(model, ref, run, answer)

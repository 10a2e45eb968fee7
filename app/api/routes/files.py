"""Routes for the whole checkpoint: as saved but for its devices, or as uploaded, byte for byte."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from ...deliver.service import Deliver
from ...select.query import parse_device
from ...values.checkpoint import Checkpoint
from ..openapi.problems import KNOWN, OF_A_MODEL, refusals
from ..requests.auth import DOWNLOAD, READ
from ..requests.digests import WantsSha256
from ..requests.params import UNDER_A_NAME, FileName, Model, Ref, Run
from ..responses.downloads import FILE_RESPONSES, client_verifies, download_answer
from ..responses.layouts import Derived, Layout, layout_answer, planned_layout
from ..services import ServicesDep

router = APIRouter(prefix="/v1/models/{namespace}/{name}/checkpoints/{ref}", tags=["files"])


Device = Annotated[str | None, Query(description="device that `torch.load` loads to; left out: as saved")]
WeightsOnly = Annotated[bool, Query(description="false: also files that need `torch.load(weights_only=False)`")]


@router.get(
    "/file/index",
    summary="The layout of a checkpoint's file",
    dependencies=READ,
    response_model=Layout,
    responses=KNOWN | refusals(*OF_A_MODEL, 409),
)
async def layout(
    request: Request,
    services: ServicesDep,
    model: Model,
    ref: Ref,
    run: Run = None,
    device: Device = None,
    weights_only: WeightsOnly = True,
    derived: Derived = True,
) -> Response:
    """The layout of the file that `file` sends for the same query."""
    location = None if device is None else parse_device(device)
    checkpoint = await services.find(model, ref, run)
    planned = partial(services.deliver.file, device=location, weights_only=weights_only)
    return await services.plan(
        request, planned_layout, request, services.deliver, checkpoint, ref, planned, derived, "/file"
    )


@router.get(
    "/file", summary="Download a checkpoint", dependencies=READ, response_class=Response, responses=FILE_RESPONSES
)
@router.get(
    "/file/{filename}",
    summary="Download a checkpoint under a name",
    dependencies=DOWNLOAD,
    response_class=Response,
    responses=FILE_RESPONSES,
    openapi_extra=UNDER_A_NAME,
)
async def file(
    request: Request,
    services: ServicesDep,
    model: Model,
    ref: Ref,
    run: Run = None,
    device: Device = None,
    weights_only: WeightsOnly = True,
    filename: FileName = None,
) -> Response:
    """The whole checkpoint, with every field as saved."""
    location = None if device is None else parse_device(device)
    checkpoint = await services.find(model, ref, run)
    download = await services.plan(request, services.deliver.file, checkpoint, location, weights_only=weights_only)
    return download_answer(request, services.streams, checkpoint, ref, download, filename)


@router.get(
    "/original/index",
    summary="The layout of the upload",
    dependencies=READ,
    response_model=Layout,
    responses=KNOWN | refusals(*OF_A_MODEL),
)
async def original_layout(request: Request, services: ServicesDep, model: Model, ref: Ref, run: Run = None) -> Response:
    """The layout of the file that `original` sends. Storages of up to 4 KiB count as bytes between the storages."""
    checkpoint = await services.find(model, ref, run)
    return await services.plan(request, _original_layout, request, services.deliver, checkpoint, ref)


def _original_layout(request: Request, deliver: Deliver, checkpoint: Checkpoint, ref: str) -> Response:
    found = deliver.layout_of_original(checkpoint, client_verifies=client_verifies(request))
    return layout_answer(request, checkpoint, ref, found, "/original")


@router.get(
    "/original", summary="Download the upload", dependencies=READ, response_class=Response, responses=FILE_RESPONSES
)
@router.get(
    "/original/{filename}",
    summary="Download the upload under a name",
    dependencies=DOWNLOAD,
    response_class=Response,
    responses=FILE_RESPONSES,
    openapi_extra=UNDER_A_NAME,
)
async def original(
    request: Request,
    services: ServicesDep,
    model: Model,
    ref: Ref,
    wants_sha256: WantsSha256,
    run: Run = None,
    filename: FileName = None,
) -> Response:
    """The uploaded file, byte for byte."""
    checkpoint = await services.find(model, ref, run)
    if wants_sha256:
        checkpoint = await services.plan(request, services.deliver.with_sha256, checkpoint)
    download = await services.plan(request, services.deliver.original, checkpoint)
    return download_answer(request, services.streams, checkpoint, ref, download, filename)

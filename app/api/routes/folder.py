"""Routes for the files of a checkpoint, one by one: a folder's, or the one file that any other checkpoint is."""

from functools import partial
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from ...deliver.files import StoredPath
from ...deliver.service import Deliver
from ...values.checkpoint import Checkpoint
from ..openapi.problems import KNOWN, OF_A_MODEL, refusals
from ..requests.auth import READ
from ..requests.params import Cursor, Model, Ref, Run, position_of
from ..requests.paths import path_value
from ..responses.downloads import FILE_RESPONSES, download_answer
from ..responses.json import identity_headers, json_answer
from ..responses.views import FileText
from ..services import ServicesDep

router = APIRouter(prefix="/v1/models/{namespace}/{name}/checkpoints/{ref}", tags=["files"])

MOST_COMPONENTS = 20
"""Most names of components shown with a file."""

_MEDIA_TYPES = {
    "json": "application/json",
    "md": "text/markdown; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
    "zip": "application/zip",
}
"""Content-Type by extension; never one that a browser would run."""

NAMES_TEXT = 4_096
"""Characters of those names after which no more are shown."""


class FileView(BaseModel):
    """A file of a checkpoint."""

    path: FileText = Field(examples=["tokenizer/vocab.json"])
    bytes: int = Field(examples=[1_042_301])
    digest: str | None = Field(description="digest of the file; null for one that is not stored as one blob")
    format: str | None = Field(
        description="format of a checkpoint that was read; null for any other file, which is kept as it is",
        examples=["safetensors"],
    )
    components: list[FileText] = Field(description="components with tensors in the file", examples=[["model"]])
    more_components: int = Field(description="number of components not listed here")


class FilePage(BaseModel):
    """Files, sorted by path."""

    items: list[FileView]
    next: str | None = Field(description="the cursor of the next page")


@router.get(
    "/files",
    summary="List the files of a checkpoint",
    dependencies=READ,
    response_model=FilePage,
    responses=KNOWN | refusals(*OF_A_MODEL, 410),
)
async def files(
    request: Request,
    services: ServicesDep,
    model: Model,
    ref: Ref,
    run: Run = None,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 1_000,
    cursor: Cursor = None,
) -> Response:
    """All files of a folder; for a checkpoint that is no folder, the one file that it is downloaded as."""
    checkpoint = await services.find(model, ref, run)
    start = position_of(cursor)
    return await services.plan(request, _listing, request, services.deliver, checkpoint, ref, limit, start)


def _listing(request: Request, deliver: Deliver, checkpoint: Checkpoint, ref: str, limit: int, start: int) -> Response:
    found = deliver.files(checkpoint)
    end = start + limit
    page = FilePage(items=list(map(_view, found[start:end])), next=str(end) if end < len(found) else None)
    return json_answer(request, page, identity_headers(request, checkpoint, ref))


def _view(file: StoredPath) -> FileView:
    names: list[str] = []
    for name in islice(file.components, MOST_COMPONENTS):
        if sum(map(len, names)) + len(name) > NAMES_TEXT:
            break
        names.append(name)
    return FileView(
        path=file.path,
        bytes=file.size,
        digest=file.digest,
        format=file.format,
        components=names,
        more_components=len(file.components) - len(names),
    )


@router.get(
    "/files/{path:path}",
    summary="Download one file of a checkpoint",
    dependencies=READ,
    response_class=Response,
    responses=FILE_RESPONSES,
)
async def file_at(
    request: Request,
    services: ServicesDep,
    model: Model,
    ref: Ref,
    path: Annotated[str, Path(description="the file's path", examples=["config.json"])],
    run: Run = None,
) -> Response:
    """The file, byte for byte as it was uploaded."""
    checkpoint = await services.find(model, ref, run)
    download = await services.plan(request, partial(services.deliver.file_at, checkpoint, path_value(path)))
    kind = _MEDIA_TYPES.get(download.filename.rpartition(".")[2].lower(), "application/octet-stream")
    return download_answer(request, services.streams, checkpoint, ref, download, None, kind)

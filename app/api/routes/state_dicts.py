"""One component of a checkpoint, as a file; its layout; and the match with a target model."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from ...deliver.service import LayoutIndex
from ...errors import InvalidRequest
from ...select.query import StateDictQuery
from ...select.warmstart import Report, TargetTensor
from ...values.checkpoint import Checkpoint
from ...values.digest import BLOCK_SIZE
from ..answers import fixed_url, identity_headers, json_answer
from ..bodies import Body, documented_body
from ..downloads import FILE_RESPONSES, download_answer
from ..params import Model, Ref, Run
from ..selections import Selection, SelectionBody
from ..services import Parts
from ..views import FileText, checkpoint_url

router = APIRouter(prefix="/v1/models/{namespace}/{name}/checkpoints/{ref}", tags=["state_dicts"])


class StorageLayout(BaseModel):
    """Bytes `[start, end)` of the file are one storage."""

    start: int
    end: int
    digest: str
    blocks: list[str] = Field(description="the BLAKE3 digests of its blocks, in hex")


class Layout(BaseModel):
    """A selection's file, before a byte of it is fetched: ranges that can be fetched in parallel and verified."""

    size: int
    etag: str
    url: str
    block_size: int = BLOCK_SIZE
    storages: list[StorageLayout]

    @classmethod
    def of(cls, found: LayoutIndex, url: str) -> "Layout":
        return cls(
            size=found.size,
            etag=found.etag,
            url=url,
            storages=[
                StorageLayout(start=each.span.start, end=each.span.end, digest=each.digest, blocks=list(each.blocks))
                for each in found.storages
            ],
        )


class Target(BaseModel):
    shape: list[Annotated[int, Field(ge=0)]]
    dtype: str = Field(description="torch's name", examples=["float32"])


class WarmstartRequest(SelectionBody):
    """The model to be loaded into, key by key, and what of the checkpoint is meant for it."""

    target: dict[str, Target]


class MismatchView(BaseModel):
    key: FileText
    have: list[int]
    want: list[int]


class WarmstartReport(BaseModel):
    """What `load_state_dict(strict=False)` would do. `download` has just the matched tensors; null where none is."""

    matched_keys: list[FileText]
    missing_keys: list[FileText]
    unexpected_keys: list[FileText]
    mismatched_keys: list[MismatchView]
    cast_keys: list[FileText] = Field(description="matched keys whose dtype is not the target's")
    bytes: int
    download: str | None

    @classmethod
    def of(cls, report: Report, download: str | None) -> "WarmstartReport":
        return cls(
            matched_keys=list(report.matched_keys),
            missing_keys=list(report.missing_keys),
            unexpected_keys=list(report.unexpected_keys),
            mismatched_keys=[
                MismatchView(key=each.key, have=list(each.have), want=list(each.want))
                for each in report.mismatched_keys
            ],
            cast_keys=list(report.cast_keys),
            bytes=report.nbytes,
            download=download,
        )


@router.get("/state_dict/index", summary="The layout of a state_dict's file", response_model=Layout)
async def layout(
    request: Request, services: Parts, model: Model, ref: Ref, selection: Selection, run: Run = None
) -> Response:
    def answer(checkpoint: Checkpoint) -> Response:
        index = services.deliver.index(checkpoint, selection)
        view = Layout.of(index, fixed_url(request, checkpoint, "/state_dict"))
        return json_answer(request, view, identity_headers(request, checkpoint, ref))

    return await services.from_inside(model, ref, run, answer)


@router.get("/state_dict", summary="Download a state_dict", response_class=Response, responses=FILE_RESPONSES)
@router.get(
    "/state_dict/{filename}",
    summary="Download a state_dict under a name",
    response_class=Response,
    responses=FILE_RESPONSES,
)
async def state_dict(
    request: Request,
    services: Parts,
    model: Model,
    ref: Ref,
    selection: Selection,
    run: Run = None,
    plan: Annotated[str | None, Query(description="from a warmstart's answer; it replaces the selection")] = None,
    filename: str | None = None,
) -> Response:
    """A torch file that always loads with `weights_only=True`."""
    if plan is not None and selection != StateDictQuery():
        raise InvalidRequest("a plan is a selection already: give it, or a selection", code="plan-and-selection")

    def answer(checkpoint: Checkpoint) -> Response:
        deliver = services.deliver
        download = deliver.state_dict(checkpoint, selection) if plan is None else deliver.planned(checkpoint, plan)
        return download_answer(request, services.streams, checkpoint, ref, download, filename)

    return await services.from_inside(model, ref, run, answer)


@router.post(
    "/warmstart",
    summary="Match with a target model",
    response_model=WarmstartReport,
    openapi_extra=documented_body(WarmstartRequest),
)
async def warmstart(request: Request, services: Parts, model: Model, ref: Ref, body: Body, run: Run = None) -> Response:
    """What would match, what would be missing, what would not fit: known before a byte of a tensor moves."""

    def answer(checkpoint: Checkpoint) -> Response:
        asked = body.read(WarmstartRequest)
        target = {
            key: TargetTensor(tuple(each.shape), each.dtype.removeprefix("torch."))
            for key, each in asked.target.items()
        }
        report, plan = services.deliver.warmstart(checkpoint, target, asked.query)
        name = f"{checkpoint.stem}-{plan[:8]}.pt"
        download = f"{checkpoint_url(checkpoint.model, checkpoint.version)}/state_dict/{name}?plan={plan}"
        view = WarmstartReport.of(report, download if report.matched_keys else None)
        return json_answer(request, view, {**identity_headers(request, checkpoint, ref), "Cache-Control": "no-store"})

    return await services.from_inside(model, ref, run, answer)

"""One component of a checkpoint, as a file; its layout; and the match with a target model."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from ...select.warmstart import Report, TargetTensor
from ...values.checkpoint import Checkpoint
from ..answers import identity_headers, json_answer
from ..auth import DOWNLOAD, READ
from ..bodies import Body, documented_body
from ..downloads import FILE_RESPONSES, download_answer
from ..layouts import Derived, Layout, layout_answer
from ..params import Model, Ref, Run
from ..problem_docs import KNOWN, OF_A_BODY, OF_A_MODEL, refusals
from ..selections import Part, SelectionBody
from ..services import Parts
from ..views import FileText, checkpoint_url

router = APIRouter(prefix="/v1/models/{namespace}/{name}/checkpoints/{ref}", tags=["state_dicts"])


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


@router.get(
    "/state_dict/index",
    summary="The layout of a state_dict's file",
    dependencies=READ,
    response_model=Layout,
    responses=KNOWN | refusals(*OF_A_MODEL, 410, 501),
)
async def layout(
    request: Request, services: Parts, model: Model, ref: Ref, part: Part, derived: Derived = True, run: Run = None
) -> Response:
    """Of the file that `state_dict` sends for the same query: fetch ranges of it in parallel, and verify them."""

    def answer(checkpoint: Checkpoint) -> Response:
        index = services.deliver.index(checkpoint, part.of(checkpoint, services.deliver), derived=derived)
        return layout_answer(request, checkpoint, ref, index, "/state_dict")

    return await services.from_inside(model, ref, run, answer)


@router.get(
    "/state_dict", summary="Download a state_dict", dependencies=READ, response_class=Response, responses=FILE_RESPONSES
)
@router.get(
    "/state_dict/{filename}",
    summary="Download a state_dict under a name",
    dependencies=DOWNLOAD,
    response_class=Response,
    responses=FILE_RESPONSES,
)
async def state_dict(
    request: Request,
    services: Parts,
    model: Model,
    ref: Ref,
    part: Part,
    run: Run = None,
    filename: str | None = None,
) -> Response:
    """A torch file that always loads with `weights_only=True`, or a safetensors file."""

    def answer(checkpoint: Checkpoint) -> Response:
        download = part.of(checkpoint, services.deliver)
        return download_answer(request, services.streams, checkpoint, ref, download, filename)

    return await services.from_inside(model, ref, run, answer)


@router.post(
    "/warmstart",
    summary="Match with a target model",
    dependencies=READ,
    response_model=WarmstartReport,
    responses=refusals(*OF_A_MODEL, *OF_A_BODY, 501, 507),
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
        name = f"{checkpoint.stem}-{plan[:8]}.{asked.query.format}"
        download = f"{checkpoint_url(checkpoint.model, checkpoint.version)}/state_dict/{name}?plan={plan}"
        view = WarmstartReport.of(report, download if report.matched_keys else None)
        return json_answer(request, view, {**identity_headers(request, checkpoint, ref), "Cache-Control": "no-store"})

    return await services.from_inside(model, ref, run, answer)

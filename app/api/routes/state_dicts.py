"""Routes for one component of a checkpoint as a file, its layout, and the match with a target model."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, WithJsonSchema

from ...deliver.service import Deliver
from ...errors import SelectionError
from ...select.query import StateDictQuery
from ...select.warmstart import Mismatch, Report, TargetTensor
from ...values.checkpoint import Checkpoint
from ..openapi.problems import KNOWN, OF_A_BODY, OF_A_MODEL, refusals
from ..requests.auth import DOWNLOAD, READ
from ..requests.bodies import LARGE, JsonBody, documented_body, json_body
from ..requests.params import UNDER_A_NAME, FileName, Model, Ref, Run
from ..requests.selections import SelectedDep, SelectionBody
from ..responses.downloads import FILE_RESPONSES, download_answer
from ..responses.json import NO_STORE, check_write, identity_headers, json_answer, nothing
from ..responses.layouts import Derived, Layout, planned_layout
from ..responses.views import FileText, checkpoint_url
from ..services import ServicesDep

router = APIRouter(prefix="/v1/models/{namespace}/{name}/checkpoints/{ref}", tags=["state_dicts"])


MAX_TARGET = 500_000
"""Most keys of a target: as many as a torch file may have tensors."""

MAX_DIMS = 64
MAX_DTYPE_LENGTH = 100
MAX_KINDS = 100_000
"""Most different shapes and dtypes in one target. Large models have some dozens; equal ones are kept once."""


def _same(one: TargetTensor, info: ValidationInfo) -> TargetTensor:
    """Validate a described tensor, and keep equal ones of a body once."""
    if len(one.shape) > MAX_DIMS or any(size < 0 for size in one.shape) or len(one.dtype) > MAX_DTYPE_LENGTH:
        raise ValueError(
            f"a shape must be at most {MAX_DIMS} sizes of 0 or more, and a dtype the name of a torch dtype"
        )
    known: dict[TargetTensor, TargetTensor] = {} if info.context is None else info.context
    if len(known) > MAX_KINDS:
        raise ValueError(f"a target may have at most {MAX_KINDS:,} different shapes and dtypes")
    one = replace(one, dtype=one.dtype.removeprefix("torch."))
    return known.setdefault(one, one)


Target = Annotated[
    TargetTensor,
    AfterValidator(_same),
    WithJsonSchema(
        {
            "type": "object",
            "required": ["shape", "dtype"],
            "properties": {
                "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": MAX_DIMS},
                "dtype": {"type": "string", "maxLength": MAX_DTYPE_LENGTH, "description": "name of a torch dtype"},
            },
        }
    ),
]


class WarmstartRequest(SelectionBody):
    """The target model, key by key, and the selection of the checkpoint to load into it."""

    target: dict[str, Target] = Field(max_length=MAX_TARGET)
    resize: Literal["none", "slice"] = Field(
        default="none",
        description="`slice`: of a tensor of another shape but as many dimensions, send the corner that both have",
    )
    dtype: str | None = Field(
        default=None,
        description="as for a state_dict; or `target`: cast each tensor to the target's dtype where that saves bytes",
    )

    @property
    def casts(self) -> bool:
        """Tell whether tensors are cast to the target's dtypes."""
        return self.dtype == "target"

    @property
    def query(self) -> StateDictQuery:
        if not self.casts:
            return super().query
        if self.dtype_exclude:
            raise SelectionError(
                "dtype_exclude has no meaning with dtype=target: a key that the target wants as it is stays so",
                code="unknown-dtype",
            )
        return self.model_copy(update={"dtype": None}).query


class MismatchView(BaseModel):
    key: FileText
    have: list[int]
    want: list[int]


class WarmstartReport(BaseModel):
    """The outcome of `load_state_dict(strict=False)`. `download` has only the matched tensors; null without any."""

    matched_keys: list[FileText]
    missing_keys: list[FileText]
    unexpected_keys: list[FileText]
    mismatched_keys: list[MismatchView]
    resized_keys: list[MismatchView] = Field(description="with `resize`: keys of which only the corner is sent")
    cast_keys: list[FileText] = Field(description="matched keys whose dtype is not the target's")
    bytes: int
    download: str | None

    @classmethod
    def of(cls, report: Report, download: str | None) -> "WarmstartReport":
        return cls(
            matched_keys=list(report.matched_keys),
            missing_keys=list(report.missing_keys),
            unexpected_keys=list(report.unexpected_keys),
            mismatched_keys=_views(report.mismatched_keys),
            resized_keys=_views(report.resized_keys),
            cast_keys=list(report.cast_keys),
            bytes=report.nbytes,
            download=download,
        )


def _views(mismatches: Iterable[Mismatch]) -> list[MismatchView]:
    return [MismatchView(key=each.key, have=list(each.have), want=list(each.want)) for each in mismatches]


@router.get(
    "/state_dict/index",
    summary="The layout of a state_dict's file",
    dependencies=READ,
    response_model=Layout,
    responses=KNOWN | refusals(*OF_A_MODEL, 410, 501),
)
async def layout(
    request: Request,
    services: ServicesDep,
    model: Model,
    ref: Ref,
    part: SelectedDep,
    derived: Derived = True,
    run: Run = None,
) -> Response:
    """The layout of the file that `state_dict` sends for the same query: ranges to fetch in parallel and verify."""
    checkpoint = await services.find(model, ref, run)
    planned = partial(part.of, deliver=services.deliver)
    return await services.plan(
        request, planned_layout, request, services.deliver, checkpoint, ref, planned, derived, "/state_dict"
    )


@router.get(
    "/state_dict", summary="Download a state_dict", dependencies=READ, response_class=Response, responses=FILE_RESPONSES
)
@router.get(
    "/state_dict/{filename}",
    summary="Download a state_dict under a name",
    dependencies=DOWNLOAD,
    response_class=Response,
    responses=FILE_RESPONSES,
    openapi_extra=UNDER_A_NAME,
)
async def state_dict(
    request: Request,
    services: ServicesDep,
    model: Model,
    ref: Ref,
    part: SelectedDep,
    run: Run = None,
    filename: FileName = None,
) -> Response:
    """A torch file that always loads with `weights_only=True`, or a safetensors file."""
    checkpoint = await services.find(model, ref, run)
    download = await services.plan(request, part.of, checkpoint, services.deliver)
    return download_answer(request, services.streams, checkpoint, ref, download, filename)


@router.post(
    "/warmstart",
    summary="Match with a target model",
    dependencies=READ,
    response_model=WarmstartReport,
    responses=refusals(*OF_A_MODEL, *OF_A_BODY, 501, 507),
    openapi_extra=documented_body(WarmstartRequest),
)
async def warmstart(request: Request, services: ServicesDep, model: Model, ref: Ref, run: Run = None) -> Response:
    """Report the keys that match, are missing, or do not fit, without sending any tensor."""
    check_write(request, nothing)
    await services.find(model, ref, run)  # before a long body is read for nothing
    async with json_body(request, services, LARGE) as body:
        checkpoint = await services.find(model, ref, run)
        return await services.plan(request, _matched, request, services.deliver, checkpoint, ref, body)


def _matched(request: Request, deliver: Deliver, checkpoint: Checkpoint, ref: str, body: JsonBody) -> Response:
    asked = body.read(WarmstartRequest)
    query = asked.query
    report, plan = deliver.warmstart(
        checkpoint, asked.target, query, resizes=asked.resize == "slice", casts=asked.casts
    )
    del asked  # its memory is needed for the answer
    url = None
    if report.sent_keys:
        name = checkpoint.file_name(plan[:8], query.format, None)
        url = f"{checkpoint_url(checkpoint.model, checkpoint.version)}/state_dict/{name}?plan={plan}"
    headers = {**identity_headers(request, checkpoint, ref), "Cache-Control": NO_STORE}
    return json_answer(request, WarmstartReport.of(report, url), headers)

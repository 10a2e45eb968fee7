"""Routes for one tensor of a checkpoint, or a part of it, and its layout."""

from functools import partial
from typing import Annotated, Literal, cast

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from ...select.one_tensor import TensorQuery, parse_rows, parse_shard
from ..openapi.problems import KNOWN, OF_A_MODEL, refusals
from ..requests.auth import READ
from ..requests.params import Model, Ref, Run
from ..requests.paths import path_segment, path_value
from ..responses.downloads import RAW, SAFETENSORS, TENSOR_RESPONSES, download_answer
from ..responses.layouts import Derived, Layout, planned_layout
from ..services import ServicesDep

router = APIRouter(prefix="/v1/models/{namespace}/{name}/checkpoints/{ref}/tensors/{key}", tags=["checkpoints"])


async def tensor_in_query(
    request: Request,
    key: Annotated[
        str, Path(description="a tensor's key, with `/` as `%2F`; an optimizer's is dotted", examples=["fc.weight"])
    ],
    component: Annotated[
        str | None, Query(description="dotted path; left out: the model's state_dict, else the only one with the key")
    ] = None,
    rows: Annotated[
        str | None, Query(description="`START:STOP` along the first dimension, as in Python", examples=["0:10"])
    ] = None,
    dim: Annotated[int | None, Query(ge=-64, le=63, description="the dimension of `shard`; left out: 0")] = None,
    shard: Annotated[
        str | None,
        Query(description="`NUMBER/COUNT`: one of the parts of `torch.chunk`, from 0 on", examples=["0/8"]),
    ] = None,
    dtype: Annotated[
        str | None, Query(description="dtype to cast a floating tensor to: `float32`, `float16`, `bfloat16`")
    ] = None,
    format_: Annotated[
        str | None,
        Query(
            alias="format",
            description="`safetensors`, or `raw`: contiguous little-endian elements; left out: by `Accept`",
        ),
    ] = None,
) -> TensorQuery:
    return TensorQuery(
        path_value(key),
        component,
        None if rows is None else parse_rows(rows),
        dim,
        None if shard is None else parse_shard(shard),
        dtype,
        cast("Literal['safetensors', 'raw']", format_ or _accepted(request)),  # TensorQuery checks it
    )


Wanted = Annotated[TensorQuery, Depends(tensor_in_query)]


def _accepted(request: Request) -> str:
    """Return the format that the client asks for by the name of its media type; safetensors if it names neither."""
    accepted = ",".join(request.headers.getlist("accept")).lower().split(",")
    named = [each.partition(";")[0].strip() for each in accepted]
    return "raw" if RAW in named and SAFETENSORS not in named else "safetensors"


@router.get(
    "",
    summary="Download one tensor",
    dependencies=READ,
    response_class=Response,
    responses=TENSOR_RESPONSES,
)
async def tensor(
    request: Request, services: ServicesDep, model: Model, ref: Ref, wanted: Wanted, run: Run = None
) -> Response:
    """One tensor, its rows, or one rank's shard of them: a safetensors file, or with `Accept: application/octet-stream`
    its elements alone. Only the bytes that are sent are read, in their blocks.
    """
    checkpoint = await services.find(model, ref, run)
    download = await services.plan(request, services.deliver.tensor, checkpoint, wanted)
    return download_answer(request, services.streams, checkpoint, ref, download, None)


@router.get(
    "/index",
    summary="The layout of one tensor's file",
    dependencies=READ,
    response_model=Layout,
    responses=KNOWN | refusals(*OF_A_MODEL, 410, 501),
)
async def layout(
    request: Request,
    services: ServicesDep,
    model: Model,
    ref: Ref,
    wanted: Wanted,
    derived: Derived = True,
    run: Run = None,
) -> Response:
    """The layout of the file that `tensors/{key}` sends for the same query, to fetch it in parallel and verify it."""
    checkpoint = await services.find(model, ref, run)
    planned = partial(services.deliver.tensor, query=wanted)
    route = f"/tensors/{path_segment(wanted.key)}"
    return await services.plan(
        request, planned_layout, request, services.deliver, checkpoint, ref, planned, derived, route
    )

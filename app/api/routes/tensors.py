"""What is inside a checkpoint, key by key."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, Field

from ...errors import InvalidRequest
from ...select.components import choose_component
from ...values.checkpoint import Checkpoint
from ...values.manifest import ComponentKind, Manifest, Tensor
from ..answers import identity_headers, json_answer
from ..auth import READ
from ..params import Cursor, Model, Ref, Run
from ..problem_docs import KNOWN, OF_A_MODEL, refusals
from ..services import Parts
from ..views import FileText, printable

router = APIRouter(prefix="/v1/models/{namespace}/{name}/checkpoints/{ref}", tags=["checkpoints"])

MOST_SHARED = 100


def _printable(value: Any) -> Any:
    """All text in a JSON value made printable."""
    match value:
        case str():
            return printable(value)
        case list():
            return [_printable(item) for item in value]
        case dict():
            return {printable(name): _printable(item) for name, item in value.items()}
    return value


class TensorView(BaseModel):
    """A tensor. `stride` counts elements; `bytes` are its elements', `digest` its storage's."""

    component: FileText | None = Field(description="null for a tensor outside every component")
    key: FileText
    dtype: str
    shape: list[int]
    stride: list[int]
    device: FileText
    bytes: int
    digest: str | None = Field(description="null where the storage is too small to be kept by itself")
    shared_with: list[FileText] = Field(description=f"other keys that use its storage, at most {MOST_SHARED}")


class ComponentDetails(BaseModel):
    name: FileText
    kind: ComponentKind
    keys: int
    bytes: int
    param_groups: Annotated[Any, BeforeValidator(_printable)] = Field(
        description="an optimizer's, null for a state_dict"
    )


class TensorPage(BaseModel):
    components: list[ComponentDetails]
    items: list[TensorView]
    next: str | None = Field(description="the cursor of the next page")
    metadata: dict[str, str] = Field(description="a safetensors file's `__metadata__`, on the first page")


@router.get(
    "/tensors",
    summary="List its tensors",
    dependencies=READ,
    response_model=TensorPage,
    responses=KNOWN | refusals(*OF_A_MODEL),
)
async def tensors(
    request: Request,
    services: Parts,
    model: Model,
    ref: Ref,
    run: Run = None,
    component: Annotated[str | None, Query(description="only this component's; else all")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000,
    cursor: Cursor = None,
) -> Response:
    """In the file's order, with each component's shape of things beside them."""

    def answer(checkpoint: Checkpoint) -> Response:
        view = _page(services.deliver.manifest(checkpoint), component, limit, _position(cursor))
        return json_answer(request, view, identity_headers(request, checkpoint, ref))

    return await services.from_inside(model, ref, run, answer)


def _position(cursor: str | None) -> int:
    """A manifest never changes, so a place in it is a number."""
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 12):
        raise InvalidRequest("the cursor is not one that this listing gave", code="bad-cursor")
    return int(cursor)


def _page(manifest: Manifest, component: str | None, limit: int, start: int) -> TensorPage:
    tensors: Sequence[Tensor] = manifest.tensors
    shown = range(len(manifest.components))
    if component is not None:
        chosen = choose_component(manifest, component)
        tensors = [tensor for tensor in tensors if tensor.component == chosen]
        shown = range(0) if chosen is None else range(chosen, chosen + 1)
    page = tensors[start : start + limit]
    sharers = _sharers(manifest, {tensor.storage for tensor in page})
    end = start + len(page)
    return TensorPage(
        components=[_component(manifest, i) for i in shown],
        items=[_tensor(manifest, tensor, sharers[tensor.storage]) for tensor in page],
        next=str(end) if end < len(tensors) else None,
        metadata=dict(manifest.metadata) if start == 0 else {},
    )


def _sharers(manifest: Manifest, storages: set[int]) -> dict[int, list[Tensor]]:
    """Of each storage, the first tensors that use it, one more than are shown."""
    sharers: dict[int, list[Tensor]] = defaultdict(list)
    for tensor in manifest.tensors:
        if tensor.storage in storages and len(sharers[tensor.storage]) <= MOST_SHARED:
            sharers[tensor.storage].append(tensor)
    return sharers


def _component(manifest: Manifest, number: int) -> ComponentDetails:
    component = manifest.components[number]
    groups = None if component.param_groups is None else json.loads(component.param_groups)
    return ComponentDetails(
        name=component.name, kind=component.kind, keys=component.keys, bytes=component.nbytes, param_groups=groups
    )


def _name(manifest: Manifest, tensor: Tensor) -> str | None:
    return None if tensor.component is None else manifest.components[tensor.component].name


def _tensor(manifest: Manifest, tensor: Tensor, sharers: Sequence[Tensor]) -> TensorView:
    storage = manifest.storages[tensor.storage]
    return TensorView(
        component=_name(manifest, tensor),
        key=tensor.key,
        dtype=tensor.dtype.name,
        shape=list(tensor.shape),
        stride=list(tensor.stride),
        device=storage.location,
        bytes=tensor.nbytes,
        digest=storage.digest,
        shared_with=[_seen_from(manifest, tensor, other) for other in sharers if other is not tensor][:MOST_SHARED],
    )


def _seen_from(manifest: Manifest, tensor: Tensor, other: Tensor) -> str:
    """Its key in the same component, its whole path in another."""
    component = _name(manifest, other)
    return other.key if other.component == tensor.component or not component else f"{component}.{other.key}"

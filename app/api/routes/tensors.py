"""The route that lists a checkpoint's tensors, key by key."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, Field

from ...deliver.service import Deliver
from ...select.components import choose_component
from ...values.checkpoint import Checkpoint
from ...values.json_text import read_json
from ...values.manifest import Component, ComponentKind, Manifest, Storage, Tensor
from ..openapi.problems import KNOWN, OF_A_MODEL, refusals
from ..requests.auth import READ
from ..requests.params import Cursor, Model, Ref, Run, position_of
from ..responses.json import identity_headers, json_answer
from ..responses.views import FileText, printable
from ..services import ServicesDep

T = TypeVar("T")

router = APIRouter(prefix="/v1/models/{namespace}/{name}/checkpoints/{ref}", tags=["checkpoints"])

MOST_SHARED = 100
SHARED_TEXT = 4096
"""Most characters of other keys of the same storage that are shown with a tensor."""

PAGE_TEXT = 1024 * 1024
"""Characters, about, after which a page ends; its components and its metadata have the same limit."""

GROUPS_TEXT = 64 * 1024
"""Most characters of param_groups that are shown unless the request asks for just that component."""


def _printable(value: Any) -> Any:
    """Make all text in a JSON value printable."""
    match value:
        case str():
            return printable(value)
        case list():
            return [_printable(item) for item in value]
        case dict():
            return {printable(name): _printable(item) for name, item in value.items()}
    return value


class TensorView(BaseModel):
    """A tensor. `stride` counts elements; `bytes` is of its elements, `digest` of its storage. A tensor on the meta
    device has neither.
    """

    component: FileText | None = Field(description="null for a tensor outside every component")
    key: FileText
    dtype: str
    shape: list[int] | None = Field(description="null for a lazy parameter that has seen no batch yet")
    stride: list[int]
    device: FileText
    bytes: int
    digest: str | None = Field(description="null for a storage that is too small to be stored separately")
    shared_with: list[FileText] = Field(
        description=f"other keys that use its storage: at most {MOST_SHARED} keys and {SHARED_TEXT:,} characters"
    )
    shared_count: int = Field(description="number of other keys that use its storage")


class ComponentDetails(BaseModel):
    name: FileText
    kind: ComponentKind
    keys: int
    bytes: int
    param_groups: Annotated[Any, BeforeValidator(_printable)] = Field(
        description="of an optimizer; null for a state_dict. Long ones are only on the first page of `component=`"
    )


class TensorPage(BaseModel):
    components: list[ComponentDetails]
    more_components: int = Field(description="number of components not listed here; `component=` gets one")
    items: list[TensorView]
    next: str | None = Field(description="the cursor of the next page")
    metadata: dict[str, str] = Field(description="a safetensors file's `__metadata__`, on the first page")
    more_metadata: int = Field(
        description="number of its texts that are too long to be shown; the uploaded file has them"
    )


@router.get(
    "/tensors",
    summary="List the tensors of a checkpoint",
    dependencies=READ,
    response_model=TensorPage,
    responses=KNOWN | refusals(*OF_A_MODEL),
)
async def tensors(
    request: Request,
    services: ServicesDep,
    model: Model,
    ref: Ref,
    run: Run = None,
    component: Annotated[str | None, Query(description="only tensors of this component")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000,
    cursor: Cursor = None,
) -> Response:
    """Tensors in the file's order, and the details of each component. A page of long keys has fewer tensors."""
    checkpoint = await services.find(model, ref, run)
    page = partial(_page, component=component, limit=limit, start=position_of(cursor))
    return await services.plan(request, _answer, request, services.deliver, checkpoint, ref, page)


def _answer(
    request: Request, deliver: Deliver, checkpoint: Checkpoint, ref: str, page: Callable[[Manifest], TensorPage]
) -> Response:
    view = page(deliver.manifest(checkpoint))
    return json_answer(request, view, identity_headers(request, checkpoint, ref))


def _page(manifest: Manifest, component: str | None, limit: int, start: int) -> TensorPage:
    tensors: Sequence[Tensor] = manifest.tensors
    shown = range(len(manifest.components))
    if component is not None:
        chosen = choose_component(manifest, component)
        tensors = [tensor for tensor in tensors if tensor.component == chosen]
        shown = range(0) if chosen is None else range(chosen, chosen + 1)
    asked = tensors[start : start + limit]
    groups = _groups(manifest, {tensor.storage for tensor in asked if tensor.storage is not None})
    items = list(_up_to(PAGE_TEXT, (_tensor(manifest, tensor, groups) for tensor in asked), _length))
    end = start + len(items)
    whole = component is not None and start == 0
    listed = list(_up_to(PAGE_TEXT, shown, lambda number: _length_of_component(manifest.components[number])))
    components = [_component(manifest, number, whole=whole) for number in listed]
    metadata = dict(_up_to(PAGE_TEXT, manifest.metadata.items() if start == 0 else (), _length_of_pair))
    return TensorPage(
        components=components,
        more_components=len(shown) - len(components),
        items=items,
        next=str(end) if end < len(tensors) else None,
        metadata=metadata,
        more_metadata=len(manifest.metadata) - len(metadata) if start == 0 else 0,
    )


def _up_to(most: int, items: Iterable[T], length: Callable[[T], int]) -> Iterator[T]:
    """Yield items up to the one with which they reach ``most`` characters."""
    total = 0
    for item in items:
        yield item
        total += length(item)
        if total >= most:
            return


def _length(view: TensorView) -> int:
    """Estimate the characters of a tensor's JSON."""
    texts = (view.component or "", view.key, view.device, *view.shared_with)
    return 250 + sum(len(text) + 4 for text in texts) + 20 * len(view.shape or ())


def _length_of_component(component: Component) -> int:
    return 100 + len(component.name) + min(GROUPS_TEXT, len(component.param_groups or ""))


def _length_of_pair(pair: tuple[str, str]) -> int:
    return len(pair[0]) + len(pair[1]) + 8


@dataclass(slots=True)
class _Group:
    """The tensors that use one storage: the first of them, one more than are shown, and how many there are."""

    first: list[Tensor] = field(default_factory=list)
    count: int = 0


def _groups(manifest: Manifest, storages: set[int]) -> dict[int, _Group]:
    groups: dict[int, _Group] = defaultdict(_Group)
    for tensor in manifest.tensors:
        if tensor.storage is not None and tensor.storage in storages:
            group = groups[tensor.storage]
            group.count += 1
            if len(group.first) <= MOST_SHARED:
                group.first.append(tensor)
    return groups


def _component(manifest: Manifest, number: int, *, whole: bool) -> ComponentDetails:
    component = manifest.components[number]
    text = component.param_groups
    groups = None if text is None or (len(text) > GROUPS_TEXT and not whole) else read_json(text.encode())
    return ComponentDetails(
        name=component.name, kind=component.kind, keys=component.keys, bytes=component.nbytes, param_groups=groups
    )


def _name(manifest: Manifest, tensor: Tensor) -> str | None:
    return None if tensor.component is None else manifest.components[tensor.component].name


def _tensor(manifest: Manifest, tensor: Tensor, groups: Mapping[int, _Group]) -> TensorView:
    storage = None if tensor.storage is None else manifest.storage(tensor.storage)
    group = _Group(count=1) if tensor.storage is None else groups[tensor.storage]
    others = (_seen_from(manifest, tensor, other) for other in group.first if other is not tensor)
    shared = list(_up_to(SHARED_TEXT, islice(others, MOST_SHARED), len))
    return TensorView(
        component=_name(manifest, tensor),
        key=tensor.key,
        dtype=tensor.dtype.name,
        shape=None if tensor.shape is None else list(tensor.shape),
        stride=list(tensor.stride),
        device=_device(tensor, storage),
        bytes=tensor.nbytes,
        digest=None if storage is None else storage.digest,
        shared_with=shared,
        shared_count=group.count - 1,
    )


def _device(tensor: Tensor, storage: Storage | None) -> str:
    if storage is not None:
        return storage.location
    return "cpu" if tensor.shape is None else "meta"


def _seen_from(manifest: Manifest, tensor: Tensor, other: Tensor) -> str:
    """Return the key of ``other`` in the same component, its whole path in another."""
    component = _name(manifest, other)
    return other.key if other.component == tensor.component or not component else f"{component}.{other.key}"

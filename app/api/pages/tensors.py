"""The tensors of one component as compact JSON: columns instead of rows, and names instead of repeated values.

A browser lists ten thousand keys of it, with their tree and their sizes, without asking again.
"""

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from ...deliver.service import Deliver
from ...select.components import choose_component
from ...values.checkpoint import Checkpoint
from ...values.manifest import Manifest, Tensor
from ...values.slices import slices
from ..requests.auth import PAGE
from ..requests.params import Model, Ref, Run
from ..responses.json import lifetime
from ..services import ServicesDep
from .templates import packed

MOST_TENSORS = 100_000
MOST_TEXT = 4 * 1024 * 1024
"""Characters of keys after which the list ends."""

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Row:
    """A tensor in a plain list."""

    key: str
    shape: str
    dtype: str
    device: str
    nbytes: int
    is_shared: bool


@router.get("/models/{namespace}/{name}/checkpoints/{ref}/tensors.json", dependencies=PAGE)
async def tensors(
    request: Request,
    services: ServicesDep,
    model: Model,
    ref: Ref,
    component: Annotated[str | None, Query(max_length=5_000)] = None,
    run: Run = None,
) -> Response:
    """The tensors of a component, in the file's order. They never change, so a browser may keep those of a version."""
    checkpoint = await services.find(model, ref, run)
    return await services.plan(request, _answer, request, services.deliver, checkpoint, ref, component)


def _answer(request: Request, deliver: Deliver, checkpoint: Checkpoint, ref: str, component: str | None) -> Response:
    manifest = deliver.manifest(checkpoint)
    document = columns(manifest, tensors_of(manifest, component))
    body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="backslashreplace")
    return packed(request, body, "application/json", {"Cache-Control": f"private, {lifetime(ref)}"})


def tensors_of(manifest: Manifest, component: str | None) -> Sequence[Tensor]:
    """Return the tensors of a component, None for the default one. Raises SelectionError."""
    chosen = choose_component(manifest, component)
    return [tensor for tensor in manifest.tensors if tensor.component == chosen]


def rows_of(manifest: Manifest, tensors: Sequence[Tensor]) -> tuple[Row, ...]:
    shared = _shared(manifest, tensors)
    return tuple(
        Row(
            key=tensor.key,
            shape=_shape(tensor.shape),
            dtype=tensor.dtype.name,
            device=_device(manifest, tensor),
            nbytes=tensor.nbytes,
            is_shared=tensor.storage in shared,
        )
        for tensor in tensors
    )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "not known" if shape is None else str(list(shape))


def columns(manifest: Manifest, tensors: Sequence[Tensor]) -> dict[str, Any]:
    """Return ``tensors`` as columns: ``of`` is their number, of which the first are listed."""
    shown = list(_first(tensors))
    shared = _shared(manifest, shown)
    return {
        "of": len(tensors),
        "key": [tensor.key for tensor in shown],
        "bytes": [tensor.nbytes for tensor in shown],
        "dtype": _named(shown, lambda tensor: tensor.dtype.name),
        "device": _named(shown, lambda tensor: _device(manifest, tensor)),
        "shape": _named(shown, lambda tensor: tensor.shape),
        "shared": _named(shown, lambda tensor: None if tensor.storage is None else shared.get(tensor.storage)),
    }


def _first(tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    text = 0
    for tensor in tensors[:MOST_TENSORS]:
        text += len(tensor.key)
        if text > MOST_TEXT:
            return
        yield tensor


def _device(manifest: Manifest, tensor: Tensor) -> str:
    if tensor.storage is not None:
        return manifest.storage(tensor.storage).location
    return "cpu" if tensor.shape is None else "meta"


def _shared(manifest: Manifest, shown: Iterable[Tensor]) -> dict[int, tuple[int, int, int]]:
    """Return the storages that others use, too, by number: the number, the bytes, and how many tensors use it."""
    wanted = {tensor.storage for tensor in shown}
    counts: dict[int, int] = {}
    for tensor in manifest.tensors:
        if tensor.storage is not None and tensor.storage in wanted:
            counts[tensor.storage] = counts.get(tensor.storage, 0) + 1
    return {
        number: (number, manifest.storage(number).span.length, count) for number, count in counts.items() if count > 1
    }


def _named(tensors: Sequence[Tensor], value: Callable[[Tensor], Hashable]) -> dict[str, list[Any]]:
    """Return the different values of a column, and for each tensor the place of its value among them."""
    places: dict[Hashable, int] = {}
    at = [places.setdefault(value(tensor), len(places)) for some in slices(tensors) for tensor in some]
    return {"values": list(places), "at": at}

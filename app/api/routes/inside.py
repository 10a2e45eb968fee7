"""Routes that look inside a checkpoint: statistics of its tensors, and differences from another checkpoint."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from ...access.grants import Grant
from ...catalog.page import open_cursor, seal_cursor
from ...concurrency.cancellation import current
from ...errors import InvalidRequest, NotFound
from ...inside.service import HELD, Inside
from ...values.checkpoint import Checkpoint, ModelName, is_name
from ..openapi.problems import KNOWN, OF_A_MODEL, refusals
from ..requests.auth import READ, Caller
from ..requests.params import Cursor, Model, Ref, Run
from ..requests.paths import path_value
from ..responses.inside import DiffList, StatsList
from ..responses.json import identity_headers, json_answer
from ..services import ServicesDep

router = APIRouter(prefix="/v1/models/{namespace}/{name}/checkpoints/{ref}", tags=["checkpoints"])

Limit = Annotated[int, Query(ge=1, le=10_000)]
FewAtOnce = Annotated[int, Query(ge=1, le=1_000)]


@router.get(
    "/stats",
    summary="Statistics of a checkpoint's tensors",
    dependencies=READ,
    response_model=StatsList,
    responses=KNOWN | refusals(*OF_A_MODEL),
)
async def stats(
    request: Request,
    services: ServicesDep,
    model: Model,
    ref: Ref,
    run: Run = None,
    component: Annotated[str | None, Query(description="only tensors of this component")] = None,
    include: Annotated[
        list[str], Query(description="only these keys: globs in which `*` matches dots too, or `re:` and an expression")
    ] = [],  # noqa: B006 - FastAPI reads it as a default, and nobody changes it
    limit: FewAtOnce = 100,
    cursor: Cursor = None,
) -> Response:
    """Minimum, maximum, mean, std, norm, zeros, NaN, infinities and a histogram of each tensor, in the file's order.

    They are computed once and kept, for every checkpoint that has the same tensor. A page ends early if much has to be
    read for it.
    """
    checkpoint = await services.find(model, ref, run)
    listing = repr(("stats", str(checkpoint.manifest), component, include))
    answer = partial(_stats, request, services.inside, checkpoint, ref, component, tuple(include), limit, cursor)
    async with services.streams.memory.reserved(HELD, current().owner):
        return await services.plan(request, answer, listing)


def _stats(
    request: Request,
    inside: Inside,
    checkpoint: Checkpoint,
    ref: str,
    component: str | None,
    include: tuple[str, ...],
    limit: int,
    cursor: str | None,
    listing: str,
) -> Response:
    page = inside.stats(checkpoint, component, include, _position(cursor, listing), limit)
    view = StatsList.of(page, _cursor(page.next, listing))
    return json_answer(request, view, identity_headers(request, checkpoint, ref))


def _position(cursor: str | None, listing: str) -> int:
    position = 0 if cursor is None else open_cursor(cursor, listing, (int,))[0]
    if position < 0:
        raise InvalidRequest("the cursor is invalid; use `next` from the previous page", code="bad-cursor")
    return int(position)


def _cursor(position: int | None, listing: str) -> str | None:
    return None if position is None else seal_cursor(listing, (position,))


async def other_ref(
    other: Annotated[
        str,
        Path(
            description="the checkpoint to compare with: a ref of this model, or `namespace/name@ref`, percent-encoded",
            examples=["12"],
        ),
    ],
) -> str:
    return path_value(other)


@router.get(
    "/diff/{other}",
    summary="Compare with another checkpoint",
    dependencies=READ,
    response_model=DiffList,
    responses=KNOWN | refusals(*OF_A_MODEL),
)
async def diff(
    request: Request,
    services: ServicesDep,
    caller: Caller,
    model: Model,
    ref: Ref,
    other: Annotated[str, Depends(other_ref)],
    run: Run = None,
    component: Annotated[str | None, Query(description="only the base's tensors of this component")] = None,
    numeric: Annotated[bool, Query(description="measure how far changed tensors are apart")] = False,
    limit: Limit = 1_000,
    cursor: Cursor = None,
) -> Response:
    """The changes from the checkpoint `{ref}`, the base, to the checkpoint `{other}`, key by key, from digests.

    `run` holds for both refs. Without `numeric`, tensors are not read, except small ones and views of a part of a
    storage. With `numeric`, a page ends early if much has to be read for it.
    """
    base = await services.find(model, ref, run)
    compared = await services.find(*checkpoint_named(other, model, caller), run)
    listing = repr(("diff", str(base.manifest), str(compared.manifest), component, numeric))
    answer = partial(_diff, request, services.inside, (base, compared), ref, component, limit, cursor, listing)
    async with services.streams.memory.reserved(HELD, current().owner):
        return await services.plan(request, answer, numeric=numeric)


def checkpoint_named(other: str, model: ModelName, caller: Grant) -> tuple[ModelName, str]:
    """Return the model and the ref that ``other`` means. Raises NotFound for a namespace that the caller may not read,
    as for a model that does not exist.
    """
    path, at, ref = other.rpartition("@")
    namespace, slash, name = path.partition("/")
    if not (at and slash and is_name(namespace) and is_name(name)):
        return model, other
    named = ModelName(namespace, name)
    if not caller.holds_in(namespace):
        raise NotFound(f"there is no model {named}; its namespace is empty", code="model-not-found")
    return named, ref


def _diff(
    request: Request,
    inside: Inside,
    sides: tuple[Checkpoint, Checkpoint],
    ref: str,
    component: str | None,
    limit: int,
    cursor: str | None,
    listing: str,
    *,
    numeric: bool,
) -> Response:
    base, other = sides
    page = inside.differences(base, other, component, _position(cursor, listing), limit, numeric=numeric)
    names = f"{base.model}@{base.version}", f"{other.model}@{other.version}"
    view = DiffList.of(page, *names, _cursor(page.next, listing))
    return json_answer(request, view, identity_headers(request, base, ref))

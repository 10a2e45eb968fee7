"""The page that compares two checkpoints. Its script asks the API which tensors differ, and by how much."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.datastructures import URL

from ...catalog.checkpoints import resolve
from ...values.checkpoint import Checkpoint
from ..requests.auth import PAGE, Caller
from ..requests.params import Model, Ref
from ..routes.inside import checkpoint_named, other_ref
from ..services import ServicesDep, in_turn
from .addresses import Addresses
from .route import PageRoute
from .templates import page

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class Fact:
    """A number of both checkpoints; None where one has none."""

    name: str
    base: float | None
    other: float | None

    @property
    def change(self) -> float | None:
        return None if self.base is None or self.other is None else self.other - self.base


@router.get("/models/{namespace}/{name}/diff", dependencies=PAGE)
async def chosen(
    request: Request,
    model: Model,
    base: Annotated[str, Query(min_length=1, max_length=300)],
    other: Annotated[str, Query(min_length=1, max_length=300)],
) -> Response:
    """Redirect the form of the page to the comparison of the two refs in it."""
    location = Addresses.of(request).diff(model, base.strip(), other.strip())
    return Response(status_code=303, headers={"Location": str(URL(location)), "Cache-Control": "no-store"})


@router.get("/models/{namespace}/{name}/diff/{ref}/{other}", dependencies=PAGE)
@in_turn
def diff_page(
    request: Request,
    services: ServicesDep,
    caller: Caller,
    model: Model,
    ref: Ref,
    other: Annotated[str, Depends(other_ref)],
) -> Response:
    """Show the changes from the base ``ref`` to ``other``, which may be of another model."""
    with services.catalog.read() as session:
        base = resolve(session, model, ref)
        compared = resolve(session, *checkpoint_named(other, model, caller))
    return page(
        request,
        "diff.html",
        name=model,
        ref=ref,
        other_ref=other,
        base=base,
        other=compared,
        facts=list(_facts(base, compared)),
    )


def _facts(base: Checkpoint, other: Checkpoint) -> Iterator[Fact]:
    for name in ("epoch", "step", "loss"):
        yield Fact(name, getattr(base, name), getattr(other, name))
    for name in sorted({*base.metrics, *other.metrics}):
        yield Fact(name, base.metrics.get(name), other.metrics.get(name))

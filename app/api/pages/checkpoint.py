"""The page of a checkpoint: its facts, its lineage, its tensors, and how to load them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from ...access.grants import OPEN, Grant
from ...catalog import ReadSession
from ...catalog.checkpoints import resolve
from ...catalog.lineage import ancestors, descendants
from ...catalog.listing import Filter, Listing, list_checkpoints
from ...deliver.files import StoredPath
from ...deliver.service import Deliver
from ...select.components import default_component
from ...select.query import FORMATS, StateDictQuery
from ...values.checkpoint import Checkpoint, ModelName
from ...values.folder import FORMAT as FOLDER
from ..requests.auth import PAGE, Caller
from ..requests.params import Model, Ref, Run
from ..responses.views import CheckpointView
from ..services import ServicesDep
from .lineage import Graph, draw
from .lines import Lines, lines_of
from .route import PageRoute
from .templates import page
from .tensors import Row, rows_of, tensors_of

ROWS = 100
"""Tensors on a page that runs no scripts."""

DEVICES = ("cpu", "cuda", "cuda:0", "cuda:1", "mps", "xpu", "meta")
DTYPES = ("float32", "float16", "bfloat16")

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class Around:
    """A checkpoint, its lineage, and the versions next to it."""

    checkpoint: Checkpoint
    lineage: Graph | None
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class Listed:
    """A component's tensors: some of them, their number, and the positions of the pages before and after."""

    component: str
    rows: tuple[Row, ...]
    start: int
    of: int

    @property
    def earlier(self) -> int | None:
        return max(0, self.start - ROWS) if self.start else None

    @property
    def later(self) -> int | None:
        return self.start + ROWS if self.start + ROWS < self.of else None


@router.get("/models/{namespace}/{name}/checkpoints/{ref}", dependencies=PAGE)
async def checkpoint_page(
    request: Request,
    services: ServicesDep,
    caller: Caller,
    model: Model,
    ref: Ref,
    component: Annotated[str | None, Query(max_length=5_000)] = None,
    start: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    run: Run = None,
) -> Response:
    """The checkpoint that ``ref`` means now. ``component`` and ``start`` are of the plain list of its tensors."""

    def found() -> Around:
        with services.catalog.read() as session:
            return _around(session, caller, model, ref, run)

    around = await services.asks.run(found)
    listed = await services.plan(request, _listed, services.deliver, around.checkpoint, component, start)
    files = await services.plan(request, _files, services.deliver, around.checkpoint)
    return page(
        request,
        "checkpoint.html",
        name=model,
        around=around,
        checkpoint=around.checkpoint,
        view=CheckpointView.of(around.checkpoint),
        listed=listed,
        files=files[:ROWS],
        more_files=len(files) - ROWS,
        lines=_first_lines(request, caller, around.checkpoint, listed.component),
        devices=DEVICES,
        dtypes=DTYPES,
        formats=FORMATS,
    )


def _around(s: ReadSession, caller: Grant, model: ModelName, ref: str, run: str | None) -> Around:
    checkpoint = resolve(s, model, ref, run)
    lineage = draw(
        checkpoint, ancestors(s, checkpoint, caller.namespaces), descendants(s, checkpoint, caller.namespaces)
    )
    return Around(
        checkpoint,
        lineage,
        before=_next_version(s, checkpoint, "-version", "lt"),
        after=_next_version(s, checkpoint, "version", "gt"),
    )


def _next_version(s: ReadSession, checkpoint: Checkpoint, order: str, op: str) -> int | None:
    filters = (Filter("version", op, str(checkpoint.version)),)
    items = list_checkpoints(s, checkpoint.model, Listing(None, order, 1, None, filters)).items
    return items[0].version if items else None


def _listed(deliver: Deliver, checkpoint: Checkpoint, component: str | None, start: int) -> Listed:
    """List a component, by default the one that downloads have by default, else the first."""
    manifest = deliver.manifest(checkpoint)
    if component is None:
        number = default_component(manifest.components) if manifest.components else None
        first = manifest.components[number or 0].name if manifest.components else ""
        component = first
    tensors = tensors_of(manifest, component)
    return Listed(component, rows_of(manifest, tensors[start : start + ROWS]), start, len(tensors))


def _files(deliver: Deliver, checkpoint: Checkpoint) -> Sequence[StoredPath]:
    return deliver.files(checkpoint) if checkpoint.format == FOLDER else ()


def _first_lines(request: Request, caller: Grant, checkpoint: Checkpoint, component: str) -> Lines:
    base = str(request.base_url).rstrip("/")
    return lines_of(checkpoint, StateDictQuery(component=component), base, with_token=caller != OPEN)

"""The page of a model: its curves, its checkpoints, its rules and its bytes."""

import json
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from ...catalog import ReadSession, events
from ...catalog.aliases import list_aliases
from ...catalog.curves import Axis, metric_names
from ...catalog.listing import Listing, list_checkpoints
from ...catalog.models import Model as CatalogModel
from ...catalog.models import get_model
from ...catalog.overview import Overview, overview_of, written_bytes
from ...catalog.page import Page
from ...catalog.retention import rules_of
from ...errors import InvalidRequest
from ...values.alias import Alias
from ...values.checkpoint import Checkpoint, ModelName
from ...values.retention import Rules, rules_to_json
from ..requests.auth import PAGE
from ..requests.params import Model
from ..services import ServicesDep, in_turn
from .filters import parse_filters
from .route import PageRoute
from .templates import page

ROWS = 25
"""Checkpoints on one page of the table."""

COLUMNS = 3
"""Most columns of metrics in the table."""

NEWEST_FIRST = "-version"
_FALLING_FIRST = frozenset({"version", "created_at", "bytes", "epoch", "step"})

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class Table:
    """The table of checkpoints. ``mistake`` is why the filter cannot be used; then all checkpoints are shown."""

    listed: Page[Checkpoint]
    columns: tuple[str, ...]
    order: str
    filter: str
    cursor: str | None
    mistake: str | None

    def sorted_by(self, field: str) -> str:
        """Return how the table is sorted by ``field``, as ``aria-sort`` has it."""
        if self.order.removeprefix("-") != field:
            return "none"
        return "descending" if self.order.startswith("-") else "ascending"

    def link(self, order: str | None = None, cursor: str | None = None) -> str:
        """Return the query of this table in another order, or of its page at ``cursor``."""
        pairs = {"filter": self.filter, "order": order or self.order, "cursor": cursor}
        return "?" + urlencode({name: value for name, value in pairs.items() if value and value != NEWEST_FIRST})

    def by(self, field: str) -> str:
        """Return the query of this table sorted by ``field``; if it is already, in the other direction."""
        falls_first = field in _FALLING_FIRST
        first, second = (f"-{field}", field) if falls_first else (field, f"-{field}")
        return self.link(second if self.order == first else first)


@dataclass(frozen=True, slots=True)
class Shown:
    """Everything that the page shows."""

    overview: Overview
    aliases: tuple[Alias, ...]
    metrics: tuple[str, ...]
    axis: Axis
    table: Table
    written: int
    rules: Rules | None
    newest_event: int

    @property
    def first_metrics(self) -> tuple[str, ...]:
        """The metrics that are drawn at first."""
        return ("loss", *self.metrics[:1])

    @property
    def first_curves(self) -> str:
        """The query of the curves that the page's script asks for first: a browser may fetch them before it runs."""
        return urlencode([*(("metric", name) for name in self.first_metrics), ("x", self.axis)])

    @property
    def rules_text(self) -> str:
        """The rules as the API writes them; empty without rules."""
        return "" if self.rules is None else json.dumps(rules_to_json(self.rules), indent=2)


@router.get("/models/{namespace}/{name}", dependencies=PAGE)
@in_turn
def model_page(
    request: Request,
    services: ServicesDep,
    model: Model,
    order: Annotated[str, Query(max_length=300)] = NEWEST_FIRST,
    filter: Annotated[str, Query(max_length=1000)] = "",  # noqa: A002 - the name of the parameter
    cursor: str | None = None,
) -> Response:
    """A model. ``order``, ``filter`` and ``cursor`` are of the table."""
    with services.catalog.read() as session:
        shown = _shown(session, model, order, filter, cursor)
    return page(request, "model.html", name=model, shown=shown)


def _shown(s: ReadSession, name: ModelName, order: str, filter_: str, cursor: str | None) -> Shown:
    newest_event = events.newest(s)  # first: what comes after it may be shown already, and is never missed
    model = get_model(s, name)
    overview = overview_of(s, model)
    latest = overview.latest or 0
    names = _best_first(metric_names(s, model, latest), model)
    table = _table(s, name, names, order, filter_, cursor)
    newest = table.listed.items[0] if table.listed.items else None
    axis: Axis = "version"
    if newest is not None:
        axis = "epoch" if newest.epoch is not None else "step" if newest.step is not None else "version"
    return Shown(
        overview=overview,
        aliases=list_aliases(s, name),
        metrics=names,
        axis=axis,
        table=table,
        written=written_bytes(s, model),
        rules=rules_of(s, name),
        newest_event=newest_event,
    )


def _best_first(names: tuple[str, ...], model: CatalogModel) -> tuple[str, ...]:
    """Put the metric by which the model's best checkpoint is found before the others."""
    best = model.best.partition(":")[2]
    return tuple(sorted(names, key=lambda name: (name != best, name)))


def _table(
    s: ReadSession, name: ModelName, metrics: tuple[str, ...], order: str, filter_: str, cursor: str | None
) -> Table:
    columns, mistake = metrics[:COLUMNS], None
    try:
        listed = list_checkpoints(s, name, Listing(None, order, ROWS, cursor, parse_filters(filter_)))
    except InvalidRequest as error:
        if error.code != "bad-filter":
            raise
        mistake, cursor = error.detail, None
        listed = list_checkpoints(s, name, Listing(None, order, ROWS))
    return Table(listed, columns, order, filter_, cursor, mistake)

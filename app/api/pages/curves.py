"""The data of a model's charts, as compact JSON: columns instead of rows, differences instead of large numbers."""

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from ...catalog import curves as catalog_curves
from ...catalog.curves import Axis, Point, Run
from ...catalog.models import get_model
from ..requests.auth import PAGE
from ..requests.params import Model
from ..services import ServicesDep, in_turn
from .templates import packed
from .thinning import thinned

MOST_OF_A_CURVE = 1_000
MOST_OF_ALL = 16_000
"""Most points of one curve, and of all curves of an answer, as long as each has LEAST."""

LEAST = 60
MOST_METRICS = 8
RUNS = 8
"""Runs that are drawn if the request names none: those with the newest checkpoints."""

router = APIRouter(include_in_schema=False)


@router.get("/models/{namespace}/{name}/curves.json", dependencies=PAGE)
@in_turn
def curves(
    request: Request,
    services: ServicesDep,
    model: Model,
    metric: Annotated[list[str], Query(max_length=MOST_METRICS)] = ["loss"],  # noqa: B006 - FastAPI copies it
    x: Axis = "epoch",
    run: Annotated[list[int] | None, Query(description="numbers of runs, as listed")] = None,
    low: Annotated[int | None, Query(alias="from", ge=-(2**63), lt=2**63)] = None,
    high: Annotated[int | None, Query(alias="to", ge=-(2**63), lt=2**63)] = None,
) -> Response:
    """The curves of some metrics in some runs. A run has the number of its place among all runs,
    which new runs do not change.
    """
    wanted = [name for name in dict.fromkeys(metric) if "\0" not in name]
    with services.catalog.read() as session:
        found = get_model(session, model)
        runs = catalog_curves.list_runs(session, found)
        shown = _newest(runs) if run is None else [number for number in sorted(set(run)) if 0 <= number < len(runs)]
        names = [runs[number].name for number in shown]
        by_metric = {
            name: catalog_curves.curves(session, found, name, x, names, (low, high)) for name in wanted if names
        }
    most = min(MOST_OF_A_CURVE, max(LEAST, MOST_OF_ALL // max(1, len(shown) * len(wanted))))
    document = {
        "x": x,
        "metrics": wanted,
        "runs": [_run(each) for each in runs],
        "shown": shown,
        "curves": [
            _curve(at, number, by_metric[name][runs[number].name], most)
            for at, name in enumerate(wanted)
            for number in shown
            if runs[number].name in by_metric.get(name, {})
        ],
    }
    body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="backslashreplace")
    return packed(request, body, "application/json", {"Cache-Control": "private, no-cache"})


def _newest(runs: Sequence[Run]) -> list[int]:
    return sorted(sorted(range(len(runs)), key=lambda number: -runs[number].latest)[:RUNS])


def _run(run: Run) -> list[Any]:
    return [run.name, run.checkpoints, run.latest]


def _curve(metric: int, run: int, points: Sequence[Point], most: int) -> dict[str, Any]:
    """A curve's columns. ``gone`` are the places of points whose checkpoints are in the trash, or purged."""
    kept = thinned(points, most)
    return {
        "metric": metric,
        "run": run,
        "of": len(points),
        "version": list(_differences([point.version for point in kept])),
        "x": list(_differences([point.x for point in kept])),
        "y": [_short(point.y) for point in kept],
        "gone": {at: point.state for at, point in enumerate(kept) if point.state != "live"},
    }


def _differences(numbers: Sequence[int]) -> Iterator[int]:
    """Yield the first number, and then how much each is more than the one before."""
    before = 0
    for number in numbers:
        yield number - before
        before = number


def _short(value: float) -> float:
    """Return ``value`` with five digits: more than a screen has pixels."""
    return float(f"{value:.5g}")

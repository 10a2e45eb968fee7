"""Curves, on each database."""

from datetime import timedelta

import pytest

from app.catalog import Catalog, trash
from app.catalog.curves import MOST_RUNS, Axis, Point, Run, curves, list_runs, metric_names
from app.catalog.models import get_model
from tests.catalog.make import MODEL, add, statements


@pytest.fixture
def trained(catalog: Catalog) -> Catalog:
    """Two runs that took turns, one without a name; version 3 is in the trash, and 4 is purged."""
    for number in range(6):
        run = "a" if number % 2 else None
        numbers = {"loss": 1.0 - number / 10, "metrics": {"acc": float(number), "lr": 0.5}}
        add(catalog, run=run, epoch=number // 2, step=100 * number, **numbers)
    add(catalog, run="a", epoch=9, loss=float("nan"), metrics={"acc": float("inf")})
    with catalog.write() as w:
        trash.delete_checkpoint(w, MODEL, 3, kept=timedelta(days=7))
        trash.delete_checkpoint(w, MODEL, 4)
    return catalog


def found(catalog: Catalog, metric: str, axis: Axis = "version", **more: object) -> dict[str | None, list[Point]]:
    with catalog.read() as s:
        return curves(s, get_model(s, MODEL), metric, axis, **more)


def test_a_curve_has_what_was_removed_and_no_number_that_is_not_finite(trained: Catalog) -> None:
    for metric, values in (("loss", (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)), ("acc", (0.0, 1.0, 2.0, 3.0, 4.0, 5.0))):
        by_run = found(trained, metric)
        points = sorted((point for run in by_run.values() for point in run), key=lambda point: point.version)
        assert [point.y for point in points] == pytest.approx(values)
        assert [point.state for point in points] == ["live", "live", "trashed", "purged", "live", "live"]
        assert [point.version for point in by_run[None]] == [1, 3, 5]
    assert found(trained, "nothing") == {}


def test_a_curve_is_over_what_one_asks_for_and_between_its_ends(trained: Catalog) -> None:
    assert [point.x for point in found(trained, "loss", "epoch", runs=[None])[None]] == [0, 1, 2]
    assert [point.x for point in found(trained, "lr", "step", runs=["a"], between=(200, 500))["a"]] == [300, 500]
    assert found(trained, "loss", runs=[]) == {}
    times = [point.x for point in found(trained, "loss", "time", runs=["a"])["a"]]
    assert times == sorted(times)


def test_runs_are_in_the_order_in_which_they_began(trained: Catalog) -> None:
    add(trained, run=None)
    add(trained, run="b")
    with trained.read() as s:
        assert list_runs(s, get_model(s, MODEL)) == (Run(None, 4, 8), Run("a", 4, 7), Run("b", 1, 9))
        assert metric_names(s, get_model(s, MODEL), 9) == ("acc", "lr")
    assert MOST_RUNS > 100


def test_a_curve_takes_two_statements(trained: Catalog) -> None:
    with statements(trained) as seen:
        found(trained, "acc")
    assert len(seen) == 3  # and one for the model

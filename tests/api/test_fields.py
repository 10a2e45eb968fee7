import math

import pytest

from app.api.requests.upload_fields import parse_fields
from app.api.routes.checkpoints import parse_filters
from app.catalog.listing import Filter
from app.errors import InvalidRequest, SelectionError
from app.values.checkpoint import Fields


def test_fields_are_read_by_name() -> None:
    given = [("epoch", "3"), ("step", "-1"), ("loss", "1e-3"), ("run", "a"), ("metric.val.acc", "0.5"), ("tag.x", "y")]
    assert parse_fields(given) == Fields(
        run="a", epoch=3, step=-1, loss=1e-3, metrics={"val.acc": 0.5}, tags={"x": "y"}
    )
    assert parse_fields([]) == Fields()


def test_a_loss_may_be_no_finite_number() -> None:
    fields = parse_fields([("loss", "nan"), ("metric.a", "-inf")])
    assert fields.loss is not None
    assert math.isnan(fields.loss)
    assert fields.metrics == {"a": -math.inf}


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ([("epoch", "3.5")], "invalid-value"),
        ([("epoch", "")], "invalid-value"),
        ([("epoch", "\u0663")], "invalid-value"),
        ([("epoch", "1" * 5000)], "invalid-value"),
        ([("loss", "low")], "invalid-value"),
        ([("metric.a", "")], "invalid-value"),
        ([("epoch", "1"), ("epoch", "2")], "repeated-parameter"),
    ],
)
def test_a_value_that_is_none_is_refused(given: list[tuple[str, str]], code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_fields(given)
    assert refused.value.code == code


@pytest.mark.parametrize(("name", "near"), [("epcoh", "epoch"), ("metric", "metric.NAME"), ("metric.", "metric.NAME")])
def test_an_unknown_field_is_named_with_the_one_that_is_near(name: str, near: str) -> None:
    with pytest.raises(SelectionError) as refused:
        parse_fields([(name, "1")])
    assert refused.value.code == "unknown-parameter"
    assert refused.value.near[0] == near


def test_filters_are_all_that_is_no_setting_of_the_listing() -> None:
    given = [("run", "a"), ("limit", "5"), ("epoch.ge", "3"), ("metric.a.ge.lt", "1"), ("tag.x", "y"), ("tag.eq", "z")]
    assert parse_filters(given) == (
        Filter("epoch", "ge", "3"),
        Filter("metric.a.ge", "lt", "1"),
        Filter("tag.x", "eq", "y"),
        Filter("tag.eq", "eq", "z"),
    )

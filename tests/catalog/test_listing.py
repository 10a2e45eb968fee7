import itertools
from dataclasses import replace
from math import inf, isfinite, nan
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog import Catalog, checkpoints, listing, models
from app.catalog.checkpoints import Filter, Listing
from app.catalog.trash import delete_checkpoint
from app.errors import InvalidRequest, NotFound
from app.values.checkpoint import Checkpoint, ModelName
from tests.catalog.make import MODEL, add, statements
from tests.support.measure import examples

FIELDS = ("version", "epoch", "step", "loss", "created_at", "run", "slot", "bytes", "metric.acc", "tag.stage")
OPERATORS = ("eq", "lt", "le", "gt", "ge")
ORDERS_WITH_AN_INDEX = (
    "-version",
    "version",
    "-loss",
    "-epoch",
    "-step",
    "-created_at",
    "-bytes",
    "-metric.acc",
    "-tag.a",
)
ORDERS_OF_A_RUN_WITH_AN_INDEX = ("-version", "version", "-loss", "-epoch", "-step", "-metric.acc", "-tag.a")
BY_EPOCH = Filter("epoch", "ge", "1")
_models = itertools.count()


def every_page(catalog: Catalog, asked: Listing, model: ModelName = MODEL) -> list[Checkpoint]:
    found: list[Checkpoint] = []
    cursor: str | None = None
    while True:
        with catalog.read() as s:
            page = checkpoints.list_checkpoints(s, model, replace(asked, cursor=cursor))
        assert len(page.items) <= asked.limit
        found += page.items
        if page.next is None:
            return found
        assert len(page.items) == asked.limit
        cursor = page.next


def versions(catalog: Catalog, *filters: Filter, **fields: Any) -> list[int]:
    return [found.version for found in every_page(catalog, Listing(filters=filters, **fields))]


def field_of(checkpoint: Checkpoint, field: str) -> Any:
    """Its value, None where there is none to rank."""
    prefix, _, name = field.partition(".")
    if name:
        value = (checkpoint.metrics if prefix == "metric" else checkpoint.tags).get(name)
    else:
        value = getattr(checkpoint, {"bytes": "nbytes"}.get(field, field))
    return None if isinstance(value, float) and not isfinite(value) else value


few_numbers = st.sampled_from([0.0, -1.5, 0.1, 1e300, inf, -inf, nan])
few_checkpoints = st.lists(
    st.fixed_dictionaries(
        {
            "run": st.sampled_from([None, "a", "B", "é", "𝄞"]),
            "slot": st.sampled_from([None, "last", "best"]),
            "epoch": st.sampled_from([None, 0, 1, -(2**63) + 1]),
            "step": st.sampled_from([None, 5, 2**63 - 1]),
            "loss": st.none() | few_numbers,
            "metrics": st.dictionaries(st.sampled_from(["acc", "f1"]), few_numbers),
            "tags": st.dictionaries(st.sampled_from(["stage"]), st.sampled_from(["", "a", "B", "é", "𝄞", "\uffff"])),
            "nbytes": st.sampled_from([0, 7, 2**40]),
        }
    ),
    min_size=1,
    max_size=10,
)


@examples(60)
@given(few=few_checkpoints, field=st.sampled_from(FIELDS), descending=st.booleans(), limit=st.integers(1, 5))
def test_pages_are_the_whole_listing_in_the_order_asked_for(
    shared_catalog: Catalog, few: list[dict[str, Any]], field: str, descending: bool, limit: int
):
    model = ModelName("listing", f"m{next(_models)}")
    expected = [add(shared_catalog, model, **fields) for fields in few]
    expected.sort(key=lambda checkpoint: -checkpoint.version)
    ranked = [checkpoint for checkpoint in expected if field_of(checkpoint, field) is not None]
    unranked = [checkpoint for checkpoint in expected if field_of(checkpoint, field) is None]
    ranked.sort(key=lambda checkpoint: field_of(checkpoint, field), reverse=descending)
    if descending:  # a reversed stable sort keeps ties as they were
        assert [found.version for found in ranked] == [
            found.version for found in sorted(ranked, key=lambda found: (field_of(found, field), found.version))[::-1]
        ]
    found = every_page(shared_catalog, Listing(order="-" * descending + field, limit=limit), model)
    assert [checkpoint.version for checkpoint in found] == [checkpoint.version for checkpoint in ranked + unranked]
    assert repr(sorted(found, key=lambda each: each.version)) == repr(expected[::-1])  # repr: nan equals nan


@examples(40)
@given(few=few_checkpoints, value=st.sampled_from([-1.5, 0.1, 1e300]), op=st.sampled_from(OPERATORS))
def test_filters_compare_as_python_does_and_what_is_not_finite_compares_with_nothing(
    shared_catalog: Catalog, few: list[dict[str, Any]], value: float, op: str
):
    model = ModelName("listing", f"m{next(_models)}")
    added = [add(shared_catalog, model, **fields) for fields in few]
    for field in ("loss", "metric.acc"):
        known = {checkpoint.version: field_of(checkpoint, field) for checkpoint in added}
        kept = {v for v, x in known.items() if x is not None and getattr(float, f"__{op}__")(x, value)}
        asked = Listing(filters=(Filter(field, op, repr(value)),), order="-metric.acc", limit=3)
        assert {found.version for found in every_page(shared_catalog, asked, model)} == kept


@examples(30)
@given(
    few=few_checkpoints,
    order=st.sampled_from(FIELDS),
    by=st.sampled_from(["loss", "metric.acc", "epoch", "tag.stage", "slot"]),
    most=st.sampled_from([0, 2, listing.FEW]),
)
def test_a_filtered_listing_is_the_whole_one_without_the_rest_whether_few_or_many_fulfil_it(
    shared_catalog: Catalog, few: list[dict[str, Any]], order: str, by: str, most: int
):
    model = ModelName("listing", f"m{next(_models)}")
    added = [add(shared_catalog, model, **fields) for fields in few]
    value = next((value for each in added if (value := field_of(each, by)) is not None), None)
    if value is None:
        return
    condition = Filter(by, "le", value if isinstance(value, str) else repr(value))
    for order_by in (order, f"-{order}"):
        everything = every_page(shared_catalog, Listing(order=order_by), model)
        kept = [each.version for each in everything if (x := field_of(each, by)) is not None and x <= value]
        with patch.object(listing, "FEW", most):
            found = every_page(shared_catalog, Listing(order=order_by, filters=(condition,), limit=2), model)
        assert [each.version for each in found] == kept


@pytest.mark.parametrize("order", [*ORDERS_WITH_AN_INDEX, "loss", "metric.acc"])
@pytest.mark.parametrize("run", [None, "a"])
def test_what_few_checkpoints_fulfil_is_looked_up_by_their_versions(
    sqlite_catalog: Catalog, order: str, run: str | None
):
    catalog = sqlite_catalog
    for i in range(10):
        add(catalog, run="a", epoch=i, step=i, loss=float(i), metrics={"acc": float(i)}, tags={"a": str(i)})
    for condition in (Filter("tag.a", "eq", "3"), Filter("metric.acc", "lt", "2"), Filter("epoch", "eq", "5")):
        with statements(catalog) as seen, catalog.read() as s:
            checkpoints.list_checkpoints(s, MODEL, Listing(run=run, order=order, filters=(condition,)))
        with catalog.read() as s:
            for text in (text for text in seen if " AS rank" in text):
                plan = s._connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", (1,) * text.count("?")).all()
                [first, *_] = [step.detail for step in plan]
                assert "version=?" in first, first


def test_filters_are_all_fulfilled_at_once_and_a_run_scopes(catalog: Catalog):
    for epoch in range(6):
        add(catalog, run="ab"[epoch % 2], epoch=epoch, loss=epoch / 10, tags={"stage": f"s{epoch % 3}"})
    assert versions(catalog, Filter("epoch", "ge", "1"), Filter("epoch", "lt", "4")) == [4, 3, 2]
    assert versions(catalog, Filter("tag.stage", "eq", "s0")) == [4, 1]
    assert versions(catalog, Filter("tag.stage", "eq", "s0"), run="a") == [1]
    assert versions(catalog, Filter("run", "eq", "b"), order="loss") == [2, 4, 6]
    last = add(catalog, run="a", slot="last").version
    assert versions(catalog, Filter("slot", "eq", "last"), run="a") == [last]
    assert versions(catalog, Filter("slot", "ge", "")) == [last]
    assert versions(catalog, Filter("created_at", "gt", "2020-01-01"), run="b", order="-tag.stage") == [6, 2, 4]
    assert versions(catalog, Filter("created_at", "lt", "2020-01-01T00:00:00Z")) == []
    assert versions(catalog, Filter("bytes", "eq", "5000"), Filter("version", "le", "2"), order="version") == [1, 2]
    assert versions(catalog, Filter("metric.loss", "le", "0.1")) == [2, 1]


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        (Filter("lost", "eq", "1"), "metric.NAME"),
        (Filter("metric.", "eq", "1"), "metric.NAME"),
        (Filter("epoch", "ne", "1"), "eq, lt, le, gt, ge"),
        (Filter("epoch", "eq", "1.5"), "an integer"),
        (Filter("epoch", "eq", str(2**63)), "an integer"),
        (Filter("loss", "lt", "nan"), "a finite number"),
        (Filter("loss", "lt", "low"), "a finite number"),
        (Filter("created_at", "lt", "yesterday"), "2026-05-09T07:35:25Z"),
        (Filter("tag.a", "eq", "\0"), "NUL"),
    ],
)
def test_a_bad_filter_is_refused_with_what_would_be_right(catalog: Catalog, condition: Filter, says: str):
    add(catalog)
    with pytest.raises(InvalidRequest, match=says) as refused:
        versions(catalog, condition)
    assert refused.value.code == "bad-filter"


@pytest.mark.parametrize("order", ["", "-", "--version", "lost", "sha256", "metric.", "version,loss"])
def test_a_bad_order_is_refused_with_what_would_be_right(catalog: Catalog, order: str):
    add(catalog)
    with pytest.raises(InvalidRequest, match="version, epoch, step, loss") as refused:
        versions(catalog, order=order)
    assert refused.value.code == "bad-order"


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_page_holds_between_one_and_a_thousand(catalog: Catalog, limit: int):
    add(catalog)
    with pytest.raises(InvalidRequest) as refused:
        versions(catalog, limit=limit)
    assert refused.value.code == "bad-limit"


def second_page(catalog: Catalog, cursor: str, **fields: Any) -> tuple[Checkpoint, ...]:
    with catalog.read() as s:
        return checkpoints.list_checkpoints(s, MODEL, Listing(limit=1, cursor=cursor, **fields)).items


@pytest.fixture
def cursor(catalog: Catalog) -> str:
    """Of a listing by loss, one a page."""
    add(catalog, loss=0.5)
    add(catalog, loss=0.25)
    add(catalog)
    with catalog.read() as s:
        cursor = checkpoints.list_checkpoints(s, MODEL, Listing(order="loss", limit=1)).next
    assert cursor is not None
    return cursor


def test_a_cursor_goes_on_where_the_page_ended_whatever_was_deleted_and_added(catalog: Catalog, cursor: str):
    with catalog.write() as w:
        delete_checkpoint(w, MODEL, 2)
    add(catalog, loss=0.1)
    assert [found.version for found in second_page(catalog, cursor, order="loss")] == [1]


def test_a_cursor_is_url_safe(cursor: str):
    assert not set(cursor) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_a_damaged_cursor_is_refused_wherever_it_is_damaged(catalog: Catalog, cursor: str):
    damaged = [cursor[:i] + ("A" if cursor[i] != "A" else "B") + cursor[i + 1 :] for i in range(len(cursor))]
    for text in (*damaged, cursor[:-1], cursor + "A", cursor + "=", "", "é", "a", "AAAA" * 10):
        with pytest.raises(InvalidRequest) as refused:
            second_page(catalog, text, order="loss")
        assert refused.value.code == "bad-cursor"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"order": "-loss"},
        {"order": "loss", "run": "a"},
        {"order": "loss", "filters": (BY_EPOCH,)},
    ],
)
def test_a_cursor_of_another_listing_is_refused(catalog: Catalog, cursor: str, fields: dict[str, Any]):
    with pytest.raises(InvalidRequest) as refused:
        second_page(catalog, cursor, **fields)
    assert refused.value.code == "bad-cursor"


def test_listing_a_model_that_is_not_there_says_so(catalog: Catalog):
    with pytest.raises(NotFound) as missing:
        versions(catalog)
    assert missing.value.code == "model-not-found"


def test_a_listing_takes_the_same_statements_however_long_it_is(catalog: Catalog):
    counts = []
    for _ in range(2):
        for i in range(20):
            add(catalog, loss=float(i), metrics={f"m{j}": float(i) for j in range(10)}, tags={"a": "b"})
        with statements(catalog) as seen, catalog.read() as s:
            for order in ("-version", "loss", "-metric.m3", "tag.none"):
                checkpoints.list_checkpoints(s, MODEL, Listing(order=order, limit=1000))
        counts.append(len(seen))
    assert counts[0] == counts[1] <= 1 + 4 * 6


@pytest.mark.parametrize(
    ("order", "run"),
    [
        *((order, None) for order in ORDERS_WITH_AN_INDEX),
        *((order, "a") for order in ORDERS_OF_A_RUN_WITH_AN_INDEX),
    ],
)
def test_a_page_is_a_run_through_an_index_without_sorting(sqlite_catalog: Catalog, order: str, run: str | None):
    catalog = sqlite_catalog
    for i in range(10):
        add(catalog, run="a", epoch=i, step=i, loss=float(i), metrics={"acc": float(i)})
    with statements(catalog) as seen, catalog.read() as s:
        checkpoints.list_checkpoints(s, MODEL, Listing(run=run, order=order, limit=3))
    ranking = [text for text in seen if " AS rank" in text]
    assert ranking
    with catalog.read() as s:
        for text in ranking:
            plan = s._connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", (1,) * text.count("?")).all()
            steps = [step.detail for step in plan]
            assert not [step for step in steps if "SCAN" in step or "TEMP B-TREE" in step], steps


def test_models_are_listed_by_name_page_by_page(catalog: Catalog):
    names = [ModelName(namespace, name) for namespace in ("a", "b-b", "é") for name in ("A", "a", "z.z")]
    for name in reversed(names):
        add(catalog, name)
    found: list[ModelName] = []
    cursor: str | None = None
    for _ in range(5):
        with catalog.read() as s:
            page = models.list_models(s, limit=2, cursor=cursor)
        found += [model.name for model in page.items]
        cursor = page.next
    assert (found, cursor) == (names, None)


def test_a_cursor_of_checkpoints_is_none_of_models(catalog: Catalog, cursor: str):
    with pytest.raises(InvalidRequest) as refused, catalog.read() as s:
        models.list_models(s, cursor=cursor)
    assert refused.value.code == "bad-cursor"


def test_more_filters_than_a_statement_can_hold_are_refused(catalog):
    add(catalog)
    with pytest.raises(InvalidRequest) as refused:
        versions(catalog, *[BY_EPOCH] * 1001)
    assert refused.value.code == "bad-filter"

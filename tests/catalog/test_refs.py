import contextlib
from math import inf, nan
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog import Catalog, models
from app.catalog.refs import Kind, Ref, parse_ref
from app.errors import InvalidRequest, NotFound
from app.values.checkpoint import ModelName
from tests.catalog.make import MODEL, add, resolve, statements


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("12", Ref("version", number=12)),
        ("v12", Ref("version", number=12)),
        ("latest", Ref("latest")),
        ("best", Ref("best")),
        ("min:loss", Ref("min", name="loss")),
        ("max:val/acc top:1", Ref("max", name="val/acc top:1")),
        ("epoch:3", Ref("epoch", number=3)),
        ("step:-1", Ref("step", number=-1)),
        ("prod", Ref("alias", name="prod")),
        ("v1.2-rc", Ref("alias", name="v1.2-rc")),
    ],
)
def test_each_kind_of_ref_is_read(text: str, ref: Ref):
    assert parse_ref(text) == ref


@pytest.mark.parametrize(
    "text", ["", "-1", "1.5", "min:", "epoch:", "epoch:x", "epoch:1.5", "a b", "LATEST:1", "٣", "epoch:٣"]
)
def test_what_no_ref_looks_like_is_refused_with_what_refs_look_like(text: str):
    with pytest.raises(InvalidRequest, match="min:NAME") as refused:
        parse_ref(text)
    assert refused.value.code == "bad-ref"


@given(st.text())
def test_any_text_is_a_ref_or_an_invalid_request(text: str):
    with contextlib.suppress(InvalidRequest):
        assert parse_ref(text).kind in get_args(Kind)


def version(catalog: Catalog, ref: str, run: str | None = None) -> int:
    return resolve(catalog, ref, run).version


def test_latest_is_the_highest_version_and_a_number_is_itself(catalog: Catalog):
    for _ in range(3):
        add(catalog)
    assert (version(catalog, "latest"), version(catalog, "2"), version(catalog, "v1")) == (3, 2, 1)


def test_best_is_the_smallest_loss_until_it_is_set_otherwise(catalog: Catalog):
    add(catalog, loss=0.5, metrics={"acc": 0.1})
    add(catalog, loss=0.2, metrics={"acc": 0.2})
    add(catalog, loss=0.9, metrics={"acc": 0.3})
    assert version(catalog, "best") == 2
    with catalog.write() as w:
        assert models.set_best(w, MODEL, "max:acc").best == "max:acc"
    assert version(catalog, "best") == 3
    assert (version(catalog, "min:acc"), version(catalog, "max:loss")) == (1, 3)


@pytest.mark.parametrize("best", ["loss", "min:", "avg:loss", "", "latest"])
def test_best_can_only_be_a_minimum_or_a_maximum(catalog: Catalog, best: str):
    add(catalog)
    with pytest.raises(InvalidRequest) as refused, catalog.write() as w:
        models.set_best(w, MODEL, best)
    assert refused.value.code == "bad-best"


def test_what_is_not_finite_ranks_nowhere(catalog: Catalog):
    add(catalog, loss=nan, metrics={"acc": inf})
    add(catalog, loss=-inf, metrics={"acc": nan})
    add(catalog, loss=3.0, metrics={"acc": 0.5})
    add(catalog, loss=inf, metrics={"acc": -inf})
    add(catalog)
    refs = ("min:loss", "max:loss", "min:acc", "max:acc", "best")
    assert {version(catalog, ref) for ref in refs} == {3}


def test_ties_go_to_the_newest(catalog: Catalog):
    for _ in range(3):
        add(catalog, epoch=1, step=5, loss=0.5, metrics={"acc": 0.5})
    add(catalog, epoch=2, loss=0.7, metrics={"acc": 0.7})
    assert version(catalog, "epoch:1") == version(catalog, "step:5") == 3
    assert version(catalog, "best") == version(catalog, "min:acc") == 3


def test_a_run_scopes_every_ref(catalog: Catalog):
    add(catalog, run="a", epoch=1, step=1, loss=0.5, metrics={"acc": 0.5})
    add(catalog, run="b", epoch=1, step=1, loss=0.1, metrics={"acc": 0.9})
    add(catalog, epoch=1, step=1, loss=0.0, metrics={"acc": 1.0})
    refs = ("1", "latest", "best", "min:acc", "max:acc", "epoch:1", "step:1")
    assert {version(catalog, ref, "a") for ref in refs} == {1}
    with pytest.raises(NotFound, match="in run 'b' has no version 1"):
        version(catalog, "1", "b")
    with pytest.raises(NotFound, match="in run 'c' has no checkpoints"):
        version(catalog, "latest", "c")


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("13", "vision/resnet50 has no version 13; it has versions up to 2"),
        ("99999999999999999999999999", "it has versions up to 2"),
        ("epoch:7", "no checkpoint of epoch 7; its epochs go from 1 to 2"),
        ("step:7", "no checkpoint of step 7; none has any step"),
        ("max:val_acc", "no checkpoint with a finite val_acc"),
        ("best", "no checkpoint with a finite loss"),
        ("prod", "no alias 'prod'"),
    ],
)
def test_a_checkpoint_that_is_missing_is_answered_with_what_exists(catalog: Catalog, ref: str, says: str):
    add(catalog, epoch=1, loss=nan)
    add(catalog, epoch=2)
    with pytest.raises(NotFound, match=says) as missing:
        resolve(catalog, ref)
    assert missing.value.code == "checkpoint-not-found"


def test_a_model_that_is_missing_is_answered_with_its_siblings(catalog: Catalog):
    with pytest.raises(NotFound, match="its namespace is empty"):
        resolve(catalog, "latest")
    add(catalog)
    add(catalog, ModelName("vision", "vit"))
    add(catalog, ModelName("text", "bert"))
    there = r"its namespace has vision/resnet50, vision/vit$"
    with pytest.raises(NotFound, match=f"no model vision/lenet; {there}") as missing:
        resolve(catalog, "latest", model=ModelName("vision", "lenet"))
    assert missing.value.code == "model-not-found"


def test_resolving_takes_the_same_statements_however_many_checkpoints_there_are(catalog: Catalog):
    counts = []
    for _ in range(2):
        for i in range(15):
            add(catalog, epoch=i, loss=1 / (i + 1), metrics={f"m{j}": float(i) for j in range(10)})
        with statements(catalog) as seen:
            for ref in ("latest", "best", "max:m3", "epoch:4", "2"):
                resolve(catalog, ref)
        counts.append(len(seen))
    assert counts[0] == counts[1] <= 5 * (1 + 5)


@pytest.mark.parametrize("run", [None, "a"])
@pytest.mark.parametrize("ref", ["7", "latest", "best", "max:loss", "min:acc", "max:acc", "epoch:3", "step:3"])
def test_every_ref_is_a_look_up_in_an_index(sqlite_catalog: Catalog, ref: str, run: str | None):
    catalog = sqlite_catalog
    for i in range(10):
        add(catalog, run="a", epoch=i, step=i, loss=float(i), metrics={"acc": float(i)})
    with statements(catalog) as seen:
        resolve(catalog, ref, run)
    picking = [text for text in seen if "LIMIT" in text]
    assert picking
    with catalog.read() as s:
        for text in picking:
            plan = s._connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", (1,) * text.count("?")).all()
            steps = [step.detail for step in plan]
            assert not [step for step in steps if "SCAN" in step or "TEMP B-TREE" in step], steps

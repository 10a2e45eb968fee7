from datetime import UTC, datetime, timedelta
from math import nan

import pytest

from app.catalog import Catalog, checkpoints, models, unfinished
from app.catalog import commit as commit_module
from app.catalog.commit import commit
from app.catalog.trash import delete_checkpoint
from app.errors import InvalidRequest, NotFound
from app.values.checkpoint import Checkpoint
from tests.catalog.make import MODEL, add, begin_pack, count, digest, new_checkpoint, resolve, statements


def update(catalog: Catalog, version: int = 1, metrics: dict | None = None, tags: dict | None = None) -> Checkpoint:
    with catalog.write() as w:
        return checkpoints.update(w, MODEL, version, metrics or {}, tags or {})


def test_metrics_and_tags_are_merged_and_none_removes(catalog: Catalog):
    before = add(catalog, run="a", loss=0.5, metrics={"acc": 0.1, "f1": 0.2}, tags={"stage": "dev", "by": "me"})
    after = update(
        catalog, metrics={"acc": 0.9, "f1": None, "auc": nan}, tags={"stage": "prod", "by": None, "no": None}
    )
    assert repr(after.metrics) == repr({"acc": 0.9, "auc": nan})
    assert after.tags == {"stage": "prod"}
    assert (after.loss, after.created_at, after.id) == (before.loss, before.created_at, before.id)
    assert repr(resolve(catalog, "1")) == repr(after)


def test_an_updated_metric_ranks_at_once_in_its_run_too(catalog: Catalog):
    add(catalog, run="a", metrics={"acc": 0.1})
    add(catalog, run="a", metrics={"acc": 0.2})
    update(catalog, 1, metrics={"acc": 0.3})
    assert resolve(catalog, "max:acc").version == resolve(catalog, "max:acc", "a").version == 1


def test_a_deleted_model_outlives_a_clean_up_and_gives_no_version_twice(catalog: Catalog):
    first = add(catalog)
    with catalog.write() as w:
        delete_checkpoint(w, MODEL, 1)
        models.delete_empty(w, MODEL)
    unfinished.drop(catalog, datetime.now(UTC), lambda: None)
    with pytest.raises(NotFound) as gone, catalog.read() as s:
        models.get_model(s, MODEL)
    assert gone.value.code == "model-not-found"
    assert add(catalog).version == 2
    with catalog.read() as s:
        assert models.get_model(s, MODEL).created_at > first.created_at


@pytest.mark.parametrize(
    ("metrics", "tags", "code"),
    [
        ({"loss": 0.1}, {}, "bad-metric"),
        ({"": 0.1}, {}, "bad-metric"),
        ({}, {"": "x"}, "bad-tag"),
        ({"ok": 1.0}, {"a": "\ud800"}, "bad-text"),
        ({"x" * 201: 1.0}, {}, "bad-metric"),
        ({str(i): 1.0 for i in range(1001)}, {}, "bad-metric"),
        ({}, {"long": "x" * 10_001}, "bad-tag"),
    ],
)
def test_a_refused_update_changes_nothing(catalog: Catalog, metrics: dict, tags: dict, code: str):
    before = add(catalog, metrics={"acc": 0.1})
    with pytest.raises(InvalidRequest) as refused:
        update(catalog, 1, metrics, tags)
    assert refused.value.code == code
    assert resolve(catalog, "1") == before


def test_what_is_not_there_cannot_be_updated_or_deleted(catalog: Catalog):
    add(catalog)
    with pytest.raises(NotFound) as missing:
        update(catalog, 2, {"acc": 1.0})
    assert missing.value.code == "checkpoint-not-found"
    with pytest.raises(NotFound), catalog.write() as w:
        delete_checkpoint(w, MODEL, 2)


def test_updates_take_the_same_statements_however_much_they_change(catalog: Catalog):
    add(catalog)
    counts = []
    for size in (1, 300):
        with statements(catalog) as seen:
            update(catalog, 1, {f"m{i}": 1.0 for i in range(size)}, {f"t{i}": "x" for i in range(size)})
        counts.append(len(seen))
    assert counts[0] == counts[1]


def test_deleting_takes_the_rows_of_a_checkpoint_and_leaves_its_blobs_to_a_later_clean_up(catalog: Catalog):
    digests = [digest("a"), digest("b")]
    new = new_checkpoint(blobs=digests, metrics={"acc": 1.0}, tags={"a": "b"})
    commit(catalog, new, begin_pack(catalog, digests))
    kept = commit(catalog, new, None)
    with catalog.write() as w:
        delete_checkpoint(w, MODEL, 1)
    assert [count(catalog, table) for table in ("metrics", "tags", "checkpoint_blobs", "blobs")] == [1, 1, 2, 2]
    assert resolve(catalog, "latest") == kept
    with catalog.read() as s:
        assert models.get_model(s, MODEL).checkpoints == 1


def test_what_a_crash_left_of_a_commit_is_removed_and_nothing_else(catalog: Catalog):
    kept = add(catalog)
    with catalog.write() as w:
        commit_module._insert(w, new_checkpoint())
        commit_module._insert(w, new_checkpoint(type(MODEL)("vision", "never-used")))
    assert unfinished.drop(catalog, datetime.now(UTC) - timedelta(hours=1), lambda: None) == 0
    assert count(catalog, "models") == 2
    assert unfinished.drop(catalog, None, lambda: None) == 2
    assert count(catalog, "models") == count(catalog, "checkpoints") == 1
    assert resolve(catalog, "latest") == kept


def test_a_model_says_what_it_holds(catalog: Catalog):
    first = add(catalog)
    add(catalog)
    with catalog.read() as s:
        model = models.get_model(s, MODEL)
    assert (model.name, model.best, model.checkpoints) == (MODEL, "min:loss", 2)
    assert model.created_at <= first.created_at <= datetime.now(UTC)

"""The trash in the catalog: random sequences of changes against a simple model, and what readers' queries see."""

import itertools
from datetime import UTC, datetime, timedelta
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog import Catalog, aliases, checkpoints, history, models, trash, unfinished
from app.catalog.checkpoints import pin, unpin
from app.catalog.listing import Filter, Listing, list_checkpoints
from app.errors import Conflict, Gone, NotFound, StateroomError
from app.values.actor import Actor, acting_as
from app.values.checkpoint import ModelName
from tests.catalog.make import add, new_checkpoint, resolve
from tests.support.measure import examples

KEPT = timedelta(days=7)
VERSIONS = st.integers(1, 5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("save"), st.just(0)),
        st.tuples(
            st.sampled_from(["update", "delete", "erase", "restore", "purge", "pin", "unpin", "alias"]), VERSIONS
        ),
        st.tuples(st.sampled_from(["unalias", "empty"]), st.just(0)),
    ),
    max_size=30,
)
_names = (ModelName("trash", f"m{number}") for number in itertools.count())


class Simple:
    """What should be there: the state of each version, and what holds it."""

    def __init__(self) -> None:
        self.state: dict[int, str] = {}
        self.accuracy: dict[int, float] = {}
        self.pinned: set[int] = set()
        self.alias: int | None = None

    def of(self, state: str) -> list[int]:
        return sorted(version for version, now in self.state.items() if now == state)

    def expected(self, what: str, version: int) -> type[StateroomError] | None:
        """Do a step, or return the error that it has to raise."""
        state = self.state.get(version)
        is_live = state == "live"
        match what:
            case "save":
                self.state[len(self.state) + 1] = "live"
            case "update" | "pin" | "unpin" | "alias" | "delete" | "erase" if not is_live:
                return Conflict if what == "alias" and state == "trashed" else NotFound
            case "delete" | "erase" if version in self.pinned or version == self.alias:
                return Conflict
            case "delete":
                self.state[version] = "trashed"
            case "erase":
                self.state[version] = "purged"
            case "restore":
                if state is None or state == "purged":
                    return NotFound if state is None else Gone
                self.state[version] = "live"
            case "purge":
                if state != "trashed":
                    return NotFound
                self.state[version] = "purged"
            case "empty":
                self.state = {each: "purged" if now == "trashed" else now for each, now in self.state.items()}
            case "update":
                self.accuracy[version] = self.accuracy.get(version, 0.0) + 1.0
            case "pin":
                self.pinned.add(version)
            case "unpin":
                self.pinned.discard(version)
            case "alias":
                self.alias = version
            case "unalias":
                if self.alias is None:
                    return NotFound
                self.alias = None
        return None


def do(catalog: Catalog, model: ModelName, what: str, version: int, simple: Simple) -> None:
    if what == "save":
        add(catalog, model, loss=1.0, tags={"of": str(len(simple.state))}, run="night")
        return
    if what == "empty":
        trash.purge(catalog, datetime.now(UTC) + 2 * KEPT, lambda: None)
        return
    with catalog.write() as w:
        match what:
            case "update":
                checkpoints.update(w, model, version, {"acc": simple.accuracy.get(version, 0.0)}, {})
            case "delete" | "erase":
                trash.delete_checkpoint(w, model, version, kept=KEPT if what == "delete" else trash.NOT_KEPT)
            case "restore":
                trash.restore(w, model, version)
            case "purge":
                trash.purge_checkpoint(w, model, version)
            case "pin":
                pin(w, model, version, "why")
            case "unpin":
                unpin(w, model, version)
            case "alias":
                aliases.move(w, model, "prod", aliases.find_target(w, model, str(version), None), None, None)
            case "unalias":
                aliases.remove(w, model, "prod", None)


@given(steps=STEPS)
@examples(60)
def test_any_sequence_of_changes_leaves_what_a_simple_model_says(shared_catalog: Catalog, steps: list) -> None:
    model, simple = next(_names), Simple()
    for what, version in [("save", 0), *steps]:
        error = simple.expected(what, version)
        if error is None:
            do(shared_catalog, model, what, version, simple)
        else:
            with pytest.raises(error) as raised:
                do(shared_catalog, model, what, version, simple)
            assert type(raised.value) is error
    with shared_catalog.read() as s:
        live = list_checkpoints(s, model, Listing(order="version", limit=1000)).items
        in_trash = trash.list_trash(s, model).items
        ever = history.history(s, model).items
        assert models.get_model(s, model).checkpoints == len(live)
    assert [one.version for one in live] == simple.of("live")
    assert [one.version for one in in_trash] == simple.of("trashed")[::-1]
    assert {entry.version: entry.state for entry in ever} == simple.state
    for one in (*live, *in_trash):
        accuracy = simple.accuracy.get(one.version)
        assert one.metrics == ({} if accuracy is None else {"acc": accuracy})
        assert one.tags == {"of": str(one.version)}
        assert (one.pin is not None) == (one.version in simple.pinned)
        assert one.aliases == (("prod",) if one.version == simple.alias else ())


def test_no_query_finds_what_is_in_the_trash(catalog: Catalog) -> None:
    add(catalog, loss=0.5, epoch=1, step=10, metrics={"acc": 0.5}, tags={"by": "me"}, run="a")
    add(catalog, loss=0.1, epoch=2, step=20, metrics={"acc": 0.9, "up": inf}, tags={"by": "you"}, run="a")
    before = resolve(catalog, "2")
    with catalog.write() as w:
        removal = trash.delete_checkpoint(w, before.model, 2, kept=KEPT)
    assert (removal.reason, removal.purge_at - removal.at) == ("deleted", KEPT)
    for ref in ("latest", "best", "min:loss", "max:acc"):
        assert resolve(catalog, ref).version == resolve(catalog, ref, "a").version == 1
    for ref, said in (("2", "is in the trash"), ("epoch:2", "its epochs go from 1 to 1"), ("step:20", "from 10 to 10")):
        with pytest.raises(NotFound, match=said):
            resolve(catalog, ref)
    with catalog.read() as s:
        for order in ("loss", "-metric.acc", "tag.by", "bytes", "created_at"):
            assert [one.version for one in list_checkpoints(s, before.model, Listing(order=order)).items] == [1]
        for field in ("metric.acc", "loss"):
            filters = (Filter(field, "ge", "-1"),)
            assert [one.version for one in list_checkpoints(s, before.model, Listing(filters=filters)).items] == [1]
        (found,) = trash.list_trash(s, before.model, run="a").items
        assert found.removal == removal
        assert trash.list_trash(s, before.model, run="b").items == ()
        entries = history.history(s, before.model, run="a", limit=1)
        assert (entries.items[0].version, entries.items[0].metrics) == (1, {"acc": 0.5})
        (entry,) = history.history(s, before.model, run="a", cursor=entries.next).items
        assert (entry.state, entry.loss, entry.metrics) == ("trashed", 0.1, {"acc": 0.9, "up": inf})
    with catalog.write() as w:
        assert trash.restore(w, before.model, 2) == before


def test_an_unfinished_commit_is_cleaned_up_and_the_trash_is_not(catalog: Catalog) -> None:
    first = add(catalog)
    with catalog.write() as w:
        trash.delete_checkpoint(w, first.model, 1, kept=KEPT)
    assert unfinished.drop(catalog, None, lambda: None) == 0
    with catalog.write() as w:
        assert trash.restore(w, first.model, 1).version == 1


def test_a_sweep_purges_what_has_been_in_the_trash_long_enough(catalog: Catalog) -> None:
    now = datetime.now(UTC)
    model = new_checkpoint().model
    for _ in range(3):
        add(catalog)
    with catalog.write() as w:
        trash.delete_checkpoint(w, model, 1, kept=timedelta(hours=1))
        trash.delete_checkpoint(w, model, 2, kept=timedelta(days=1))
    soon = now + timedelta(hours=2)
    with catalog.read() as s:
        assert trash.count_due(s, now) == 0
        assert trash.count_due(s, soon) == 1
    assert trash.purge(catalog, now, lambda: None) == 0
    assert trash.purge(catalog, soon, lambda: None) == 1
    with catalog.write() as w:
        with pytest.raises(Gone, match="was purged at"):
            trash.restore(w, model, 1)
        assert trash.restore(w, model, 2).version == 2


def test_a_deleted_model_comes_back_with_its_checkpoint(catalog: Catalog) -> None:
    model = add(catalog).model
    with catalog.write() as w:
        trash.delete_checkpoint(w, model, 1, kept=KEPT)
        models.delete_empty(w, model)
        with pytest.raises(NotFound):
            models.get_model(w, model)
        assert [one.version for one in trash.list_trash(w, model).items] == [1]
        trash.restore(w, model, 1)
        assert models.get_model(w, model).checkpoints == 1


def test_what_the_server_removed_comes_back_pinned(catalog: Catalog) -> None:
    one = add(catalog, slot="last")
    now = datetime.now(UTC)
    with catalog.write() as w:
        model_id = models.get_model(w, one.model).id
        trash.remove(w, model_id, [one], trash.Removal(now, None, "replaced", now + KEPT))
        with acting_as(Actor("me")):
            restored = trash.restore(w, one.model, 1)
    assert restored.pin is not None
    assert (restored.pin.reason, restored.pin.by, restored.slot) == ("restored from the trash", "me", None)

"""Aliases in the catalog: a random history against a simple model of what each alias means."""

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from app.catalog import Catalog, aliases, tables
from app.catalog.models import get_model
from app.catalog.trash import delete_checkpoint
from app.errors import Conflict, NotFound
from tests.catalog.make import MODEL, add, resolve, statements
from tests.support.measure import examples

VERSIONS = 4
NAMES = ("prod", "canary")

_steps = st.lists(
    st.one_of(
        st.tuples(st.just("move"), st.sampled_from(NAMES), st.integers(1, VERSIONS)),
        st.tuples(st.sampled_from(["back", "remove", "protect"]), st.sampled_from(NAMES), st.just(0)),
        st.tuples(st.just("delete"), st.just(""), st.integers(1, VERSIONS)),
    ),
    max_size=25,
)


@given(steps=_steps)
@examples(40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_history_leaves_each_alias_where_a_simple_model_has_it(catalog: Catalog, steps: list) -> None:
    """The model: what each alias means, what it meant before, and how often it was changed."""
    first = max((one.version for one in (add(catalog) for _ in range(VERSIONS))), default=0) - VERSIONS
    means: dict[str, tuple[int, int | None]] = {}
    there = set(range(1, VERSIONS + 1))
    with catalog.write() as w:
        for name in NAMES:
            if aliases.find_alias(w, MODEL, name) is not None:
                aliases.remove(w, MODEL, name, None)
        changes = {name: _revision(w, name) for name in NAMES}
    for what, name, number in steps:
        try:
            with catalog.write() as w:
                if what == "delete":
                    delete_checkpoint(w, MODEL, first + number)
                    there.discard(number)
                elif what == "move":
                    if number not in there:
                        continue
                    aliases.move(w, MODEL, name, first + number, None, "me")
                    now, before = means.get(name, (None, None))
                    if now != number:
                        means[name], changes[name] = (number, before if now is None else now), changes[name] + 1
                elif what == "back":
                    aliases.roll_back(w, MODEL, name, None)
                    now, before = means[name]
                    assert before in there
                    means[name], changes[name] = (before, now), changes[name] + 1
                elif what == "remove":
                    aliases.remove(w, MODEL, name, None)
                    del means[name]
                    changes[name] += 1
                else:
                    is_new = not aliases.get_alias(w, MODEL, name).protected
                    aliases.protect(w, MODEL, name, True, None)
                    changes[name] += is_new
        except NotFound:
            assert number not in there if what == "delete" else name not in means
        except Conflict:
            held = {now for now, _ in means.values()}
            assert number in held if what == "delete" else means[name][1] not in there
    with catalog.read() as s:
        found = {alias.name: alias for alias in aliases.list_aliases(s, MODEL)}
        assert {name: alias.version - first for name, alias in found.items()} == {n: v for n, (v, _) in means.items()}
        assert {name: _revision(s, name) for name in NAMES} == changes
    for name, (version, _) in means.items():
        assert resolve(catalog, name).version == first + version
        assert name in resolve(catalog, str(first + version)).aliases


def _revision(s, name: str) -> int:
    try:
        return aliases.history(s, MODEL, name, limit=1).items[0].revision
    except NotFound:
        return 0


def test_a_model_has_a_bounded_number_of_aliases(catalog: Catalog) -> None:
    add(catalog)
    with catalog.write() as w:
        model_id = get_model(w, MODEL).id
        keys = [
            {"model_id": model_id, "name": f"a{n}", "version": 1, "revision": 1} for n in range(aliases.MAX_ALIASES - 1)
        ]
        w.insert(tables.alias_changes, [{**key, "protected": False, "at": 0} for key in keys])
        w.insert(tables.aliases, keys)
        aliases.move(w, MODEL, "the-last", 1, None, None)
        assert len(aliases.list_aliases(w, MODEL)) == aliases.MAX_ALIASES
        with pytest.raises(Conflict, match="the most that a model may have"):
            aliases.move(w, MODEL, "one-more", 1, None, None)
        assert aliases.move(w, MODEL, "the-last", 1, "still moves", None).revision == 2


def test_an_alias_is_resolved_in_as_many_statements_as_latest(catalog: Catalog) -> None:
    add(catalog, run="a")
    with catalog.write() as w:
        aliases.move(w, MODEL, "prod", 1, None, None)
    for run in (None, "a"):
        counts = []
        for ref in ("latest", "prod"):
            with statements(catalog) as seen:
                assert resolve(catalog, ref, run).aliases == ("prod",)
            counts.append(len(seen))
        assert counts[0] == counts[1]

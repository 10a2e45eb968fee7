"""The overview of models, on each database."""

from app.catalog import Catalog
from app.catalog.models import set_best
from app.catalog.overview import RECENT, Best, list_overviews
from app.values.checkpoint import ModelName
from tests.catalog.make import add, statements

A, B, C = ModelName("a", "first"), ModelName("b", "by-accuracy"), ModelName("b", "without_loss")


def test_each_model_has_its_numbers(catalog: Catalog) -> None:
    for loss in (0.5, 0.2, float("nan"), 0.2):
        add(catalog, A, loss=loss, run="one", nbytes=10)
    for accuracy in (0.1, 0.9, 0.3):
        add(catalog, B, loss=accuracy, metrics={"acc": accuracy}, run=f"run {accuracy}")
    add(catalog, C)
    with catalog.write() as w:
        set_best(w, B, "max:acc")
        set_best(w, C, "min:nothing")
    with catalog.read() as s:
        first, second, third = list_overviews(s).items
    assert (first.name, first.latest, first.runs, first.nbytes) == (A, 4, 1, 40)
    assert (first.best, first.losses) == (Best(4, 0.2), (0.5, 0.2, 0.2))
    assert (second.name, second.best, second.runs, second.losses) == (B, Best(2, 0.9), 3, (0.3,))
    assert (third.name, third.latest, third.best, third.losses) == (C, 1, None, ())
    assert first.updated_at is not None


def test_models_take_as_many_statements_as_one(catalog: Catalog) -> None:
    seen = []
    for number in range(3):
        add(catalog, ModelName("many", f"m{number}"), loss=0.5, metrics={"acc": 1.0})
        with catalog.read() as s, statements(catalog) as now:
            list_overviews(s)
        seen.append(len(now))
    assert seen == [3, 3, 3]


def test_the_line_is_of_the_newest_versions(catalog: Catalog) -> None:
    for loss in range(RECENT + 3):
        add(catalog, A, loss=loss)
    with catalog.read() as s:
        (found,) = list_overviews(s).items
    assert found.losses == tuple(map(float, range(3, RECENT + 3)))


def test_a_search_finds_any_part_of_a_name_and_takes_no_character_for_a_pattern(catalog: Catalog) -> None:
    for name in (A, B, C, ModelName("b", "without.loss")):
        add(catalog, name)

    def found(search: str, **more: object) -> list[str]:
        with catalog.read() as s:
            return [str(each.name) for each in list_overviews(s, search=search, **more).items]

    assert found("FIRST") == ["a/first"]
    assert found("b/") == ["b/by-accuracy", "b/without.loss", "b/without_loss"]
    assert found("t_l") == ["b/without_loss"]
    assert found("%") == found("nothing") == []
    assert found("f", only=frozenset({"b"})) == []
    with catalog.read() as s:
        page = list_overviews(s, search="b/", limit=2)
        assert [str(each.name) for each in list_overviews(s, search="b/", cursor=page.next).items] == ["b/without_loss"]

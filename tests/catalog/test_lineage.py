"""Lineage in the catalog: random families against a walk of their edges in Python."""

import random
from collections import deque

import pytest

from app.catalog import Catalog, lineage, tables
from app.catalog.trash import delete_checkpoint
from app.errors import InvalidRequest
from app.values.checkpoint import Checkpoint, CheckpointName, Fields, ModelName
from app.values.lineage import Relatives
from tests.catalog.make import MODEL, add, resolve, statements

THEIRS = ModelName("theirs", "encoder")


def name_of(checkpoint: Checkpoint) -> CheckpointName:
    return CheckpointName(checkpoint.model, checkpoint.version)


VISION = frozenset({"vision"})


def family(
    catalog: Catalog, checkpoint: Checkpoint, limit: frozenset[str] | None = None
) -> tuple[Relatives, Relatives]:
    with catalog.read() as s:
        return lineage.ancestors(s, checkpoint, limit), lineage.descendants(s, checkpoint, limit)


def shown(relatives: Relatives) -> list[tuple[str, str, str, int]]:
    return [(str(each.checkpoint), each.state, each.relation, each.depth) for each in relatives.items]


def edges(catalog: Catalog, *pairs: tuple[CheckpointName, CheckpointName]) -> None:
    """Insert edges (child, parent) as they are, even those that no upload could make."""
    with catalog.write() as w:
        w.insert(
            tables.lineage,
            [
                {
                    "namespace": child.model.namespace,
                    "name": child.model.name,
                    "version": child.version,
                    "relation": "parent",
                    "parent_namespace": parent.model.namespace,
                    "parent_name": parent.model.name,
                    "parent_version": parent.version,
                }
                for child, parent in pairs
            ],
        )


def test_a_family_is_found_through_what_was_deleted(catalog: Catalog):
    encoder = name_of(add(catalog, THEIRS, run="pretraining", epoch=90))
    first = add(catalog, warm_started_from=encoder)
    second = add(catalog, parent=name_of(first), run="a", epoch=2)
    add(catalog, parent=name_of(second), warm_started_from=encoder)
    assert (resolve(catalog, "3").parent, resolve(catalog, "3").warm_started_from) == (name_of(second), encoder)
    with catalog.write() as w:
        delete_checkpoint(w, MODEL, 2)
    above, below = family(catalog, resolve(catalog, "3"))
    assert shown(above) == [
        ("theirs/encoder@1", "live", "warm_started_from", 1),
        ("vision/resnet50@2", "purged", "parent", 1),
        ("vision/resnet50@1", "live", "parent", 2),
    ]
    assert [(str(each.via), each.run, each.epoch) for each in above.items] == [
        ("vision/resnet50@3", "pretraining", 90),
        ("vision/resnet50@3", "a", 2),
        ("vision/resnet50@2", None, None),
    ]
    assert above.items[0].created_at == resolve(catalog, "1", model=THEIRS).created_at
    assert below == Relatives((), more=False)
    assert shown(family(catalog, resolve(catalog, "1", model=THEIRS))[1]) == [
        ("vision/resnet50@1", "live", "warm_started_from", 1),
        ("vision/resnet50@3", "live", "warm_started_from", 1),
        ("vision/resnet50@2", "purged", "parent", 2),
    ]


def test_a_reader_limited_to_a_namespace_follows_no_edge_of_another(catalog: Catalog):
    ours = name_of(add(catalog))
    theirs = name_of(add(catalog, THEIRS, parent=ours))
    grandchild = add(catalog, parent=theirs)
    above, _ = family(catalog, grandchild, VISION)
    assert shown(above) == [("theirs/encoder@1", "unknown", "parent", 1)]
    assert (above.items[0].run, above.items[0].created_at) == (None, None)
    assert family(catalog, resolve(catalog, "1"), VISION)[1].items == ()
    assert len(family(catalog, grandchild)[0].items) == len(family(catalog, resolve(catalog, "1"))[1].items) == 2


def test_an_origin_that_never_existed_is_refused_where_the_caller_may_look(catalog: Catalog):
    add(catalog)
    with catalog.write() as w:
        delete_checkpoint(w, MODEL, 1)
    never, unseen = CheckpointName(MODEL, 2), CheckpointName(THEIRS, 1)
    with catalog.read() as s:
        lineage.check_origins(s, Fields(parent=CheckpointName(MODEL, 1)), VISION)  # gone, but it was there
        lineage.check_origins(s, Fields(parent=unseen), VISION)
        for fields, limit, why in (
            (Fields(parent=never), VISION, "parent=vision/resnet50@2 never existed: the newest version is 1"),
            (Fields(warm_started_from=unseen), None, "theirs/encoder@1 never existed: there is no such model"),
        ):
            with pytest.raises(InvalidRequest, match=why) as refused:
                lineage.check_origins(s, fields, limit)
            assert refused.value.code == "unknown-parent"


def test_any_family_is_that_of_a_walk_and_takes_two_statements(catalog: Catalog):
    """Circles and several ways between two checkpoints included."""
    names = [name_of(add(catalog, model)) for model in (MODEL, THEIRS) for _ in range(20)]
    chance = random.Random(17)
    pairs = {child: chance.choice(names) for child in chance.sample(names, 35)}
    edges(catalog, *pairs.items())
    for start in names:
        checkpoint = resolve(catalog, str(start.version), model=start.model)
        with statements(catalog) as seen:
            above, below = family(catalog, checkpoint)
        assert len(seen) == 2
        for relatives, step in (
            (above, lambda at: [pairs[at]] if at in pairs else []),
            (below, lambda at: [child for child, parent in pairs.items() if parent == at]),
        ):
            assert {each.checkpoint: each.depth for each in relatives.items} == _walk(start, step)
            assert not relatives.more


def _walk(start: CheckpointName, step) -> dict[CheckpointName, int]:
    found, queue = {start: 0}, deque([start])
    while queue:
        at = queue.popleft()
        for other in step(at):
            if other not in found:
                found[other] = found[at] + 1
                queue.append(other)
    del found[start]
    return found


def test_a_large_family_is_cut_at_its_nearest(catalog: Catalog):
    start = add(catalog)
    first = name_of(start)
    many = [CheckpointName(THEIRS, number) for number in range(1, lineage.MAX_RELATIVES + 2)]
    line = [first, *many]
    edges(catalog, *zip(line[1:], line, strict=False))
    _, below = family(catalog, start)
    assert (len(below.items), below.more) == (lineage.MAX_RELATIVES, True)
    assert [each.depth for each in below.items] == list(range(1, lineage.MAX_RELATIVES + 1))
    assert below.items[-1].state == "unknown"

"""torch reads the same from a served component as at its path in the upload."""

import collections
import pathlib
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, event, given
from hypothesis import strategies as st

from app.deliver.plan import Wanted
from app.formats.index import index
from app.select.query import StateDictQuery
from app.values.manifest import Path
from tests.deliver.planning import load, materialise, planned, save
from tests.differential.equality import equal
from tests.differential.objects import leaves, peculiar, tensors
from tests.support.measure import examples

names = st.sampled_from(["model", "state_dict", "ema", "net_g", "optimizer", "epoch", "weight", "weights", "callbacks"])
odd = st.builds(pathlib.PurePosixPath, st.just("a")) | st.builds(slice, st.integers(0, 9))


@st.composite
def general(draw: st.DrawFn) -> dict[str, Any]:
    """Mappings of str keys in mappings and lists; what lies in them may be tied, or nothing that a safe file holds."""
    pool = [*draw(st.lists(tensors() | peculiar(), min_size=1, max_size=4)), torch.tensor(0.5), torch.ones(3, 2)]
    values = st.sampled_from(pool) | st.sampled_from(pool) | leaves | odd
    tree = st.recursive(
        values,
        lambda inner: (
            st.dictionaries(names, inner, max_size=5)
            | st.dictionaries(names, inner, max_size=5).map(collections.OrderedDict)
            | st.lists(inner, max_size=3)
            | st.tuples(inner, inner)
        ),
        max_leaves=14,
    )
    return {**draw(st.dictionaries(names, tree, max_size=6)), "state_dict_of_mine": {"w": pool[0], "rest": draw(tree)}}


@pytest.mark.filterwarnings("ignore")  # torch's own: of sparse, quantized and complex32 tensors
@examples(150, suppress_health_check=list(HealthCheck))
@given(general(), st.sampled_from([{}, {"pickle_protocol": 4}]))
def test_a_component_is_what_lies_at_its_path_but_for_what_is_named(
    obj: dict[str, Any], options: dict[str, Any]
) -> None:
    data = save(obj, **options)
    whole = load(data, weights_only=False)
    found = index(memoryview(data)).manifest
    for component in found.components:
        assert component.kind == "state_dict"
        original = at(whole, component.path)
        made = planned(data, Wanted(query=StateDictQuery(component=component.name)))
        served = load(materialise(made, data))
        event("complete" if not made.left_out else "left out in part")
        if not made.left_out:
            assert equal(dict(served), dict(original))
        touched = {key for key in original if any(f"{each}.".startswith(f"{key}.") for each in made.left_out)}
        for key, value in original.items():
            assert key in touched or equal(served[key], value)
        assert served.keys() - original.keys() == set()


@pytest.mark.filterwarnings("ignore")
@examples(100, suppress_health_check=list(HealthCheck))
@given(general())
def test_no_tensor_of_a_checkpoint_belongs_to_none_of_the_mappings_that_hold_it(obj: dict[str, Any]) -> None:
    """Where a mapping below the root has a tensor of its own, it is a component or lies in one."""
    found = index(memoryview(save(obj))).manifest
    paths = {component.path for component in found.components}
    for path, mapping in mappings_in(obj, ()):
        if path and any(isinstance(value, torch.Tensor) for value in mapping.values()):
            assert any(path[:length] in paths for length in range(len(path) + 1))


def at(tree: Any, path: Path) -> Any:
    for element in path:
        tree = tree[element]
    return tree


def mappings_in(tree: Any, path: Path) -> Any:
    if isinstance(tree, dict):
        yield path, tree
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(value, dict | list | tuple) and not isinstance(value, torch.Size):
            yield from mappings_in(value, (*path, key))

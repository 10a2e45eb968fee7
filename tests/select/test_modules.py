"""``_metadata`` follows the keys, judged by a strict load of real torch."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from app.select.keys import select_keys
from app.select.modules import select_modules
from app.select.query import StateDictQuery


class Net(nn.Module):
    """Containers, a module without keys, and two BatchNorms, whose version 2 demands num_batches_tracked."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU())
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)) for _ in range(2)])
        self.scale = nn.Parameter(torch.ones(1))


class Renamed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU())
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)) for _ in range(2)])
        self.scale = nn.Parameter(torch.ones(1))


class Wrapped(nn.Module):
    """What DataParallel does to names."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def apply(state_dict: Any, **fields: Any) -> OrderedDict[str, torch.Tensor]:
    """A state_dict as Stateroom serves it."""
    query = StateDictQuery(**fields)
    keys, modules = list(state_dict), list(state_dict._metadata)
    selected = select_keys(keys, query)
    answer = OrderedDict((new, state_dict[keys[i]]) for i, new in selected)
    renamed = select_modules(modules, keys, selected, query)
    assert len({new for _, new in renamed}) == len(renamed)
    answer._metadata = OrderedDict((new, state_dict._metadata[modules[i]]) for i, new in renamed)  # type: ignore[attr-defined]
    return answer


def versions(state_dict: Any) -> dict[str, int]:
    return {module: entry.get("version") for module, entry in state_dict._metadata.items()}


RENAMINGS = [
    pytest.param(lambda: Wrapped(Net()), Net, {"strip_prefix": ("module.",)}, id="strip"),
    pytest.param(Net, lambda: Wrapped(Net()), {"add_prefix": "module."}, id="add"),
    pytest.param(Net, Renamed, {"rename": (("stem.", "body."), ("layers.", "blocks."))}, id="rename"),
    pytest.param(
        lambda: Wrapped(Net()),
        lambda: Wrapped(Renamed()),
        {
            "strip_prefix": ("module.",),
            "rename": (("stem", "body"), (r"re:layers\.(\d)\.(.*)", r"blocks.\1.\2")),
            "add_prefix": "module.",
        },
        id="all",
    ),
    pytest.param(
        Net,
        Net,
        {"rename": ((r"re:layers\.0\.(.*)", r"layers.1.\1"), (r"re:layers\.1\.(.*)", r"layers.0.\1"))},
        id="swap",
    ),
]


@pytest.mark.parametrize(("source", "target", "fields"), RENAMINGS)
def test_a_renamed_state_dict_has_the_versions_the_target_would_have_saved(
    source: Any, target: Any, fields: Any
) -> None:
    served = apply(source().state_dict(), **fields)
    wanted = target().state_dict()
    assert set(served) == set(wanted)
    assert {module: versions(served).get(module, 1) for module in versions(wanted)} == versions(wanted)
    target().load_state_dict(served, strict=True)


@pytest.mark.parametrize(("source", "target", "fields"), RENAMINGS)
def test_a_strict_load_still_misses_a_counter_that_a_version_2_demands(source: Any, target: Any, fields: Any) -> None:
    served = apply(source().state_dict(), exclude=("*1.num_batches_tracked",), **fields)
    with pytest.raises(RuntimeError, match=r"Missing key.*num_batches_tracked"):
        target().load_state_dict(served, strict=True)


@pytest.mark.parametrize(("source", "target", "fields"), RENAMINGS)
def test_a_strict_load_still_forgives_a_counter_that_version_1_had_not(source: Any, target: Any, fields: Any) -> None:
    old = source().state_dict()
    for entry in old._metadata.values():
        entry["version"] = 1
    served = apply(old, exclude=("*.num_batches_tracked",), **fields)
    target().load_state_dict(served, strict=True)


def test_a_module_whose_keys_were_not_picked_keeps_its_version() -> None:
    served = apply(Net().state_dict(), include=("stem.0.*",), rename=(("layers.", "blocks."), ("stem.", "body.")))
    missing = Renamed().load_state_dict(served, strict=False).missing_keys
    assert {key for key in missing if key.endswith("num_batches_tracked")} == {
        "body.1.num_batches_tracked",
        "blocks.0.1.num_batches_tracked",
        "blocks.1.1.num_batches_tracked",
    }


def test_without_a_renaming_the_metadata_is_as_it_was() -> None:
    state_dict = Net().state_dict()
    assert apply(state_dict, include=("stem.*",))._metadata == state_dict._metadata  # type: ignore[attr-defined]


def test_the_wrappers_root_gives_way_to_what_it_wrapped() -> None:
    state_dict = Wrapped(nn.BatchNorm1d(3)).state_dict()
    assert versions(state_dict) == {"": 1, "module": 2}
    assert versions(apply(state_dict, strip_prefix=("module.",))) == {"": 2}
    inner = Wrapped(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3))).state_dict()
    inner._metadata["module"]["version"] = 7
    assert versions(apply(inner, strip_prefix=("module.",))) == {"": 7, "0": 1, "1": 2}


def test_of_two_modules_that_come_to_one_name_the_picked_one_gives_the_version() -> None:
    state_dict = nn.ModuleDict({"a": nn.BatchNorm1d(2), "b": nn.BatchNorm1d(2)}).state_dict()
    state_dict._metadata["a"]["version"] = 1
    served = apply(state_dict, include=("b.*",), rename=(("a.", "c."), ("b.", "c.")))
    assert versions(served)["c"] == 2


def test_a_module_whose_keys_go_two_ways_is_there_twice() -> None:
    state_dict = nn.ModuleDict({"bn": nn.BatchNorm1d(2)}).state_dict()
    served = apply(state_dict, rename=(("bn.weight", "gain.weight"),))
    assert versions(served) == {"": 1, "bn": 2, "gain": 2}

"""A checkpoint saved in a DataParallel, DistributedDataParallel or torch.compile wrapper loads into all others."""

import copy
import io
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from stateroom import Client, Model, NoKeysMatched, StateDictMismatch
from stateroom._load.prefixes import prefix_hint, renames_between
from tests.functional.torch_files import saved
from tests.support.measure import long, measure, some

Wrap = Callable[[nn.Module], nn.Module]


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name)


def network(value: float | None = None) -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 2)))
    for parameter in net.parameters() if value is not None else ():
        nn.init.constant_(parameter, value)
    return net


def values(net: nn.Module) -> set[float]:
    return {x for parameter in net.parameters() for x in parameter.detach().flatten().tolist()}


def compiled(net: nn.Module) -> nn.Module:
    return torch.compile(net, backend="eager")  # type: ignore[return-value]  # it is a module


class Holder(nn.Module):
    """Somebody's own wrapper, which is no torch class: ``module`` belongs to its names."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def inner_compiled(net: nn.Module) -> nn.Module:
    net[2] = compiled(net[2])
    return net


def inner_parallel(net: nn.Module) -> nn.Module:
    net[2] = nn.DataParallel(net[2])
    return net


WRAPS: dict[str, Wrap] = {
    "bare": lambda net: net,
    "parallel": nn.DataParallel,
    "compiled": compiled,
    "compiled-parallel": lambda net: compiled(nn.DataParallel(net)),
    "parallel-compiled": lambda net: nn.DataParallel(compiled(net)),
    "parallel-twice": lambda net: nn.DataParallel(nn.DataParallel(net)),
    "own-wrapper": Holder,
    "parallel-own-wrapper": lambda net: nn.DataParallel(Holder(net)),
    "inside": inner_compiled,
    "inside-parallel": lambda net: nn.DataParallel(inner_parallel(net)),
}

WAYS = ["load_into", "warmstart"]


@long
@pytest.mark.parametrize(("saver", "flat"), some(product(WRAPS, [False, True]), 3))
def test_what_one_wrapper_saved_goes_into_every_other(saver: str, flat: bool, model: Model) -> None:
    """With ``make test``, each pair is loaded in one way, from a nested file or from a flat one."""
    state = WRAPS[saver](network(1.0)).state_dict()
    model.upload(io.BytesIO(saved(state if flat else {"model": state, "epoch": 1})))
    for number, (loader, wrap) in enumerate(WRAPS.items(), list(WRAPS).index(saver) + flat):
        for way in measure([WAYS[number % 2]], WAYS):
            net = network(0.0)
            report = getattr(model, way)(wrap(net), "latest")
            assert values(net) == {1.0}, (loader, way)
            assert (report.missing_keys, report.unexpected_keys) == ((), ()), (loader, way)
            assert len(report.matched_keys) == 9


def test_the_report_says_which_prefix_was_reconciled(model: Model) -> None:
    model.save({"model": nn.DataParallel(network(1.0)).state_dict()})
    report = model.load_into({"model": network()}, "latest")
    assert report.prefix == "module."
    assert "prefix: module." in str(report)
    assert model.warmstart(Holder(network()), "latest").prefix is None  # the names are equal
    model.save({"model": network(1.0).state_dict()})
    assert model.warmstart(Holder(network()), "latest").prefix == "module."
    assert model.load_into(network(), "latest").prefix is None
    model.save(WRAPS["compiled-parallel"](network(1.0)).state_dict())
    assert model.load_into(network(), "latest").prefix == "_orig_mod.module."


def test_a_model_that_counts_its_averages_takes_those_of_a_plain_one(model: Model) -> None:
    model.save({"model": network(1.0).state_dict()})
    average = torch.optim.swa_utils.AveragedModel(network(0.0))
    report = model.warmstart(average, "latest")
    assert report.missing_keys == ("n_averaged",)
    assert values(average) == {1.0}
    with pytest.raises(StateDictMismatch, match=r'Missing key.*"n_averaged"'):
        model.load_into(average, "latest")
    model.save({"model": average.state_dict()})
    report = model.warmstart(nn.DataParallel(copy.deepcopy(average)), "latest")
    assert (report.missing_keys, report.prefix) == ((), None)


@pytest.mark.parametrize(
    ("options", "loaded"),
    [
        ({"include": ["0.*"]}, {"0"}),
        ({"include": "re:0[.].*"}, {"0"}),
        ({"include": ["module.0.*"]}, {"0"}),
        ({"exclude": ["2.*"]}, {"0", "1"}),
        ({"exclude": ["module.2.*"]}, {"0", "1"}),
        ({"include": ["*.weight"], "exclude": ["1.*"]}, {"0", "2"}),
    ],
)
def test_patterns_name_the_keys_inside_or_as_they_are(options: dict[str, Any], loaded: set[str], model: Model) -> None:
    model.save({"model": nn.DataParallel(network(1.0)).state_dict()})
    report = model.warmstart(network(), "latest", **options)
    assert {key.partition(".")[0] for key in report.matched_keys} == loaded
    with pytest.raises(NoKeysMatched):
        model.warmstart(network(), "latest", include=["nothing.*"])


def test_a_selection_that_names_its_prefixes_is_taken_at_its_word(model: Model) -> None:
    model.save({"model": nn.DataParallel(network(1.0)).state_dict()})
    report = model.warmstart(network(), "latest", strip_prefix="module.")
    assert (len(report.matched_keys), report.prefix) == (9, None)
    with pytest.raises(NoKeysMatched):
        model.warmstart(network(), "latest", strip_prefix="other.")


def test_two_keys_that_would_get_one_name_stay_as_they_are(model: Model) -> None:
    model.save(
        {"model": {"weight": torch.ones(2, 2), "module.weight": torch.zeros(2, 2), "module.bias": torch.ones(2)}}
    )
    net = nn.Linear(2, 2)
    report = model.warmstart(net, "latest")
    assert torch.equal(net.weight, torch.ones(2, 2))
    assert set(report.matched_keys) >= {"weight"}


@pytest.mark.parametrize("saver", ["bare", "compiled"])
def test_every_block_of_a_deep_model_may_be_compiled(saver: str, model: Model) -> None:
    def deep(value: float, *, is_compiled: bool) -> nn.Module:
        blocks = [nn.Linear(2, 2) for _ in range(100)]
        net = nn.ModuleDict({"layers": nn.ModuleList(map(compiled, blocks) if is_compiled else blocks)})
        for parameter in net.parameters():
            nn.init.constant_(parameter, value)
        return net

    model.save({"model": deep(1.0, is_compiled=saver == "compiled").state_dict()})
    net = deep(0.0, is_compiled=saver == "bare")
    assert model.load_into({"model": net}, "latest").prefix == "_orig_mod."
    assert values(net) == {1.0}


def test_versions_of_modules_follow_their_names(model: Model) -> None:
    """A counter that is missing is torch's business by the module's version, which the wrapper's state_dict holds."""
    state = nn.DataParallel(network(1.0)).state_dict()
    del state["module.1.num_batches_tracked"]
    model.upload(io.BytesIO(saved({"model": state})))
    with pytest.raises(StateDictMismatch, match="num_batches_tracked"):
        model.load_into(network(), "latest")
    del state._metadata
    model.upload(io.BytesIO(saved({"model": state})))
    assert model.load_into(network(), "latest").missing_keys == ()


class Fused(nn.Module):
    """It makes one weight of three that have other names, in its own load_state_dict."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Parameter(torch.zeros(9, 3))

    def load_state_dict(self, state_dict: Any, *args: Any, **options: Any) -> Any:
        return super().load_state_dict({"qkv": torch.cat([state_dict[key] for key in "qkv"])}, *args, **options)


def test_a_module_that_takes_other_names_gets_them_without_wrappers(model: Model) -> None:
    model.save({"model": {f"module._orig_mod.{key}": torch.full((3, 3), 2.0) for key in "qkv"}})
    net = Fused()
    assert model.load_into({"model": net}, "latest").prefix == "module._orig_mod."
    assert values(net) == {2.0}


def test_each_target_of_several_has_its_own_wrappers(model: Model) -> None:
    model.save({"a": nn.DataParallel(network(1.0)).state_dict(), "b": compiled(network(2.0)).state_dict()})
    targets = {"a": network(0.0), "b": network(0.0)}
    report = model.load_into(targets, "latest")
    assert report.prefix == "module., _orig_mod."
    assert [values(targets[name]) for name in "ab"] == [{1.0}, {2.0}]


# Other prefixes are named


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in network(1.0).state_dict().items()}


@pytest.mark.parametrize("prefix", ["model.", "encoder.backbone.", "model._orig_mod.", "module.model."])
def test_a_prefix_that_most_keys_have_is_named(prefix: str, model: Model) -> None:
    model.save({"state_dict": {**prefixed(prefix), "head.weight": torch.ones(3)}})
    with pytest.raises(NoKeysMatched, match=f"near: strip_prefix={prefix}") as warm:
        model.warmstart(network(), "latest")
    with pytest.raises(StateDictMismatch, match=f"near: strip_prefix={prefix}") as strict:
        model.load_into(network(), "latest")
    assert warm.value.near == strict.value.near == (f"strip_prefix={prefix}",)
    assert len(model.warmstart(network(), "latest", strip_prefix=prefix).matched_keys) == 9


def test_a_prefix_that_the_model_has_is_named_too(model: Model) -> None:
    model.save({"state_dict": prefixed("")})
    net = nn.ModuleDict({"backbone": network(), "head": nn.Linear(2, 2)})
    with pytest.raises(NoKeysMatched, match=r"near: add_prefix=backbone\."):
        model.warmstart(net, "latest")
    assert len(model.warmstart(net, "latest", add_prefix="backbone.").matched_keys) == 9


def test_a_report_of_a_few_matches_names_the_prefix_of_the_others(model: Model) -> None:
    model.save({"state_dict": {**prefixed("net."), "scale": torch.ones(1)}})
    net = network(0.0)
    net.register_parameter("scale", nn.Parameter(torch.zeros(1)))
    report = model.warmstart(net, "latest")
    assert (report.matched_keys, report.near) == (("scale",), ("strip_prefix=net.",))
    assert "near: strip_prefix=net." in str(report)


def test_a_list_of_prefixes_is_stripped_in_turn_and_the_next_one_is_named(model: Model) -> None:
    model.save({"state_dict": prefixed("module.model.net.")})
    with pytest.raises(NoKeysMatched) as failed:
        model.warmstart(network(), "latest", strip_prefix=["module.", "model."])
    assert failed.value.near == ("strip_prefix=['module.', 'model.', 'net.']",)
    wanted = ["module.", "model.", "net."]
    assert len(model.warmstart(network(), "latest", strip_prefix=wanted).matched_keys) == 9
    assert list(model.state_dict("latest", strip_prefix=wanted)) == list(network().state_dict())


def test_a_selection_that_picks_nothing_names_the_prefix_in_its_way(model: Model) -> None:
    model.save({"state_dict": prefixed("model.")})
    with pytest.raises(NoKeysMatched, match=r"strip_prefix=model\.") as failed:
        model.state_dict("latest", include=["0.*"])
    assert failed.value.near[0] == "strip_prefix=model."


# The rules


def test_a_prefix_that_helps_a_few_keys_is_not_named() -> None:
    assert prefix_hint(["model.a", "b", "c", "d"], ["a", "x", "y", "z"], 0) is None
    assert prefix_hint(["a", "b", "model.c"], ["a", "b", "c"], 2) is None
    assert prefix_hint(["model.a", "model.b"], ["a", "b"], 0) == "strip_prefix=model."
    assert prefix_hint([], [], 0) is None


def test_renames_are_for_places_and_not_for_keys() -> None:
    bare = [f"blocks.{i}.{name}" for i in range(12) for name in ("a", "b", "c.d")]
    wrapped = [
        key.replace("blocks.3.", "blocks.3._orig_mod.").replace("blocks.11.", "blocks.11.module.") for key in bare
    ]
    assert sorted(renames_between(wrapped, bare)) == [
        ("blocks.11.module.", "blocks.11."),
        ("blocks.3._orig_mod.", "blocks.3."),
    ]
    assert sorted(renames_between(bare, wrapped)) == [
        ("blocks.11.", "blocks.11.module."),
        ("blocks.3.", "blocks.3._orig_mod."),
    ]
    assert renames_between(bare, bare) == []
    assert renames_between(["n", "a.w"], ["n", "module.a.w"]) == [("n", "n"), ("", "module.")]

"""The mappings of a checkpoint that are components, and the component that a request without a name means."""

import collections
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from app.deliver.plan import Wanted, plan
from app.errors import SelectionError
from app.formats.index import index
from app.formats.manifest_json import decode, encode
from app.select.components import default_component
from app.select.query import StateDictQuery
from app.values.manifest import Component, Path
from tests.deliver.planning import load, materialise, planned, save, served_state_dict

pytestmark = pytest.mark.filterwarnings("ignore")  # quantized and sparse tensors come with warnings

W, B = torch.arange(12.0).view(3, 4), torch.ones(3)
MODEL, OTHER = {"w": W, "b": B}, {"o": torch.zeros(2)}


class Custom:
    """What no safe file holds."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


def adam(net: nn.Module | None = None) -> dict[str, Any]:
    net = net or nn.Linear(2, 1)
    optimizer = torch.optim.Adam(net.parameters())
    sum(parameter.sum() for parameter in net.parameters()).backward()  # type: ignore[union-attr]  # it has some
    optimizer.step()
    return optimizer.state_dict()


def named(obj: Any) -> list[str]:
    return [component.name for component in index(memoryview(save(obj))).manifest.components]


def meant(obj: Any) -> str | None:
    """The component that a request means which names none; None where it is refused."""
    components = index(memoryview(save(obj))).manifest.components
    number = default_component(components)
    return None if number is None else components[number].name


def served(obj: Any, **query: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    data = save(obj)
    made = planned(data, Wanted(query=StateDictQuery(**query)))
    return load(materialise(made, data)), made.left_out


def refused(obj: Any, **query: Any) -> SelectionError:
    with pytest.raises(SelectionError) as raised:
        served(obj, **query)
    return raised.value


@pytest.mark.parametrize(
    "beside",
    ["row", None, 3, 0.5, True, b"x", (1, 2), [0.5], (W, B), [W, None], torch.float16, torch.Size([2]), {"heads": 3},
     {"amax": B}, collections.OrderedDict(a=1), {0: W}, {"deep": {"er": [W]}}, {1, 2}, torch.device("cpu")],
    ids=lambda beside: type(beside).__name__,
)  # fmt: skip
def test_what_stands_beside_its_tensors_travels_with_a_state_dict(beside: Any) -> None:
    checkpoint = {"epoch": 4, "model_state_dict": {**MODEL, "beside": beside}, "optimizer": adam(), "ema": OTHER}
    assert named(checkpoint) == ["model_state_dict", "optimizer", "ema"]
    have, left_out = served(checkpoint)
    assert list(have) == ["w", "b", "beside"]
    assert str(have["beside"]) == str(beside)
    assert left_out == ()
    assert torch.equal(have["w"], W)


@pytest.mark.parametrize(
    "beside",
    [Custom(), [1, Custom()], (W, Custom()), {"a": Custom()}, frozenset("a")],
    ids=["object", "list", "tuple", "dict", "frozenset"],
)
def test_what_no_safe_file_holds_is_left_out_and_named(beside: Any) -> None:
    have, left_out = served({"model": {**MODEL, "beside": beside}, "ema": OTHER})
    assert list(have) == ["w", "b"]
    assert left_out[0].split(".")[0] == "beside"


def test_a_list_is_left_out_whole_where_an_item_of_it_is() -> None:
    """The items behind it would move up."""
    _, left_out = served({"model": {**MODEL, "beside": {"x": [1, Custom(), 2], "y": 3}}})
    assert left_out == ("beside.x",)


KINDS: dict[str, Any] = {
    "parameter": lambda: nn.Parameter(W),
    "quantized": lambda: torch.quantize_per_tensor(W, 0.1, 0, torch.qint8),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.zeros(3)]),
    "meta": lambda: torch.empty(2, 3, device="meta"),
    "jagged": lambda: torch.nested.nested_tensor([torch.ones(2, 2), torch.zeros(3, 2)], layout=torch.jagged),
    "lazy parameter": nn.UninitializedParameter,
    "lazy buffer": nn.parameter.UninitializedBuffer,
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_tensor_makes_a_mapping_a_state_dict(kind: str) -> None:
    checkpoint = {"model": {"x": KINDS[kind](), "note": "x"}, "ema": OTHER, "optimizer": adam()}
    assert named(checkpoint) == ["model", "ema", "optimizer"]
    assert meant(checkpoint) == "model"


@pytest.mark.parametrize("kind", ["jagged", "lazy parameter", "lazy buffer"])
def test_a_component_that_would_be_empty_is_refused_with_the_reason(kind: str) -> None:
    error = refused({"model": {"x": KINDS[kind](), "note": "x"}, "ema": OTHER})
    assert error.code == "component-empty"
    assert "'x' is a torch.n" in error.detail


def test_without_bytes_there_is_no_quantized_tensor_so_that_a_component_of_those_is_refused() -> None:
    assert refused({"model": {"x": KINDS["quantized"]()}}, device="meta").code == "component-empty"


def test_a_mapping_whose_tensors_lie_deeper_is_none() -> None:
    assert named({"model": {"state_dict": MODEL, "config": {"a": 1}}, "epoch": 1}) == ["model.state_dict"]
    assert named({"model": {"parts": [W]}, "ema": {"x": {0: W}}, "t": W}) == []


def test_a_state_dict_in_a_state_dict_belongs_to_it() -> None:
    checkpoint = {"state_dict": {**MODEL, "state_dict": OTHER}}
    found = index(memoryview(save(checkpoint))).manifest
    assert [(component.name, component.keys) for component in found.components] == [("state_dict", 3)]
    assert [tensor.key for tensor in found.tensors] == ["w", "b", "state_dict.o"]
    have, _ = served(checkpoint)
    assert list(have) == ["w", "b", "state_dict"]
    assert list(have["state_dict"]) == ["o"]


def test_the_root_of_a_general_checkpoint_is_none() -> None:
    assert named({"epoch": 3, "model": MODEL, "mean": B, "std": B}) == ["model"]
    assert named({"loss": torch.tensor(0.5), "best": torch.tensor(0.1), "acc": torch.tensor(1), "model": MODEL}) == [
        "model"
    ]
    assert named({"w": W, "note": "x"}) == []
    assert named({"epoch": 1, "loss": torch.tensor(0.5), "w": W}) == []
    assert named({"loss": torch.tensor(0.5), "w": W}) == [""]


def test_a_root_of_which_most_are_tensors_is_one() -> None:
    assert named({**MODEL, "note": "x"}) == [""]
    assert named({**{f"w{i}": W for i in range(9)}, "state_dict": MODEL, "epoch": 3}) == [""]
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    assert named({**net.state_dict(), "optimizer": adam(net), "epoch": 3}) == [""]


def test_a_flat_state_dict_keeps_its_numbers_and_tells_its_epoch() -> None:
    net = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2)), {nn.Linear})
    found = index(memoryview(save({**net.state_dict(), "epoch": 3, "lr": 0.1})))
    assert [component.name for component in found.manifest.components] == [""]
    assert {"0.scale", "1.zero_point", "0._packed_params._packed_params.0"} <= {t.key for t in found.manifest.tensors}
    assert (found.facts.epoch, found.facts.metrics) == (3, {})


def test_a_general_checkpoint_inside_of_another_is_none() -> None:
    inner = {"epoch": 3, "loss": torch.tensor(0.5), "model": MODEL, "optimizer": adam()}
    assert named({"checkpoint": inner}) == ["checkpoint.model", "checkpoint.optimizer"]
    assert named({"checkpoint": {"loss": torch.tensor(0.5), "net": nn.Linear(1, 1)}}) == ["checkpoint.net"]


def test_an_optimizer_is_one_whatever_else_it_holds() -> None:
    state = adam()
    state["param_groups"][0]["lr"] = torch.tensor(0.1)
    found = index(memoryview(save({"o": {**state, "scheduler": {"best": W}, "w": W}}))).manifest.components
    assert [(component.name, component.kind) for component in found] == [("o", "optimizer")]
    found = index(memoryview(save({"o": {"state": W, "param_groups": B}}))).manifest.components
    assert [(component.name, component.kind) for component in found] == [("o", "state_dict")]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.Adagrad, torch.optim.LBFGS])
def test_what_a_pickled_optimizer_keeps_for_its_parameters_is_none(kind: type[torch.optim.Optimizer]) -> None:
    """Its state is a mapping with parameters as keys: none of what lies there could be asked for."""
    net = nn.Linear(2, 1)
    optimizer = kind(net.parameters(), lr=0.1)

    def closure() -> torch.Tensor:
        loss = net(torch.ones(1, 2)).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert optimizer.state
    for checkpoint, name in (
        ({"mine": net, "trainer": optimizer}, "mine"),
        ({"trainer": {"of": optimizer}, "mine": net.state_dict()}, "mine"),
        ([optimizer, net], "1"),
    ):
        assert (named(checkpoint), meant(checkpoint)) == ([name], name)
    state = {"deep": {"er": {"w": W}}}
    assert named({"mine": net.state_dict(), "by": {W: state, B: state}, "other": state}) == ["mine", "other.deep.er"]


CALLBACKS = {"callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "best_model_path": "x"}}}
PLATEAU = {"factor": 0.1, "best": torch.tensor(0.5), "mode": "min"}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: {"mine": MODEL}, "mine"),
        (lambda: {"mine": MODEL, "optimizer": adam(), "lr_scheduler": PLATEAU, "epoch": 1}, "mine"),
        (lambda: {"mine": MODEL, **CALLBACKS}, "mine"),
        (lambda: {"ema": {**MODEL, **{f"k{i}": W for i in range(20)}}, "model": {"w": W, "note": "x"}}, "model"),
        (
            lambda: {"state_dict": MODEL, **CALLBACKS, "optimizer_states": [adam()], "lr_schedulers": [PLATEAU]},
            "state_dict",
        ),
        (lambda: {"optimizer": adam(), "lr_scheduler": PLATEAU, "epoch": 2, "loss": torch.tensor(0.5)}, "optimizer"),
        (lambda: {"model": "resnet18", "net_g": MODEL, "params": {"lr": 0.1, "sizes": [1, 2]}}, "net_g"),
        (lambda: {"ema": MODEL, "epoch": 3, "args": Custom(lr=0.1), "optimizer": torch.optim.SGD([W], lr=0.1)}, "ema"),
    ],
    ids=str.split("only optimizer callback telling lightning resume words object"),
)
def test_a_request_that_names_none_means(make: Callable[[], Any], name: str) -> None:
    assert meant(make()) == name


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"net_g": {**MODEL, "decay": 0.9}, "net_d": OTHER},
        lambda: {"model": Custom(weight=W), "ema": OTHER},
        lambda: {"model": {0: W}, "ema": OTHER, "optimizer": adam()},
        lambda: {"model": Custom(), "optimizer": adam()},
        lambda: {"state_dict": [W, B], **CALLBACKS},
        lambda: {"network": Custom(weight=W), "ema": OTHER},
        lambda: {"networks": [Custom(weight=W)], "optimizer": adam()},
        lambda: {"weight": W, "optimizer": adam(), "epoch": 3},
        lambda: {**CALLBACKS, "epoch": 3},
        lambda: {"optimizer_g": adam(), "optimizer_d": adam()},
    ],
    ids=str.split("two object integers nothing list named listed strays callback optimizers"),
)
def test_a_request_that_names_none_is_refused_where_it_would_be_a_guess(make: Callable[[], Any]) -> None:
    checkpoint = make()
    assert meant(checkpoint) is None
    error = refused(checkpoint)
    assert error.code == "component-ambiguous"
    assert list(error.near) == named(checkpoint)
    for name in error.near:
        assert f"{name!r} (" in error.detail


def test_it_is_known_of_a_manifest_as_it_is_kept() -> None:
    manifest = index(memoryview(save({"model": Custom(weight=W), "ema": OTHER}))).manifest
    assert [component.named_only for component in manifest.components] == [True]
    assert decode(encode(manifest)) == manifest


def test_a_component_of_an_older_manifest_is_still_the_one_at_its_path() -> None:
    """Once, an inner state_dict was listed where the outer one holds something else as well."""
    data = save({"state_dict": {**MODEL, "state_dict": OTHER}, "optimizer": adam()})
    manifest = index(memoryview(data)).manifest
    older = (Component(("state_dict", "state_dict"), "state_dict", 1, 8), manifest.components[1])
    skeleton = data[manifest.skeleton.start : manifest.skeleton.end]
    for name, keys in (("state_dict.state_dict", ["o"]), ("optimizer", ["state", "param_groups"])):
        made = plan(replace(manifest, components=older), skeleton, Wanted(query=StateDictQuery(component=name)))
        assert list(load(materialise(made, data))) == keys


def test_what_was_a_component_by_older_rules_only_is_served_as_it_was_listed() -> None:
    """Once, a mapping with the keys of an optimizer was one whatever lay under them."""
    data = save({"odd": {"state": W, "param_groups": [], 0: 1}, "model": MODEL})
    manifest = index(memoryview(data)).manifest
    assert [component.name for component in manifest.components] == ["model"]
    older = replace(manifest, components=(Component(("odd",), "optimizer", 1, 48), *manifest.components))
    skeleton = data[manifest.skeleton.start : manifest.skeleton.end]
    for name, keys in (("odd", ["state", "param_groups", 0]), ("model", ["w", "b"])):
        made = plan(older, skeleton, Wanted(query=StateDictQuery(component=name)))
        assert list(load(materialise(made, data))) == keys


@pytest.mark.parametrize("path", [("gone", "x"), ("model", "w"), ("epoch",), ("stray",)], ids=".".join)
def test_a_listed_component_that_the_file_does_not_have_is_refused_by_name_and_no_other(path: Path) -> None:
    """At its path there is nothing, a tensor, or a number."""
    data = save({"model": MODEL, "optimizer": adam(), "epoch": 1, "note": [1, None], "stray": B})
    manifest = index(memoryview(data)).manifest
    listed = manifest.components
    older = replace(manifest, components=(listed[0], Component(path, "state_dict", 1, 8), *listed[1:]))
    older = replace(older, tensors=tuple(each for each in manifest.tensors if each.component in {None, 0}))

    def served(query: StateDictQuery) -> Any:
        skeleton = data[manifest.skeleton.start : manifest.skeleton.end]
        return load(materialise(plan(older, skeleton, Wanted(query=query)), data))

    with pytest.raises(SelectionError, match=r"older version") as refused:
        served(StateDictQuery(component=".".join(path)))
    assert refused.value.code == "unknown-component"
    assert repr(".".join(path)) in refused.value.detail
    assert list(served(StateDictQuery(component="model"))) == ["w", "b"]
    assert list(served(StateDictQuery(component="optimizer"))) == ["state", "param_groups"]
    assert served(StateDictQuery(component=""))["note"] == [1, None]


def test_a_strict_load_works_as_it_does_with_the_original() -> None:
    def network() -> nn.Module:
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2)), {nn.Linear})

    net, other = network(), network()
    other.load_state_dict(load(served_state_dict(save({"epoch": 1, "net": net.state_dict()}))), strict=True)
    assert torch.equal(other(torch.ones(1, 8)), net(torch.ones(1, 8)))

"""Whole pickled models: their state_dict is the one that the model itself gives, without its class."""

import time
from typing import Any

import pytest
import torch
from torch import nn

from app.deliver.plan import Wanted
from app.errors import HostileCheckpoint, SelectionError
from app.formats.index import index
from app.select.query import StateDictQuery
from app.values.work import Work
from tests.deliver.planning import load, materialise, planned, served_file, served_state_dict
from tests.formats.torch_files import loaded, saved
from tests.hostile.make import text, with_tensor


class Rotary(nn.Module):
    """Buffers of all kinds, some of which a state_dict leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("inverse", torch.arange(4.0), persistent=False)
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("later", None)
        self.register_parameter("bias", None)
        self.gain = nn.Parameter(torch.ones(2), requires_grad=False)
        self.plain = torch.arange(3.0)
        self.owner = [self]


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        base = torch.arange(40.0)
        self.embedding = nn.Embedding(10, 4)
        self.decoder = nn.Linear(4, 10, bias=False)
        self.decoder.weight = self.embedding.weight
        self.again = self.decoder
        self.nothing = None
        self.rotary = Rotary()
        self.add_module("absent", None)
        self.list = nn.ModuleList([nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)])
        self.dict = nn.ModuleDict({"a": nn.LayerNorm(3), "b": nn.Identity()})
        self.parameters_of_its_own = nn.ParameterList([torch.zeros(2), torch.ones(3)])
        self.lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
        self.attention = nn.MultiheadAttention(4, 2)
        self.view = nn.Parameter(base[10:20].view(2, 5).t())
        self.halves = nn.Parameter(torch.ones(3, dtype=torch.float16))
        self.turning = nn.Parameter(torch.randn(2, dtype=torch.complex64))
        self.register_buffer("conj", torch.randn(2, dtype=torch.complex64).conj())
        self.register_buffer("ints", torch.arange(3))
        self.register_buffer("sparse", torch.eye(3).to_sparse())


MODELS = {
    "odd": Odd,
    "sequential": lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.BatchNorm1d(3)),
    "parallel": lambda: nn.DataParallel(Odd()),
    "linear": lambda: nn.Linear(2, 2),
    "normed": lambda: nn.utils.weight_norm(nn.Linear(3, 2)),
    "transformer": lambda: nn.TransformerEncoderLayer(4, 2, 8),
    "lossy": lambda: nn.CrossEntropyLoss(weight=torch.ones(4)),
}
WAYS = {
    "zip": {},
    "legacy": {"_use_new_zipfile_serialization": False},
    "protocol 1": {"pickle_protocol": 1},
    "protocol 4": {"pickle_protocol": 4},
    "legacy, protocol 4": {"_use_new_zipfile_serialization": False, "pickle_protocol": 4},
}


def assert_same(have: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> None:
    assert list(have) == list(want)
    for key, tensor in want.items():
        mine = have[key]
        assert (type(mine), mine.dtype, mine.shape, mine.device, mine.requires_grad, mine.layout) == (
            type(tensor), tensor.dtype, tensor.shape, tensor.device, tensor.requires_grad, tensor.layout,
        )  # fmt: skip
        if tensor.layout is torch.strided:
            assert (mine.stride(), mine.is_conj()) == (tensor.stride(), tensor.is_conj())
            assert torch.equal(mine, tensor)
        else:
            assert torch.equal(mine.to_dense(), tensor.to_dense())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_pickled_models_state_dict_is_the_models_own(make: Any, options: dict[str, Any]) -> None:
    model = make()
    file = saved(model, **options)
    manifest = index(memoryview(file)).manifest
    want = model.state_dict()
    assert [(c.name, c.kind, c.keys) for c in manifest.components] == [("", "state_dict", len(want))]
    assert_same(load(served_state_dict(file)), want)
    assert_same(load(served_state_dict(file, component="")), want)
    dense = [key for key, tensor in want.items() if tensor.layout is torch.strided]
    assert [tensor.key for tensor in manifest.tensors] == dense


@pytest.mark.filterwarnings("ignore")
def test_tied_weights_stay_tied() -> None:
    served = load(served_state_dict(saved(Odd())))
    assert served["decoder.weight"].data_ptr() == served["embedding.weight"].data_ptr()
    assert served["again.weight"].data_ptr() == served["embedding.weight"].data_ptr()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [WAYS["zip"], WAYS["legacy"]], ids=["zip", "legacy"])
def test_models_inside_a_checkpoint_are_components_by_their_paths(options: dict[str, Any]) -> None:
    net, critic = Odd(), nn.Linear(3, 1)
    adam = torch.optim.Adam(critic.parameters())
    critic(torch.ones(3)).sum().backward()
    adam.step()
    state = {"epoch": 2, "model": net, "ensemble": [critic, {"ema": critic.state_dict()}], "optim": adam.state_dict()}
    file = saved(state, **options)
    found = index(memoryview(file))
    assert found.facts.epoch == 2
    names = [(c.name, c.kind) for c in found.manifest.components]
    assert names == [
        ("model", "state_dict"), ("ensemble.0", "state_dict"), ("ensemble.1.ema", "state_dict"), ("optim", "optimizer"),
    ]  # fmt: skip
    assert all(tensor.component is not None for tensor in found.manifest.tensors)
    assert_same(load(served_state_dict(file)), net.state_dict())
    assert_same(load(served_state_dict(file, component="ensemble.0")), critic.state_dict())


@pytest.mark.filterwarnings("ignore")
def test_its_keys_are_picked_and_renamed_like_any_others() -> None:
    model = nn.DataParallel(Odd())
    served = load(served_state_dict(saved(model), strip_prefix=("module.",), include=("list.*",), device="meta"))
    assert list(served) == [key for key in model.module.state_dict() if key.startswith("list.")]
    model.module.load_state_dict(load(served_state_dict(saved(model), strip_prefix=("module.",))), strict=True)


@pytest.mark.filterwarnings("ignore")
def test_the_whole_object_is_still_the_object() -> None:
    model = Odd()
    for options in (WAYS["zip"], WAYS["legacy"]):
        again = loaded(served_file(saved(model, **options)))
        assert type(again) is Odd
        assert_same(again.state_dict(), model.state_dict())
        assert again.rotary.inverse.tolist() == [0, 1, 2, 3]


def test_a_parameter_that_is_no_tensor_is_left_out_and_named() -> None:
    model = nn.Linear(2, 2)
    model._parameters["odd"] = Odd
    made = planned(saved(model), Wanted(query=StateDictQuery()))
    assert made.left_out == ("odd",)
    assert list(load(materialise(made, saved(model)))) == ["weight", "bias"]


def test_a_module_without_tensors_is_no_component() -> None:
    manifest = index(memoryview(saved({"loss": nn.MSELoss(), "net": nn.Linear(2, 2)}))).manifest
    assert [c.name for c in manifest.components] == ["net"]


def test_what_only_looks_a_little_like_a_module_is_none() -> None:
    class Like:
        pass

    Like.__qualname__ = "Like"
    globals()["Like"] = Like
    like = Like()
    like._parameters = {"w": torch.ones(1)}
    like._modules = {}
    manifest = index(memoryview(saved({"like": like}))).manifest
    assert [c.name for c in manifest.components] == ["like._parameters"]


def test_a_module_that_holds_itself_has_each_key_once() -> None:
    model = nn.Linear(2, 2)
    model._modules["me"] = model
    with pytest.raises(RecursionError):
        model.state_dict()
    assert list(load(served_state_dict(saved(model)))) == ["weight", "bias"]


COMPILED = b"ctorch._dynamo.eval_frame\nOptimizedModule\n"


def registries(modules: bytes) -> bytes:
    """The state of a module with submodules, and without tensors of its own; and the opcode that sets it."""
    return b"}(" + text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + modules + b"ub"


@pytest.mark.parametrize("size", [1, 2], ids=["itself", "each other"])
def test_compiled_modules_that_a_file_puts_into_themselves_are_read(size: int) -> None:
    """No torch makes such a thing, but a pickle can say it."""
    slots = [bytes([number]) for number in range(size)]
    made = b"".join(COMPILED + b")Rq" + slot + b"0" for slot in slots)
    for slot, inner in zip(slots, [*slots[1:], slots[0]], strict=True):
        made += b"h" + slot + registries(b"}" + text("_orig_mod") + b"h" + inner + b"s") + b"0"
    manifest = index(memoryview(with_tensor(made + b"h" + slots[0]))).manifest
    assert [each.key for each in manifest.tensors] == ["weight"]


def test_many_ways_through_compiled_modules_are_refused_before_they_take_long() -> None:
    empty = b"cmine\nNet\n)R" + registries(b"}")
    chain = COMPILED * 300 + empty + b"\x85R" * 300 + b"q\1"
    ways = b"}(" + text("way") + chain + b"".join(text(f"way {number}") + b"h\1" for number in range(4_000)) + b"u"
    began = time.process_time()
    with pytest.raises(HostileCheckpoint) as refused:
        index(memoryview(with_tensor(b"cmine\nNet\n)R" + registries(ways))), Work.here())
    assert refused.value.rule == "too-much-work"
    assert time.process_time() - began < 2


def test_modules_that_share_each_other_endlessly_are_refused() -> None:
    model: nn.Module = nn.Linear(2, 2)
    for _ in range(60):
        model = nn.Sequential(model, model)
    with pytest.raises(HostileCheckpoint) as refused:
        index(memoryview(saved(model)))
    assert refused.value.rule == "too-much-work"


def test_empty_modules_that_share_each_other_endlessly_are_refused() -> None:
    model: nn.Module = nn.ReLU()
    for _ in range(60):
        model = nn.Sequential(model, model)
    with pytest.raises(HostileCheckpoint) as refused:
        index(memoryview(saved({"model": model, "t": torch.ones(1)})))
    assert refused.value.rule == "too-much-work"


def test_endless_names_are_refused() -> None:
    model = inner = nn.Sequential()
    for _ in range(45):
        inner._modules["x" * 100] = inner = nn.Linear(1, 1)
    with pytest.raises(HostileCheckpoint) as refused:
        index(memoryview(saved(model)))
    assert refused.value.rule == "key-length"


def test_a_key_that_two_modules_claim_is_the_last_ones() -> None:
    """As in the dict that state_dict() fills."""
    model = nn.Sequential()
    model._parameters["a.weight"] = nn.Parameter(torch.zeros(3))
    model._modules["a"] = nn.Linear(2, 2)
    served = load(served_state_dict(saved(model)))
    assert list(served) == ["a.weight", "a.bias"]
    assert served["a.weight"].shape == (2, 2)


def test_an_optimizer_object_is_no_state_dict() -> None:
    model = nn.Linear(2, 2)
    file = saved({"t": torch.ones(1), "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)})
    with pytest.raises(SelectionError):
        served_state_dict(file, component="optimizer")


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scale = nn.Conv2d(1, 2, 3), nn.Parameter(torch.ones(1))
        self.register_buffer("offset", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) * self.scale + self.offset


REBUILT = {
    "traced": lambda: torch.fx.symbolic_trace(Scaled()),
    "traced inside": lambda: nn.Sequential(torch.fx.symbolic_trace(Scaled()), nn.Linear(2, 2)),
    "traced in parallel": lambda: nn.DataParallel(torch.fx.symbolic_trace(Scaled())),
    "compiled inside": lambda: nn.Sequential(torch.compile(nn.Linear(2, 2)), nn.Linear(2, 2)),
    "compiled in parallel": lambda: nn.DataParallel(torch.compile(nn.Linear(2, 2))),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", REBUILT.values(), ids=REBUILT)
def test_a_module_that_is_rebuilt_by_a_function_has_its_keys(make: Any) -> None:
    net = make()
    for obj, name in ((net, ""), ({"model": net, "ema": nn.Linear(1, 1), "epoch": 1}, "model")):
        file = saved(obj)
        assert index(memoryview(file)).manifest.components[0].name == name
        assert_same(load(served_state_dict(file)), net.state_dict())


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_module_stands_for_the_one_inside() -> None:
    for net in (torch.compile(nn.Linear(2, 2)), torch.compile(torch.fx.symbolic_trace(Scaled()))):
        file = saved({"model": net, "ema": nn.Linear(1, 1), "epoch": 1})
        assert [each.name for each in index(memoryview(file)).manifest.components] == ["model", "ema"]
        assert_same(load(served_state_dict(file)), net._orig_mod.state_dict())


@pytest.mark.filterwarnings("ignore")
def test_what_a_quantized_module_packs_is_named_and_refused_where_nothing_else_is_there() -> None:
    def dynamic() -> nn.Module:
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 4)), {nn.Linear})

    for obj in (dynamic(), {"model": dynamic(), "ema": nn.Linear(1, 1), "epoch": 1}):
        with pytest.raises(SelectionError) as refused:
            served_state_dict(saved(obj))
        assert refused.value.code == "component-empty"
        assert "ScriptObject" in refused.value.detail
    file = saved({"model": nn.Sequential(dynamic(), nn.Linear(2, 2))})
    made = planned(file, Wanted(query=StateDictQuery()))
    assert made.left_out == ("0.0._packed_params._packed_params",)
    assert list(load(materialise(made, file))) == ["1.weight", "1.bias"]


@pytest.mark.filterwarnings("ignore")
def test_a_module_that_pickles_itself_as_a_tuple_is_named() -> None:
    net = nn.Sequential(torch.ao.quantization.QuantStub(), nn.Conv2d(1, 2, 3), torch.ao.quantization.DeQuantStub())
    net.eval().qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
    torch.ao.quantization.prepare(net, inplace=True)
    net(torch.ones(1, 1, 4, 4))
    file = saved(torch.ao.quantization.convert(net, inplace=True))
    made = planned(file, Wanted(query=StateDictQuery()))
    assert made.left_out == ("1",)
    assert list(load(materialise(made, file))) == ["0.scale", "0.zero_point"]

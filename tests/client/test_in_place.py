"""Bytes received in a module's own memory leave it as load_state_dict would, however its tensors overlap."""

import io
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from stateroom import Client, Model
from tests.functional.torch_files import saved

WAYS = ("load_into", "warmstart")
LENGTH = 240


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name)


def bytes_of(net: nn.Module) -> dict[str, bytes]:
    return {key: tensor.numpy().tobytes() for key, tensor in net.state_dict().items()}


def loads_alike(model: Model, make: Callable[[], nn.Module], state: dict[str, Any]) -> None:
    """Both ways leave in ``make()`` what torch's own leaves in another one."""
    expected = make()
    expected.load_state_dict(torch.load(io.BytesIO(saved(state))))
    model.upload(io.BytesIO(saved({"model": state})))
    for way in WAYS:
        net = make()
        getattr(model, way)(net, "latest")
        assert bytes_of(net) == bytes_of(expected), way


def module_of(**tensors: torch.Tensor) -> nn.Module:
    net = nn.Module()
    for key, tensor in tensors.items():
        net.register_parameter(key, nn.Parameter(tensor, requires_grad=False))
    return net


def fused() -> nn.Module:
    whole = torch.zeros(30, 5)
    return module_of(qkv=whole, q=whole[:10], k=whole[10:20], v=whole[20:])


def fused_last() -> nn.Module:
    whole = torch.zeros(30, 5)
    return module_of(q=whole[:10], k=whole[10:20], v=whole[20:], qkv=whole)


def transposed() -> nn.Module:
    whole = torch.zeros(30, 5)
    return module_of(decoder=whole.t(), encoder=whole)


def strided() -> nn.Module:
    whole = torch.zeros(30, 5)
    return module_of(encoder=whole, every_second=whole[::2], column=whole[:, 1])


def two_dtypes() -> nn.Module:
    whole = torch.zeros(30, 5)
    return module_of(floats=whole, bits=whole.view(torch.int32))


def shared_with_a_buffer() -> nn.Module:
    net = module_of(weight=torch.zeros(30, 5))
    net.register_buffer("first_rows", net.weight.data[:3])
    net.register_buffer("alone", torch.zeros(7))
    return net


@pytest.mark.parametrize("make", [fused, fused_last, transposed, strided, two_dtypes, shared_with_a_buffer])
@pytest.mark.parametrize("backwards", [False, True])
def test_the_last_copy_stays_where_targets_share_memory(
    make: Callable[[], nn.Module], backwards: bool, model: Model
) -> None:
    state = {key: torch.full_like(tensor, i + 1) for i, (key, tensor) in enumerate(make().state_dict().items())}
    loads_alike(model, make, dict(reversed(state.items())) if backwards else state)


def test_memory_that_several_keys_share_whole_is_still_received_in_place(model: Model) -> None:
    """Tied weights on both sides: one storage for both keys, and the model's own memory before and after."""
    weight = torch.rand(30, 5)

    def make() -> nn.Module:
        whole = torch.zeros(30, 5)
        return module_of(encoder=whole, decoder=whole)

    loads_alike(model, make, {"encoder": weight, "decoder": weight})
    loads_alike(model, make, {"encoder": weight, "decoder": weight + 1})


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:TypedStorage is deprecated")
def test_a_quantized_target_takes_the_scale_too(model: Model) -> None:
    def quantized(scale: float) -> torch.Tensor:
        return torch.quantize_per_tensor(torch.arange(6) * scale, scale, 0, torch.qint8)

    net = nn.Module()
    net.register_buffer("weight", quantized(0.5))
    model.save({"model": {"weight": quantized(0.25), "other": torch.ones(2)}})
    net.register_buffer("other", torch.zeros(2))
    model.load_into(net, "latest")
    assert net.weight.q_scale() == 0.25
    assert torch.equal(net.weight.dequantize(), torch.arange(6) * 0.25)


class Remembering(nn.Module):
    """Its extra state holds one of its own weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(40))
        self.first = torch.zeros(40)

    def get_extra_state(self) -> dict[str, torch.Tensor]:
        return {"first": self.first}

    def set_extra_state(self, state: dict[str, torch.Tensor]) -> None:
        self.first = state["first"] + self.weight.detach()


def test_extra_state_that_shares_a_storage_has_its_bytes_too(model: Model) -> None:
    weight = torch.rand(40)
    model.save({"model": {"weight": weight, "_extra_state": {"first": weight}}})
    net = Remembering()
    model.load_into(net, "latest")
    assert torch.equal(net.weight, weight)
    assert torch.equal(net.first, weight + weight)


class Overwriting(nn.Module):
    """Its extra state is written into its child, which is loaded after it."""

    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Linear(3, 3)

    def get_extra_state(self) -> torch.Tensor:
        return torch.tensor(1.0)

    def set_extra_state(self, state: torch.Tensor) -> None:
        nn.init.constant_(self.child.weight, state.item())


def test_extra_state_is_set_before_the_children_are_loaded(model: Model) -> None:
    loads_alike(model, Overwriting, {**Overwriting().state_dict(), "_extra_state": torch.tensor(7.0)})


def view_of(base: torch.Tensor, chance: random.Random) -> torch.Tensor:
    """A part of the base: a stretch, a matrix, its transpose, or elements with others between."""
    start = chance.randrange(LENGTH - 60)
    part = base[start : start + chance.choice([1, 12, 24, 60])]
    kind = chance.randrange(5)
    if kind == 1 and part.numel() > 1:
        return part.view(-1, 6)
    if kind == 2 and part.numel() > 1:
        return part.view(-1, 6).t()
    if kind == 3:
        return part[:: chance.choice([2, 3])]
    return part.view(torch.int32) if kind == 4 else part


def tree_of(seed: int) -> nn.Module:
    """Parameters, buffers and children over two stretches of memory, the same for the same seed."""
    chance = random.Random(seed)
    bases = [torch.zeros(LENGTH), torch.zeros(LENGTH)]
    net = nn.Module()
    homes = [net]
    for i in range(chance.choice([2, 4, 7, 10])):
        if chance.random() < 0.3:
            homes.append(nn.Module())
            homes[-2].add_module(f"child{i}", homes[-1])
        view = view_of(chance.choice(bases), chance)
        if chance.random() < 0.5 or not view.is_floating_point():
            chance.choice(homes).register_buffer(f"b{i}", view)
        else:
            chance.choice(homes).register_parameter(f"p{i}", nn.Parameter(view))
    return net


def state_for(net: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """A value for each key, in any order; some share a storage."""
    chance = random.Random(-seed)
    shared = torch.arange(LENGTH, dtype=torch.float32)
    state: dict[str, torch.Tensor] = {}
    keys = list(net.state_dict())
    chance.shuffle(keys)
    for i, key in enumerate(keys):
        want = net.state_dict()[key]
        own = shared[: want.numel()] if chance.random() < 0.3 else torch.arange(1000 * i, 1000 * i + want.numel())
        state[key] = own.to(want.dtype).reshape(want.shape)
        if chance.random() < 0.2 and want.dim() == 2:
            state[key] = state[key].t().contiguous().t()
    return state


@pytest.mark.parametrize("seed", range(20))
def test_random_views_are_loaded_as_torch_loads_them(seed: int, model: Model) -> None:
    loads_alike(model, lambda: tree_of(seed), state_for(tree_of(seed), seed))

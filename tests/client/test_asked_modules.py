"""A strict load is refused if the module itself would refuse it, and only then."""

import io
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from stateroom import Client, Model, StateDictMismatch
from tests.functional.torch_files import same, saved

Make = Callable[[], nn.Module]
State = dict[str, Any]


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name)


def convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def without_counter(net: nn.Module, *, versions: bool) -> State:
    """A state_dict as torch wrote it before 0.4.1, or one that only lost the key."""
    state = net.state_dict()
    kept = OrderedDict((key, value) for key, value in state.items() if not key.endswith("num_batches_tracked"))
    if versions:
        kept._metadata = state._metadata  # type: ignore[attr-defined]  # as torch keeps it
    return kept


class FrozenNorm(nn.Module):
    """As torchvision's: it has no counter, and drops the one that it is given."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.zeros(4))

    def _load_from_state_dict(self, state_dict: State, prefix: str, *args: Any) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args)


def renaming() -> nn.Module:
    net = nn.Linear(3, 3)

    def rename(_module: nn.Module, state: State, prefix: str, *_: Any) -> None:
        if prefix + "kernel" in state:
            state[prefix + "weight"] = state.pop(prefix + "kernel").t()

    net.register_load_state_dict_pre_hook(rename)
    return net


class Growing(nn.Module):
    """It takes the size of its table from the checkpoint."""

    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(size))

    def _load_from_state_dict(self, state_dict: State, prefix: str, *args: Any) -> None:
        self.table = torch.zeros_like(state_dict[prefix + "table"])
        super()._load_from_state_dict(state_dict, prefix, *args)


class Fused(nn.Module):
    """It makes one weight of three, in its own load_state_dict."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Parameter(torch.zeros(9, 3))

    def load_state_dict(self, state_dict: Any, *args: Any, **options: Any) -> Any:
        if "q" in state_dict:
            state_dict = {"qkv": torch.cat([state_dict[key] for key in "qkv"])}
        return super().load_state_dict(state_dict, *args, **options)


class Remembering(nn.Module):
    """Its extra state is a dict of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.scales = {"input": torch.zeros(2)}

    def get_extra_state(self) -> dict[str, torch.Tensor]:
        return self.scales

    def set_extra_state(self, state: dict[str, torch.Tensor]) -> None:
        self.scales = state


def of_weight_norm() -> State:
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.utils.weight_norm(nn.Linear(3, 3)).state_dict()


def accepted() -> dict[str, tuple[Make, Callable[[], State]]]:
    """Modules with state_dicts that have other keys or shapes, which they take."""
    return {
        "no-counter": (convolution, lambda: without_counter(convolution(), versions=False)),
        "frozen-norm": (FrozenNorm, lambda: nn.BatchNorm1d(4).state_dict()),
        "weight-norm": (lambda: parametrizations.weight_norm(nn.Linear(3, 3)), of_weight_norm),
        "hook": (renaming, lambda: {"kernel": torch.rand(3, 3), "bias": torch.rand(3)}),
        "shape": (Growing, Growing(5).state_dict),
        "own-method": (Fused, lambda: {key: torch.rand(3, 3) for key in "qkv"}),
        "extra-state": (Remembering, lambda: {"weight": torch.rand(3), "_extra_state": {"input": torch.ones(2)}}),
        "lazy": (lambda: nn.Sequential(nn.LazyLinear(4), nn.ReLU()), nn.Sequential(nn.Linear(3, 4)).state_dict),
    }


@pytest.mark.parametrize("kind", accepted())
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("staged", [True, False])
def test_what_the_module_accepts_is_loaded_as_it_loads_it(kind: str, strict: bool, staged: bool, model: Model) -> None:
    make, state = accepted()[kind]
    file = saved({"model": state()})
    expected = make()
    expected.load_state_dict(torch.load(io.BytesIO(file))["model"], strict=strict)
    model.upload(io.BytesIO(file))
    net = make()
    report = model.load_into({"model": net}, "latest", strict=strict, staged=staged)
    assert same(dict(net.state_dict()), dict(expected.state_dict()))
    if strict:
        assert (report.missing_keys, report.unexpected_keys, report.mismatched_keys) == ((), (), ())


def refused() -> dict[str, tuple[Make, Callable[[], State]]]:
    return {
        "counter-lost": (convolution, lambda: without_counter(convolution(), versions=True)),
        "more-than-counter": (convolution, lambda: {"0.weight": torch.rand(4, 3, 3, 3)}),
        "frozen-norm": (FrozenNorm, lambda: {"weight": torch.rand(4), "num_batches_tracked": torch.tensor(1)}),
        "hook": (renaming, lambda: {"kernel": torch.rand(3, 3), "bias": torch.rand(3), "more": torch.rand(1)}),
        "shape": (renaming, lambda: {"kernel": torch.rand(3, 3), "bias": torch.rand(4)}),
        "own-method": (Fused, lambda: {"q": torch.rand(3, 3), "k": torch.rand(3, 3), "v": torch.rand(1, 3)}),
    }


@pytest.mark.parametrize("kind", refused())
@pytest.mark.parametrize("staged", [True, False])
def test_what_the_module_refuses_is_refused_and_leaves_it_as_it_was(kind: str, staged: bool, model: Model) -> None:
    make, state = refused()[kind]
    file = saved({"model": state()})
    with pytest.raises(RuntimeError):
        make().load_state_dict(torch.load(io.BytesIO(file))["model"])
    model.upload(io.BytesIO(file))
    net = make()
    before = {key: (value, value.clone()) for key, value in net.state_dict(keep_vars=True).items()}
    with pytest.raises(StateDictMismatch):
        model.load_into({"model": net}, "latest", staged=staged)
    after = net.state_dict(keep_vars=True)
    assert after.keys() == before.keys()
    for key, (own, value) in before.items():
        assert after[key] is own
        assert torch.equal(own, value)


def test_a_lazy_module_refuses_what_has_other_keys(model: Model) -> None:
    model.save({"model": {"0.weight": torch.rand(4, 3)}})
    with pytest.raises(StateDictMismatch, match=r'Missing key.*"0.bias"'):
        model.load_into(nn.Sequential(nn.LazyLinear(4)), "latest")


class Failing(nn.Module):
    """Its hook replaces a weight, writes to another, and then fails as hooks may."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

    def _load_from_state_dict(self, *_args: Any) -> None:
        self.first = nn.Parameter(torch.zeros(5))
        nn.init.zeros_(self.second)
        raise KeyError("no such key")


def test_a_hook_that_fails_leaves_the_module_as_it_was(model: Model) -> None:
    model.save({"model": {"other": torch.ones(3)}})
    net = Failing()
    first = net.first
    with pytest.raises(KeyError, match="no such key"):
        model.load_into({"model": net}, "latest")
    assert net.first is first
    assert torch.equal(net.second, torch.ones(3))

"""client.load returns the same object as torch.load, also with tensors that have their own way of being rebuilt."""

import io
from collections.abc import Callable
from typing import Any, Self

import pytest
import torch
from torch import nn

from stateroom import Client, Model
from tests.functional.torch_files import saved
from tests.support.server import Server


class Wrapping(torch.Tensor):
    """A tensor without a storage of its own, as quantization libraries and DTensor make them."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Self:
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device)  # type: ignore[no-any-return,attr-defined]

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function: Any, _types: Any, args: Any = (), _kwargs: Any = None) -> Any:
        if function is torch.ops.aten.detach.default:
            return cls(args[0].inner)
        raise NotImplementedError(function)

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @classmethod
    def __tensor_unflatten__(cls, tensors: dict[str, torch.Tensor], *_rest: Any) -> "Wrapping":
        return cls(tensors["inner"])


class Named(torch.Tensor):
    """A subclass with a storage, and an attribute."""


class Rebuilt:
    """Whatever a function makes of arguments, when it is loaded."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.reduced = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.reduced


def named(tensor: torch.Tensor) -> Named:
    found = tensor.as_subclass(Named)
    found.label = "first"  # type: ignore[attr-defined]
    return found


WEIGHT = torch.arange(300_000, dtype=torch.float32)
VALUES: dict[str, Callable[[], Any]] = {
    "wrapper": lambda: Wrapping(WEIGHT),
    "wrapped-parameter": lambda: nn.Parameter(Wrapping(WEIGHT), requires_grad=False),
    "wrappers-around-one": lambda: [Wrapping(WEIGHT), Wrapping(WEIGHT), WEIGHT],
    "subclass": lambda: named(WEIGHT),
    "numpy": lambda: Rebuilt(
        torch._utils._rebuild_device_tensor_from_numpy, WEIGHT.numpy(), WEIGHT.dtype, "cpu", False
    ),
    "device": lambda: Rebuilt(torch._utils._rebuild_device_tensor_from_cpu_tensor, WEIGHT, WEIGHT.dtype, "cpu", False),
    "device-elsewhere": lambda: Rebuilt(
        torch._utils._rebuild_device_tensor_from_cpu_tensor, WEIGHT, WEIGHT.dtype, "xla:1", False
    ),
}
PLACES: list[Any] = [
    None,
    "cpu",
    torch.device("cpu"),
    {"cuda:0": "cpu"},
    "meta",
    lambda storage, _: storage,
    "cuda:7",
    3,
]


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name)


def told(value: Any) -> Any:
    """A value, as what can be compared."""
    if isinstance(value, dict):
        return {key: told(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [told(each) for each in value]
    if isinstance(value, Wrapping):
        return type(value), told(value.inner)
    if isinstance(value, torch.Tensor):
        plain = value.detach().as_subclass(torch.Tensor)  # type: ignore[arg-type]  # it takes the base class too
        numbers = None if value.is_meta else plain.tolist()
        return type(value), str(value.device), numbers, getattr(value, "label", None)
    return value


def outcome(load: Callable[[], Any]) -> Any:
    """What is loaded, or the kind of error that is raised."""
    try:
        return told(load())
    except Exception as error:  # noqa: BLE001  whichever torch raises
        return type(error)


@pytest.mark.parametrize("kind", VALUES)
def test_what_torch_loads_of_the_served_file_the_client_loads(kind: str, model: Model, server: Server) -> None:
    model.upload(io.BytesIO(saved({"model": {"weight": VALUES[kind](), "bias": torch.ones(2)}, "epoch": 1})))
    url = f"/v1/models/{model.name}/checkpoints/latest/file"
    for place in PLACES:
        device = {"device": str(place)} if str(place) in {"cpu", "meta", "cuda:7"} else {}
        with server.client() as http:
            answer = http.get(url, params={"weights_only": "false", **device})
        assert answer.status_code == 200, answer.text
        expected = outcome(lambda: torch.load(io.BytesIO(answer.content), place, weights_only=False))  # noqa: B023
        assert outcome(lambda: model.load("latest", place, weights_only=False)) == expected, place  # noqa: B023


class Failing:
    """An object with a tensor that cannot be loaded, and counts how often somebody tried."""

    tried = 0

    def __init__(self) -> None:
        self.weight = WEIGHT

    def __setstate__(self, state: Any) -> None:
        Failing.tried += 1
        raise RuntimeError("not this object")


def test_what_fails_while_it_is_built_is_built_once(model: Model) -> None:
    model.upload(io.BytesIO(saved({"model": {"weight": torch.ones(2)}, "hook": Failing()})))
    Failing.tried = 0
    with pytest.raises(RuntimeError, match="not this object"):
        model.load("latest", "cpu", weights_only=False)
    assert Failing.tried == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so the file loads")
def test_of_a_file_for_a_device_that_is_not_there_no_storage_is_fetched(server: Server, model_name: str) -> None:
    came: list[int] = []
    client = Client(server.base_url, progress=lambda _label, done, _total: came.append(done))
    model = client.model(model_name)
    model.upload(io.BytesIO(saved({"model": {"weight": WEIGHT}, "epoch": 1}, "cuda:0")))
    came.clear()
    with pytest.raises(RuntimeError, match="CUDA"):
        model.load("latest")
    assert 0 < came[-1] < WEIGHT.nbytes

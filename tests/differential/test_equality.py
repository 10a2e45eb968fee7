"""The comparison itself: equal objects are found equal, and different ones different."""

import struct
from typing import Any

import pytest
import torch

from tests.differential.equality import equal
from tests.differential.judge import Judge, Verdict
from tests.hostile.make import of_tensor, tensor, text, with_tensor
from tests.hostile.make import storage as storage_of

NAN, OTHER_NAN = float("nan"), struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]
BASE = torch.arange(6.0)


pytestmark = pytest.mark.filterwarnings("ignore")  # of typed storages and nested tensors


def cycle() -> dict[str, Any]:
    tree: dict[str, Any] = {"list": []}
    tree["list"].append(tree)
    return tree


def storage() -> torch.TypedStorage:
    return torch.TypedStorage([1.0, 2.0], dtype=torch.float32)


def nested(value: float) -> torch.Tensor:
    return torch.nested.nested_tensor([torch.ones(2), torch.full((3,), value)])


def test_what_is_equal_is_called_equal() -> None:
    shared: list[int] = []
    for one, other in (
        ({NAN: 1}, {float("nan"): 1}),
        (cycle(), cycle()),
        (storage(), storage()),
        (torch.UntypedStorage(8, device="meta"), torch.UntypedStorage(8, device="meta")),
        ({1, "a"}, {"a", 1}),
        ([shared, shared], [shared, shared]),
        (torch.ones(1).expand(1 << 40, 2), torch.ones(1).expand(1 << 40, 2)),
        (_views(BASE), _views(BASE.clone())),
        (nested(1.0), nested(1.0)),
    ):
        assert equal(one, other)


def _views(base: torch.Tensor) -> list[torch.Tensor]:
    return [base[1:], base[:3], base[2:2]]


def test_what_differs_is_called_unequal() -> None:
    shared: list[int] = []
    for one, other in (
        ({NAN: 1}, {OTHER_NAN: 1}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (1, True),
        (storage(), torch.TypedStorage([1.0, 3.0], dtype=torch.float32)),
        (torch.UntypedStorage(8, device="meta"), torch.UntypedStorage(9, device="meta")),
        ({1, "a"}, {"a", 2}),
        ([shared, shared], [[], []]),
        ([[], []], [shared, shared]),
        (complex(0.0, 0.0), complex(0.0, -0.0)),
        (torch.ones(1).expand(1 << 40, 2), torch.zeros(1).expand(1 << 40, 2)),
        (_views(BASE), [BASE[1:].clone(), BASE[:3].clone()]),
        ([BASE[1:].clone(), BASE[:3].clone()], _views(BASE)),
        (_views(BASE), [BASE[1:], BASE.clone()[:3]]),
        (nested(1.0), nested(2.0)),
    ):
        assert not equal(one, other)


def test_a_list_in_itself_is_not_the_judges_end(judge: Judge) -> None:
    file = with_tensor(b"]q\x00h\x00a" + text("y") + b"N")
    assert judge.compare(file, file) is Verdict.EQUAL


def test_a_tensor_that_torch_cannot_look_at_is_not_the_judges_end(judge: Judge) -> None:
    file = of_tensor(tensor(of=storage_of(kind="torch\nQInt32Storage")))
    assert judge.compare(file, file) is Verdict.EQUAL

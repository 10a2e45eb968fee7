"""Corners of tensors and their casts, as a warm start sends them: equal to torch's, and no more bytes than that."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_safetensors

from app.deliver.plan import Wanted, plan
from app.deliver.plan_wire import plan_in_child
from app.formats.index import index
from app.formats.manifest_json import encode
from app.select.query import StateDictQuery
from app.select.warmstart import Fitted
from tests.deliver.planning import big_endian, load, materialise, planned, save

SLACK = 4096


def wanted(*fitted: Fitted, **query: Any) -> Wanted:
    return Wanted(StateDictQuery(device="cpu", **query), tuple(each.key for each in fitted), fitted=fitted)


def served(data: bytes, want: Wanted) -> dict[str, torch.Tensor]:
    return load(materialise(planned(data, want), data))


LAYOUTS = {
    "contiguous": lambda: torch.randn(60, 50),
    "transposed": lambda: torch.randn(50, 60).t(),
    "offset": lambda: torch.randn(200, 80)[100:160, 10:60],
    "expanded": lambda: torch.randn(60, 1).expand(60, 50),
    "bfloat16": lambda: torch.randn(60, 50).bfloat16(),
    "float8": lambda: torch.randn(60, 50).to(torch.float8_e4m3fn),
    "uint16": lambda: torch.arange(3000).view(60, 50).to(torch.uint16),
    "complex128": lambda: torch.randn(60, 50, dtype=torch.complex128),
    "conjugate": lambda: torch.randn(60, 50, dtype=torch.complex64).conj(),
    "parameter": lambda: torch.nn.Parameter(torch.randn(60, 50)),
}


@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("corner", [(60, 50), (7, 50), (60, 3), (7, 3), (1, 1)])
def test_a_corner_is_that_of_torch_and_no_more_is_sent(layout: str, endian: str, corner: tuple[int, int]) -> None:
    tensor = LAYOUTS[layout]()
    data = save({"w": tensor, "other": torch.ones(3)})
    data = big_endian(data) if endian == "big" else data
    want = wanted(Fitted("w", corner))
    expected = load(data)["w"].detach()[: corner[0], : corner[1]]
    (key, got), *others = served(data, want).items()
    assert (key, others) == ("w", [])
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert torch.equal(got.to(torch.complex128), expected.to(torch.complex128))
    assert planned(data, want).file.size <= expected.numel() * expected.element_size() + SLACK


def test_rows_of_a_contiguous_tensor_are_sent_as_they_are() -> None:
    data = save({"w": torch.randn(60, 50)})
    assert planned(data, wanted(Fitted("w", (8, 50)))).file.conversions == []


@settings(deadline=None)
@given(st.data())
def test_any_corner_in_any_dtype_is_that_of_torch(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    tensor = torch.randn(shape).permute(data.draw(st.permutations(range(len(shape)))))
    corner = tuple(data.draw(st.integers(1, size)) for size in tensor.shape)
    dtype = data.draw(st.none() | st.sampled_from(["float16", "bfloat16"]))
    file = save({"w": tensor, "tied": tensor, "plain": tensor})
    want = wanted(Fitted("w", corner, dtype), Fitted("tied", None, dtype), Fitted("plain"))
    got = served(file, want)
    cut = tensor[tuple(slice(size) for size in corner)]
    assert torch.equal(got["w"], cut if dtype is None else cut.to(getattr(torch, dtype)))
    assert torch.equal(got["tied"], tensor if dtype is None else tensor.to(getattr(torch, dtype)))
    assert torch.equal(got["plain"], tensor)


def test_a_corner_goes_by_its_new_name_and_may_be_in_safetensors() -> None:
    tensor = torch.randn(9, 8)
    data = save({"module.w": tensor, "module.v": torch.ones(2)})
    want = wanted(Fitted("w", (4, 4)), strip_prefix=("module.",))
    assert torch.equal(served(data, want)["w"], tensor[:4, :4])
    fitted = (Fitted("module.w", (4, 4), "float16"),)
    want = Wanted(StateDictQuery(format="safetensors"), ("module.w",), fitted=fitted)
    body = load_safetensors(materialise(planned(data, want), data))
    assert torch.equal(body["module.w"], tensor[:4, :4].half())


def test_a_child_process_plans_the_same_from_the_kept_text() -> None:
    data = save({"w": torch.randn(9, 8), "v": torch.randn(6)})
    manifest = index(memoryview(data)).manifest
    skeleton = data[manifest.skeleton.start : manifest.skeleton.end]
    want = wanted(Fitted("w", (4, 4), "bfloat16"), Fitted("v", (3,)))
    assert Wanted.from_json(want.to_json()) == want
    assert plan_in_child(encode(manifest), skeleton, want) == plan(manifest, skeleton, want)

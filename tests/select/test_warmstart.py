"""The report, judged by what ``load_state_dict(strict=False)`` of real torch does."""

import re
from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from app.select.warmstart import Fitted, Mismatch, TargetTensor, match
from app.values.dtype import DTYPES
from app.values.manifest import Tensor

shapes = st.lists(st.integers(0, 3), max_size=2).map(tuple)
dtypes = st.sampled_from(["float32", "float16", "bfloat16", "float64"])
dicts = st.dictionaries(st.sampled_from("abcdef"), st.tuples(shapes, dtypes), max_size=6)


def tensors(spec: Mapping[str, tuple[tuple[int, ...], str]]) -> list[tuple[str, Tensor]]:
    """A selection in which each tensor has a storage of its own."""
    selection = []
    for i, (key, (shape, dtype)) in enumerate(spec.items()):
        stride = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
        selection.append((key, Tensor(0, (key,), DTYPES[dtype], shape, stride, 0, i)))
    return selection


def build(spec: Mapping[str, tuple[tuple[int, ...], str]], fill: float) -> dict[str, torch.Tensor]:
    return {key: torch.full(shape, fill, dtype=getattr(torch, dtype)) for key, (shape, dtype) in spec.items()}


@settings(deadline=None)
@given(dicts, dicts)
def test_the_report_is_what_a_load_that_is_not_strict_does(source: dict[str, Any], target: dict[str, Any]) -> None:
    report = match(tensors(source), {key: TargetTensor(*spec) for key, spec in target.items()})

    net = nn.Module()
    for key, tensor in build(target, 1.0).items():
        net.register_buffer(key, tensor)
    errors = ""
    try:
        answer = net.load_state_dict(build(source, 2.0), strict=False)
    except RuntimeError as error:  # a mismatch: torch has loaded the rest before it raises
        errors = str(error)
    else:
        assert report.missing_keys == tuple(answer.missing_keys)
        assert report.unexpected_keys == tuple(answer.unexpected_keys)
    assert {mismatch.key for mismatch in report.mismatched_keys} == set(re.findall(r"size mismatch for (\w):", errors))
    loaded = {key for key, tensor in net.state_dict().items() if tensor.numel() and bool((tensor == 2.0).all())}
    assert loaded == {key for key in report.matched_keys if prod(target[key][0])}
    assert set(report.cast_keys) == {key for key in report.matched_keys if source[key][1] != target[key][1]}
    assert report.nbytes == sum(build({k: source[k]}, 0.0)[k].nbytes for k in report.matched_keys)


@settings(deadline=None)
@given(dicts, dicts)
def test_every_key_is_in_exactly_one_list(source: dict[str, Any], target: dict[str, Any]) -> None:
    report = match(tensors(source), {key: TargetTensor(*spec) for key, spec in target.items()})
    mismatched = tuple(mismatch.key for mismatch in report.mismatched_keys)
    everything = report.matched_keys + report.missing_keys + report.unexpected_keys + mismatched
    assert sorted(everything) == sorted({*source, *target})
    assert set(report.cast_keys) <= set(report.matched_keys)


def test_a_mismatch_says_what_is_here_and_what_is_wanted() -> None:
    selection = tensors({"fc3.weight": ((10, 84), "float32")})
    report = match(selection, {"fc3.weight": TargetTensor((2, 84), "float32")})
    assert report.mismatched_keys == (Mismatch("fc3.weight", have=(10, 84), want=(2, 84)),)
    assert report.nbytes == 0


def test_a_tensor_of_another_shape_gives_its_corner_if_asked() -> None:
    selection = tensors(
        {
            "longer": ((10, 84), "float32"),
            "shorter": ((5, 4), "float32"),
            "flat": ((6,), "float32"),
            "apart": ((0, 3), "float32"),
            "same": ((2, 2), "float32"),
        }
    )
    shapes = {"longer": (2, 84), "shorter": (9, 3), "flat": (2, 3), "apart": (4, 3), "same": (2, 2)}
    target = {key: TargetTensor(shape, "float32") for key, shape in shapes.items()}
    report = match(selection, target, resizes=True)
    assert report.resized_keys == (Mismatch("longer", (10, 84), (2, 84)), Mismatch("shorter", (5, 4), (9, 3)))
    assert [each.key for each in report.mismatched_keys] == ["flat", "apart"]
    assert report.fitted == (Fitted("longer", (2, 84)), Fitted("shorter", (5, 3)))
    assert report.sent_keys == ("same", "longer", "shorter")
    assert report.nbytes == 4 * (2 * 84 + 5 * 3 + 4)
    assert match(selection, target).fitted == match(selection, target).resized_keys == ()


def test_a_tensor_is_cast_before_it_is_sent_where_that_saves_bytes() -> None:
    dtypes = [
        ("float32", "bfloat16"), ("float64", "float32"), ("float16", "float32"), ("float16", "bfloat16"),
        ("int64", "float16"), ("float32", "float8_e4m3fn"), ("float32", "float32"),
    ]  # fmt: skip
    selection = tensors({str(number): ((3,), have) for number, (have, _) in enumerate(dtypes)})
    target = {str(number): TargetTensor((3,), want) for number, (_, want) in enumerate(dtypes)}
    report = match(selection, target, casts=True)
    assert report.fitted == (Fitted("0", dtype="bfloat16"), Fitted("1", dtype="float32"))
    assert report.cast_keys == match(selection, target).cast_keys


def test_tied_weights_travel_once() -> None:
    view = Tensor(0, ("a",), DTYPES["float32"], (2, 3), (3, 1), 0, 0)
    target = {key: TargetTensor((2, 3), "float32") for key in ("embed.weight", "head.weight")}
    report = match([("embed.weight", view), ("head.weight", view)], target)
    assert report.matched_keys == ("embed.weight", "head.weight")
    assert report.nbytes == 24

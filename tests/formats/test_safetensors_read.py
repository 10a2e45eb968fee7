"""safetensors files are read as the reference reads them, and refused where two readers could differ."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load as reference_load
from safetensors.torch import load_file, save

from app.errors import HostileCheckpoint, NotACheckpoint, NoTensors, RefusedCheckpoint
from app.formats.index import index
from app.formats.manifest_json import decode, encode
from app.formats.readers import read
from app.sandbox.index_file import index_file
from tests.deliver.planning import load, served_file, served_state_dict
from tests.support.measure import examples

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64, torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu, torch.float4_e2m1fn_x2,
]  # fmt: skip


def file_of(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def refusal(file: bytes) -> RefusedCheckpoint:
    with pytest.raises(RefusedCheckpoint) as refused:
        index(memoryview(file))
    return refused.value


def bits(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().untyped_storage())


def assert_equal(have: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> None:
    assert have.keys() == want.keys()
    for key, tensor in want.items():
        mine = have[key]
        assert (mine.dtype, mine.shape, mine.stride()) == (tensor.dtype, tensor.shape, tensor.stride())
        assert bits(mine) == bits(tensor)


def test_it_is_a_flat_state_dict_in_the_files_order() -> None:
    file = save({"b": torch.arange(3.0), "a": torch.zeros(2, 2, dtype=torch.int64)})
    manifest = index(memoryview(file)).manifest
    assert manifest.format == "safetensors"
    assert [(c.name, c.kind, c.keys, c.nbytes) for c in manifest.components] == [("", "state_dict", 2, 44)]
    assert [(t.key, t.dtype.name, t.shape) for t in manifest.tensors] == [
        ("a", "int64", (2, 2)),
        ("b", "float32", (3,)),
    ]
    span = manifest.storages[1].span
    assert file[span.start : span.end] == struct.pack("<3f", 0, 1, 2)
    assert list(load(served_state_dict(file))) == list(load(served_file(file))) == ["a", "b"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_of_the_format_that_torch_has_survives(dtype: torch.dtype, tmp_path: Path) -> None:
    raw = torch.randint(0, 2, (6, 16), dtype=torch.uint8)
    file = save({"w": raw.view(dtype) if dtype is not torch.bool else raw.to(torch.bool), "v": torch.ones(3)})
    path = tmp_path / "file.safetensors"
    path.write_bytes(file)
    want = load_file(path)  # which knows more dtypes than load
    for served in (served_state_dict(file), served_file(file)):
        assert_equal(load(served), want)


@pytest.mark.parametrize("name", ["F6_E2M3", "F6_E3M2"])
def test_dtypes_that_torch_does_not_have_are_refused_by_name(name: str) -> None:
    error = refusal(file_of({"w": entry(name, [4], [0, 3])}, bytes(3)))
    assert isinstance(error, NotACheckpoint)
    assert (error.rule, name in error.detail) == ("dtype", True)


SHAPES = st.lists(st.integers(0, 4), max_size=4)


@examples(100)
@given(data=st.data())
def test_any_file_of_the_reference_is_read_as_it_reads_it(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.text(min_size=1, max_size=8).filter(is_text), unique=True, min_size=1, max_size=6))
    state = {
        name: torch.zeros(data.draw(SHAPES)).add(number).to(data.draw(st.sampled_from(DTYPES[:10])))
        for number, name in enumerate(names)
    }
    file = save(state, data.draw(st.none() | st.dictionaries(st.text(max_size=4).filter(is_text), st.just("x"))))
    assert_equal(load(served_state_dict(file)), reference_load(file))


def is_text(name: str) -> bool:
    return name != "__metadata__" and not any("\ud800" <= character <= "\udfff" for character in name)


@examples(200)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_the_reference_reads_it_alike(data: st.DataObject) -> None:
    file = bytearray(save({"a": torch.arange(4.0), "b": torch.zeros(2, 3, dtype=torch.int16)}, {"note": "hello"}))
    for _ in range(data.draw(st.integers(1, 3))):
        file[data.draw(st.integers(0, 160))] = data.draw(st.integers(0, 255) | st.sampled_from(b'0123456789,:[]{}" '))
    damaged = bytes(file)
    try:
        served = served_state_dict(damaged)
    except RefusedCheckpoint:
        return
    assert_equal(load(served), reference_load(damaged))


@examples(60)
@given(cut=st.integers(1, 150))
def test_a_file_that_was_cut_anywhere_is_refused(cut: int) -> None:
    file = save({"a": torch.arange(4.0), "b": torch.zeros(20)})
    assert isinstance(refusal(file[:-cut]), NotACheckpoint)


TWICE = b'{"w":ENTRY,"w":ENTRY}'.replace(b"ENTRY", json.dumps(entry()).encode())
HOSTILE = {
    "duplicate-key": (TWICE, 8),
    "tensor-gap": ({"w": entry(offsets=[4, 12])}, 12),
    "tensor-overlap": ({"w": entry(), "v": entry(offsets=[4, 12])}, 12),
    "tensor-extent": ({"w": entry(offsets=[0, 12])}, 12),
    "tensor-fields": ({"w": {**entry(), "more": 1}}, 8),
    "tensor-dimensions": ({"w": entry(shape=[1] * 65, offsets=[0, 4])}, 4),
    "trailing-bytes": ({"w": entry()}, 9),
    "metadata": ({"__metadata__": {"a": 1}, "w": entry()}, 8),
    "nesting": (b'{"w":' + b"[" * 100_000, 0),
    "dtype": ({"w": entry("C128")}, 8),
}  # fmt: skip


@pytest.mark.parametrize("rule", HOSTILE)
def test_what_breaks_a_rule_is_refused_by_its_name(rule: str) -> None:
    header, size = HOSTILE[rule]
    error = refusal(file_of(header, bytes(size)))
    assert isinstance(error, HostileCheckpoint)
    assert error.rule == rule
    assert error.where


@pytest.mark.parametrize(
    "header",
    [
        {"w": entry(shape=[2.0])},
        {"w": entry(shape=[True, 2])},
        {"w": entry(shape=[-2])},
        {"w": entry(shape="2")},
        {"w": entry(shape=[2**64 + 2])},
        {"w": entry(shape=[2**40, 2**40, 0], offsets=[0, 0])},
        {"w": entry(shape=[0, 2**40, 2**40], offsets=[0, 0])},
        {"w": entry(offsets=[0])},
        {"w": entry(offsets=[0, 8, 9])},
        {"w": entry(offsets=[8, 0])},
        {"w": entry(offsets=[-8, 0])},
        {"w": entry(dtype=3)},
        {"w": entry(dtype="f32")},
        {"w": [1]},
        {"w": {"dtype": "F32", "shape": [2]}},
        {"w": entry("F4", [3], [0, 1])},
        {"w": entry("F4", [], [0, 1])},
        {"__metadata__": [], "w": entry()},
        {"__metadata__": {"a": "x" * 4_000_001}, "w": entry()},
        b'{"w":{"dtype":"F32","dtype":"I32","shape":[2],"data_offsets":[0,8]}}',
        b'{"__metadata__":{"a":"1","a":"2"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        b'{"\\ud800":1,"\\ud800":1}',
    ],
)
def test_numbers_fields_and_names_that_cannot_be_are_refused(header: Any) -> None:
    assert isinstance(refusal(file_of(header, bytes(8))), HostileCheckpoint)


@pytest.mark.parametrize(
    "header",
    [
        b'{"w":',
        b'{"w":NaN}',
        b"{} {}",
        b'{"\xff":1}',
        b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        b'{"w":' + b"9" * 5_000 + b"}",
        b"{'w':1}",
        b'{"a\nb":1}',
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused(header: bytes) -> None:
    assert refusal(file_of(header, bytes(8))).rule == "header-json"


@pytest.mark.parametrize(
    ("file", "rule"),
    [
        (file_of(b" {}"), "magic"),
        (file_of(b"[]"), "magic"),
        (file_of(b"{}", length=100_000_001), "magic"),
        (file_of(b"{}", length=3), "truncated"),
        (struct.pack("<Q", 2), "magic"),
    ],
)
def test_what_does_not_start_as_one_is_none(file: bytes, rule: str) -> None:
    assert refusal(file).rule == rule


def test_a_file_without_a_tensor_is_refused() -> None:
    assert isinstance(refusal(file_of({"__metadata__": {"a": "b"}})), NoTensors)


def test_its_own_texts_are_kept_and_plain_numbers_among_them_lifted() -> None:
    texts = {"epoch": "12", "loss": "0.25", "global_step": "1e3", "lr": "0.1", "format": "pt"}
    found = index(memoryview(save({"w": torch.zeros(2)}, texts)))
    assert found.manifest.metadata == texts
    assert decode(encode(found.manifest)) == found.manifest
    assert (found.facts.epoch, found.facts.step, found.facts.loss) == (12, 1000, 0.25)
    assert found.facts.metrics == {}


@pytest.mark.parametrize("text", ["", "twelve", "0x10", " 1", "1_0", "nan", "inf", "-", "1.", "\u0661", "9" * 30])
def test_what_is_no_plain_number_is_no_fact(text: str) -> None:
    facts = index(memoryview(save({"w": torch.zeros(2)}, {"epoch": text, "loss": text}))).facts
    assert (facts.epoch, facts.loss) == (None, None)


def test_devices_and_keys_are_asked_for_as_of_any_file() -> None:
    file = save({"module.a": torch.arange(3.0), "module.b": torch.ones(2)})
    served = load(served_state_dict(file, strip_prefix=("module.",), include=("a",), device="meta"))
    assert {key: (tensor.shape, tensor.device.type) for key, tensor in served.items()} == {"a": ((3,), "meta")}


def test_a_tensor_called_like_the_metadata_is_metadata() -> None:
    with pytest.raises(SafetensorError):
        reference_load(file_of({"__metadata__": entry()}, bytes(8)))
    assert refusal(file_of({"__metadata__": entry()}, bytes(8))).rule == "metadata"


def test_a_long_header_is_read_in_a_child(tmp_path: Path) -> None:
    path = tmp_path / "many.safetensors"
    path.write_bytes(save({f"layers.{i}.weight": torch.full((3,), float(i)) for i in range(15_000)}))
    found = index_file(path)
    assert found.manifest.skeleton.length > 1_000_000
    assert len(found.manifest.tensors) == 15_000


def test_nothing_is_read_but_the_header() -> None:
    class HeaderOnly(bytes):
        def __getitem__(self, part: Any) -> Any:
            assert part.stop <= 400
            return super().__getitem__(part)

    assert len(read(HeaderOnly(save({"w": torch.zeros(100_000)}))).records) == 1

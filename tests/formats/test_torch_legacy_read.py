"""Files from before torch 1.6 are read, and the files made of them load to the same objects."""

import io
import pickle
import re
import struct
import tarfile
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.errors import HostileCheckpoint, NotACheckpoint, RefusedCheckpoint
from app.formats.index import index
from app.formats.readers import read
from app.sandbox.index_file import index_file
from tests.deliver.planning import load, served_file, served_state_dict
from tests.formats.checkpoints import (
    Custom,
    Net,
    dtypes,
    general_checkpoint,
    kinds_of_tensors,
    python_values,
    shared_views,
)
from tests.formats.legacy_files import (
    FLOATS,
    MAGIC,
    counted,
    integer,
    legacy,
    mapping,
    storage,
    tensor,
    text,
    view,
)
from tests.formats.torch_files import assert_same, loaded, saved
from tests.support.measure import examples

OLD: dict[str, Any] = {"_use_new_zipfile_serialization": False}
TEN = struct.pack("<10f", *range(10))

TO_DAMAGE = saved({"a": torch.arange(30.0), "b": [torch.zeros(3), "text"]}, **OLD)
"""Saved once: such a file names its storages by their addresses, so its length is another one each time."""


def refusal(file: bytes) -> RefusedCheckpoint:
    with pytest.raises(RefusedCheckpoint) as refused:
        read(memoryview(file))
    return refused.value


def with_old_views() -> dict[str, Any]:
    """Without what torch.save cannot write in the old format, or torch.load cannot read from it."""
    views = shared_views()
    for key in ("storage", "typed", "bytes"):
        del views[key]
    return views


def old_kinds_of_tensors() -> dict[str, Any]:
    kinds = kinds_of_tensors()
    for key in MADE_TOO_EARLY:
        del kinds[key]
    return kinds


MADE_TOO_EARLY = ("nested", "per channel")
"""torch.load builds them, in the old format, from tensors whose bytes it has not read yet."""


def old_dtypes() -> dict[str, Any]:
    return {key: value for key, value in dtypes().items() if not UNLOADABLE.search(key)}


UNLOADABLE = re.compile(r"uint(16|32|64)|float8|complex32")
"""dtypes without a storage class: torch.save writes them in the old format, and torch.load cannot read them."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("protocol", range(1, 6))
@pytest.mark.parametrize(
    "make", [general_checkpoint, with_old_views, old_dtypes, old_kinds_of_tensors, python_values, Net, Custom]
)
def test_the_whole_loads_as_what_was_saved(make: Any, protocol: int) -> None:
    obj = make()
    if protocol < 2 and make in {python_values, general_checkpoint}:
        obj.pop("partial", None)  # no pickle module can write it
    file = saved({"obj": obj, "t": torch.ones(2)}, pickle_protocol=protocol, **OLD)
    assert_same(loaded(served_file(file)), loaded(file))


@pytest.mark.filterwarnings("ignore:ComplexHalf support")  # said once a process, by whatever test is first
def test_dtypes_that_torch_cannot_read_again_are_read() -> None:
    made = {key: value for key, value in dtypes().items() if UNLOADABLE.search(key) and "dtype" not in key}
    served = load(served_state_dict(saved(made, **OLD)))
    for key, want in made.items():
        assert served[key].dtype == want.dtype
        assert bytes(served[key].untyped_storage()) == bytes(want.untyped_storage())


@pytest.mark.filterwarnings("ignore")
def test_tensors_that_torch_makes_of_bytes_not_yet_read_are_right() -> None:
    made = {key: value for key, value in kinds_of_tensors().items() if key in MADE_TOO_EARLY}
    served = loaded(served_file(saved(made, **OLD)))
    assert [str(served[key]) for key in made] == [str(made[key]) for key in made]


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5)
)  # fmt: skip
DTYPES = [torch.float32, torch.float16, torch.int64, torch.uint8, torch.bool, torch.complex64, torch.bfloat16]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """A view, of any layout, of one of a few storages: some are shared."""
    number = draw(st.integers(0, len(DTYPES) - 1))
    base = _BASES[number]
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    stride = tuple(draw(st.integers(0, 5)) for _ in shape)
    made = base.as_strided(shape, stride, draw(st.integers(0, 20)))
    if made.is_floating_point() and draw(st.booleans()):
        return torch.nn.Parameter(made, requires_grad=draw(st.booleans()))
    return made


_BASES = [torch.arange(64).remainder(2 if dtype is torch.bool else 64).to(dtype) for dtype in DTYPES]

OBJECTS = st.recursive(
    tensors() | LEAVES,
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inside, max_size=4)
        | st.tuples(inside, inside)
    ),
    max_leaves=12,
)


@examples(150)
@given(obj=OBJECTS, first=tensors(), protocol=st.integers(2, 4))
def test_any_object_loads_as_torch_loads_it(obj: Any, first: torch.Tensor, protocol: int) -> None:
    file = saved({"x": obj, "t": first}, pickle_protocol=protocol, **OLD)
    weights_only = not read(memoryview(file)).unsafe_globals  # empty bytes are, by protocol 2
    assert_same(loaded(served_file(file), weights_only=weights_only), loaded(file))


@examples(100)
@given(state=st.dictionaries(st.text(min_size=1, max_size=8), tensors(), min_size=1, max_size=8))
def test_any_state_dict_is_served_as_torch_loads_it(state: dict[str, torch.Tensor]) -> None:
    file = saved(state, **OLD)
    served, wanted = load(served_state_dict(file)), loaded(file)
    assert list(served) == list(wanted)
    for key, want in wanted.items():
        have = served[key]
        assert (have.dtype, have.shape, have.stride(), have.requires_grad, have.device, type(have)) == (
            want.dtype, want.shape, want.stride(), want.requires_grad, want.device, type(want),
        )  # fmt: skip
        assert torch.equal(have, want)
    for a, b in combinations(wanted, 2):
        if overlap(wanted[a], wanted[b]):
            distance = wanted[b].data_ptr() - wanted[a].data_ptr()
            assert served[b].data_ptr() - served[a].data_ptr() == distance, "they shared bytes"


def overlap(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors reach over common bytes."""
    if not a.numel() or not b.numel():
        return False
    (start_a, end_a), (start_b, end_b) = extent(a), extent(b)
    return start_a < end_b and start_b < end_a


def extent(tensor: torch.Tensor) -> tuple[int, int]:
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (reach + 1) * tensor.itemsize


def test_a_document_says_where_everything_lies() -> None:
    file = saved({"a": torch.arange(3.0), "b": torch.zeros(2, dtype=torch.int16)}, **OLD)
    doc = read(memoryview(file))
    assert (doc.format, doc.byteorder, doc.unsafe_globals) == ("torch_legacy", "little", ())
    a, b = doc.storages.values()
    assert file[doc.records[a.key].start : doc.records[a.key].end] == struct.pack("<3f", 0, 1, 2)
    assert doc.records[b.key].length == 4
    skeleton = file[doc.skeleton.start : doc.skeleton.end]
    assert (skeleton[:2], skeleton[-1:]) == (b"\x80\x02", b".")
    assert set(doc.checksums.values()) == {0}


def test_devices_of_old_are_kept_until_another_is_asked_for() -> None:
    cuda = tensor(storage("7", 10, cls=b"ctorch.cuda\nFloatStorage\n", location="cuda:1"), 2)
    file = legacy(mapping(w=cuda), ("7",), [counted(TEN)])
    manifest = index(memoryview(file)).manifest
    assert manifest.storages[0].location == "cuda:1"
    assert load(served_file(file, "cpu"))["w"].tolist() == [2, 3]
    assert load(served_file(file), map_location="cpu")["w"].tolist() == [2, 3]


def test_views_share_the_storage_they_are_views_of() -> None:
    """As torch 0.1 to 0.3 saved a storage that was a part of another."""
    part = storage("1", 10, view("2", 4, 3))
    obj = mapping(root=tensor(storage("1", 10), 0, 10), part=tensor(part, 1), again=tensor(part, 0, 3))
    file = legacy(obj, ("1",), [counted(TEN)])
    want = loaded(file)
    for served in (load(served_file(file)), load(served_state_dict(file))):
        assert {key: t.tolist() for key, t in served.items()} == {key: t.tolist() for key, t in want.items()}
        served["root"][5] = 99
        assert served["part"].tolist() == [99, 6]
        assert served["again"].tolist() == [4, 99, 6]


def test_a_tensor_stays_within_its_view() -> None:
    part = storage("1", 10, view("2", 4, 3))
    assert refusal(legacy(mapping(w=tensor(part, 2)), ("1",), [counted(TEN)])).rule == "tensor-extent"


@pytest.mark.parametrize(
    ("views", "rule"),
    [
        ([view("2", 8, 3)], "persistent-id"),
        ([view("2", -1, 3)], "persistent-id"),
        ([view("2", 0, -1)], "persistent-id"),
        ([view("2", 0, 3), view("2", 1, 3)], "persistent-id"),
        ([view("1", 0, 3)], "storage-view"),
        ([text("2")], "persistent-id"),
        ([b"K\x01K\x01K\x02\x87"], "persistent-id"),
    ],
)
def test_views_that_cannot_be_are_refused(views: list[bytes], rule: str) -> None:
    parts = {f"w{i}": tensor(storage("1", 10, part)) for i, part in enumerate(views)}
    assert refusal(legacy(mapping(**parts), ("1",), [counted(TEN)])).rule == rule


def test_a_view_under_another_class_is_refused() -> None:
    ints = storage("1", 10, view("2", 0, 2), cls=b"ctorch\nIntStorage\n")
    obj = mapping(a=tensor(storage("1", 10)), b=tensor(ints))
    assert refusal(legacy(obj, ("1",), [counted(TEN)])).rule == "persistent-id"


def test_a_part_of_a_storage_outside_of_a_tensor_is_refused_by_name() -> None:
    obj = mapping(a=tensor(storage("1", 10)), bare=storage("1", 10, view("2", 0, 2)))
    error = refusal(legacy(obj, ("1",), [counted(TEN)]))
    assert isinstance(error, NotACheckpoint)
    assert error.rule == "storage-view"


def test_the_parameters_of_old_are_parameters() -> None:
    """``torch.nn.parameter.Parameter(data, requires_grad)`` with the state that torch 0.3 gave it."""
    made = b"ctorch.nn.parameter\nParameter\n" + tensor(storage("1", 10)) + b"\x88\x86R\x88\x89N\x87b"
    file = legacy(mapping(w=made), ("1",), [counted(TEN)])
    assert [(t.key, t.shape) for t in index(memoryview(file)).manifest.tensors] == [("w", (2,))]
    have, want = load(served_file(file))["w"], loaded(file)["w"]
    assert (type(have), have.tolist(), have.requires_grad) == (type(want), want.tolist(), want.requires_grad)
    assert load(served_state_dict(file))["w"].tolist() == [0, 1]


def test_python_2s_text_is_read_as_torch_reads_it() -> None:
    obj = mapping(w=tensor(storage("1", 10)), name=text("r\xc3\xa9s"))
    file = legacy(obj, ("1",), [counted(TEN)])
    assert loaded(served_file(file))["name"] == loaded(file)["name"] == "rés"


def test_python_2s_bytes_that_are_no_text_stay_bytes() -> None:
    """torch.load stops at them, unless told ``encoding="bytes"``."""
    file = legacy(mapping(w=tensor(storage("1", 10)), raw=text("\xff\xfe")), ("1",), [counted(TEN)])
    with pytest.raises(UnicodeDecodeError):
        loaded(file)
    assert loaded(served_file(file))["raw"] == b"\xff\xfe"


def test_a_machine_of_the_other_byte_order_wrote_the_same_bytes() -> None:
    """torch writes storages little-endian everywhere, and reads them so whatever ``little_endian`` says."""
    file = legacy(
        mapping(w=tensor(storage("1", 10))), ("1",), [counted(TEN)], sys_info={"little_endian": False}
    )  # fmt: skip
    assert load(served_file(file))["w"].tolist() == loaded(file)["w"].tolist() == [0, 1]


def test_a_class_that_was_saved_with_its_source_is_that_class() -> None:
    file = saved(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)), **OLD)
    assert b"class Linear" in file
    doc = read(memoryview(file))
    assert doc.unsafe_globals == ("torch.nn.modules.container.Sequential", "torch.nn.modules.linear.Linear")
    assert_same(loaded(served_file(file)), loaded(file))


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"magic": MAGIC, "version": 1000}, "version"),
        ({"version": "1001"}, "version"),
        ({"version": True}, "version"),
        ({"sys_info": []}, "sys-info"),
        ({"keys": ()}, "storage-missing"),
        ({"keys": ("2",)}, "storage-missing"),
        ({"keys": ("1", "1")}, "storage-keys"),
        ({"keys": ("1", "2")}, "storage-keys"),
        ({"keys": [1]}, "storage-keys"),
        ({"keys": {"1": 1}}, "storage-keys"),
        ({"storages": [counted(TEN[:-4])]}, "truncated"),
        ({"storages": [struct.pack("<q", 9) + TEN]}, "storage-size"),
        ({"storages": [struct.pack("<q", -1) + TEN]}, "storage-size"),
        ({"storages": []}, "truncated"),
        ({"storages": [b"123"]}, "truncated"),
        ({"after": b"\0"}, "trailing-bytes"),
        ({"after": counted(TEN)}, "trailing-bytes"),
    ],
)
def test_what_contradicts_itself_is_refused(changes: dict[str, Any], rule: str) -> None:
    parts: dict[str, Any] = {"keys": ("1",), "storages": [counted(TEN)], **changes}
    assert refusal(legacy(mapping(w=tensor(storage("1", 10))), **parts)).rule == rule


@pytest.mark.parametrize(
    ("obj", "rule"),
    [
        (b"(" + text("storage") + FLOATS + text("1") + text("cpu") + integer(10) + b"tQ.", "persistent-id"),
        (b"(" + text("module") + text("no class") + b"NNtQ.", "persistent-id"),
        (b"(" + text("other") + FLOATS + text("1") + text("cpu") + integer(10) + b"NtQ.", "persistent-id"),
        (b"Prelative\n.", "persistent-id"),
        (storage("1", 2**31 - 1) + b".", "truncated"),
        (b"\x80\x02N", "storage-missing"),
        (b"\xff", "opcode"),
    ],
)
def test_objects_that_break_a_rule_are_refused(obj: bytes, rule: str) -> None:
    error = refusal(legacy(obj, ("1",), [counted(TEN)]))
    assert error.rule in {rule, "opcode", "stack-left", "storage-keys"}
    if rule == "persistent-id":
        assert error.rule == rule
        assert error.where.startswith("object, byte")


@examples(60)
@given(data=st.data())
def test_a_file_that_was_cut_anywhere_is_refused(data: st.DataObject) -> None:
    with pytest.raises(RefusedCheckpoint):
        index(memoryview(TO_DAMAGE[: data.draw(st.integers(0, len(TO_DAMAGE) - 1))]))


@examples(150)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_loads_as_torch_loads_it(data: st.DataObject) -> None:
    file = bytearray(TO_DAMAGE)
    for _ in range(data.draw(st.integers(1, 3))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(file)
    try:
        served = served_file(damaged)
    except RefusedCheckpoint:
        return
    try:
        want = loaded(damaged, weights_only=True)
    except Exception:  # noqa: BLE001 - torch raises whatever it comes across
        return
    assert_same(loaded(served, weights_only=True), want)


class SmallReads(bytes):
    """A file of which only small parts may be read."""

    def __getitem__(self, part: Any) -> Any:
        assert len(range(*part.indices(len(self)))) <= 256 * 1024
        return super().__getitem__(part)


def test_a_large_file_is_read_in_small_parts() -> None:
    file = SmallReads(saved({f"w{i}": torch.zeros(100_000) for i in range(10)}, **OLD))
    assert len(read(file).storages) == 10


def test_a_pickle_without_an_end_is_refused_within_the_limit() -> None:
    megabyte = b"B" + struct.pack("<I", 1 << 20) + bytes(1 << 20) + b"0"
    error = refusal(legacy(b"\x80\x02" + megabyte * 101, ("1",)))
    assert isinstance(error, HostileCheckpoint)
    assert error.rule == "pickle-size"


def test_a_long_pickle_is_read_in_a_child(tmp_path: Path) -> None:
    state = {f"layer.{i}.weight": torch.full((3,), float(i)) for i in range(10_000)}
    path = tmp_path / "many.pth.tar"
    torch.save(state, path, **OLD)
    found = index_file(path)
    assert found.manifest.skeleton.length > 1_000_000
    assert len(found.manifest.tensors) == 10_000


def test_the_oldest_format_says_what_to_do(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=tarfile.PAX_FORMAT) as tar:
        for name in ("storages", "tensors", "pickle"):
            data = pickle.dumps(0, 2)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    error = refusal(buffer.getvalue())
    assert error.rule == "tar"
    assert "torch.save" in error.detail

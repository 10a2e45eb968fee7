"""Files that torch writes are read, and the files written back load to the same objects."""

import argparse
import pathlib
import pickle
import struct
from typing import Any

import numpy as np
import pytest
import torch

from app.errors import HostileCheckpoint, NotACheckpoint, RefusedCheckpoint, ShardedTensor
from app.formats.pickle.emit import emit
from app.formats.pickle.nodes import Call, Global, Node, StorageRef, TensorRef
from app.formats.readers import read
from app.formats.torch_names import WEIGHTS_ONLY
from app.formats.torch_tensors import is_tensor, tensor_of
from tests.formats.checkpoints import (
    Custom,
    Net,
    Subclass,
    dtypes,
    general_checkpoint,
    kinds_of_tensors,
    python_values,
    shared_views,
)
from tests.formats.torch_files import (
    assert_same,
    document,
    loaded,
    pickle_of,
    records,
    rewritten,
    saved,
    torch_zip,
)

CHECKPOINTS = [general_checkpoint, shared_views, dtypes, kinds_of_tensors, python_values, Net, Custom]
PROTOCOLS = range(1, 6)  # torch.load fails on what it saves with 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("make", CHECKPOINTS)
def test_what_is_written_back_loads_as_what_was_saved(make: Any, protocol: int) -> None:
    obj = make()
    if protocol < 2 and make in {python_values, general_checkpoint}:
        obj.pop("partial", None)  # no pickle module can write it
    file = saved(obj, pickle_protocol=protocol)
    assert_same(loaded(rewritten(file)), loaded(file))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [general_checkpoint, shared_views, dtypes, kinds_of_tensors])
def test_what_weights_only_loads_it_still_loads(make: Any) -> None:
    obj = make()
    if make is kinds_of_tensors:
        del obj["subclass"], obj["same subclass"], obj["view of it"]
    if make is general_checkpoint:
        del obj["rng"]["numpy"]
    file = saved(obj)
    assert document(file).unsafe_globals == ()
    assert_same(loaded(rewritten(file), weights_only=True), loaded(file, weights_only=True))


def test_a_file_of_protocol_4_becomes_one_that_weights_only_loads() -> None:
    file = saved({"a": torch.ones(2), "b": [1.5, "x", b"raw"]}, pickle_protocol=4)
    with pytest.raises(pickle.UnpicklingError):
        loaded(file, weights_only=True)
    assert loaded(rewritten(file), weights_only=True)["b"] == [1.5, "x", b"raw"]


def test_cyclic_checkpoints_survive() -> None:
    obj: dict[str, Any] = {"tensor": torch.ones(2), "list": []}
    obj["list"].append((obj["list"], obj))
    have = loaded(rewritten(saved(obj)))
    assert have["list"][0][0] is have["list"]
    assert have["list"][0][1] is have


def test_storages_can_be_moved_without_touching_equal_text() -> None:
    device = torch.device("cpu")
    obj = {"device": str(device), "tensor": torch.ones(2), "cpu": "cpu"}

    def to_meta(ref: StorageRef | TensorRef) -> Node:
        if isinstance(ref, StorageRef):
            return StorageRef(ref.storage_class, ref.dtype, ref.key, "meta", ref.numel)
        return ref

    have = loaded(rewritten(saved(obj), to_meta))
    assert have["tensor"].device.type == "meta"
    assert (have["device"], have["cpu"]) == ("cpu", "cpu")


def test_a_document_says_where_everything_lies() -> None:
    file = saved({"a": torch.arange(3.0), "b": torch.zeros(2, dtype=torch.int16)})
    doc = document(file)
    assert (doc.format, doc.byteorder, doc.unsafe_globals) == ("torch_zip", "little", ())
    assert file[doc.skeleton.start : doc.skeleton.end] == pickle_of(file)
    assert list(doc.storages) == ["0", "1"]
    assert file[doc.records["0"].start : doc.records["0"].end] == struct.pack("<3f", 0, 1, 2)
    assert doc.storages["0"].nbytes == doc.records["0"].length
    assert doc.checksums.keys() == doc.records.keys()


def test_names_outside_of_torchs_list_are_reported_once_in_order() -> None:
    obj = {"a": argparse.Namespace(x=1), "b": np.float64(1), "c": argparse.Namespace(), "d": torch.ones(1)}
    names = document(saved(obj)).unsafe_globals
    assert names[0] == "argparse.Namespace"
    assert set(names) == {"argparse.Namespace", *(name for name in names if name.startswith("numpy"))}
    assert document(saved({"f": frozenset({1})}, pickle_protocol=4)).unsafe_globals == ("builtins.frozenset",)


def test_the_list_of_safe_names_is_torchs() -> None:
    import torch._weights_only_unpickler as unpickler

    assert set(unpickler._get_allowed_globals()) == WEIGHTS_ONLY


def test_tensors_are_seen_through_what_wraps_them() -> None:
    doc = document(saved(kinds_of_tensors()))
    nodes = dict(doc.root.pairs)
    assert all(is_tensor(node) for node in nodes.values())
    dense = {key for key, node in nodes.items() if tensor_of(node) is not None}
    assert nodes.keys() - dense == {"sparse", "csr", "meta", "nested", "quantized", "per channel"}
    assert tensor_of(nodes["subclass"]).shape == (2, 3)
    assert tensor_of(nodes["view of it"]).offset == 3
    assert tensor_of(nodes["stateful"]).shape == (2,)
    assert not is_tensor(Call(doc.root, ()))
    assert tensor_of([1]) is None


def test_a_tensor_inside_a_subclass_is_replaced_with_its_offset() -> None:
    base = torch.arange(6.0)
    obj = {"subclass": base[2:4].as_subclass(Subclass)}

    def shift(ref: StorageRef | TensorRef) -> Node:
        if isinstance(ref, StorageRef):
            return ref
        return TensorRef(ref.function, ref.storage, ref.offset + 1, ref.shape, ref.stride, ref.rest, ref.dtype)

    have = loaded(rewritten(saved(obj), shift))["subclass"]
    assert type(have) is Subclass
    assert have.tolist() == [3, 4]


def test_a_tensor_inside_a_subclass_may_become_a_meta_tensor() -> None:
    obj = {"subclass": torch.arange(6.0).view(2, 3).as_subclass(Subclass)}

    def to_meta(ref: StorageRef | TensorRef) -> Node:
        if isinstance(ref, StorageRef):
            return ref
        args = (Global("torch", ref.dtype.name), ref.shape, ref.stride, False)
        return Call(Global("torch._utils", "_rebuild_meta_tensor_no_storage"), args)

    have = loaded(rewritten(saved(obj), to_meta))["subclass"]
    assert (type(have), have.device.type, have.shape) == (Subclass, "meta", (2, 3))


def test_old_layouts_are_read() -> None:
    new = records(saved({"a": torch.ones(3), "b": torch.zeros(2)}))
    for name in (".format_version", ".storage_alignment", "byteorder"):
        new.pop(name, None)
    torch_1_6 = torch_zip(new)
    assert document(torch_1_6).byteorder == "little"
    assert_same(loaded(rewritten(torch_1_6)), loaded(torch_1_6))
    pickle_1_4 = pickle_of(torch_1_6)
    torch_1_4 = torch_zip({"data.pkl": pickle_1_4, "tensors/0": new["data/0"], "tensors/1": new["data/1"]})
    assert document(torch_1_4).records["0"].length == 12


def test_pointer_keys_are_read() -> None:
    file = saved({"a": torch.ones(3)})

    def rename(ref: StorageRef | TensorRef) -> Node:
        if isinstance(ref, StorageRef):
            return StorageRef(ref.storage_class, ref.dtype, "94531337", ref.location, ref.numel)
        return ref

    parts = {"data.pkl": emit(document(file).root, rename), "data/94531337": records(file)["data/0"]}
    assert_same(loaded(torch_zip(parts)), loaded(file))
    assert list(document(torch_zip(parts)).records) == ["94531337"]


def test_big_endian_files_are_read_as_such() -> None:
    parts = records(saved({"a": torch.ones(3)}))
    assert document(torch_zip({**parts, "byteorder": b"big"})).byteorder == "big"
    with pytest.raises(HostileCheckpoint) as refused:
        document(torch_zip({**parts, "byteorder": b"middle"}))
    assert refused.value.rule == "byteorder"


def refusal(file: bytes) -> RefusedCheckpoint:
    with pytest.raises(RefusedCheckpoint) as refused:
        read(memoryview(file))
    return refused.value


@pytest.mark.parametrize("version", [b"0", b"11", b"-1", b"", b"three", b"3" * 100, b"\xb2"])
def test_other_versions_are_refused(version: bytes) -> None:
    from tests.formats.zips import Entry, Zip

    entries = [Entry(b"r/data.pkl", b"N."), Entry(b"r/version", version, flags=0x0808 if version else 0x0800)]
    assert refusal(Zip(entries).build()).rule == "version"
    assert refusal(Zip(entries[:1]).build()).rule == "no-version"


@pytest.mark.filterwarnings("ignore")
def test_what_is_no_torch_zip_says_what_it_is() -> None:
    for file, word in [
        (b"", "empty"),
        (b"<!DOCTYPE html>", "a web page"),
        (saved({"a": torch.ones(100)})[:500], "truncated"),
    ]:
        error = refusal(file)
        assert isinstance(error, NotACheckpoint)
        assert word in error.detail


def test_protocol_0_says_that_torch_cannot_load_it_either() -> None:
    error = refusal(saved({"a": torch.ones(1)}, pickle_protocol=0))
    assert isinstance(error, NotACheckpoint)
    assert "pickle_protocol=0" in error.detail


def test_a_pickle_that_does_not_match_its_checksum_is_refused() -> None:
    file = bytearray(saved({"epoch": 3, "a": torch.ones(1)}))
    file[file.index(b"epoch")] ^= 1
    assert refusal(bytes(file)).rule == "zip-crc"


def test_a_storage_needs_its_record_to_the_byte() -> None:
    parts = records(saved({"a": torch.ones(3)}))
    for data, broken in [(b"", "storage-size"), (b"x" * 11, "storage-size"), (b"x" * 13, "storage-size")]:
        assert refusal(torch_zip({**parts, "data/0": data})).rule == broken
    del parts["data/0"]
    assert refusal(torch_zip(parts)).rule == "storage-missing"


def test_a_pickle_over_100_mb_is_refused_before_it_is_read() -> None:
    class Source(bytes):
        """A file of which only small parts may be read."""

        def __getitem__(self, index: Any) -> Any:
            part = super().__getitem__(index)
            assert len(part) < 1_000_000
            return part

    error = refusal(torch_zip({"data.pkl": b"N" * (100 * 1024 * 1024 + 1)}))
    assert error.rule == "pickle-size"
    with pytest.raises(HostileCheckpoint):
        read(Source(torch_zip({"data.pkl": b"N" * (100 * 1024 * 1024 + 1)})))


def test_records_that_nothing_names_are_left_alone() -> None:
    parts = records(saved({"a": torch.ones(3)}))
    doc = document(torch_zip({**parts, "data/77": b"unused", "notes.txt": b"hello"}))
    assert list(doc.records) == ["0"]


def test_a_sharded_tensor_is_refused_with_the_way_out(tmp_path: pathlib.Path) -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        tensor = distribute_tensor(torch.ones(4), init_device_mesh("cpu", (1,)), [Shard(0)])
        file = saved({"model": {"layer.weight": tensor}})
    finally:
        dist.destroy_process_group()
    error = refusal(file)
    assert isinstance(error, ShardedTensor)
    assert "'layer.weight'" in error.detail
    assert "full_state_dict=True" in error.detail

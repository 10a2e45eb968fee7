"""Every layout that some torch wrote: the served file loads to the same object as the upload."""

import zipfile
from io import BytesIO
from typing import Any

import pytest
import torch

from app.errors import NotACheckpoint
from app.formats.index import index
from app.formats.pickle.emit import emit
from app.formats.pickle.nodes import Node, StorageRef, TensorRef
from app.formats.readers import read
from tests.deliver.planning import load, served_file, served_state_dict
from tests.formats.torch_files import assert_same, big_endian, document, loaded, records, saved, torch_zip
from tests.formats.zips import Entry, Zip, zip64_extra


def state() -> dict[str, Any]:
    base = torch.arange(40.0)
    return {f"w{i}": torch.full((3, i + 1), float(i), dtype=torch.float16) for i in range(12)} | {
        "view": base[4:8],
        "transposed": base.view(5, 8).t(),
        "ints": torch.arange(7),
        "complex": torch.tensor([1 + 2j, 3 - 4j]),
        "empty": torch.zeros(0, 2),
        "scalar": torch.tensor(2.5),
    }


def check(file: bytes) -> None:
    want = loaded(file, weights_only=True)
    assert_same(loaded(served_file(file), weights_only=True), want)
    served = load(served_state_dict(file))
    assert list(served) == list(want)
    for key, tensor in want.items():
        assert (served[key].dtype, served[key].stride()) == (tensor.dtype, tensor.stride())
        assert torch.equal(served[key], tensor)
    part = load(served_state_dict(file, include=("view", "ints")))
    assert torch.equal(part["view"], want["view"])
    assert torch.equal(part["ints"], want["ints"])


def renumbered(file: bytes, names: dict[str, str]) -> dict[str, bytes]:
    """A file's records, its storages under other keys."""

    def rename(ref: StorageRef | TensorRef) -> Node:
        if isinstance(ref, StorageRef):
            return StorageRef(ref.storage_class, ref.dtype, names[ref.key], ref.location, ref.numel)
        return ref

    parts = {"data.pkl": emit(document(file).root, rename)}
    old = records(file)
    for name in sorted(names, key=lambda key: names[key]):
        parts[f"data/{names[name]}"] = old[f"data/{name}"]
    return parts


def test_torch_1_6_numbered_storages_by_their_addresses_and_sorted_them_as_text() -> None:
    file = saved(state())
    addresses = {key: str(900_000_000 + 50_000_000 * int(key)) for key in read(memoryview(file)).storages}
    parts = renumbered(file, addresses)
    assert list(parts) != sorted(parts, key=lambda name: (len(name), name))  # text, not numbers
    check(torch_zip(parts))


def test_torch_2_0_sorted_the_numbers_of_storages_as_text() -> None:
    file = saved(state())
    parts = renumbered(file, {key: key for key in read(memoryview(file)).storages})
    names = list(parts)
    assert names.index("data/10") < names.index("data/2")
    check(torch_zip(parts))


def test_a_file_without_a_byte_order_is_little_endian() -> None:
    parts = records(saved(state()))
    for name in (".format_version", ".storage_alignment", "byteorder"):
        parts.pop(name)
    check(torch_zip(parts))


def test_big_endian_files_are_served_as_such_and_torch_swaps_them() -> None:
    file = big_endian(saved(state()))
    assert_same(loaded(file), loaded(saved(state())))
    check(file)


def test_the_facts_of_a_big_endian_file_are_read_in_its_order() -> None:
    file = big_endian(saved({"epoch": torch.tensor(3), "loss": torch.tensor(0.5), "model": state()}))
    facts = index(memoryview(file)).facts
    assert (facts.epoch, facts.loss) == (3, 0.5)


@pytest.mark.parametrize("alignment", [1, 8, 256, 4096])
def test_any_alignment_is_read(alignment: int) -> None:
    with torch.utils.serialization.config.patch("save.storage_alignment", alignment):
        file = saved(state())
    check(file)


def test_a_file_without_checksums_is_read() -> None:
    torch.serialization.set_crc32_options(False)
    try:
        file = saved(state())
    finally:
        torch.serialization.set_crc32_options(True)
    assert set(read(memoryview(file)).checksums.values()) != set(read(memoryview(saved(state()))).checksums.values())
    check(file)


def test_torch_1_4_kept_its_storages_among_the_tensors() -> None:
    """``version`` came first. No later torch.load reads it; ours is what the same records give under today's names."""
    new = records(saved(state()))
    names = {name: name.replace("data/", "tensors/") for name in new if name.startswith("data/")}
    old = [("version", b"1\n"), ("data.pkl", new["data.pkl"]), *((names[name], new[name]) for name in names)]
    entries = [
        Entry(b"archive/" + name.encode(), data, flags=0x0808 if data else 0x0800) for name, data in old
    ]  # fmt: skip
    file = Zip(entries, zip64=False).build()
    assert_same(loaded(served_file(file)), loaded(saved(state())))


def test_sizes_may_stand_in_zip64_fields_without_need() -> None:
    new = records(saved({"w": torch.arange(3.0)}))
    entries = [
        Entry(
            b"archive/" + name.encode(), data, flags=0x0808, central={"size": 2**32 - 1, "packed": 2**32 - 1},
            central_extra=zip64_extra(len(data), len(data)),
        )
        for name, data in new.items()
    ]  # fmt: skip
    assert load(served_file(Zip(entries).build()))["w"].tolist() == [0, 1, 2]


def test_deflated_records_are_refused_by_name() -> None:
    """No torch writes them. To serve ranges of what is in them, it would have to be kept a second time."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in records(saved(state())).items():
            archive.writestr(f"archive/{name}", data)
    with pytest.raises(NotACheckpoint) as refused:
        read(memoryview(buffer.getvalue()))
    assert refused.value.rule == "zip-deflated"

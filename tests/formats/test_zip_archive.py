"""Zip files as torch writes them are read; ambiguous ones are refused."""

import io
import itertools
import mmap
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.errors import HostileCheckpoint, NotACheckpoint, RefusedCheckpoint
from app.formats.torch_zip.archive import read_archive
from tests.formats.torch_files import saved
from tests.formats.zips import U32_MAX, Entry, Zip, zip64_extra
from tests.support.measure import examples


def read(data: bytes | memoryview) -> dict[str, bytes]:
    archive = read_archive(memoryview(data))
    return {name: bytes(data[record.start : record.end]) for name, record in archive.records.items()}


def rule(archive: Zip | bytes) -> str | None:
    with pytest.raises(RefusedCheckpoint) as refused:
        read_archive(memoryview(archive if isinstance(archive, bytes) else archive.build()))
    return refused.value.rule


def two(first: Entry | None = None, second: Entry | None = None) -> list[Entry]:
    return [first or Entry(b"r/data.pkl", b"N."), second or Entry(b"r/data/0", b"12345678")]


def test_an_honest_archive_is_read() -> None:
    assert read(Zip(two()).build()) == {"data.pkl": b"N.", "data/0": b"12345678"}
    assert read(Zip(two(), zip64=False).build()) == {"data.pkl": b"N.", "data/0": b"12345678"}


def test_what_torch_writes_is_what_zipfile_reads() -> None:
    file = saved({"a": torch.ones(3), "b": torch.zeros(0)})
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        want = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        checksums = [info.CRC for info in archive.infolist()]
    assert read(file) == want
    parsed = read_archive(memoryview(file))
    assert parsed.root == "archive"
    assert [record.crc32 for record in parsed.records.values()] == checksums


def test_the_root_folder_is_the_files_stem(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "my model v1.2.pt")
    data = (tmp_path / "my model v1.2.pt").read_bytes()
    assert read_archive(memoryview(data)).root == "my model v1.2"
    assert read_archive(memoryview(Zip([Entry("模型/data.pkl".encode(), b"N.")]).build())).root == "模型"


def test_checksums_may_be_left_out() -> None:
    torch.serialization.set_crc32_options(False)
    try:
        file = saved({"a": torch.ones(3)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert read(file)["data/0"] == struct.pack("<3f", 1, 1, 1)


@pytest.mark.parametrize("alignment", [1, 64, 4096])
def test_any_alignment_is_read(alignment: int) -> None:
    from torch.utils.serialization import config

    with config.patch({"save.storage_alignment": alignment}):
        file = saved({"a": torch.ones(3)})
    record = read_archive(memoryview(file)).records["data/0"]
    assert record.start % alignment == 0
    assert file[record.start : record.end] == struct.pack("<3f", 1, 1, 1)


def test_what_pythons_zipfile_stores_is_read_too() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("r/data.pkl", b"N.")
        archive.writestr("r/data/0", b"1234")
    assert read(buffer.getvalue()) == {"data.pkl": b"N.", "data/0": b"1234"}


BIG = U32_MAX + 5
BIG_EXTRA = Entry(b"r/data/0", central_extra=bytes(65_000), flags=0x0800)
HUGE: dict[str, int | bytes] = {"size": U32_MAX, "packed": U32_MAX}


def sparse(path: Path, pieces: list[tuple[int, bytes]], size: int) -> memoryview:
    with path.open("w+b") as file:
        file.truncate(size)
        for at, data in pieces:
            file.seek(at)
            file.write(data)
        file.flush()
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def test_a_record_over_4_gib_and_what_follows_it_are_read(tmp_path: Path) -> None:
    """As torch writes them: 8-byte descriptors from there on, sizes and offsets in zip64 fields."""
    small = Zip([Entry(b"r/data.pkl", b"N.")]).build()
    first_at = small.index(b"PK\1\2")
    first_header = small[:first_at] + struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 0, 0x0808, 0, 0, 0, 0, 0, 0, 8, 24)
    first_header += b"r/data/0" + zip64_extra(BIG, 0) + b"FB\0\0"
    first_end = len(first_header) + BIG
    descriptor = struct.pack("<4sIQQ", b"PK\7\10", 0, BIG, BIG)
    second_at = first_end + len(descriptor)
    second = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 0, 0x0808, 0, 0, 0, 0, 0, 0, 8, 16) + b"r/data/1"
    second += zip64_extra(second_at) + b"FB\0\0" + b"1234" + struct.pack("<4sIQQ", b"PK\7\10", 77, 4, 4)
    directory = small[first_at : small.index(b"PK\6\6")]
    directory += struct.pack("<4s4xHH4xIIIHHHH6xI", b"PK\1\2", 0x0808, 0, 0, U32_MAX, U32_MAX, 8, 20, 0, 0, first_at)
    directory += b"r/data/0" + zip64_extra(BIG, BIG)
    directory += struct.pack("<4s4xHH4xIIIHHHH6xI", b"PK\1\2", 0x0808, 0, 77, 4, 4, 8, 12, 0, 0, U32_MAX)
    directory += b"r/data/1" + zip64_extra(second_at)
    start = second_at + len(second)
    end = start + len(directory)
    tail = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 0x031E, 45, 0, 0, 3, 3, len(directory), start)
    tail += struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    tail += struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 3, 3, len(directory), U32_MAX, 0)
    pieces = [(0, first_header), (first_end, descriptor + second + directory + tail)]
    data = sparse(tmp_path / "big", pieces, end + len(tail))
    records = read_archive(data).records
    assert (records["data/0"].start, records["data/0"].end) == (len(first_header), first_end)
    assert bytes(data[records["data/1"].start : records["data/1"].end]) == b"1234"
    assert records["data/1"].crc32 == 77


def test_what_is_no_zip_or_was_cut_off_is_no_checkpoint() -> None:
    whole = Zip(two()).build()
    for cut in (0, 1, 21, 22, 60, len(whole) // 2, len(whole) - 1):
        with pytest.raises(NotACheckpoint):
            read_archive(memoryview(whole[:cut]))


@pytest.mark.parametrize(
    "name",
    [
        b"r/../x", b"../r/x", b"r/..", b"..", b"/r/x", b"r//x", b"r/./x", b"./x", b"r/x/", b"r\\x", b"r/a\\b",
        b"r/a\0b", b"", b"r", b"r/\xff", b"r/" + b"x" * 4095,
    ],
)  # fmt: skip
def test_a_name_that_is_no_plain_path_is_refused(name: bytes) -> None:
    assert rule(Zip([Entry(name, b"N."), *two()])) == "zip-name"
    assert rule(Zip(two(second=Entry(name, b"N.")))) == "zip-name"


@pytest.mark.parametrize("name", [b"r/a..b", b"r/...", b"r/ ", b"r/a:b", "r/模型".encode(), b"r/" + b"x" * 4094])
def test_unusual_but_plain_names_are_read(name: bytes) -> None:
    assert name[2:].decode() in read(Zip(two(second=Entry(name, b"N."))).build())


@pytest.mark.parametrize(
    ("second", "broken"),
    [
        (Entry(b"r/data.pkl", b"X"), "zip-duplicate"),
        (Entry(b"r/DATA.PKL", b"X"), "zip-duplicate"),
        (Entry("r/ﬁ".encode(), b"X"), None),
        (Entry(b"R/data/0", b"X"), "zip-root"),
        (Entry(b"rr/data/0", b"X"), "zip-root"),
        (Entry(b"r/data/0", b"X", local={"name": b"r/data/1"}), "zip-local"),
        (Entry(b"r/data/0", b"X", local={"name": b"r/data"}), "zip-local"),
        (Entry(b"r/data/0", b"X", local={"signature": b"PK\1\2"}), "zip-local"),
        (Entry(b"r/data/0", b"X", local={"flags": 0x0800}), "zip-local"),
        (Entry(b"r/data/0", b"X", local={"method": 8}), "zip-local"),
        (Entry(b"r/data/0", b"X", central={"signature": b"PK\3\4"}), "zip-directory"),
        (Entry(b"r/data/0", b"X", central={"comment": 9999}), "zip-directory"),
        (Entry(b"r/data/0", b"X", central={"disk": 1}), "zip-directory"),
        (Entry(b"r/data/0", b"X", central={"packed": 2}), "zip-method"),
        (Entry(b"r/data/0", b"X", method=8), "zip-deflated"),
        (Entry(b"r/data/0", b"X", method=12), "zip-method"),
        (Entry(b"r/data/0", b"X", flags=0x0809), "zip-encrypted"),
        (Entry(b"r/data/0", b"X", flags=0x0848), "zip-encrypted"),
        (Entry(b"r/data/0", b"X", flags=0x2808), "zip-encrypted"),
        (Entry(b"r/data/0", b"X", flags=0x0828), "zip-flags"),
        (Entry(b"r/data/0", b"X", central={"header": 0}), "zip-overlap"),
        (Entry(b"r/data/0", b"X", central={"header": 5}), "zip-overlap"),
        (Entry(b"r/data/0", b"X", central={"header": 100_000}), "zip-gap"),
        (Entry(b"r/data/0", b"X", central={"header": U32_MAX}), "zip-gap"),
        (Entry(b"r/data/0", b"X", central={"size": 10**6, "packed": 10**6}), "zip-overlap"),
        (Entry(b"r/data/0", b"X", central=HUGE), "zip-overlap"),
        (Entry(b"r/data/0", b"X", central=HUGE, central_extra=zip64_extra(2**63, 2**63)), "zip-overlap"),
        (Entry(b"r/data/0", b"X", central=HUGE, central_extra=zip64_extra(2**63)), "zip-extra"),
        (Entry(b"r/data/0", b"X", central=HUGE, central_extra=b"\1\0\xff\xff"), "zip-extra"),
        (Entry(b"r/data/0", b"X", before=b"junk"), "zip-gap"),
        (Entry(b"r/data/0", b"X", descriptor=b""), "zip-overlap"),
        (Entry(b"r/data/0", b"X", descriptor=b"PK\7\10" + bytes(12)), "zip-descriptor"),
        (Entry(b"r/data/0", b"X", descriptor=struct.pack("<4sIII", b"PK\7\10", 1, 1, 1)), "zip-descriptor"),
    ],
)  # fmt: skip
def test_a_record_that_could_be_read_in_two_ways_is_refused(second: Entry, broken: str | None) -> None:
    archive = Zip(two(second=second))
    if broken is None:
        assert len(read(archive.build())) == 2
    else:
        assert rule(archive) == broken


def test_two_records_over_the_same_bytes_are_refused() -> None:
    inner = Entry(b"r/data/1", b"1234", flags=0x0800)
    nested = Zip([inner]).build()
    inner_bytes = nested[: 30 + len(inner.name) + 4 + 4]
    outer = Entry(b"r/data/0", inner_bytes, flags=0x0800)
    again = Entry(b"r/data/1", b"1234", flags=0x0800, central={"header": 66 + 30 + len(outer.name) + 4})
    whole = Zip([Entry(b"r/data.pkl", b"N."), outer, again])
    assert rule(whole) == "zip-overlap"


def test_a_file_with_junk_anywhere_is_refused() -> None:
    whole = Zip(two()).build()
    assert rule(b"junk" + whole) in {"zip-end", "zip-directory"}
    assert rule(Zip(two(first=Entry(b"r/data.pkl", b"N.", before=b"PK\3\4")))) == "zip-gap"
    assert rule(Zip(two(), before_directory=b"junk")) == "zip-gap"
    assert rule(Zip(two(), after_directory=b"junk")) == "zip-directory"
    assert rule(whole + b"junk") == "zip-end"
    assert rule(Zip(two(), comment=b"comment")) == "zip-end"
    assert rule(whole + whole) == "zip-end"


@pytest.mark.parametrize(
    ("archive", "broken"),
    [
        (Zip(two(), end={"disk": 1}), "zip-end"),
        (Zip(two(), end={"here": 1}), "zip-end"),
        (Zip(two(), end={"count": 1, "here": 1}), "zip-end"),
        (Zip(two(), end={"length": 1}), "zip-end"),
        (Zip(two(), end={"start": 1}), "zip-end"),
        (Zip(two(), end={"start": U32_MAX}), "zip-end"),
        (Zip(two(), end64={"size": 45}), "zip-end"),
        (Zip(two(), end64={"disk": 1}), "zip-end"),
        (Zip(two(), end64={"here": 1}), "zip-end"),
        (Zip(two(), locator={"at": 0}), "zip-end"),
        (Zip(two(), locator={"at": 2**64 - 1}), "zip-end"),
        (Zip(two(), locator={"disk": 1}), "zip-end"),
        (Zip(two(), locator={"disks": 2}), "zip-end"),
        (Zip(two(), zip64=False, end={"start": 0}), "zip-directory"),
        (Zip(two(), zip64=False, end={"length": U32_MAX}), "zip-directory"),
        (Zip(two(), zip64=False, end={"count": 3, "here": 3}), "zip-directory"),
        (Zip(two(), zip64=False, end={"count": 1, "here": 1}), "zip-directory"),
        (Zip(two(), zip64=False, end={"count": 0, "here": 0}), "zip-directory"),
        (Zip(two(), end={"count": 65535, "here": 65535}, end64={"count": 10**6, "here": 10**6}), "zip-records"),
        (Zip(two(), end={"count": 65535, "here": 65535}, end64={"count": 2**63, "here": 2**63}), "zip-records"),
        (Zip([Entry(b"r/data.pkl", b"N."), *[BIG_EXTRA] * 2600]), "zip-records"),
    ],
)
def test_end_records_that_contradict_are_refused(archive: Zip, broken: str) -> None:
    assert rule(archive) == broken


def test_every_record_counts() -> None:
    entries = [Entry(b"r/data.pkl"), *(Entry(f"r/{number}".encode(), flags=0x0800) for number in range(69_999))]
    archive = Zip(entries, end={"count": 65535, "here": 65535})
    assert len(read_archive(memoryview(archive.build())).records) == 70_000


@examples(300)
@given(st.data())
def test_any_damage_is_refused_or_changes_no_structure(data: st.DataObject) -> None:
    whole = Zip(two()).build()
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[at] ^= data.draw(st.integers(1, 255))
    try:
        archive = read_archive(memoryview(bytes(damaged)))
    except RefusedCheckpoint as error:
        refused: Any = error.rule
    else:
        refused = None
        spans = [(record.start, record.end) for record in archive.records.values()]
        honest = [(r.start, r.end) for r in read_archive(memoryview(whole)).records.values()]
        assert spans == honest
    assert refused != ""


def test_records_never_overlap() -> None:
    records = read_archive(memoryview(saved({str(n): torch.ones(n) for n in range(20)}))).records.values()
    assert all(before.end <= after.start for before, after in itertools.pairwise(records))


def test_a_refusal_says_where() -> None:
    with pytest.raises(HostileCheckpoint, match="data/0") as refused:
        read_archive(memoryview(Zip(two(second=Entry(b"r/data/0", b"X", before=b"junk"))).build()))
    assert refused.value.where == "byte 66"

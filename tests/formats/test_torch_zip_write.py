"""The zip writer, compared with the files that torch itself writes."""

import io
import struct
import zipfile

import pytest
import torch

from app.formats.torch_zip.write import Record, write_torch_zip
from app.values.span import Span
from app.values.virtual_file import VirtualFile


def materialise(file: VirtualFile, source: bytes) -> bytes:
    return b"".join(source[p.start : p.end] if isinstance(p, Span) else bytes(p) for p in file.pieces())


def rewrite(original: bytes) -> bytes:
    """Write a torch file's own pickle and storages again."""
    with zipfile.ZipFile(io.BytesIO(original)) as archive:
        pickle = archive.read("archive/data.pkl")
        records = []
        for info in archive.infolist():
            if info.filename.startswith("archive/data/"):
                name_size, extra_size = struct.unpack_from("<HH", original, info.header_offset + 26)
                start = info.header_offset + 30 + name_size + extra_size
                records.append(Record(Span(start, start + info.file_size), info.CRC))
    return materialise(write_torch_zip(pickle, records, "little")[0], original)


def save(obj: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(obj, buffer)
    return buffer.getvalue()


def without_serialization_id(file: bytes) -> bytes:
    """The file with the one record that torch fills by its own hash, and its two CRCs, blanked."""
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        info = archive.getinfo("archive/.data/serialization_id")
    value = archive_value(file, info)
    return file.replace(value, b"0" * 40).replace(struct.pack("<I", info.CRC), b"\0\0\0\0")


def archive_value(file: bytes, info: zipfile.ZipInfo) -> bytes:
    name_size, extra_size = struct.unpack_from("<HH", file, info.header_offset + 26)
    start = info.header_offset + 30 + name_size + extra_size
    return file[start : start + info.file_size]


@pytest.mark.parametrize(
    "obj",
    [
        {"w": torch.arange(7.0)},
        {"w": torch.zeros(0), "b": torch.zeros(3, 5, dtype=torch.bfloat16)},
        {str(i): torch.full((i,), i) for i in range(120)},
        torch.nn.LSTM(3, 4).state_dict(),
        {},
    ],
    ids=["one", "empty-storage", "many", "lstm", "no-storages"],
)
def test_the_layout_is_torchs_own_byte_for_byte(obj):
    original = save(obj)
    assert without_serialization_id(rewrite(original)) == without_serialization_id(original)


def test_offsets_that_torch_calculates_itself_are_right(tmp_path):
    state_dict = {str(i): torch.randn(i) for i in range(1, 40)}
    path = tmp_path / "model.pt"
    path.write_bytes(rewrite(save(state_dict)))
    with torch.utils.serialization.config.patch("load.calculate_storage_offsets", True):
        loaded = torch.load(path, mmap=True, weights_only=True)
    assert all(torch.equal(loaded[key], state_dict[key]) for key in state_dict)

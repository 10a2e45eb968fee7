"""Files that two readers understand differently, as those readers show, are all refused."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from app.errors import RefusedCheckpoint
from app.formats.readers import read
from tests.formats.zips import Zip
from tests.functional.torch_files import loaded, saved
from tests.hostile.corpus.base import FLOATS, NOTHING, entries, legacy, pickle, storage, tensor, zip_of
from tests.hostile.corpus.polyglots import tar_and_legacy

PICKLE = pickle(tensor(storage()), NOTHING)
ZEROS = bytes(32)


def rule(file: bytes) -> str | None:
    with pytest.raises(RefusedCheckpoint) as refused:
        read(memoryview(file))
    return refused.value.rule


def weight(file: bytes) -> list[float]:
    return loaded(file)["model"]["weight"].tolist()


def by_zipfile(file: bytes, name: str = "r/data/0") -> bytes:
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        return archive.read(name)


def changed(place: int, **fields: object) -> bytes:
    made = entries(PICKLE)
    made[place] = replace(made[place], **fields)
    return Zip(made).build()


def test_both_readers_agree_on_the_honest_one() -> None:
    assert by_zipfile(zip_of(PICKLE)) == FLOATS
    assert weight(zip_of(PICKLE)) == list(range(8))


def test_a_record_marked_as_a_folder() -> None:
    """To torch it has no bytes: the tensor is whatever lay in memory, so it is not looked at."""
    file = changed(2, central={"attributes": 0x10})
    assert by_zipfile(file) == FLOATS
    assert len(weight(file)) == 8
    assert rule(file) == "zip-attributes"


def test_a_crc32_that_only_one_reader_checks() -> None:
    file = changed(0, crc32=1)
    assert weight(file) == list(range(8))
    with pytest.raises(zipfile.BadZipFile):
        by_zipfile(file, "r/data.pkl")
    assert rule(file) == "zip-crc"


def test_local_names_of_which_only_one_reader_knows() -> None:
    file = changed(2, local={"name": b"r/data/7"})
    assert weight(file) == list(range(8))
    with pytest.raises(zipfile.BadZipFile):
        by_zipfile(file)
    assert rule(file) == "zip-local"


def test_a_storage_under_the_names_of_two_versions_of_torch() -> None:
    file = zip_of(PICKLE, {"data/0": FLOATS, "tensors/0": ZEROS, "version": b"3\n"})
    assert weight(file) == list(range(8))
    assert rule(file) == "zip-duplicate"


def test_junk_and_a_second_archive_behind_the_first() -> None:
    first = zip_of(PICKLE)
    other = zip_of(PICKLE, {"data/0": ZEROS, "version": b"3\n"})
    assert by_zipfile(first + other) == ZEROS
    assert rule(first + other) in {"zip-end", "zip-directory", "zip-overlap"}
    assert rule(first + b"junk") == "zip-end"


def test_a_tar_that_is_a_legacy_file(tmp_path: Path) -> None:
    """torch reads it as one thing from a buffer, and takes it for the other from a file."""
    file = tar_and_legacy(b"ustar\x0000")
    assert weight(file) == list(range(8))
    (tmp_path / "both.pt").write_bytes(file)
    with pytest.raises((KeyError, RuntimeError)):  # a member "storages", which this tar does not have
        torch.load(tmp_path / "both.pt", weights_only=True)
    assert rule(file) == "tar"


def test_a_second_pickle_behind_the_first() -> None:
    file = zip_of(PICKLE + b"\x80\x02N.")
    assert weight(file) == list(range(8))
    assert rule(file) == "trailing-bytes"


@pytest.mark.parametrize("number", [b"I010\n", b"I0x10\n", b"I 8\n"])
def test_a_number_that_python_reads_in_two_ways(number: bytes) -> None:
    assert rule(legacy(number, 0)) == "value"


def test_honest_files_that_others_have_packed_again_are_read() -> None:
    """Python's zipfile, with sizes in the local headers and attributes of its own."""
    buffer = io.BytesIO()
    honest = io.BytesIO(saved({"w": torch.arange(8.0)}))
    with zipfile.ZipFile(honest) as source, zipfile.ZipFile(buffer, "w") as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))
    assert len(read(memoryview(buffer.getvalue())).storages) == 1

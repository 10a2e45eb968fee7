"""The spool keeps what was written, hashed on the way, until it is adopted or discarded."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import StorageFull, StoreError
from app.store import LocalPackStore, Spool, SpoolFile
from app.store.digests import digest_of
from app.store.keys import new_name
from app.store.spool import left_behind
from app.values.span import Span


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool")
    yield spool
    spool.close()


def put(file: SpoolFile, *pieces: bytes) -> None:
    for calls in [file.put(piece) for piece in pieces]:
        for call in calls:
            call.result()


@given(pieces=st.lists(st.binary(max_size=300), max_size=30), with_sha256=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
def test_what_is_written_is_kept_and_hashed(spool: Spool, pieces: list[bytes], with_sha256: bool):
    file = spool.create("upload", with_sha256=with_sha256)
    put(file, *pieces)
    data = b"".join(pieces)
    assert file.path.read_bytes() == data
    assert file.size == len(data)
    assert file.digest == digest_of(data)[0]
    assert file.sha256 == (hashlib.sha256(data).hexdigest() if with_sha256 else None)
    file.discard()


def test_what_is_appended_is_no_part_of_the_digest(spool: Spool):
    file = spool.create("upload")
    put(file, b"the upload")
    assert file.append(b"manifest") == Span(10, 18)
    assert file.append_spans([Span(8, 10), Span(0, 3), Span(10, 12)]) == Span(18, 25)
    assert file.path.read_bytes() == b"the uploadmanifestadthema"
    assert file.size == 25
    assert file.read(Span(8, 13)) == b"adman"
    assert file.digest == digest_of(b"the upload")[0]
    file.discard()


def test_a_discarded_file_is_gone_and_discarding_it_again_is_no_error(spool: Spool):
    file = spool.create("upload")
    file.discard()
    file.discard()
    assert not file.path.exists()
    with pytest.raises(StoreError):
        file.append(b"too late")


def test_discarding_leaves_alone_what_was_adopted(spool: Spool, tmp_path: Path):
    store = LocalPackStore(tmp_path / "store", durable=False)
    file = spool.create("upload")
    put(file, b"kept")
    store.adopt("upload", file.path)
    file.discard()
    assert store.read("upload", Span(0, 4)) == b"kept"


def test_two_uploads_never_share_a_name(spool: Spool, tmp_path: Path):
    file = spool.create("upload")
    put(file, b"first")
    with pytest.raises(StoreError) as caught:
        spool.create("upload")
    assert str(tmp_path) not in caught.value.detail
    assert file.path.read_bytes() == b"first"
    file.discard()


def test_a_spool_is_cleared_of_what_a_crash_left(spool: Spool, tmp_path: Path):
    (tmp_path / "spool" / new_name()).write_bytes(b"x")
    (tmp_path / "spool" / new_name()).write_bytes(b"")
    assert spool.clear() == 2
    assert list((tmp_path / "spool").iterdir()) == []
    assert spool.clear() == 0


@pytest.mark.parametrize("behind_a_symlink", [False, True])
def test_clearing_a_spool_leaves_alone_what_no_server_has_written(tmp_path: Path, behind_a_symlink: bool):
    folder = tmp_path / "scratch"
    folder.mkdir()
    if behind_a_symlink:
        (tmp_path / "spool").symlink_to(folder)
        folder = tmp_path / "spool"
    elsewhere = tmp_path / "precious"
    elsewhere.write_bytes(b"precious")
    for name in ("thesis.txt", "abcdef", "0" * 31, "0" * 33, "A" * 32, "0" * 32 + ".bak"):
        (folder / name).write_bytes(b"precious")
    (folder / ("1" * 32)).symlink_to(elsewhere)
    (folder / ("2" * 32)).mkdir()
    os.mkfifo(folder / ("3" * 32))
    there = sorted(folder.iterdir())
    left = folder / new_name()
    left.write_bytes(b"half an upload")
    with closing(Spool(folder)) as spool:
        assert spool.clear() == 1
    assert sorted(folder.iterdir()) == there
    assert elsewhere.read_bytes() == b"precious"


def test_a_file_of_another_user_is_none_of_the_spools(spool: Spool, tmp_path: Path):
    if os.geteuid() != 0:
        pytest.skip("giving a file to another user needs to be root")
    theirs = tmp_path / "spool" / new_name()
    theirs.write_bytes(b"theirs")
    os.chown(theirs, 65534, 65534)
    assert spool.clear() == 0
    assert theirs.exists()


def test_a_full_device_is_storage_full_and_the_file_can_still_be_discarded(small_device: Path):
    spool = Spool(small_device)
    file = spool.create("upload")
    with pytest.raises(StorageFull):
        put(file, *[bytes(1 << 19)] * 20)
    file.discard()
    assert list(small_device.iterdir()) == []
    spool.close()


HOLD = """
import sys
from pathlib import Path
from app.store import Spool

file = Spool(Path(sys.argv[1])).create("0123456789abcdef0123456789abcdef")
file.put(bytes(1000))[0].result()
print("ready", flush=True)
sys.stdin.read()
"""


def left(folder: Path, *, remove: bool = False) -> list[tuple[str, int]]:
    return list(left_behind(folder, remove=remove))


def test_a_file_is_left_behind_when_its_process_has_ended_and_not_before(tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        assert left(tmp_path, remove=True) == []
        process.kill()
    assert left(tmp_path) == left(tmp_path, remove=True) == [("0123456789abcdef0123456789abcdef", 1000)]
    assert left(tmp_path) == list(tmp_path.iterdir()) == []


def test_what_this_process_writes_is_in_use_until_it_is_discarded(spool: Spool, tmp_path: Path):
    file = spool.create("0123456789abcdef0123456789abcdef")
    folder = file.path.parent
    assert left(folder, remove=True) == []
    file.discard()
    assert left(folder) == []


def test_a_file_that_is_being_made_is_never_taken_away(spool: Spool):
    """Between its making and its lock somebody may look at it."""
    folder = spool.create(new_name()).path.parent
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            left(folder, remove=True)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for i in range(300):
            file = spool.create(f"{i:032x}")
            assert file.path.stat().st_ino == os.fstat(file._fd).st_ino
    finally:
        stop.set()
        looking.join()


def test_a_spool_that_is_not_there_holds_nothing(tmp_path: Path):
    assert left(tmp_path / "nowhere") == []

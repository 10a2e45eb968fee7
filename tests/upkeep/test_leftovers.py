"""The next start removes the leftovers of a crash, and nothing else."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue

import pytest
from sqlalchemy import delete, update

from app.catalog import blobs, leases, loose_files, packs, unused
from app.catalog.rows import to_microseconds
from app.catalog.tables import loose_files as loose_files_table
from app.catalog.trash import delete_checkpoint
from app.catalog.unused import Moment
from app.errors import StoreError
from app.ingest.body import Chunks
from app.ingest.receive import SpooledUpload
from app.store import LocalPackStore, Room, Spool
from app.store.keys import new_name
from app.upkeep.leftovers import recover
from app.upkeep.periodic import TURN, PeriodicSweeps
from app.upkeep.sweep import Swept
from app.values.checkpoint import Blob
from app.values.loose_file import NewLooseFile
from app.values.span import Span
from tests.ingest.workplace import MODEL, Workplace, chunked, torch_file, weights
from tests.support.waiting import LONG_ENOUGH
from tests.upkeep.sweeping import sweep_now, sweeper


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    place = Workplace.at(tmp_path / "data", tmp_path / "catalog.sqlite3")
    yield place
    place.close()


def clean_up(place: Workplace, *, alone: bool = True) -> None:
    """As a server does that has just started."""
    with closing(Spool(place.folder / "spool")) as spool:
        spool.clear()
    moment = Moment.at(datetime.now(UTC), grace=3600)
    recover(place.catalog, LocalPackStore(place.folder, durable=True), moment, alone=alone)


def interrupted(place: Workplace) -> SpooledUpload:
    """An upload that has arrived, of a process that has ended: it has let go of the file."""
    upload = asyncio.run(place.ingest.receive(Chunks(chunked(bytes(100_000))), None))
    upload.file.close()
    return upload


def test_an_upload_that_was_spooled_and_never_committed_is_removed(place: Workplace):
    interrupted(place)
    assert place.files()
    clean_up(place)
    assert place.contents() == ({}, {})


def test_a_loose_file_goes_with_its_time_and_no_number_is_given_twice(place: Workplace):
    def written(path: str) -> int:
        with place.catalog.write(MODEL.namespace) as w:
            return loose_files.write(w, MODEL, NewLooseFile(path, 3, b"recipe", 6, "me")).number

    old, new = written("a/old"), written("a/new")
    with place.catalog.write() as w:
        past = to_microseconds(datetime.now(UTC) - timedelta(hours=2))
        w.execute(update(loose_files_table).where(loose_files_table.c.id == old).values(kept_until=past))
    sweep_now(place)
    with place.catalog.read() as s:
        assert [file.number for file in loose_files.listed(s, MODEL, "a", "", 10)] == [new]
    with place.catalog.write() as w:
        w.execute(delete(loose_files_table))
    assert written("a/old") > new


def test_a_pack_that_was_written_and_never_committed_is_removed(place: Workplace):
    upload = interrupted(place)
    place.store.adopt(upload.name, upload.file.path)
    clean_up(place)
    assert place.contents() == ({}, {})


def test_a_pack_that_was_being_copied_is_removed(place: Workplace):
    upload = interrupted(place)
    place.store.create(upload.name, upload.file.path, [Span(0, 10)])
    (pack,) = (path for path in place.folder.rglob("*.pack"))
    pack.rename(pack.with_suffix(".part"))
    clean_up(place)
    assert place.contents() == ({}, {})


def test_a_pack_that_was_announced_and_never_begun_is_forgotten(place: Workplace):
    with place.catalog.write() as w:
        packs.begin(w, "abcdef", lease_seconds=3600)
    clean_up(place)
    assert place.contents() == ({}, {})


def test_what_was_committed_stays(place: Workplace):
    data = torch_file({"w": weights(1)})
    checkpoint = place.upload(data)
    before = place.contents()
    interrupted(place)
    clean_up(place)
    assert place.contents() == before
    assert place.original(checkpoint) == data


def test_cleaning_up_where_nothing_is_left_changes_nothing(place: Workplace):
    clean_up(place)
    place.upload(torch_file({"w": weights(1)}))
    before = place.contents()
    clean_up(place)
    assert place.contents() == before


def sealed(place: Workplace) -> SpooledUpload:
    """An upload whose commit got as far as making its blobs known."""
    upload = interrupted(place)
    place.store.adopt(upload.name, upload.file.path)
    blob = Blob(upload.digest, upload.name, 0, upload.size, 0, bytes(32))
    with place.catalog.write() as w:
        blobs.insert_new(w, MODEL.namespace, packs.seal(w, upload.name, upload.size), [blob])
    return upload


def test_a_pack_that_was_sealed_for_a_checkpoint_that_never_came_is_left_to_the_sweep(place: Workplace):
    upload = sealed(place)
    clean_up(place)
    assert set(place.blobs([upload.digest])) == {upload.digest}
    sweep_now(place)
    assert place.contents() == ({}, {})
    assert place.blobs([upload.digest]) == {}


def test_a_clean_up_that_crashed_between_rows_and_bytes_is_made_good(place: Workplace):
    upload = sealed(place)
    unused.release(place.catalog, upload.name)
    assert place.contents()[1] == {upload.name: "writing"}
    clean_up(place)
    assert place.contents() == ({}, {})


def test_a_clean_up_that_crashed_between_bytes_and_the_pack_s_row_is_made_good(place: Workplace):
    upload = sealed(place)
    unused.release(place.catalog, upload.name)
    place.store.delete(upload.name)
    clean_up(place)
    assert place.contents() == ({}, {})


def test_a_start_frees_nothing_of_what_was_deleted_since_its_grace_is_the_sweep_s(place: Workplace):
    place.upload(torch_file({"w": weights(1)}))
    with place.catalog.write() as w:
        delete_checkpoint(w, MODEL, 1)
    before = place.contents()
    clean_up(place)
    assert place.contents() == before


def test_a_pack_that_a_start_gave_up_cannot_be_sealed_any_more(place: Workplace):
    """A sweep by hand may be writing it, beside the server that starts."""
    with place.catalog.write() as w:
        packs.begin(w, "abcdef", lease_seconds=3600)
        packs.finish_all(w)
    with pytest.raises(StoreError, match="lease"), place.catalog.write() as w:
        packs.seal(w, "abcdef", 1)


def test_beside_other_servers_the_spool_is_cleared_and_what_they_may_be_at_work_on_stays(place: Workplace):
    interrupted(place)
    theirs = sealed(place)
    with place.catalog.write() as w:
        packs.begin(w, "justover", lease_seconds=-1)
        packs.begin(w, "longover", lease_seconds=-7200)
    before = place.contents()
    clean_up(place, alone=False)
    files, rows = place.contents()
    assert files == {name: size for name, size in before[0].items() if name.startswith("packs/")}
    assert set(before[1]) - set(rows) == {"longover"}
    assert set(place.blobs([theirs.digest])) == {theirs.digest}


def test_a_server_that_another_sweeps_for_clears_its_own_data_dir(place: Workplace):
    (place.folder / "spool" / new_name()).write_bytes(b"left")
    with place.catalog.write() as w:
        leases.take(w, TURN, "another", 3600)
    cleared: SimpleQueue[Swept] = SimpleQueue()
    sweeps = PeriodicSweeps(sweeper(place), Room(place.folder), 0.05, cleared.put)
    try:
        assert cleared.get(timeout=LONG_ENOUGH).spooled_uploads == 1
    finally:
        sweeps.close()
    assert list((place.folder / "spool").iterdir()) == []

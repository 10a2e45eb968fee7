"""Staged blobs and the sweep: what is staged stays while it may be needed, and goes when it was not."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from app.catalog.rows import to_microseconds
from app.catalog.tables import blobs as blobs_table
from app.catalog.tables import namespaces
from app.catalog.tables import packs as packs_table
from app.errors import Gone, MissingBlobs
from app.ingest.body import Chunks
from app.ingest.negotiated import Progress
from app.upkeep.leftovers import recover
from app.values.span import Span
from app.values.split import Split
from tests.ingest.in_parts import announce, commit, file_of, send
from tests.ingest.workplace import MODEL, Workplace, chunked
from tests.support.staging import Blobs, blobs_of
from tests.upkeep.sweeping import check, delete, moment_now, sweep_now


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    place = Workplace.at(tmp_path / "data", tmp_path / "catalog.sqlite3")
    yield place
    place.close()


def announce_blobs(place: Workplace, staged: Blobs) -> Progress:
    announcement = staged.announcement()
    spans = [Span(*each) for each in announcement["storages"]]
    split = Split(announcement["size"], spans, bytes.fromhex("".join(announcement["blocks"])))
    return place.ingest.negotiated.begin(MODEL, split, original=True)


def arrive(place: Workplace, staged: Blobs) -> str:
    progress = announce_blobs(place, staged)
    for run in progress.missing:
        data = b"".join(staged.blocks[run.start : run.stop])
        asyncio.run(place.ingest.negotiated.receive(progress.upload, run, Chunks(chunked(data))))
    return progress.upload.id


def stage(place: Workplace, staged: Blobs) -> None:
    place.ingest.negotiated.stage(MODEL, arrive(place, staged))


def end_leases(place: Workplace, state: str = "sealed") -> None:
    """Let the leases of packs have ended long ago, as after the day for which blobs are staged."""
    with place.catalog.write() as w:
        past = to_microseconds(datetime.now(UTC) - timedelta(hours=2))
        w.execute(update(packs_table).where(packs_table.c.state == state).values(lease_until=past))


def stored_bytes(place: Workplace) -> int:
    with place.catalog.read() as s:
        return s.select(select(func.sum(namespaces.c.stored_bytes))).scalar_one()


def test_a_sweep_takes_nothing_that_is_staged_for_its_time_and_the_checkpoint_is_made_of_it(place: Workplace) -> None:
    file = file_of(1, 2, 3)
    blobs = blobs_of(file)
    stage(place, Blobs(blobs[:1]))
    stage(place, Blobs(blobs[1:]))
    sweep_now(place)
    assert check(place) == []
    progress = announce(place, file)
    assert [tuple(run) for run in progress.missing] == [(0,)]
    send(place, file, progress)
    checkpoint = commit(place, progress)
    end_leases(place)
    sweep_now(place)
    assert place.original(checkpoint) == file.data
    assert check(place) == []


def test_what_no_checkpoint_came_for_is_swept_to_the_last_byte(place: Workplace) -> None:
    stage(place, Blobs(blobs_of(file_of(1, 2))))
    assert stored_bytes(place) > 0
    end_leases(place)
    sweep_now(place, grace=3600)
    assert stored_bytes(place) > 0
    sweep_now(place)
    assert (place.contents(), stored_bytes(place)) == (({}, {}), 0)


def test_after_a_restart_the_grace_is_left(place: Workplace) -> None:
    file = file_of(1, 2)
    stage(place, Blobs(blobs_of(file)))
    recover(place.catalog, place.store, moment_now(), alone=True)
    sweep_now(place, grace=3600)
    assert [tuple(run) for run in announce(place, file).missing] == [(0,)]
    sweep_now(place)
    assert [tuple(run) for run in announce(place, file).missing] == [(0, 1, 2)]
    assert check(place) == []


def test_a_checkpoint_whose_staged_blob_was_swept_is_told_so(place: Workplace) -> None:
    file = file_of(1, 2)
    stage(place, Blobs(blobs_of(file)))
    progress = announce(place, file)
    send(place, file, progress)
    end_leases(place)
    sweep_now(place)
    with pytest.raises(MissingBlobs) as gone:
        commit(place, progress)
    assert len(gone.value.digests) == 2
    assert check(place) == []


def test_a_known_blob_that_was_about_to_go_has_its_grace_anew(place: Workplace) -> None:
    file = file_of(1)
    place.upload(file.data)
    delete(place, 1)
    sweep_now(place, grace=3600)  # marks what is unused
    stage(place, Blobs(blobs_of(file)))
    with place.catalog.read() as s:
        marked = set(s.select(select(blobs_table.c.length).where(blobs_table.c.unused_since.is_not(None))).scalars())
    assert marked
    assert len(blobs_of(file)[0]) not in marked


def test_a_known_blob_that_is_swept_before_it_is_staged_is_asked_for(place: Workplace) -> None:
    place.upload(file_of(1).data)
    staged = Blobs(blobs_of(file_of(1, 2)))
    upload = arrive(place, staged)
    delete(place, 1)
    sweep_now(place)
    with pytest.raises(MissingBlobs):
        place.ingest.negotiated.stage(MODEL, upload)
    assert arrive(place, staged) == upload
    place.ingest.negotiated.stage(MODEL, upload)
    assert announce_blobs(place, staged).missing == ()


def test_of_two_that_send_the_same_one_finds_the_upload_gone_and_all_there(place: Workplace) -> None:
    staged = Blobs(blobs_of(file_of(1, 2)))
    first, second = arrive(place, staged), announce_blobs(place, staged)
    assert first == second.upload.id
    place.ingest.negotiated.stage(MODEL, first)
    with pytest.raises(Gone):
        place.ingest.negotiated.stage(MODEL, second.upload.id)
    again = announce_blobs(place, staged)
    assert again.missing == ()
    place.ingest.negotiated.stage(MODEL, again.upload.id)
    assert list(place.pack_rows().values()).count("sealed") == 1
    assert check(place) == []


def test_a_pack_that_brings_only_what_others_stored_meanwhile_is_swept(place: Workplace) -> None:
    staged, other = Blobs(blobs_of(file_of(1, 2))), file_of(1, 2)
    upload = arrive(place, staged)
    checkpoint = place.upload(other.data)
    place.ingest.negotiated.stage(MODEL, upload)
    end_leases(place, "writing")
    sweep_now(place)
    assert set(place.pack_rows().values()) == {"sealed"}
    assert place.original(checkpoint) == other.data
    assert check(place) == []


def leases_that_run(place: Workplace) -> int:
    now = to_microseconds(datetime.now(UTC))
    with place.catalog.read() as s:
        return len(s.select(select(packs_table.c.id).where(packs_table.c.lease_until > now)).all())


def test_what_was_staged_for_a_checkpoint_goes_with_it_and_not_a_day_later(place: Workplace) -> None:
    file, other = file_of(1, 2, 3), file_of(4)
    blobs = blobs_of(file)
    stage(place, Blobs(blobs[:2]))
    stage(place, Blobs([blobs[2], *blobs_of(other)]))
    assert leases_that_run(place) == 2
    progress = announce(place, file)
    send(place, file, progress)
    commit(place, progress)
    assert leases_that_run(place) == 1  # one blob of that pack is still waited for
    progress = announce(place, other)
    send(place, other, progress)
    commit(place, progress)
    assert leases_that_run(place) == 0
    delete(place, 1, 2)
    end_leases(place)
    sweep_now(place)
    assert place.contents() == ({}, {})

"""A sweep frees everything that is not needed and nothing else, whatever else goes on."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert

from app.catalog import Catalog, ReadSession, leases, packs
from app.catalog.rows import to_microseconds
from app.catalog.tables import checkpoints, idempotency_keys, models, plans
from app.ingest.body import Chunks
from app.upkeep.sweep import Swept
from app.upkeep.sweep_lease import SWEEP, Stopped, SweepLease
from app.values.checkpoint import Fields
from tests.catalog.make import count
from tests.ingest.workplace import MODEL, Workplace, chunked, torch_file, weights
from tests.support.measure import long, some
from tests.upkeep.sweeping import check, delete, foresee_now, sweep_now

HOUR = 3600.0


def test_what_a_deleted_checkpoint_alone_needed_is_free_again_and_what_it_shared_stays(place: Workplace):
    shared = weights(1, 2)
    kept_data = torch_file({"shared": shared, "own": weights(2)})
    kept = place.upload(kept_data)
    before = place.bytes_stored()
    for seed in (3, 4):
        place.upload(torch_file({"shared": shared, "own": weights(seed)}))
    delete(place, 2, 3)
    swept = sweep_now(place)
    assert swept.packs == 2
    assert swept.blobs == 2 * 3  # its own storage, its frame, its manifest
    assert place.bytes_stored() == before
    assert place.original(kept) == kept_data
    assert check(place) == []


def test_deleting_everything_frees_everything(place: Workplace):
    for seed in range(3):
        place.upload(torch_file({"w": weights(seed)}))
    stored = place.bytes_stored()
    delete(place, 1, 2, 3)
    assert sweep_now(place).freed_bytes == stored
    assert place.contents() == ({}, {})
    assert count(place.catalog, "blobs") == count(place.catalog, "checkpoint_blobs") == 0
    assert check(place) == []


def test_nothing_goes_before_its_grace_is_over(place: Workplace):
    place.upload(torch_file({"w": weights(1)}))
    delete(place, 1)
    before = place.contents()
    for _ in range(2):
        swept = sweep_now(place, grace=HOUR)
        assert (swept.freed_bytes, swept.blobs, swept.packs) == (0, 0, 0)
    assert place.contents() == before


def test_what_is_uploaded_again_within_the_grace_needs_no_new_pack(place: Workplace):
    data = torch_file({"w": weights(1)})
    place.upload(data)
    delete(place, 1)
    sweep_now(place, grace=HOUR)
    again = place.upload(data)
    assert again.new_bytes == 0
    sweep_now(place)
    assert place.original(again) == data


def test_a_sweep_that_finds_nothing_changes_nothing(place: Workplace):
    place.upload(torch_file({"w": weights(1)}))
    before = place.contents()
    assert sweep_now(place) == Swept()
    assert place.contents() == before


def test_a_dry_run_says_what_a_real_one_does_and_does_none_of_it(place: Workplace):
    """A dead pack, one that is mostly dead, one whose writer has gone, and nothing to be done about a fourth."""
    shared = weights(1)
    place.upload(torch_file({"shared": shared, "a": weights(2, 3)}))
    place.upload(torch_file({"shared": shared, "b": weights(3)}))
    place.upload(torch_file({"c": weights(4)}))
    with place.catalog.write() as w:
        packs.begin(w, "longover", lease_seconds=-2 * HOUR)
        packs.begin(w, "justover", lease_seconds=-60)
    for name in ("longover", "justover"):
        place.store.write(name, [bytes(100)])
    delete(place, 1, 3)
    files, rows = place.contents()
    foreseen = foresee_now(place)
    assert place.contents() == (files, rows)
    assert foresee_now(place, grace=HOUR).freed_bytes == 100
    assert sweep_now(place) == foreseen
    assert foreseen.freed_bytes == sum(files.values()) - place.bytes_stored() > 3 * 2**20
    assert (foreseen.packs, foreseen.compacted_packs) == (3, 1)
    assert "justover" in place.pack_rows()
    assert foresee_now(place) == Swept()


def test_an_upload_that_runs_is_left_alone_wherever_it_is(place: Workplace):
    data = torch_file({"w": weights(1)})
    upload = asyncio.run(place.ingest.receive(Chunks(chunked(data)), len(data)))
    before = place.contents()
    assert sweep_now(place) == Swept()
    assert place.contents() == before
    checkpoint = place.ingest.commit(upload, MODEL, Fields())
    assert place.original(checkpoint) == data


def test_commits_that_broke_off_long_ago_are_cleared_and_those_that_may_run_are_not(place: Workplace):
    place.upload(torch_file({"w": weights(1)}))
    now = datetime.now(UTC)
    with place.catalog.write() as w:
        model_id = w.select(models.select()).first().id
        row = dict(w.select(checkpoints.select()).first()._mapping) | {"version": None, "model_id": model_id}
        del row["id"]
        for age in (timedelta(days=2), timedelta(hours=2)):
            w.execute(insert(checkpoints).values(row | {"created_at": to_microseconds(now - age)}))
    assert foresee_now(place).unfinished_checkpoints == sweep_now(place).unfinished_checkpoints == 1
    assert count(place.catalog, "checkpoints") == 2


def test_what_was_kept_for_a_time_goes_when_that_is_over(place: Workplace):
    checkpoint = place.upload(torch_file({"w": weights(1)}))
    now = datetime.now(UTC)
    with place.catalog.write() as w:
        model_id = w.select(models.select()).first().id
        for name, ahead in (("over", -1), ("kept", 3600)):
            until = to_microseconds(now + timedelta(seconds=ahead))
            w.execute(insert(plans).values(namespace="ns", digest=name, document="{}", kept_until=until))
            key = {"model_id": model_id, "key": name, "checkpoint_id": checkpoint.id, "kept_until": until}
            w.execute(insert(idempotency_keys).values(key))
    sweep_now(place)
    with place.catalog.read() as s:
        assert [row.digest for row in s.select(plans.select())] == ["kept"]
        assert [row.key for row in s.select(idempotency_keys.select())] == ["kept"]


def test_two_sweeps_at_once_free_everything_once_and_lose_nothing(place: Workplace):
    """Nothing but the lease keeps them apart, and here there is none."""
    shared = [weights(100 + i, 0.25) for i in range(4)]
    kept = []
    for i in range(12):
        data = torch_file({"shared": shared[i % 4], "own": weights(i)})
        kept.append((place.upload(data), data))
    delete(place, *range(1, 9))
    stored = place.bytes_stored()
    together, done = threading.Barrier(3), []

    def go() -> None:
        together.wait()
        done.append(sweep_now(place))

    threads = [threading.Thread(target=go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 3
    sweep_now(place)
    assert check(place) == []
    for checkpoint, data in kept[8:]:
        assert place.original(checkpoint) == data
    assert place.bytes_stored() < stored - 7 * 2**20
    assert sum(swept.blobs for swept in done) == 8 * 3
    assert sweep_now(place) == Swept()


@long
@pytest.mark.parametrize("steps", some(range(12), 2))
def test_a_sweep_that_ends_after_any_step_loses_nothing_and_the_next_one_goes_on(place: Workplace, steps: int):
    shared = weights(1)
    place.upload(torch_file({"shared": shared, "a": weights(2, 3)}))
    data = torch_file({"shared": shared, "b": weights(3)})
    kept = place.upload(data)
    place.upload(torch_file({"c": weights(4)}))
    delete(place, 1, 3)
    left = iter(range(steps))

    def go_on() -> None:
        if next(left, None) is None:
            raise Stopped("enough")

    try:
        sweep_now(place, go_on=go_on)
    except Stopped:
        assert place.original(kept) == data
        assert check(place) == []
        sweep_now(place)
    assert place.original(kept) == data
    assert check(place) == []
    assert place.bytes_stored() < 2.2 * 2**20
    assert all(state == "sealed" for state in place.pack_rows().values())
    assert sweep_now(place) == Swept()


def test_one_sweeps_and_the_others_wait_until_its_shift_ends(place: Workplace):
    first, second = SweepLease(place.catalog, lambda: False), SweepLease(place.catalog, lambda: False)
    assert first.begin()
    assert not second.begin()
    assert first.begin()
    first.end()
    assert second.begin()
    first.end()  # ends nobody's lease but its own
    assert not first.begin()
    assert count(place.catalog, "leases") == 1


def test_a_shift_whose_process_has_died_ends_by_itself(place: Workplace):
    with place.catalog.write() as w:
        leases.take(w, SWEEP, "dead", -1)
    assert SweepLease(place.catalog, lambda: False).begin()


def test_a_shift_that_was_told_to_stop_or_lost_its_lease_goes_on_no_more(place: Workplace):
    stopped = threading.Event()
    lease = SweepLease(place.catalog, stopped.is_set)
    assert lease.begin()
    lease.go_on()
    with place.catalog.write() as w:
        leases.give_back(w, SWEEP)
        leases.take(w, SWEEP, "another", 60)
    lease._renewed -= 3600
    with pytest.raises(Stopped):
        lease.go_on()
    stopped.set()
    with pytest.raises(Stopped):
        lease.go_on()


def test_what_a_worker_that_died_left_in_the_spool_goes_and_what_another_writes_there_stays(place: Workplace):
    live = place.spool.create("abcdef")
    (place.folder / "spool" / ("d" * 32)).write_bytes(bytes(1000))
    assert foresee_now(place).freed_bytes == 1000
    swept = sweep_now(place)
    assert (swept.spooled_uploads, swept.freed_bytes) == (1, 1000)
    assert [path.name for path in (place.folder / "spool").iterdir()] == ["abcdef"]
    live.discard()


class SweptAtTheWorstMoment(Catalog):
    """Whenever an upload looks up what is known, that is there, and a sweep without a grace takes it right after."""

    moments = 0
    store: Callable[[], object]
    sweep: Callable[[], object]

    @contextmanager
    def read(self) -> Iterator[ReadSession]:
        is_bad = self.moments > 0
        if is_bad:
            self.moments -= 1
            self.store()
        with super().read() as s:
            yield s
        if is_bad:
            self.sweep()


@pytest.mark.parametrize("also_new", [False, True], ids=["all-of-it-known", "most-of-it-known"])
@pytest.mark.parametrize("moments", [1, 3])
def test_an_upload_whose_blobs_a_sweep_takes_meanwhile_stores_them_after_all(
    place: Workplace, database_url: str, also_new: bool, moments: int
):
    shared = {"a": weights(1), "b": weights(2)}
    new = {"new": weights(3, 0.1)} if also_new else {}
    data = torch_file({**shared, **new})
    catalog = SweptAtTheWorstMoment(database_url, durable=False)
    catalog.store = lambda: delete(place, place.upload(torch_file(shared)).version)
    catalog.sweep = lambda: sweep_now(place)
    racing = Workplace.of(place.folder, catalog, durable=False)
    upload = asyncio.run(racing.ingest.receive(Chunks(chunked(data)), len(data)))
    catalog.moments = moments
    checkpoint = racing.ingest.commit(upload, MODEL, Fields())
    assert catalog.moments == 0
    assert place.original(checkpoint) == data
    sweep_now(place)
    assert place.original(checkpoint) == data
    assert check(place) == []
    delete(place, checkpoint.version)
    sweep_now(place)
    assert place.contents() == ({}, {})
    racing.close()

"""Uploads in parts to several servers that share a catalog and a store, and a store that contradicts the catalog."""

import asyncio
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from app.catalog import Catalog, checkpoints, packs
from app.catalog import commit as catalog_commit
from app.catalog.rows import to_microseconds
from app.catalog.session import ReadSession
from app.catalog.tables import packs as packs_table
from app.catalog.tables import uploads as uploads_table
from app.errors import Gone, InvalidRequest, MissingBlobs, StorageFull, StoreError
from app.ingest.body import Chunks
from app.ingest.negotiated import Progress
from app.store.keys import area_key, object_name
from app.store.pack_list import Stretch
from app.upkeep.leftovers import recover
from app.values.checkpoint import Checkpoint, Fields
from app.values.digest import BLOCK_SIZE
from tests.ingest.in_parts import announce, commit, file_of, send
from tests.ingest.workplace import MODEL, Workplace, chunked, torch_file, weights
from tests.support.negotiating import InParts
from tests.upkeep.sweeping import check, moment_now, sweep_now


@pytest.fixture
def catalog_url(migrated: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(migrated, tmp_path / 'catalog.sqlite3')}"


@pytest.fixture
def start(tmp_path: Path, catalog_url: str) -> Iterator[Callable[[str], Workplace]]:
    """Starts a server on the data dir ``folder``; all share a catalog and a store."""
    started: list[Workplace] = []

    def start(folder: str) -> Workplace:
        started.append(Workplace.of(tmp_path / folder, Catalog(catalog_url), store=tmp_path / "store"))
        return started[-1]

    yield start
    for place in started:
        place.close()


def objects(place: Workplace, progress: Progress) -> list[Path]:
    folder = place.folder.parent / "store" / area_key(progress.upload.id)
    return sorted(folder.iterdir()) if folder.is_dir() else []


def long_ago(place: Workplace, progress: Progress) -> None:
    then = to_microseconds(datetime.now(UTC) - timedelta(hours=2))
    with place.catalog.write() as w:
        w.execute(update(uploads_table).where(uploads_table.c.id == progress.upload.id).values(kept_until=then))
        w.execute(update(packs_table).where(packs_table.c.name == progress.upload.id).values(lease_until=then))


def send_run(place: Workplace, file: InParts, progress: Progress, *numbers: int) -> None:
    send(place, file, Progress(progress.upload, (range(numbers[0], numbers[-1] + 1),)))


def test_any_server_takes_parts_of_one_upload_and_any_commits_it(start: Callable[[str], Workplace]) -> None:
    a, b, c = start("a"), start("b"), start("c")
    file = file_of(1, 2, 3)
    at_a, at_b = announce(a, file), announce(b, file)
    assert at_a.upload.id == at_b.upload.id
    send_run(a, file, at_a, 0, 1)
    send_run(b, file, at_b, 2)
    assert announce(a, file).missing == announce(c, file).missing == (range(3, 4),)
    with pytest.raises(MissingBlobs):
        commit(c, at_a)
    send_run(c, file, at_a, 3)
    checkpoint = commit(b, at_b)
    for place in (a, b, c):
        assert place.original(checkpoint) == file.data
    assert check(a) == []


def test_parts_that_overlap_make_one_pack_with_each_block_once(start: Callable[[str], Workplace]) -> None:
    a, b = start("a"), start("b")
    file = file_of(1, 2, 3, 4)
    progress = announce(a, file)
    for run in ((1, 2), (0, 1), (2, 3, 4), (3,), (1, 2)):
        send_run(a if run[0] % 2 else b, file, progress, *run)
    checkpoint = commit(b, progress)
    assert a.original(checkpoint) == file.data
    assert 0.9 * len(file.data) < checkpoint.new_bytes < 1.1 * len(file.data)
    assert check(a) == []


def test_blocks_of_a_large_storage_come_one_by_one_from_any_side(start: Callable[[str], Workplace]) -> None:
    a, b = start("a"), start("b")
    file = InParts(torch_file({"epoch": 1, "w": weights(1, 40), "v": weights(2, 0.1)}))
    assert max(map(len, file.blocks)) == BLOCK_SIZE
    progress = announce(a, file)
    for number in reversed(range(len(file.blocks))):
        send_run((a, b)[number % 2], file, progress, number)
    assert a.original(commit(a, progress)) == file.data
    assert check(b) == []


def test_of_two_commits_at_once_one_succeeds_and_the_other_finds_it(
    start: Callable[[str], Workplace], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = start("a"), start("b")
    file = file_of(1)
    progress = announce(a, file)
    send(a, file, progress)
    join = a.store.join
    others: list[Checkpoint] = []

    def join_after_the_other(name: str, stretches: Sequence[Stretch]) -> int:
        others.append(commit(b, progress, "key"))
        return join(name, stretches)

    monkeypatch.setattr(a.store, "join", join_after_the_other)
    assert a.ingest.negotiated.commit(MODEL, progress.upload.id, Fields(idempotency_key="key")) == (others[0], True)
    assert a.original(others[0]) == file.data
    assert check(a) == []


def test_the_later_of_two_commits_with_keys_of_their_own_is_gone(
    start: Callable[[str], Workplace], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = start("a"), start("b")
    file = file_of(1)
    progress = announce(a, file)
    send(a, file, progress)
    join = a.store.join

    def join_before_the_other(name: str, stretches: Sequence[Stretch]) -> int:
        size = join(name, stretches)
        commit(b, progress, "other")
        return size

    with monkeypatch.context() as patch:
        patch.setattr(a.store, "join", join_before_the_other)
        with pytest.raises(Gone):
            commit(a, progress, "own")
    again = announce(a, file)
    assert again.missing == (range(1),)
    send(a, file, again)
    assert commit(a, again, "own").version == 2
    assert check(b) == []


def test_any_server_gives_an_upload_up_and_what_comes_too_late_goes(start: Callable[[str], Workplace]) -> None:
    a, b = start("a"), start("b")
    file = file_of(1)
    progress = announce(a, file)
    send(a, file, progress)
    b.ingest.negotiated.abandon(MODEL, progress.upload.id)
    assert objects(a, progress) == []
    with pytest.raises(Gone):
        send_run(a, file, progress, 1)
    assert len(objects(a, progress)) == 1  # the part was stored, and could not be noted
    assert check(a) == []
    long_ago(a, progress)
    assert sweep_now(b).packs == 1
    assert objects(a, progress) == []
    assert a.pack_rows() == {}


def test_any_sweep_removes_what_has_expired_and_leaves_what_has_not(start: Callable[[str], Workplace]) -> None:
    a, b = start("a"), start("b")
    file, other = file_of(1), file_of(2)
    over, running = announce(a, file), announce(a, other)
    send(a, file, over)
    send(a, other, running)
    long_ago(a, over)
    swept = sweep_now(b)
    assert swept.partial_uploads == 1
    assert swept.freed_bytes >= len(file.blocks[1])
    assert objects(a, over) == []
    with pytest.raises(Gone):
        a.ingest.negotiated.find(MODEL, over.upload.id)
    assert a.original(commit(b, running)) == other.data


def test_an_upload_that_is_announced_again_before_it_is_swept_goes_on(start: Callable[[str], Workplace]) -> None:
    place = start("a")
    file = file_of(1, 2)
    progress = announce(place, file)
    send_run(place, file, progress, 0, 1)
    long_ago(place, progress)
    again = announce(place, file)
    assert again.upload.id == progress.upload.id
    assert sweep_now(place).partial_uploads == 0
    send(place, file, again)
    assert place.original(commit(place, again)) == file.data


def test_a_start_leaves_uploads_alone_that_are_not_over(start: Callable[[str], Workplace]) -> None:
    place = start("a")
    file = file_of(1, 2)
    progress = announce(place, file)
    send(place, file, progress)
    recover(place.catalog, place.store, moment_now(), alone=True)
    assert announce(place, file).missing == ()
    assert place.original(commit(place, progress)) == file.data


def gone(path: Path) -> None:
    path.unlink()


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("lose", [gone, shortened])
def test_parts_that_were_noted_and_are_not_there_are_asked_for_again(
    start: Callable[[str], Workplace], lose: Callable[[Path], None]
) -> None:
    place = start("a")
    file = file_of(1, 2)
    progress = announce(place, file)
    for number in range(3):
        send_run(place, file, progress, number)
    lose(next(path for path in objects(place, progress) if path.name == "1-2"))
    with pytest.raises(MissingBlobs) as lost:
        commit(place, progress)
    assert len(lost.value.digests) == 1
    again = announce(place, file)
    assert again.missing == (range(1, 2),)
    send(place, file, again)
    assert place.original(commit(place, again)) == file.data
    assert check(place) == []


def test_a_store_that_was_emptied_is_filled_again(start: Callable[[str], Workplace]) -> None:
    place = start("a")
    file = file_of(1, 2)
    progress = announce(place, file)
    send(place, file, progress)
    for path in objects(place, progress):
        path.unlink()
    again = announce(place, file)
    assert again.nbytes == progress.nbytes
    send(place, file, again)
    assert place.original(commit(place, again)) == file.data


def test_a_flipped_bit_in_the_frame_is_found_at_the_commit(start: Callable[[str], Workplace]) -> None:
    place = start("a")
    file = file_of(1, 2)
    progress = announce(place, file)
    for number in range(3):
        send_run(place, file, progress, number)
    frame = objects(place, progress)[0]
    data = bytearray(frame.read_bytes())
    data[len(data) // 2] ^= 1
    frame.write_bytes(data)
    with pytest.raises(MissingBlobs, match="block 0 was damaged"):
        commit(place, progress)
    again = announce(place, file)
    assert again.missing == (range(1),)
    send(place, file, again)
    assert place.original(commit(place, again)) == file.data


def test_a_block_that_does_not_match_is_not_stored(start: Callable[[str], Workplace]) -> None:
    place = start("a")
    file = file_of(1)
    progress = announce(place, file)
    wrong = b"x" * len(file.blocks[1])
    with pytest.raises(InvalidRequest, match="block 1 does not match"):
        asyncio.run(place.ingest.negotiated.receive(progress.upload, range(1, 2), Chunks(chunked(wrong))))
    assert objects(place, progress) == []
    send(place, file, progress)
    assert object_name(range(2)) in {path.name for path in objects(place, progress)}


def test_a_commit_of_bytes_that_are_all_stored_keeps_no_object(start: Callable[[str], Workplace]) -> None:
    a, b = start("a"), start("b")
    file = file_of(1)
    progress = announce(a, file)
    send(a, file, progress)
    commit(a, progress)
    again = announce(b, file)
    send(b, file, again)
    assert commit(b, again).new_bytes == 0
    assert objects(a, again) == []
    assert check(a) == []


def test_who_announces_again_while_the_upload_is_committed_takes_nothing_away(
    start: Callable[[str], Workplace], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = start("a"), start("b")
    file = file_of(1)
    progress = announce(a, file)
    send(a, file, progress)
    made: list[Checkpoint] = []

    def commit_and_refuse(nbytes: int) -> None:
        made.append(commit(b, progress))
        raise StorageFull("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(a.store.room, "check", commit_and_refuse)
        with pytest.raises(StorageFull):
            announce(a, file)
    assert b.original(made[0]) == file.data
    assert check(a) == []


def test_an_upload_whose_pack_was_given_up_begins_anew(start: Callable[[str], Workplace]) -> None:
    a, b = start("a"), start("b")
    file = file_of(1, 2)
    progress = announce(a, file)
    send_run(a, file, progress, 0, 1)
    long_ago(a, progress)
    with b.catalog.write() as w:
        assert packs.give_up(w, moment_now().before, [progress.upload.id]) == (progress.upload.id,)
    with pytest.raises(Gone):
        send_run(a, file, progress, 2)
    again = announce(a, file)
    assert again.upload.id != progress.upload.id
    recover(b.catalog, b.store, moment_now(), alone=False)
    send(a, file, again)
    assert a.original(commit(b, again)) == file.data
    assert check(a) == []


def test_a_commit_whose_outcome_is_unknown_is_not_taken_for_a_failed_one(
    start: Callable[[str], Workplace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the connection to the database is lost after COMMIT was sent."""
    place = start("a")
    data = file_of(1).data
    is_sealed = packs.is_sealed

    def not_yet(s: ReadSession, name: str) -> bool:
        monkeypatch.undo()
        assert is_sealed(s, name)
        return False

    def commit_and_lose_the_answer(*args: object, **kwargs: object) -> Checkpoint:
        catalog_commit.commit(*args, **kwargs)  # type: ignore[arg-type]
        monkeypatch.setattr(packs, "is_sealed", not_yet)
        raise StoreError("the connection was lost")

    monkeypatch.setattr("app.ingest.commit.commit", commit_and_lose_the_answer)
    with pytest.raises(StoreError):
        place.upload(data)
    with place.catalog.read() as s:
        checkpoint = checkpoints.resolve(s, MODEL, "latest", None)
    assert place.original(checkpoint) == data
    assert check(place) == []


def test_a_part_that_comes_after_its_bytes_were_not_needed_is_swept(
    start: Callable[[str], Workplace], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = start("a")
    file = file_of(1)
    progress = announce(place, file)
    send(place, file, progress)
    join = place.store.join

    def after_somebody_else_stored_the_same(name: str, stretches: Sequence[Stretch]) -> int:
        place.upload(file.data)
        place.upload(file.data)
        return join(name, stretches)

    monkeypatch.setattr(place.store, "join", after_somebody_else_stored_the_same)
    commit(place, progress)
    monkeypatch.undo()
    place.store.put(progress.upload.id, "1-2", file.blocks[1])
    assert check(place) == []
    with place.catalog.write() as w:
        then = to_microseconds(datetime.now(UTC) - timedelta(hours=2))
        w.execute(update(packs_table).where(packs_table.c.state == "writing").values(lease_until=then))
    sweep_now(place)
    assert objects(place, progress) == []
    assert check(place) == []

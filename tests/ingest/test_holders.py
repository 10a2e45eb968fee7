"""Uploads in parts to several servers with one catalog, and to a data dir that contradicts the catalog."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from sqlalchemy import update

from app.catalog import Catalog, uploads
from app.catalog.rows import to_microseconds
from app.catalog.tables import uploads as uploads_table
from app.errors import Elsewhere, Gone, MissingBlobs
from app.ingest.body import Chunks
from app.ingest.negotiated import Progress
from app.upkeep.incoming import Incoming, find_orphans
from app.values.checkpoint import Fields
from tests.ingest.in_parts import announce, commit, file_of, send
from tests.ingest.workplace import MODEL, Workplace, torch_file
from tests.support.negotiating import InParts
from tests.upkeep.sweeping import check, moment_now


@pytest.fixture
def catalog_url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'catalog.sqlite3'}"
    catalog = Catalog(url)
    catalog.migrate()
    catalog.close()
    return url


@pytest.fixture
def start(tmp_path: Path, catalog_url: str) -> Iterator[Callable[..., Workplace]]:
    """Starts a server on the data dir ``folder``, called ``holder``; all share a catalog and a store."""
    started: list[Workplace] = []

    def start(folder: str, holder: str | None = None) -> Workplace:
        where = {"holder": holder or folder, "store": tmp_path / "store"}
        started.append(Workplace.of(tmp_path / folder, Catalog(catalog_url), **where))
        return started[-1]

    yield start
    for place in started:
        place.close()


def partial(place: Workplace) -> list[str]:
    return sorted(path.name for path in (place.folder / "partial").iterdir())


def clear(place: Workplace, holder: str) -> int:
    incoming = Incoming(place.folder / "spool", place.folder / "partial", holder)
    return len(find_orphans(place.catalog, incoming, moment_now(), remove=True).partial)


def expire(place: Workplace, progress: Progress) -> None:
    long_ago = to_microseconds(datetime.now(UTC) - timedelta(hours=2))
    with place.catalog.write() as w:
        this = update(uploads_table).where(uploads_table.c.id == progress.upload.id)
        w.execute(this.values(kept_until=long_ago))


def test_what_is_announced_to_two_servers_is_two_uploads_and_neither_counts_the_others_parts(
    start: Callable[..., Workplace],
) -> None:
    a, b = start("a"), start("b")
    file = file_of(1, 2)
    at_a, at_b = announce(a, file), announce(b, file)
    assert at_a.upload.id != at_b.upload.id
    send(a, file, Progress(at_a.upload, (range(1),)))
    assert announce(b, file).missing == at_b.missing
    for upload in (at_a.upload, at_b.upload):
        other = b if upload is at_a.upload else a
        with pytest.raises(Elsewhere):
            other.ingest.negotiated.find(MODEL, upload.id)
        with pytest.raises(Elsewhere):
            other.ingest.negotiated.progress(MODEL, upload.id)
        with pytest.raises(Elsewhere):
            other.ingest.negotiated.commit(MODEL, upload.id, Fields())
    send(b, file, announce(b, file))
    with pytest.raises(MissingBlobs):
        commit(a, at_a)
    assert b.original(commit(b, at_b)) == file.data
    assert check(b) == []


def test_a_commit_takes_away_what_other_servers_have_of_the_same(start: Callable[..., Workplace]) -> None:
    a, b = start("a"), start("b")
    file = file_of(1)
    at_b = announce(b, file)
    send(b, file, at_b)
    at_a = announce(a, file)
    send(a, file, at_a)
    commit(a, at_a)
    with pytest.raises(Gone):
        b.ingest.negotiated.find(MODEL, at_b.upload.id)
    assert partial(b) == [at_b.upload.id]  # no server touches another's files
    assert clear(b, "b") == 1
    assert partial(b) == []


def test_a_commit_that_another_server_has_done_is_answered_by_any(start: Callable[..., Workplace]) -> None:
    a, b = start("a"), start("b")
    file = file_of(1)
    progress = announce(a, file)
    send(a, file, progress)
    first = commit(a, progress, "key")
    assert b.ingest.negotiated.commit(MODEL, progress.upload.id, Fields(idempotency_key="key")) == (first, True)


def test_any_server_gives_an_upload_up_and_its_holder_removes_the_file(start: Callable[..., Workplace]) -> None:
    a, b = start("a"), start("b")
    progress = announce(a, file_of(1))
    b.ingest.negotiated.abandon(MODEL, progress.upload.id)
    with pytest.raises(Gone):
        a.ingest.negotiated.progress(MODEL, progress.upload.id)
    assert (clear(b, "b"), partial(a)) == (0, [progress.upload.id])
    assert (clear(a, "a"), partial(a)) == (1, [])


def test_a_sweep_elsewhere_forgets_what_has_expired_and_leaves_what_has_not(start: Callable[..., Workplace]) -> None:
    a, b = start("a"), start("b")
    file = file_of(1)
    over, running = announce(a, file), announce(a, file_of(2))
    expire(a, over)
    assert clear(b, "b") == 1
    assert partial(a) == sorted((over.upload.id, running.upload.id))
    with a.catalog.read() as s:
        assert uploads.held(s, "a", partial(a)) == {running.upload.id}  # so it is, if ``a`` never comes back
    assert clear(a, "a") == 1
    assert partial(a) == [running.upload.id]
    send(a, file, announce(a, file))


def test_a_file_that_is_being_committed_is_not_taken_for_a_left_over_one(start: Callable[..., Workplace]) -> None:
    a, b = start("a"), start("b")
    file = file_of(1)
    progress = announce(a, file)
    send(a, file, progress)
    with a.ingest.negotiated._partials.opened(progress.upload.id) as held, held.held(len(file.data)):
        b.ingest.negotiated.abandon(MODEL, progress.upload.id)
        assert clear(a, "a") == 0
        assert partial(a) == [progress.upload.id]
    assert clear(a, "a") == 1


def test_servers_on_copies_of_one_data_dir_acknowledge_nothing_that_is_not_there(
    start: Callable[..., Workplace],
) -> None:
    a = start("a", "same")
    file = file_of(1, 2, 3)
    progress = announce(a, file)
    send(a, file, Progress(progress.upload, (range(2),)))
    shutil.copytree(a.folder, a.folder.parent / "copy")
    copy = start("copy", "same")
    send(copy, file, Progress(progress.upload, (range(2, 4),)))
    assert copy.ingest.negotiated.progress(MODEL, progress.upload.id).missing == ()
    with pytest.raises(MissingBlobs) as lost:
        commit(a, progress)
    assert len(lost.value.digests) == 2
    send(a, file, a.ingest.negotiated.progress(MODEL, progress.upload.id))
    assert a.original(commit(a, progress)) == file.data
    assert check(a) == []


def recreated(path: Path) -> None:
    """By hand, without a byte in it."""
    size = path.stat().st_size
    path.unlink()
    path.touch()
    os.truncate(path, size)


def emptied(path: Path) -> None:
    """The very file, of which the bytes of a storage were lost."""
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(len(data) // 2)
        file.truncate(len(data))


def zeroed(path: Path) -> None:
    """Without a hole, as by a copy that is not sparse."""
    path.write_bytes(bytes(path.stat().st_size))


def shortened(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("restart", [False, True], ids=["while-it-runs", "between-two-runs"])
@pytest.mark.parametrize("lose", [recreated, emptied, zeroed, shortened])
def test_parts_that_were_noted_and_are_not_there_are_asked_for_again(
    start: Callable[..., Workplace], lose: Callable[[Path], None], restart: bool
) -> None:
    place = start("a")
    file = file_of(1, 2)
    progress = announce(place, file)
    send(place, file, progress)
    lose(place.folder / "partial" / progress.upload.id)
    if restart:
        place = start("a")
    assert announce(place, file).missing == ()
    with pytest.raises(MissingBlobs):
        commit(place, progress)
    again = announce(place, file)
    assert again.missing
    send(place, file, again)
    assert place.original(commit(place, again)) == file.data
    assert check(place) == []


def test_a_flipped_bit_of_an_earlier_run_is_found_at_the_commit(start: Callable[..., Workplace]) -> None:
    place = start("a")
    file = file_of(1, 2)
    progress = announce(place, file)
    send(place, file, Progress(progress.upload, tuple(range(number, number + 1) for number in range(3))))
    with (place.folder / "partial" / progress.upload.id).open("r+b") as partial_file:
        partial_file.seek(file.storages[1][0] + 1000)
        partial_file.write(b"\xff\xfe\xfd")
    place = start("a")
    with pytest.raises(MissingBlobs) as lost:
        commit(place, progress)
    assert len(lost.value.digests) == 1
    send(place, file, announce(place, file))
    assert place.original(commit(place, progress)) == file.data


def test_what_an_earlier_run_took_in_is_not_sent_again(start: Callable[..., Workplace]) -> None:
    place = start("a")
    file = file_of(1, 2)
    progress = announce(place, file)
    send(place, file, progress)
    place = start("a")
    assert announce(place, file).missing == ()
    assert place.original(commit(place, progress)) == file.data


def test_a_hole_where_there_should_be_zeros_is_no_loss(start: Callable[..., Workplace]) -> None:
    """Some file systems make holes of zeros, and so do copies."""
    place = start("a")
    file = InParts(torch_file({"epoch": 1, "zeros": torch.zeros(500_000), "ones": torch.ones(500_000)}))
    progress = announce(place, file)
    send(place, file, progress)
    path = place.folder / "partial" / progress.upload.id
    data = path.read_bytes()
    spans = [span for span, block in zip(file.storages, file.blocks[1:], strict=True) if not any(block)]
    with path.open("r+b") as same_file:
        same_file.truncate(spans[0][0])
        same_file.truncate(len(data))
        same_file.seek(spans[0][1])
        same_file.write(data[spans[0][1] :])
    assert place.original(commit(place, progress)) == file.data


def test_a_part_that_is_written_to_a_file_that_has_gone_is_not_taken_for_the_new_ones(
    start: Callable[..., Workplace],
) -> None:
    place = start("a")
    file = file_of(1, 2)
    progress = announce(place, file)
    negotiated = place.ingest.negotiated

    async def half_then_the_rest() -> AsyncIterator[bytes]:
        data = file.blocks[1]
        yield data[: len(data) // 2]
        (place.folder / "partial" / progress.upload.id).unlink()
        await asyncio.to_thread(announce, place, file)
        yield data[len(data) // 2 :]

    async def receive() -> None:
        await negotiated.receive(progress.upload, range(1, 2), Chunks(half_then_the_rest()))

    asyncio.run(receive())
    send(place, file, Progress(progress.upload, (range(1), range(2, 3))))
    with pytest.raises(MissingBlobs) as lost:
        commit(place, progress)
    assert len(lost.value.digests) == 1
    send(place, file, announce(place, file))
    assert place.original(commit(place, progress)) == file.data

"""Uploads in parts, at the moments at which something goes wrong."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from app.catalog import checkpoints, uploads
from app.catalog.rows import to_microseconds
from app.catalog.tables import uploads as uploads_table
from app.errors import Conflict, Gone, MissingBlobs, StateroomError
from app.ingest.negotiated import Progress
from app.values.checkpoint import Checkpoint
from app.values.digest import Digest
from app.values.span import Span
from tests.ingest.in_parts import announce, commit, file_of, send
from tests.ingest.workplace import MODEL, Workplace, torch_file, weights
from tests.support.negotiating import InParts
from tests.upkeep.sweeping import check, delete, foresee_now, sweep_now


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    place = Workplace.at(tmp_path / "data", tmp_path / "catalog.sqlite3")
    yield place
    place.close()


def test_a_blob_that_was_promised_and_is_collected_before_the_commit_is_asked_for(place: Workplace) -> None:
    place.upload(file_of(1).data)
    file = file_of(1, 2)
    progress = announce(place, file)
    assert [run.start for run in progress.missing] == [0, 2]
    send(place, file, progress)
    delete(place, 1)
    sweep_now(place)
    with pytest.raises(MissingBlobs) as gone:
        commit(place, progress)
    assert len(gone.value.digests) == 1
    assert len(place.pack_rows()) == 0
    again = announce(place, file)
    assert again.upload.id == progress.upload.id
    assert [tuple(run) for run in again.missing] == [(1,)]
    send(place, file, again)
    assert place.original(commit(place, again)) == file.data
    assert check(place) == []


def test_one_that_is_collected_while_the_commit_is_on_its_way_is_asked_for_too(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.upload(file_of(1).data)
    file = file_of(1, 2)
    progress = announce(place, file)
    send(place, file, progress)
    adopt = place.store.adopt

    def collect_and_adopt(name: str, file: Path) -> None:
        delete(place, 1)
        sweep_now(place)
        adopt(name, file)

    monkeypatch.setattr(place.store, "adopt", collect_and_adopt)
    with pytest.raises(MissingBlobs):
        commit(place, progress)
    monkeypatch.undo()
    send(place, file, announce(place, file))
    assert place.original(commit(place, progress)) == file.data
    assert check(place) == []


def test_a_commit_that_breaks_off_after_its_pack_was_made_is_made_good_by_the_next(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = file_of(1)
    progress = announce(place, file)
    send(place, file, progress)
    with monkeypatch.context() as patch:
        patch.setattr(place.store, "delete", lambda _: 0)  # as in a crash, nobody cleans up
        patch.setattr("app.ingest.commit.commit", crash)
        with pytest.raises(OperationalError):
            commit(place, progress)
    pack = next(path for path in place.files() if path.startswith("packs"))
    before = (place.folder / pack).read_bytes()
    checkpoint = commit(place, progress)
    assert (place.folder / pack).read_bytes() == before  # what was made once is never written to again
    assert place.original(checkpoint) == file.data
    assert [path for path in place.files() if path.startswith("partial")] == []


def crash(*_: object, **__: object) -> None:
    raise OperationalError("", {}, Exception("the power is gone"))


def test_whoever_comes_too_late_with_a_part_harms_nothing(place: Workplace) -> None:
    file = file_of(1)
    progress = announce(place, file)
    send(place, file, progress)
    late = place.ingest.negotiated._partials.open(progress.upload.id)
    checkpoint = commit(place, progress)
    with pytest.raises(Gone), late.held(progress.upload.split.size):
        pass
    late.write([Span(*file.storages[0])], file.blocks[1])
    late.close()
    with pytest.raises(Gone):
        send(place, file, Progress(progress.upload, (range(1, 2),)))
    assert place.original(checkpoint) == file.data
    assert check(place) == []


def test_two_commits_at_once_are_one_after_the_other(place: Workplace) -> None:
    file = file_of(1)
    progress = announce(place, file)
    send(place, file, progress)
    with place.ingest.negotiated._partials.opened(progress.upload.id) as other, other.held(len(file.data)):
        with pytest.raises(Conflict) as busy:
            commit(place, progress)
        assert busy.value.code == "commit-in-progress"
    commit(place, progress)


def test_two_clients_with_the_same_bytes_make_two_checkpoints_and_store_them_once(place: Workplace) -> None:
    file = file_of(1)
    one = announce(place, file)
    other = announce(place, file)
    assert one.upload.id == other.upload.id
    send(place, file, one)
    first = commit(place, one, "one")
    with pytest.raises(Gone):
        commit(place, other, "other")
    again = announce(place, file)
    assert [tuple(run) for run in again.missing] == [(0,)]
    send(place, file, again)
    second = commit(place, again, "other")
    assert (first.version, second.version, second.new_bytes) == (1, 2, 0)
    assert commit(place, again, "other") == second


def test_one_that_is_committed_while_the_same_is_announced_begins_anew(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = file_of(1)
    one = announce(place, file)
    send(place, file, one)
    holds = place.ingest.negotiated._partials.holds

    def commit_and_look(name: str) -> bool:
        monkeypatch.undo()
        commit(place, one)
        return holds(name)

    monkeypatch.setattr(place.ingest.negotiated._partials, "holds", commit_and_look)
    other = announce(place, file)
    assert other.upload.id != one.upload.id
    assert [tuple(run) for run in other.missing] == [(0,)]
    send(place, file, other)
    assert commit(place, other).version == 2
    assert check(place) == []


def test_a_file_that_was_lost_is_asked_for_anew(place: Workplace) -> None:
    file = file_of(1)
    progress = announce(place, file)
    send(place, file, progress)
    (place.folder / "partial" / progress.upload.id).unlink()
    with pytest.raises(Gone):
        commit(place, progress)
    again = announce(place, file)
    assert again.upload.id == progress.upload.id
    assert again.nbytes == progress.nbytes
    send(place, file, again)
    assert place.original(commit(place, again)) == file.data


def test_one_that_nobody_goes_on_with_goes_by_itself(place: Workplace) -> None:
    file, kept = file_of(1), file_of(2)
    progress = announce(place, file)
    send(place, file, progress)
    send(place, kept, announce(place, kept))
    assert sweep_now(place).partial_uploads == 0
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    with place.catalog.write() as w:
        this = update(uploads_table).where(uploads_table.c.id == progress.upload.id)
        w.execute(this.values(kept_until=to_microseconds(long_ago)))
    assert foresee_now(place).partial_uploads == 1
    swept = sweep_now(place)
    assert swept.partial_uploads == 1
    assert swept.freed_bytes >= len(file.blocks[1])
    assert len(list((place.folder / "partial").iterdir())) == 1
    with pytest.raises(Gone):
        place.ingest.negotiated.find(MODEL, progress.upload.id)
    commit(place, announce(place, kept))


def test_a_file_whose_upload_is_forgotten_goes(place: Workplace) -> None:
    progress = announce(place, file_of(1))
    with place.catalog.write() as w:
        uploads.forget(w, progress.upload.id)
    assert sweep_now(place).partial_uploads == 1
    assert list((place.folder / "partial").iterdir()) == []


def test_a_damaged_pack_is_never_the_source_of_a_number(place: Workplace) -> None:
    losses = weights(3, 0.5)
    first = place.upload(torch_file({"epoch": 1, "loss": losses[7], "w": weights(4)}))
    blob = next(each for each in place.blobs(_digests(place, first)).values() if each.length == 4 * len(losses))
    with (place.folder / next(path for path in place.files() if blob.pack in path)).open("r+b") as pack:
        pack.seek(blob.offset)
        pack.write(b"\xff" * 64)
    file = InParts(torch_file({"epoch": 2, "loss": losses[9], "w": weights(4)}))
    progress = announce(place, file)
    send(place, file, progress)
    with pytest.raises(StateroomError, match="no longer matches its digest"):
        commit(place, progress)
    with place.catalog.read() as s:
        assert checkpoints.resolve(s, MODEL, "latest", None).version == 1


def _digests(place: Workplace, checkpoint: Checkpoint) -> list[Digest]:
    return [each.digest for each in place.manifest(checkpoint).storages if each.digest is not None]

"""Uploads in parts, at the moments at which something goes wrong."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from app.catalog import checkpoints, uploads
from app.errors import Gone, MissingBlobs, StateroomError
from app.store.pack_list import Stretch
from app.values.checkpoint import Checkpoint, ModelName
from app.values.digest import Digest
from tests.ingest.in_parts import announce, commit, file_of, send
from tests.ingest.workplace import MODEL, Workplace, torch_file, weights
from tests.support.negotiating import InParts
from tests.upkeep.sweeping import check, delete, sweep_now


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
    assert list(place.pack_rows().values()) == ["writing"]
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
    join = place.store.join

    def collect_and_join(name: str, stretches: Sequence[Stretch]) -> int:
        delete(place, 1)
        sweep_now(place)
        return join(name, stretches)

    monkeypatch.setattr(place.store, "join", collect_and_join)
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
    made = {path: (place.folder / path).read_bytes() for path in place.files()}
    checkpoint = commit(place, progress)
    assert made == {path: (place.folder / path).read_bytes() for path in made}  # nothing is written to again
    assert place.original(checkpoint) == file.data


def crash(*_: object, **__: object) -> None:
    raise OperationalError("", {}, Exception("the power is gone"))


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
    check_parts = place.ingest.negotiated._check_parts

    def commit_and_check(model: ModelName, upload_id: str) -> list[uploads.Part]:
        monkeypatch.undo()
        commit(place, one)
        return check_parts(model, upload_id)

    monkeypatch.setattr(place.ingest.negotiated, "_check_parts", commit_and_check)
    other = announce(place, file)
    assert other.upload.id != one.upload.id
    assert [tuple(run) for run in other.missing] == [(0,)]
    send(place, file, other)
    assert commit(place, other).version == 2
    assert check(place) == []


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

"""Backups: whole, consistent beside all that goes on, restored into either database."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import select

from app.catalog import Catalog, aliases, events, leases, tokens
from app.catalog.checkpoints import resolve
from app.catalog.dialect import migrating_engine, parse_url
from app.catalog.migrate import REVISION, config_for
from app.catalog.tables import metadata
from app.errors import Conflict, EventsExpired, NotFound, StateroomError, StoreError
from app.store import LocalPackStore
from app.store.files import Buffer
from app.upkeep.backup import Progress, make_backup
from app.upkeep.backup_folder import Backup, BackupFolder, file_digest
from app.upkeep.restore import Restored, restore
from app.values.event import EventFilter
from app.values.span import Span
from app.values.token import Scope, new_token
from tests.catalog.make import NOW
from tests.ingest.in_parts import announce, commit, file_of, send
from tests.ingest.workplace import MODEL, Workplace, torch_file, weights
from tests.upkeep.backing_up import FILES, back_up, flip, upload_all
from tests.upkeep.sweeping import check, delete, sweep_now


@pytest.fixture
def folder(tmp_path: Path) -> BackupFolder:
    return BackupFolder(tmp_path / "backups", durable=False)


@dataclass(frozen=True, slots=True)
class Targets:
    """Makes empty databases and stores, for restores."""

    folder: Path
    migrated: Path
    stack: ExitStack
    request: pytest.FixtureRequest

    def new(self, database: str = "sqlite", *, migrated: bool = True) -> Workplace:
        """Open an empty place. It takes a moment to migrate a database."""
        name = f"target-{len(list(self.folder.glob('target-*')))}"
        (self.folder / name).mkdir()
        if database == "sqlite":
            file = self.folder / name / "catalog.sqlite3"
            if migrated:
                shutil.copy(self.migrated, file)
            url = f"sqlite:///{file}"
        else:
            url = self.stack.enter_context(self.request.getfixturevalue("postgres").borrowed())
        place = Workplace.of(self.folder / name, Catalog(url, durable=False), durable=False)
        self.stack.callback(place.close)
        return place


@pytest.fixture
def targets(tmp_path: Path, migrated: Path, request: pytest.FixtureRequest) -> Iterator[Targets]:
    with ExitStack() as stack:
        yield Targets(tmp_path, migrated, stack, request)


def restore_into(target: Workplace, folder: BackupFolder, backup_id: str | None = None) -> Restored:
    return restore(folder, backup_id, target.catalog, target.store, target.folder / "spare", Progress())


def rows(catalog: Catalog) -> dict[str, list[str]]:
    """All rows, but for leases and for the event of a restore."""
    with catalog.read() as s:
        found = {
            table.name: sorted(json.dumps(dict(row._mapping), default=bytes.hex) for row in s.select(select(table)))
            for table in metadata.sorted_tables
            if table is not metadata.tables["leases"]
        }
    found["events"] = [row for row in found["events"] if "backup-restored" not in row]
    return found


@pytest.mark.parametrize("into", ["sqlite", "postgresql"])
def test_everything_is_restored_into_either_database(
    place: Workplace, folder: BackupFolder, targets: Targets, into: str
) -> None:
    upload_all(place)
    in_parts = file_of(10, 11)
    progress = announce(place, in_parts)
    send(place, in_parts, progress)
    fourth = commit(place, progress)
    with place.catalog.write() as w:
        aliases.move(w, MODEL, "prod", 2, "as it is: ü ☃", None)
        tokens.add(w, new_token("trainer", Scope.READ, None, NOW, None)[0])
    delete(place, 1)
    made = back_up(place, folder)
    assert (made.backup.models, made.backup.checkpoints, made.backup.packs) == (1, 3, 4)
    assert made.backup.problems == {}

    target = targets.new(into)
    assert restore_into(target, folder).problems == {}
    assert rows(target.catalog) == rows(place.catalog)
    assert check(target) == []
    with target.catalog.read() as s:
        assert target.original(resolve(s, MODEL, "2")) == FILES[2]
        assert target.original(resolve(s, MODEL, str(fourth.version))) == in_parts.data
    assert target.upload(torch_file({"w": weights(9, 0.1)})).version == 5
    assert check(target) == []


def test_ids_are_not_given_twice(place: Workplace, folder: BackupFolder, targets: Targets) -> None:
    upload_all(place)
    delete(place, 1, 2, 3)
    sweep_now(place)
    back_up(place, folder)
    for database in ("sqlite", "postgresql"):
        target = targets.new(database)
        restore_into(target, folder)
        assert target.upload(FILES[1]).id > 3


def test_the_next_backup_copies_only_what_is_new_and_drops_what_no_backup_needs(
    place: Workplace, folder: BackupFolder, targets: Targets
) -> None:
    upload_all(place)
    first = back_up(place, folder)
    assert first.backup.new_packs == first.backup.packs == 3
    delete(place, 1)
    sweep_now(place)
    place.upload(torch_file({"w": weights(4, 0.3)}))
    second = back_up(place, folder, keep=2)
    assert (second.backup.new_packs, second.backup.packs, second.removed_packs) == (1, 3, 0)
    restored = targets.new()
    restore_into(restored, folder, first.backup.id)
    assert rows(restored.catalog)["checkpoints"] != rows(place.catalog)["checkpoints"]
    assert check(restored) == []
    third = back_up(place, folder, keep=1)
    assert (third.backup.new_packs, third.removed_backups, third.removed_packs) == (0, 2, 1)
    assert [each.id for each in folder.all()] == [third.backup.id]
    assert {each.name for each in LocalPackStore(folder.root, durable=False).walk()} == {*place.pack_rows()}
    restored = targets.new()
    restore_into(restored, folder)
    assert rows(restored.catalog) == rows(place.catalog)
    assert check(restored) == []


def test_nothing_that_was_there_when_a_backup_began_is_swept_before_it_ends(
    place: Workplace, folder: BackupFolder, targets: Targets
) -> None:
    upload_all(place)
    before = rows(place.catalog)

    def meanwhile(*_: int) -> None:
        delete(place, 1, 2, 3)
        swept = sweep_now(place)
        assert (swept.packs, swept.waits_for_backup) == (0, True)
        place.upload(torch_file({"w": weights(4, 0.3)}))

    made = back_up(place, folder, progress=Progress(plan=meanwhile))
    assert made.backup.problems == {}
    target = targets.new()
    restore_into(target, folder)
    assert rows(target.catalog) == before
    assert check(target) == []
    swept = sweep_now(place)
    assert (swept.packs, swept.waits_for_backup) == (3, False)
    assert check(place) == []


def test_compaction_waits_for_a_backup(place: Workplace, folder: BackupFolder) -> None:
    place.upload(torch_file({"a": weights(1, 3), "b": weights(2, 1)}))
    place.upload(torch_file({"b": weights(2, 1)}))
    delete(place, 1)

    def meanwhile(*_: int) -> None:
        sweep_now(place)
        assert sweep_now(place).compacted_packs == 0

    back_up(place, folder, progress=Progress(plan=meanwhile))
    sweep_now(place)
    assert check(place) == []


def test_a_lease_that_is_over_holds_nothing_and_is_taken_over(place: Workplace, folder: BackupFolder) -> None:
    upload_all(place)
    with place.catalog.write() as w:
        leases.take(w, leases.BACKUP + "of-one-that-was-killed", "x", -1)
    delete(place, 1, 2, 3)
    assert sweep_now(place).packs == 3
    back_up(place, folder)
    with place.catalog.read() as s:
        assert not leases.is_backup_running(s)


class _Failed(Exception):
    pass


class Breaking(LocalPackStore):
    """A store that breaks off after some reads, as if the process was killed."""

    left = 0

    def read(self, name: str, span: Span, *, ahead: bool = False) -> memoryview:
        self.left -= 1
        if self.left < 0:
            raise _Failed
        return super().read(name, span, ahead=ahead)


def test_an_interrupted_backup_never_counts_and_the_one_before_stays_whole(
    place: Workplace, folder: BackupFolder, targets: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.upkeep.checked_copy.SIDE_BY_SIDE", 1)
    upload_all(place)
    first = back_up(place, folder).backup
    before = rows(place.catalog)
    for seed in (4, 5, 6):
        place.upload(torch_file({"w": weights(seed, 0.3)}))
    delete(place, 1)
    sweep_now(place)
    for left in (0, 1, 1):
        store = Breaking(place.folder, durable=False)
        store.left = left
        with pytest.raises(_Failed):
            make_backup(place.catalog, store, folder, 1, Progress())
        assert [each.id for each in folder.all()] == [first.id]
    target = targets.new()
    restore_into(target, folder)
    assert rows(target.catalog) == before
    second = back_up(place, folder)
    assert second.backup.new_packs == 1  # the others were copied before it broke off
    assert folder.unfinished() == []
    assert [each.id for each in folder.all()] == [second.backup.id]


def test_a_damaged_pack_is_kept_and_named_in_each_backup_until_it_is_healed(
    place: Workplace, folder: BackupFolder, targets: Targets
) -> None:
    upload_all(place)
    packs = [*place.pack_rows()]
    flip(place.folder, packs[0])
    next(place.folder.rglob(f"{packs[1]}.pack")).unlink()
    for _ in range(2):
        problems = back_up(place, folder).backup.problems
        assert set(problems) == {packs[0], packs[1]}
        assert problems[packs[0]] == "1 of its blobs are damaged, needed by vision/resnet@1"
        assert problems[packs[1]] == f"pack {packs[1]} does not exist, needed by vision/resnet@2"
    target = targets.new()
    assert set(restore_into(target, folder).problems) == {packs[0], packs[1]}
    assert rows(target.catalog) == rows(place.catalog)
    assert {each.kind for each in check(target)} == {"blob-damaged", "pack-missing", "checkpoint-broken"}
    flip(place.folder, packs[0])  # it was put back
    assert set(back_up(place, folder).backup.problems) == {packs[1]}


def test_a_store_that_fails_as_a_whole_ends_the_backup(place: Workplace, folder: BackupFolder) -> None:
    class Away(LocalPackStore):
        def read(self, name: str, span: Span, *, ahead: bool = False) -> memoryview:
            raise StoreError("the store does not answer")

        def ping(self) -> None:
            raise StoreError("the store does not answer")

    upload_all(place)
    with pytest.raises(StoreError, match="does not answer"):
        make_backup(place.catalog, Away(place.folder, durable=False), folder, 1, Progress())
    assert folder.all() == []


def test_one_pack_that_cannot_be_read_does_not(place: Workplace, folder: BackupFolder) -> None:
    upload_all(place)
    bad = next(iter(place.pack_rows()))

    class Failing(LocalPackStore):
        def read(self, name: str, span: Span, *, ahead: bool = False) -> memoryview:
            if name == bad:
                raise StoreError("reading failed: Input/output error")
            return super().read(name, span, ahead=ahead)

    made = make_backup(place.catalog, Failing(place.folder, durable=False), folder, 1, Progress())
    assert made.backup.problems == {bad: "reading failed: Input/output error, needed by vision/resnet@1"}


def test_a_pack_that_is_gone_from_the_catalog_too_is_no_loss_but_another_try(
    place: Workplace, folder: BackupFolder
) -> None:
    upload_all(place)

    def meanwhile(*_: int) -> None:
        with place.catalog.write() as w:  # as if its process had slept
            for name in [row for row in _lease_names(place) if row.startswith(leases.BACKUP)]:
                leases.give_back(w, name)
        delete(place, 1)
        assert sweep_now(place).packs == 1

    with pytest.raises(StoreError, match="run the backup again"):
        back_up(place, folder, progress=Progress(plan=meanwhile))
    assert folder.all() == []
    assert back_up(place, folder).backup.problems == {}


def _lease_names(place: Workplace) -> list[str]:
    with place.catalog.read() as s:
        return [row.name for row in s.select(select(metadata.tables["leases"]))]


def test_uploads_that_are_under_way_are_left_out(place: Workplace, folder: BackupFolder, targets: Targets) -> None:
    upload_all(place)
    file = file_of(10, 11)
    progress = announce(place, file)
    send(place, file, progress)
    back_up(place, folder)
    commit(place, progress)
    target = targets.new()
    assert restore_into(target, folder).packs == 3
    assert check(target) == []
    assert [len(rows(target.catalog)[name]) for name in ("uploads", "upload_parts", "packs")] == [0, 0, 3]


def test_a_restore_goes_on_where_it_was_interrupted(place: Workplace, folder: BackupFolder, targets: Targets) -> None:
    upload_all(place)
    back_up(place, folder)
    target = targets.new(migrated=False)

    class Full(LocalPackStore):
        written = 0

        def write(self, name: str, buffers: Iterator[Buffer]) -> int:
            self.written += 1
            if self.written == 2:
                raise StoreError("no room left on the device")
            return super().write(name, buffers)

    with pytest.raises(StoreError, match="no room left"):
        restore(folder, None, target.catalog, Full(target.folder, durable=False), target.folder / "x", Progress())
    assert target.catalog.revision() is None
    flip(target.folder, next(path.stem for path in target.folder.rglob("*.pack")))
    assert restore_into(target, folder).problems == {}
    assert rows(target.catalog) == rows(place.catalog)
    assert check(target) == []


def test_only_an_empty_target_is_restored_into(place: Workplace, folder: BackupFolder, targets: Targets) -> None:
    upload_all(place)
    back_up(place, folder)
    with pytest.raises(Conflict, match="the database is not empty"):
        restore_into(place, folder)
    other = targets.new(migrated=False)
    with closing(LocalPackStore(other.folder, durable=False)) as store:
        store.write("ab" * 16, [b"x"])
    with pytest.raises(Conflict, match=f"the store is not empty: it has pack {'ab' * 16}"):
        restore_into(other, folder)
    assert other.catalog.revision() is None


def test_only_a_whole_backup_of_a_known_version_is_restored(
    place: Workplace, folder: BackupFolder, targets: Targets
) -> None:
    with pytest.raises(StateroomError, match="not a folder of backups"):
        restore_into(targets.new(), folder)
    made = back_up(place, folder).backup
    target = targets.new(migrated=False)
    with pytest.raises(NotFound, match=f"no finished backup 'x'; there are: {made.id}"):
        restore_into(target, folder, "x")
    mark = folder.catalog(made.id).with_name("backup.json")
    said = json.loads(mark.read_bytes())
    mark.write_text(json.dumps({**said, "revision": "9999"}))
    with pytest.raises(StateroomError, match="newer version"):
        restore_into(target, folder)
    mark.write_text(json.dumps({**said, "format": 2}))
    with pytest.raises(StateroomError, match="newer version"):
        restore_into(target, folder)
    mark.write_text(json.dumps(said))
    with folder.catalog(made.id).open("r+b") as file:
        file.write(b"x")
    with pytest.raises(StateroomError, match="is damaged; restore another"):
        restore_into(target, folder)
    assert target.catalog.revision() is None


def test_a_folder_with_anything_else_in_it_is_refused(place: Workplace, tmp_path: Path) -> None:
    upload_all(place)
    for folder in (place.folder, tmp_path):
        with pytest.raises(StateroomError, match="neither empty nor a folder of backups"):
            back_up(place, BackupFolder(folder, durable=False))
    assert check(place) == []


def test_two_backups_into_one_folder_are_not_made_at_once(place: Workplace, folder: BackupFolder) -> None:
    def meanwhile(*_: int) -> None:
        with pytest.raises(StateroomError, match="another backup or restore is using"):
            back_up(place, folder)

    back_up(place, folder, progress=Progress(plan=meanwhile))


def test_backups_are_private(place: Workplace, folder: BackupFolder) -> None:
    upload_all(place)
    folder.root.mkdir(mode=0o755)
    back_up(place, folder)
    for path in (folder.root, *folder.root.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_everything_is_durable_before_a_backup_counts(
    place: Workplace, tmp_path: Path, synced: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_all(place)
    folder = BackupFolder(tmp_path / "backups", durable=True)
    finish = BackupFolder.finish

    def watched(self: BackupFolder, backup: Backup) -> None:
        there = {path for path in folder.root.rglob("*") if path.is_file() and path.name != "lock"}
        names = {path.with_suffix("") for path in synced}
        assert {path.with_suffix("") for path in there} <= names
        assert {path.parent for path in there if path.suffix == ".pack"} <= set(synced)
        finish(self, backup)

    monkeypatch.setattr(BackupFolder, "finish", watched)
    made = back_up(place, folder).backup
    marked = folder.catalog(made.id).parent
    assert marked in synced[[*map(str, synced)].index(str(marked / "backup.json.part")) :]


def test_readers_of_events_that_are_lost_are_told(place: Workplace, folder: BackupFolder, targets: Targets) -> None:
    upload_all(place)
    back_up(place, folder)
    with place.catalog.read() as s:
        kept = events.newest(s)
    upload_all(place)
    with place.catalog.read() as s:
        lost = events.newest(s)
    assert lost > kept
    target = targets.new()
    restore_into(target, folder)
    everything = EventFilter()

    def after(number: int) -> list[tuple[int, str]]:
        with target.catalog.read() as s:
            return [(each.id, each.kind) for each in events.list_events(s, everything, number, 100).items]

    ((number, kind),) = after(kept)
    assert (number > lost, kind) == (True, "backup-restored")
    assert after(number) == []
    for gone_by in (kept + 1, lost, number - 1):
        with pytest.raises(EventsExpired, match=f"event {gone_by} is lost") as gone:
            after(gone_by)
        assert gone.value.after == kept
    place_again = target.upload(torch_file({"w": weights(7, 0.1)}))
    assert place_again.version == 4
    assert after(kept) == [(number, "backup-restored"), (number + 1, "checkpoint-created")]
    with pytest.raises(EventsExpired):
        after(lost)
    second = BackupFolder(folder.root.with_name("second"), durable=False)
    back_up(target, second)
    again = targets.new()
    restore_into(again, second)
    with again.catalog.read() as s:
        assert events.newest(s) > number + 1


def test_a_backup_of_an_older_version_is_migrated(place: Workplace, folder: BackupFolder, targets: Targets) -> None:
    upload_all(place)
    made = back_up(place, folder).backup
    file = folder.catalog(made.id)
    engine = migrating_engine(parse_url(f"sqlite:///{file}"))
    with engine.begin() as connection:
        command.downgrade(config_for(connection), "-1")
    engine.dispose()
    size, digest = file_digest(file)
    mark = file.with_name("backup.json")
    older = {"revision": f"{int(REVISION) - 1:04}", "catalog_bytes": size, "catalog_blake3": digest}
    mark.write_text(json.dumps({**json.loads(mark.read_bytes()), **older}))
    target = targets.new("postgresql")
    restore_into(target, folder)
    assert rows(target.catalog) == rows(place.catalog)
    assert check(target) == []
    assert [path.name for path in target.folder.iterdir() if path.name.startswith("spare")] == []
    assert file_digest(file) == (size, digest)

"""Copying all packs to another store: whole, resumable, beside what goes on."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from app.errors import StoreError
from app.store import LocalPackStore
from app.store.files import Buffer
from app.store.object_store import ObjectPackStore
from app.store.pack_list import Stretch
from app.upkeep import migrate_store
from app.upkeep.fsck import Fsck
from app.upkeep.migrate_store import Copied, copy_packs
from tests.conftest import StartServer
from tests.functional.torch_files import saved
from tests.ingest.in_parts import announce, commit, file_of, send
from tests.ingest.workplace import Workplace, torch_file, weights
from tests.support.commands import run
from tests.support.s3 import S3
from tests.upkeep.sweeping import delete, sweep_now


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    """With packs that were uploaded whole and in parts."""
    with closing(Workplace.at(tmp_path / "data", tmp_path / "catalog.sqlite3")) as place:
        for seed in range(3):
            place.upload(torch_file({"epoch": seed, "w": weights(seed, 0.5)}))
        file = file_of(10, 11)
        progress = announce(place, file)
        send(place, file, progress)
        commit(place, progress)
        yield place


@pytest.fixture
def target() -> Iterator[ObjectPackStore]:
    with closing(ObjectPackStore(MemoryStore())) as target:
        yield target


def migrated(place: Workplace, target: ObjectPackStore | LocalPackStore) -> list[Copied]:
    return list(copy_packs(place.catalog, place.store, target))


def sound(place: Workplace, target: ObjectPackStore | LocalPackStore) -> bool:
    return list(Fsck(place.catalog, target, read_data=True).findings()) == []


def test_every_pack_is_copied_once_and_verified(place: Workplace, target: ObjectPackStore, tmp_path: Path) -> None:
    first = migrated(place, target)
    assert len(first) == 4
    assert all(each.nbytes and each.problem is None for each in first)
    assert sound(place, target)
    assert [each.nbytes for each in migrated(place, target)] == [0] * 4
    place.upload(torch_file({"epoch": 9, "w": weights(9, 0.5)}))
    assert sum(each.nbytes > 0 for each in migrated(place, target)) == 1
    assert sound(place, target)
    back = LocalPackStore(tmp_path / "back", durable=True)
    assert all(each.problem is None for each in copy_packs(place.catalog, target, back))
    assert sound(place, back)


def test_a_copy_that_breaks_off_leaves_nothing_half_and_goes_on(place: Workplace) -> None:
    class Failing(ObjectPackStore):
        left = 2

        def put(self, area: str, name: str, data: Buffer) -> None:
            self.left -= 1
            if self.left < 0:
                raise StoreError("the store does not answer")
            super().put(area, name, data)

    with closing(Failing(MemoryStore())) as target:
        failed = [each for each in migrated(place, target) if each.problem is not None]
        assert failed
        assert "does not answer" in str(failed[0].problem)
        assert all(pack.whole for pack in target.walk())
        target.left = 1_000
        assert all(each.problem is None for each in migrated(place, target))
        assert sound(place, target)


def test_nothing_that_the_target_has_is_deleted_whatever_fails(place: Workplace) -> None:
    class Failing(ObjectPackStore):
        fails = False

        def size(self, name: str) -> int:
            if self.fails:
                raise StoreError("the store does not answer")
            return super().size(name)

    with closing(Failing(MemoryStore())) as target:
        migrated(place, target)
        target.fails = True
        assert all(each.problem for each in migrated(place, target))
        target.fails = False
        for pack in place.folder.rglob("*.pack"):
            pack.unlink()
        assert all(each.problem is None for each in migrated(place, target))
        assert sound(place, target)


def test_a_damaged_pack_is_named_and_not_copied(place: Workplace, target: ObjectPackStore) -> None:
    pack = next(path for path in place.folder.rglob("*.pack"))
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    (problem,) = [each for each in migrated(place, target) if each.problem is not None]
    assert problem.pack == pack.stem
    assert "no longer matches its digest" in str(problem.problem)
    assert pack.stem not in {each.name for each in target.walk()}


def test_what_is_swept_while_it_is_copied_is_not_left_in_the_other_store(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SweptMeanwhile(ObjectPackStore):
        swept = False

        def join(self, name: str, stretches: Sequence[Stretch]) -> int:
            if not self.swept:
                self.swept = True
                delete(place, 1, 2, 3)
                sweep_now(place)
            return super().join(name, stretches)

    monkeypatch.setattr(migrate_store, "SIDE_BY_SIDE", 1)
    with closing(SweptMeanwhile(MemoryStore())) as target:
        assert all(each.problem is None for each in migrated(place, target))
        assert len(list(target.walk())) == 1
        assert sound(place, target)


def test_a_server_moves_to_an_object_store_and_back(fresh_server: StartServer, s3: S3, tmp_path: Path) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    file, url = saved({"w": weights(1, 20)}), s3.new_url()
    checkpoint = "/v1/models/a/b/checkpoints/1/original"
    with server.client() as http:
        assert http.post("/v1/models/a/b/checkpoints", content=file).status_code == 201
    where = ("--data-dir", str(server.data_dir))
    done = run("migrate-store", f"file://{server.data_dir}", url, *where, **s3.environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 packs: 1 copied")
    server.stop()
    for path in (server.data_dir / "packs").rglob("*.pack"):
        path.unlink()
    moved = fresh_server("--store-url", url, data_dir=server.data_dir, env=s3.environment)
    with moved.client() as http:
        assert http.get(checkpoint).content == file
    moved.stop()
    done = run("migrate-store", url, f"file://{tmp_path / 'back'}", *where, **s3.environment)
    assert done.returncode == 0, done.stderr
    home = fresh_server("--store-url", f"file://{tmp_path / 'back'}", data_dir=server.data_dir)
    with home.client() as http:
        assert http.get(checkpoint).content == file


def test_a_store_that_is_not_there_is_said(fresh_server: StartServer, tmp_path: Path) -> None:
    server = fresh_server()
    wrong = run(
        "migrate-store", f"file://{tmp_path / 'no'}", f"file://{tmp_path / 'to'}", "--data-dir", str(server.data_dir)
    )
    assert wrong.returncode == 1
    assert "Traceback" not in wrong.stderr
    assert run("migrate-store", "ftp://x", "file:///y", "--data-dir", str(server.data_dir)).returncode == 2

"""Backups of servers that work meanwhile, restored into new ones, also on another database and store."""

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

import httpx
import pytest
import torch

from tests.conftest import StartServer
from tests.functional.torch_files import saved
from tests.store.devices import mounted_tmpfs
from tests.support.commands import run
from tests.support.forks import Forked, fork
from tests.support.measure import long, measure
from tests.support.server import Server, server_environment
from tests.support.waiting import LONG_ENOUGH, assert_soon

Options = tuple[tuple[str, ...], dict[str, str]]

MODELS = "/v1/models"


@pytest.fixture
def places(request: pytest.FixtureRequest) -> Callable[[str], Options]:
    """Gives the options and the environment of a server: ``small`` is on SQLite and a folder, ``large`` is on
    PostgreSQL and an object store.
    """

    def options(kind: str) -> Options:
        fast = {"STATEROOM_DURABLE": "off"}
        if kind == "small":
            return (), fast
        s3, postgres = request.getfixturevalue("s3"), request.getfixturevalue("postgres")
        return ("--store-url", s3.new_url(), "--database-url", postgres.database()), {**s3.environment, **fast}

    return options


def command(name: str, data_dir: Path, options: Options, *words: str) -> CompletedProcess[str]:
    return run(name, *words, "--data-dir", str(data_dir), *options[0], **options[1])


def checkpoint(seed: int, size: int = 60_000) -> bytes:
    return saved({"epoch": seed, "w": torch.rand(size, generator=torch.Generator().manual_seed(seed))})


def store(server: Server, model: str, files: list[bytes]) -> None:
    with server.client() as http:
        for data in files:
            assert http.post(f"{MODELS}/{model}/checkpoints", content=data).status_code == 201


@contextmanager
def busy(server: Server) -> Iterator[None]:
    """Upload and purge checkpoints inside the block."""
    ended = threading.Event()
    failures: list[Exception] = []

    def work(number: int) -> None:
        try:
            with server.client() as http:
                for version in range(1, 40):
                    if ended.is_set():
                        return
                    model = f"{MODELS}/busy{number}/m/checkpoints"
                    assert http.post(model, content=checkpoint(1000 * number + version)).status_code == 201
                    if version % 3:
                        assert http.delete(f"{model}/{version}").status_code in {200, 204}
        except (AssertionError, httpx.HTTPError) as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, measure(2, 3))]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not failures, failures


@long
@pytest.mark.parametrize(("old", "new"), [("small", "large"), ("large", "small")])
def test_what_was_stored_before_a_backup_began_is_served_after_a_restore(
    fresh_server: StartServer, places: Callable[[str], Options], tmp_path: Path, old: str, new: str
) -> None:
    files = [checkpoint(seed) for seed in range(4)]
    options, folder = places(old), tmp_path / "backups"
    server = fresh_server("--grace", "0", "--sweep-interval", "0.1", "--trash", "0", *options[0], env=options[1])
    with busy(server):
        for count in (2, 4):
            store(server, "a/b", files[count - 2 : count])
            made = command("backup", server.data_dir, options, str(folder), "--json")
            assert made.returncode == 0, made.stderr
            assert json.loads(made.stdout)["problems"] == {}
    server.kill()

    place, data_dir = places(new), tmp_path / "new" / "data"
    done = command("restore", data_dir, place, str(folder))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("restored backup ")
    checked = command("fsck", data_dir, place, "--read-data", "--json")
    assert json.loads(checked.stdout)["findings"] == []
    again = fresh_server(*place[0], env=place[1], data_dir=data_dir)
    with again.client() as http:
        for version, data in enumerate(files, 1):
            assert http.get(f"{MODELS}/a/b/checkpoints/{version}/original").content == data
        (restored,) = http.get("/v1/events", params={"kind": "backup-restored"}).json()["items"]
        lost = http.get(f"{MODELS}/a/b/events", params={"after": restored["id"] - 1})
        assert (lost.status_code, lost.json()["code"]) == (410, "events-expired")
        assert lost.json()["after"] == restored["detail"]["newest"]
        goes_on = http.get(f"{MODELS}/a/b/events", params={"after": lost.json()["after"]})
        assert goes_on.json() == {"items": [], "last": restored["id"]}
    refused = command("restore", data_dir, place, str(folder))
    assert refused.returncode == 1
    assert "another server is using" in refused.stderr
    again.stop()
    refused = command("restore", data_dir, place, str(folder))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("stateroom-server: the database is not empty")


@long
def test_a_backup_that_is_killed_leaves_the_one_before_and_is_made_again(
    fresh_server: StartServer, tmp_path: Path
) -> None:
    options: Options = ((), {"STATEROOM_DURABLE": "off"})
    files = [checkpoint(seed) for seed in range(20)]
    server = fresh_server("--grace", "0", "--sweep-interval", "0.1", "--trash", "0", env=options[1])
    folder, rng = tmp_path / "backups", random.Random(0)
    store(server, "a/b", files[:2])
    assert command("backup", server.data_dir, options, str(folder)).returncode == 0
    store(server, "a/b", files[2:])
    words = ["backup", str(folder), "--data-dir", str(server.data_dir)]
    packs = len(list(folder.rglob("*.pack")))

    def has_begun() -> bool:
        return len(list((folder / "backups").iterdir())) > 1

    def has_copied() -> bool:
        return len(list(folder.rglob("*.pack"))) > packs

    def wait_for(process: Forked, moment: Callable[[], bool]) -> None:
        assert_soon(lambda: moment() or process.poll() is not None)

    moments = [has_begun, has_copied]
    for number in range(measure(2, 20)):
        out, err = tmp_path / "out", tmp_path / "err"
        process = fork("app.__main__", words, server_environment(options[1]), stdout=out, stderr=err)
        if number < len(moments):
            wait_for(process, moments[number])
        else:
            time.sleep(rng.random())  # the kill falls into whatever is going on then
        process.kill()
        process.wait(LONG_ENOUGH)
        whole = [path for path in (folder / "backups").iterdir() if (path / "backup.json").exists()]
        assert whole  # the first one, unless another had ended before it was killed
    done = command("backup", server.data_dir, options, str(folder), "--json")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (folder / "backups").iterdir()] == [json.loads(done.stdout)["id"]]
    server.kill()
    restored = fresh_restored(tmp_path, options, folder)
    again = fresh_server(env=options[1], data_dir=restored)
    with again.client() as http:
        for version, data in enumerate(files, 1):
            assert http.get(f"{MODELS}/a/b/checkpoints/{version}/original").content == data


def fresh_restored(tmp_path: Path, options: Options, folder: Path) -> Path:
    data_dir = tmp_path / "restored" / "data"
    done = command("restore", data_dir, options, str(folder))
    assert done.returncode == 0, done.stderr
    checked = command("fsck", data_dir, options, "--read-data", "--json")
    assert json.loads(checked.stdout)["findings"] == []
    return data_dir


def test_a_backup_that_does_not_fit_is_said_and_the_one_before_stays(fresh_server: StartServer, tmp_path: Path) -> None:
    options: Options = ((), {"STATEROOM_DURABLE": "off"})
    server = fresh_server(env=options[1])
    first = checkpoint(0)
    store(server, "a/b", [first])
    with mounted_tmpfs(tmp_path / "disk", 8) as disk:
        folder = disk / "backups"
        assert command("backup", server.data_dir, options, str(folder)).returncode == 0
        store(server, "a/b", [checkpoint(1, 4_000_000)])
        full = command("backup", server.data_dir, options, str(folder))
        assert (full.returncode, full.stdout) == (1, "")
        assert full.stderr.startswith("stateroom-server: no room left on the device while storing pack ")
        assert full.stderr.endswith("; free some room, and run it again: it goes on\n")
        data_dir = fresh_restored(tmp_path, options, folder)
    again = fresh_server(env=options[1], data_dir=data_dir)
    with again.client() as http:
        assert http.get(f"{MODELS}/a/b/checkpoints/1/original").content == first
        assert http.get(f"{MODELS}/a/b/checkpoints/2").status_code == 404


def test_damage_is_named_and_the_rest_is_restored(fresh_server: StartServer, tmp_path: Path) -> None:
    options: Options = ((), {"STATEROOM_DURABLE": "off"})
    server, folder = fresh_server(env=options[1]), tmp_path / "backups"
    store(server, "a/b", [checkpoint(1), checkpoint(2)])
    damaged = min((server.data_dir / "packs").rglob("*.pack"), key=lambda path: path.stat().st_mtime_ns)
    with damaged.open("r+b") as file:
        file.seek(damaged.stat().st_size // 2)
        file.write(os.urandom(100))
    (folder / "backups" / "renamed").mkdir(parents=True)
    made = command("backup", server.data_dir, options, str(folder))
    assert made.returncode == 1
    assert "no packs were removed, because backups/ holds other names than ids of backups: renamed\n" in made.stderr
    reason = f"pack {damaged.stem}: 1 of its blobs are damaged, needed by a/b@1"
    assert made.stderr.startswith(f"stateroom-server: {reason}\n")
    data_dir = tmp_path / "restored" / "data"
    done = command("restore", data_dir, options, str(folder), "--json")
    assert done.returncode == 1
    assert reason in done.stderr
    assert set(json.loads(done.stdout)["problems"]) == {damaged.stem}
    again = fresh_server(env=options[1], data_dir=data_dir)
    with again.client() as http:
        assert http.get(f"{MODELS}/a/b/checkpoints/2/original").content == checkpoint(2)


def test_a_folder_without_a_backup_is_said(tmp_path: Path) -> None:
    done = command("restore", tmp_path / "data", ((), {}), str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == f"stateroom-server: {tmp_path / 'none'} is not a folder of backups: it has no folder named backups\n"
    )
    assert command("backup", tmp_path / "data", ((), {}), str(tmp_path / "none"), "--keep", "0").returncode == 2

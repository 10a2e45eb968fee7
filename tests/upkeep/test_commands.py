"""``sweep`` and ``fsck`` by hand, beside a running server or without one."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.utils import floatToGoString

from app.catalog import Catalog
from app.upkeep.sweep_lease import SweepLease
from tests.api.conftest import saved, state_dict
from tests.conftest import StartServer
from tests.support.commands import run
from tests.support.server import ROOT, Server, server_environment
from tests.support.waiting import LONG_ENOUGH, assert_soon

MODEL = "/v1/models/vision/resnet/checkpoints"
Place = tuple[Server, tuple[str, ...], str]
"""A server, what a command needs to find its data, and the URL of its catalog."""


@pytest.fixture(params=["sqlite", "postgresql"])
def start(request: pytest.FixtureRequest, fresh_server: StartServer) -> Callable[..., Place]:
    """Starts a server on a database of its own, and says how a command finds its data."""

    def started(*options: str) -> Place:
        where: tuple[str, ...] = ()
        if request.param == "postgresql":
            where = ("--database-url", request.getfixturevalue("postgres").database())
        server = fresh_server(*where, *options, env={"STATEROOM_DURABLE": "off"})
        url = where[1] if where else f"sqlite:///{server.data_dir / 'catalog.sqlite3'}"
        return server, ("--data-dir", str(server.data_dir), *where), url

    return started


def upload(server: Server, seed: int) -> bytes:
    file = saved({"model_state_dict": {**state_dict(0, 300), "own": state_dict(seed, 600)["conv.weight"]}})
    with server.client() as http:
        assert http.post(MODEL, content=file).status_code == 201
    return file


def remove(server: Server, version: int, *, purge: bool = True) -> None:
    with server.client() as http:
        assert http.delete(f"{MODEL}/{version}", params={"purge": purge}).status_code == 204


def stored(server: Server) -> int:
    return sum(path.stat().st_size for path in (server.data_dir / "packs").rglob("*") if path.is_file())


def answered(*arguments: str) -> dict:
    done = run(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_what_is_deleted_is_gone_at_once_its_bytes_after_a_sweep_and_all_else_is_served(start: Callable[..., Place]):
    server, where, _ = start("--sweep-interval", "0")
    files = {version: upload(server, version) for version in (1, 2, 3)}
    remove(server, 1)
    remove(server, 3, purge=False)
    before = stored(server)
    assert answered("sweep", *where)["freed_bytes"] == 0  # an hour's grace

    now = ("--empty-trash", "--grace", "0", *where)
    without_trash = answered("sweep", "--dry-run", "--grace", "0", *where)
    foreseen = answered("sweep", "--dry-run", *now)
    assert (without_trash["purged_checkpoints"], foreseen["purged_checkpoints"]) == (0, 1)
    assert foreseen["freed_bytes"] > without_trash["freed_bytes"] > 600 * 600 * 4
    assert stored(server) == before
    swept = answered("sweep", *now)
    assert foreseen == swept | {"dry_run": True}
    assert before - stored(server) == swept["freed_bytes"] > 2 * 600 * 600 * 4
    with server.client() as http:
        assert http.get(f"{MODEL}/2/original").content == files[2]
        assert [http.get(f"{MODEL}/{version}").status_code for version in (1, 2, 3)] == [404, 200, 404]
    assert answered("fsck", "--read-data", *where)["findings"] == []
    remove(server, 2)
    answered("sweep", "--grace", "0", *where)
    assert stored(server) == 0


def test_a_server_sweeps_by_itself_and_tells_what_that_freed(start: Callable[..., Place]):
    server, _, _ = start("--grace", "0", "--trash", "1s", "--sweep-interval", "0.2", "--workers", "2")
    upload(server, 1)
    before = stored(server)
    remove(server, 1, purge=False)
    assert_soon(lambda: stored(server) == 0)

    def said() -> list[dict]:
        return [line for line in server.lines if line["logger"] == "stateroom.sweep" and line.get("freed_bytes")]

    assert_soon(lambda: bool(said()))
    assert sum(line["freed_bytes"] for line in said()) == before
    assert all(line["level"] == "info" and line["seconds"] > 0 for line in said())
    with server.client() as http:
        assert_soon(lambda: f"stateroom_swept_bytes_total {floatToGoString(before)}\n" in http.get("/metrics").text)
    assert server.stop() == 0


def test_by_default_nothing_that_was_deleted_just_now_is_swept(start: Callable[..., Place]):
    server, _, _ = start("--sweep-interval", "0.1")
    upload(server, 1)
    remove(server, 1)
    before = stored(server)
    assert_soon(lambda: sum(line["logger"] == "stateroom.sweep" for line in server.lines) > 3)
    assert stored(server) == before


def test_a_sweep_by_hand_waits_for_the_one_that_runs(start: Callable[..., Place]):
    server, where, url = start("--sweep-interval", "0")
    upload(server, 1)
    remove(server, 1)
    with closing(Catalog(url)) as catalog:
        lease = SweepLease(catalog, lambda: False)
        assert lease.begin()
        with subprocess.Popen(
            [sys.executable, "-m", "app", "sweep", "--grace", "0", *where],
            cwd=ROOT, env=server_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as waiting:  # fmt: skip
            assert "another sweep is running" in waiting.stderr.readline()
            assert stored(server) > 0
            lease.end()
            assert waiting.wait(LONG_ENOUGH) == 0
    assert stored(server) == 0


def test_people_are_told_in_words(start: Callable[..., Place]):
    server, where, _ = start("--sweep-interval", "0")
    upload(server, 1)
    remove(server, 1)
    dry = run("sweep", "--grace", "0", "--dry-run", *where)
    assert dry.stdout.splitlines() == ["Would free 1.7 MiB", "  4 blobs that no checkpoint refers to", "  1 packs"]
    assert run("sweep", "--grace", "0", *where).stdout.startswith("Freed 1.7 MiB\n")
    assert run("sweep", "--grace", "0", *where).stdout == "Freed 0 bytes\n"
    checked = run("fsck", "--read-data", *where)
    assert (checked.returncode, checked.stdout) == (0, "0 packs, 0 blobs, 0 checkpoints: all is well\n")


def test_a_check_that_finds_something_lists_it_and_ends_with_1(start: Callable[..., Place]):
    server, where, _ = start()
    upload(server, 1)
    (pack,) = (server.data_dir / "packs").rglob("*.pack")
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    (server.data_dir / "packs" / "ab").mkdir(exist_ok=True)
    (server.data_dir / "packs" / "ab" / "abstray.pack").write_bytes(b"x")
    quick, full = run("fsck", *where), run("fsck", "--read-data", "--json", *where)
    assert (quick.returncode, full.returncode) == (1, 1)
    assert quick.stdout.splitlines()[0].startswith("pack-unknown: abstray: 1 bytes")
    assert quick.stdout.splitlines()[-1].endswith("1 problem found")
    assert sorted(finding["kind"] for finding in json.loads(full.stdout)["findings"]) == [
        "blob-damaged",
        "pack-unknown",
    ]
    assert pack.read_bytes() == data


@pytest.mark.parametrize("command", [("sweep",), ("sweep", "--dry-run"), ("fsck",)])
@pytest.mark.parametrize("there", ["nothing", "an-empty-database", "no-store"])
def test_where_no_server_has_been_a_command_says_so_and_makes_nothing(
    tmp_path: Path, command: tuple[str, ...], there: str
):
    data = tmp_path / "data"
    if there != "nothing":
        data.mkdir()
        sqlite3.connect(data / "catalog.sqlite3").close()
    if there == "no-store":
        with closing(Catalog(f"sqlite:///{data / 'catalog.sqlite3'}")) as catalog:
            catalog.migrate()
    before = sorted(path for path in tmp_path.rglob("*") if not path.name.endswith(("-wal", "-shm")))
    refused = run(*command, "--data-dir", str(data))
    assert refused.returncode == 1
    assert refused.stderr.startswith("stateroom-server: ")
    assert "Traceback" not in refused.stderr
    assert sorted(path for path in tmp_path.rglob("*") if not path.name.endswith(("-wal", "-shm"))) == before


def test_a_grace_that_is_no_number_of_seconds_is_a_short_complaint(tmp_path: Path):
    wrong = run("sweep", "--grace", "-1", "--data-dir", str(tmp_path))
    assert wrong.returncode == 2
    assert "STATEROOM_GRACE" in wrong.stderr

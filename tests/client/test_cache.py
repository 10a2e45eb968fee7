"""The client's disk cache: storages are fetched once, verified at each read, and stay within the limit."""

import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stateroom import Client, InvalidRequest, StateroomWarning
from stateroom._download import disk_cache
from tests.client.faults import Faulty, faulty, stalls_after
from tests.functional.torch_files import same, saved
from tests.store.devices import mounted_tmpfs
from tests.support.forks import Forked
from tests.support.measure import long, measure
from tests.support.scripts import start_script
from tests.support.server import Server
from tests.support.waiting import LONG_ENOUGH, assert_soon

SMALL = 64 * 1024
WIDE, CONV, CONV2, HEAD = 7_000_000, 500_000, 499_999, 500_000
"""Elements of the storages that are kept, of four bytes each. The first has two blocks; a file with all of them is
downloaded in parallel.
"""
HEAD_BYTES = 4 * HEAD
EPOCH_BYTES = 4 * (WIDE + CONV + CONV2 + HEAD)


def epoch(number: int) -> dict[str, Any]:
    """A frozen backbone of 32 MB, and a head of 2 MB that changes."""
    sizes = {"backbone.wide": WIDE, "backbone.conv": CONV, "backbone.conv2": CONV2, "norm": 100}
    state = {key: torch.arange(size, dtype=torch.float32) for key, size in sizes.items()}
    return {"epoch": number, "model": {**state, "head": torch.full((HEAD,), float(number))}}


@pytest.fixture(scope="module")
def name(server: Server) -> str:
    with Client(server.base_url) as client:
        model = client.model("tests/cached")
        for number in (1, 2):
            model.upload(io.BytesIO(saved(epoch(number))))
    return "tests/cached"


@pytest.fixture
def relay(server: Server) -> Iterator[Faulty]:
    with faulty(lambda: server.port) as relay:
        yield relay


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def fetched(relay: Faulty) -> int:
    """Bytes of ranges since the last call."""
    size = sum(end - start for start, end in relay.ranges)
    relay.ranges.clear()
    return size


def kept(folder: Path) -> dict[str, int]:
    """Names and sizes of what is in a cache; no claim and no part is left beside them."""
    found = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert not [name for name in found if "." in name]
    return found


# What is there is not fetched


def test_the_second_load_fetches_no_storage(relay: Faulty, name: str, folder: Path) -> None:
    for _ in range(2):
        with Client(relay.url, cache_dir=folder) as client:
            assert same(client.model(name).load(1), epoch(1))
            last = fetched(relay)
    assert last < SMALL
    assert sum(kept(folder).values()) == EPOCH_BYTES


def test_the_log_says_how_much_came_from_the_cache_where_it_is_asked_to(
    server: Server, name: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(server.base_url, cache_dir=folder) as client, caplog.at_level("DEBUG", "stateroom"):
        for _ in range(2):
            client.model(name).load(1)
    said = [record.getMessage() for record in caplog.records if "from the cache" in record.getMessage()]
    assert [line.endswith(" 0 bytes are downloaded.") for line in said] == [False, True]


def test_of_a_new_epoch_only_what_changed_is_fetched(relay: Faulty, name: str, folder: Path) -> None:
    with Client(relay.url, cache_dir=folder) as client:
        model = client.model(name)
        model.load(1)
        fetched(relay)
        assert same(model.load(2), epoch(2))
        assert HEAD_BYTES <= fetched(relay) < HEAD_BYTES + SMALL


def test_everything_that_is_kept_serves_everything(relay: Faulty, name: str, folder: Path, tmp_path: Path) -> None:
    with Client(relay.url, cache_dir=folder) as client:
        model = client.model(name)
        assert model.download(1, tmp_path / "original.pt").read_bytes() == saved(epoch(1))
        assert fetched(relay) > EPOCH_BYTES
        assert same(dict(model.state_dict(1)), epoch(1)["model"])
        model.download(1, tmp_path / "remapped.pt", map_location="cuda:0")
        model.download_state_dict(1, tmp_path / "state.safetensors", format="safetensors")
        assert fetched(relay) < 4 * SMALL
    state = torch.load(tmp_path / "remapped.pt", map_location="cpu", weights_only=True)
    assert same(state["model"], epoch(1)["model"])


def test_one_storage_that_is_there_twice_is_fetched_once(server: Server, model_name: str, folder: Path) -> None:
    state = {"a": torch.ones(500_000), "b": torch.ones(500_000)}
    with faulty(lambda: server.port) as relay, Client(relay.url, cache_dir=folder) as client:
        model = client.model(model_name)
        model.upload(io.BytesIO(saved(state)))
        assert same(dict(model.state_dict("latest")), state)
        assert fetched(relay) < 2_000_000 + SMALL


def test_the_environment_names_the_folder(
    relay: Faulty, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATEROOM_CACHE_DIR", str(folder))
    monkeypatch.setenv("STATEROOM_CACHE_SIZE", "30 MB")
    with Client(relay.url) as client:
        client.model(name).load(1)
    assert 4_000_000 < sum(kept(folder).values()) <= 30_000_000


def test_what_is_loaded_in_place_goes_past_it(relay: Faulty, name: str, folder: Path) -> None:
    net = nn.Module()
    net.head = nn.Parameter(torch.zeros(HEAD))
    with Client(relay.url, cache_dir=folder) as client:
        client.model(name).warmstart(net, 2)
    assert torch.equal(net.head, torch.full((HEAD,), 2.0))
    assert not folder.exists()


def test_without_verifying_nothing_is_kept(relay: Faulty, name: str, folder: Path) -> None:
    with Client(relay.url, cache_dir=folder, verify=False) as client:
        assert same(client.model(name).load(1), epoch(1))
    assert not folder.exists()


# It is never believed


@pytest.mark.parametrize(("damage", "size"), [("a bit", 17_200_000), ("the end", EPOCH_BYTES - SMALL)])
def test_what_is_damaged_is_fetched_again(damage: str, size: int, relay: Faulty, name: str, folder: Path) -> None:
    with Client(relay.url, cache_dir=folder, retries=0) as client:
        model = client.model(name)
        model.load(1)
        fetched(relay)
        for path in folder.iterdir():
            with path.open("r+b") as file:
                if damage == "a bit":
                    file.seek(-5, os.SEEK_END)
                    file.write(b"\xff")
                else:
                    file.truncate(path.stat().st_size - 1)
        assert same(model.load(1), epoch(1))
        assert size <= fetched(relay)
        model.load(1)
        fetched(relay)
        assert same(model.load(1), epoch(1))
        assert fetched(relay) < SMALL


# It is never more than it may be


def test_what_was_not_used_for_longest_makes_room(relay: Faulty, name: str, folder: Path) -> None:
    with Client(relay.url, cache_dir=folder, cache_size=EPOCH_BYTES) as client:
        model = client.model(name)
        model.load(1)
        first = kept(folder)
        for path in folder.iterdir():
            os.utime(path, (1, 1))
        model.state_dict(1, include=["backbone.*"])
        model.load(2)
        second = kept(folder)
        assert sum(second.values()) <= EPOCH_BYTES
        assert len(first.keys() - second.keys()) == 1  # the first epoch's head
        fetched(relay)
        assert same(model.load(2), epoch(2))
        assert fetched(relay) < SMALL


@pytest.mark.parametrize(("size", "limit"), [(0, 0), ("10MB", 10**7), ("8.5 mb", 8_500_000), ("20 B", 20)])
def test_a_size_is_a_number_or_a_text(size: int | str, limit: int, server: Server, name: str, folder: Path) -> None:
    with Client(server.base_url, cache_dir=folder, cache_size=size) as client:
        assert same(client.model(name).load(1), epoch(1))
    assert (sum(kept(folder).values()) if folder.exists() else 0) <= limit


@pytest.mark.parametrize("size", ["much", "-1", -5, "10 XB", "", "nan GB"])
def test_what_is_no_size_is_refused(size: int | str, folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="20 GB"):
        Client(cache_dir=folder, cache_size=size)


# A cache that fails fails nothing else


def test_a_folder_that_cannot_be_is_warned_of_once(server: Server, name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Client(server.base_url, cache_dir=tmp_path / "file" / "cache") as client:
        with pytest.warns(StateroomWarning, match="cannot be written"):
            assert same(client.model(name).load(1), epoch(1))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert same(client.model(name).load(1), epoch(1))


def test_a_full_disk_is_warned_of_and_left_as_it_was(server: Server, name: str, tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "small", 20) as folder, Client(server.base_url, cache_dir=folder) as client:
        with pytest.warns(StateroomWarning, match="No space left"):
            obj = client.model(name).load(1)
        assert same(obj, epoch(1))
        assert sum(kept(folder).values()) < 20 * 1024 * 1024


# Several at once

FETCH = """
import sys, time
from pathlib import Path
from stateroom import Client
from stateroom._download import disk_cache
disk_cache.ABANDONED = 600  # however long a busy machine holds one of them up
url, name, folder, out, gate = sys.argv[1:]
while not Path(gate).exists():
    time.sleep(0.01)
with Client(url, cache_dir=folder) as client:
    client.model(name).download(2, out)
"""


def start(relay: Faulty, name: str, folder: Path, out: Path, gate: Path) -> Forked:
    """Start a process that begins once ``gate`` exists."""
    return start_script(FETCH, relay.url, name, folder, out, gate, output=out.with_suffix(".log"))


@long
def test_processes_that_start_together_fetch_each_storage_once(
    relay: Faulty, name: str, folder: Path, tmp_path: Path
) -> None:
    processes = measure(4, 8)
    files = [tmp_path / f"{rank}.pt" for rank in range(processes)]
    ranks = [start(relay, name, folder, file, tmp_path / "gate") for file in files]
    (tmp_path / "gate").touch()
    assert [rank.wait(LONG_ENOUGH) for rank in ranks] == [0] * processes
    assert {file.read_bytes() for file in files} == {saved(epoch(2))}
    assert fetched(relay) < EPOCH_BYTES + processes * SMALL
    assert sum(kept(folder).values()) == EPOCH_BYTES


def test_what_a_killed_process_had_claimed_is_taken_over(
    server: Server, name: str, folder: Path, tmp_path: Path
) -> None:
    never = threading.Event()
    with faulty(lambda: server.port, *[stalls_after(3_000_000, never)] * 4) as relay:
        process = start(relay, name, folder, tmp_path / "killed.pt", tmp_path)
        assert_soon(lambda: any(folder.glob("*.part")))
        process.kill()
        process.wait()
        assert list(folder.glob("*.claim"))
        with Client(server.base_url, cache_dir=folder) as client:
            assert same(client.model(name).load(2), epoch(2))
        never.set()
    left = {path.suffix for path in folder.iterdir()}
    assert left <= {"", ".part", ".alive"}
    old = (1, 1)
    for path in folder.iterdir():
        os.utime(path, old)
    with Client(server.base_url, cache_dir=folder) as client:
        client.model(name).load(1)
    assert len(kept(folder)) == 5


def test_threads_may_share_it(server: Server, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_cache, "ABANDONED", LONG_ENOUGH)  # however long a busy machine holds a thread up
    with faulty(lambda: server.port) as relay, Client(relay.url, cache_dir=folder) as client:
        model = client.model(name)
        with ThreadPoolExecutor(8) as threads:
            loaded = list(threads.map(lambda number: model.load(1 + number % 2), range(8)))
        assert all(same(obj, epoch(1 + number % 2)) for number, obj in enumerate(loaded))
        assert fetched(relay) < EPOCH_BYTES + HEAD_BYTES + 16 * SMALL
    assert sum(kept(folder).values()) == EPOCH_BYTES + HEAD_BYTES


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_the_cache_is_its_owners_alone_whatever_the_umask(server: Server, name: str, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with Client(server.base_url, cache_dir=tmp_path / "new") as client:
            client.model(name).state_dict("latest")
        written = client.model(name).download("latest", tmp_path / "out.pt", "cpu")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert modes(tmp_path / "new") == {0o600}
    assert stat.S_IMODE(written.stat().st_mode) == 0o666  # what a user asks for, where a user asks for it


def test_a_cache_that_others_may_read_is_tightened(server: Server, name: str, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with Client(server.base_url, cache_dir=tmp_path / "open") as client:
        client.model(name).state_dict("latest")
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o700


def test_a_symbolic_link_is_no_cache_whenever_it_comes(server: Server, name: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    early, late = tmp_path / "early", tmp_path / "late"
    early.symlink_to("elsewhere")
    with pytest.raises(InvalidRequest, match="symbolic link"):
        Client(server.base_url, cache_dir=early)
    with Client(server.base_url, cache_dir=late) as client:
        late.symlink_to("elsewhere")
        with pytest.raises(InvalidRequest, match="symbolic link"):
            client.model(name).state_dict("latest")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_no_cache(server: Server, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 12345, 12345)
    with pytest.raises(InvalidRequest, match="belongs to another user"):
        Client(server.base_url, cache_dir=tmp_path / "theirs")


def test_storages_with_the_same_bytes_are_one_file_and_are_read_from_it(
    server: Server, relay: Faulty, folder: Path, model_name: str
) -> None:
    state = {f"layers.{number}": torch.ones(100_000) for number in range(4)}
    with Client(server.base_url) as client:
        client.model(model_name).save(state)
    for _ in range(2):
        fetched(relay)
        with Client(relay.url, cache_dir=folder) as client:
            assert same(dict(client.model(model_name).state_dict(1)), state)
    assert fetched(relay) < 100_000
    assert list(kept(folder).values()) == [400_000]

"""torch's own FsspecWriter and FsspecReader save to and load from stateroom://: N processes, one checkpoint."""

import os
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint._fsspec_filesystem import FsspecWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.planner import WriteItem
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.multiprocessing.spawn import ProcessException

from stateroom import (
    CheckpointNotFound,
    Client,
    Conflict,
    InvalidRequest,
    Model,
    NotACheckpoint,
    NotFound,
    StateroomError,
    StateroomWarning,
)
from stateroom.integrations.dcp import StateroomReader
from stateroom.integrations.fsspec import StateroomFileSystem
from tests.conftest import StartServer
from tests.support.measure import long, some
from tests.support.processes import run_processes
from tests.support.server import Server
from tests.support.tokens import catalog_url, make_token

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning"),
    pytest.mark.filterwarnings("ignore:Detected an existing checkpoint:UserWarning"),
]
"""torch warns of no_dist=True, and of each save over another."""

SHAPE = 90, 700


@pytest.fixture(autouse=True)
def _url(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("STATEROOM_URL", server.base_url)
    StateroomFileSystem.clear_instance_cache()  # they have the URLs of other tests
    yield
    StateroomFileSystem.clear_instance_cache()


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name)


@pytest.fixture
def folder(model_name: str) -> str:
    return f"stateroom://{model_name}/run-7/sharded"


@pytest.fixture
def fs(server: Server) -> StateroomFileSystem:
    return StateroomFileSystem(url=server.base_url)


def weight(number: float) -> torch.Tensor:
    return torch.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) + number


def state_of(number: float) -> dict[str, Any]:
    """A state_dict that is sharded by rows and by columns over all processes, if there are several."""
    net = {"rows": weight(number), "columns": weight(number + 0.5)}
    if dist.is_initialized():
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        net = {key: distribute_tensor(net[key], mesh, [Shard(dim)]) for dim, key in enumerate(net)}
    return {"model": net, "epoch": int(number), "notes": {"list": [1, number]}}


def check(state: dict[str, Any], number: float) -> None:
    for key, expected in (("rows", weight(number)), ("columns", weight(number + 0.5))):
        found = state["model"][key]
        assert torch.equal(found.full_tensor() if isinstance(found, DTensor) else found, expected), key
    assert (state["epoch"], state["notes"]["list"]) == (int(number), [1, number])


def save(folder: str, number: float, **arguments: Any) -> None:
    dcp.save(state_of(number), checkpoint_id=folder, no_dist=not dist.is_initialized(), **arguments)


def load(folder: str, **arguments: Any) -> dict[str, Any]:
    state = state_of(-1)
    dcp.load(state, checkpoint_id=folder, no_dist=not dist.is_initialized(), **arguments)
    return state


@long
@pytest.mark.parametrize(("saving", "loading"), some([(2, 4), (1, 2), (4, 1)], 3))
def test_any_number_of_processes_save_one_checkpoint_by_name_and_any_number_load_it(
    saving: int, loading: int, folder: str, model: Model, fs: StateroomFileSystem, tmp_path: Path
) -> None:
    def saves(_rank: int) -> None:
        save(folder, 1.0)
        save(folder, 2.0)

    def loads(_rank: int) -> None:
        check(load(folder), 2.0)
        check(load(f"stateroom://{model.name}@latest"), 2.0)

    run_processes(saving, tmp_path, saves)
    (checkpoint,) = model.checkpoints()
    assert (checkpoint.version, checkpoint.run, checkpoint.slot, checkpoint.format) == (2, "run-7", "sharded", "folder")
    names = [name.rpartition("/")[2] for name in fs.find(folder)]
    assert names == [".metadata", *(f"__{rank}_0.distcp" for rank in range(saving))]
    check(model.load("latest"), 2.0)
    assert torch.equal(model.state_dict("latest", component="model")["columns"], weight(2.5))
    run_processes(loading, tmp_path, loads)


def test_an_unchanged_tensor_is_not_sent_again(folder: str, model: Model, server: Server) -> None:
    state = state_of(1.0)
    dcp.save(state, checkpoint_id=folder, no_dist=True)
    seen = len(server.requests)
    dcp.save({**state, "epoch": 2}, checkpoint_id=folder, no_dist=True)
    sent = sum(each["bytes_in"] for each in server.requests[seen:] if model.name in each["path"])
    assert sent < 50_000 < weight(1).nbytes
    assert model.load("latest")["epoch"] == 2


def test_a_folder_is_seen_whole_or_not_at_all(folder: str, model: Model, fs: StateroomFileSystem) -> None:
    seen: list[Any] = []

    class Looking(FsspecWriter):
        def finish(self, **arguments: Any) -> None:
            parent = folder.rpartition("/")[0]
            versions = [each.version for each in model.checkpoints()] if fs.exists(parent) else []
            seen.append((versions, fs.exists(f"{folder}/.metadata"), fs.exists(f"{folder}/__0_0.distcp")))
            super().finish(**arguments)

    for number in (1.0, 2.0):
        dcp.save(state_of(number), storage_writer=Looking(folder), no_dist=True)
    assert seen == [([], False, True), ([1], True, True)]
    assert not fs.exists(f"{folder}/.metadata.tmp")


class Failing(DefaultSavePlanner):
    """Fails in one process, after the first item."""

    def __init__(self, fail: Any) -> None:
        super().__init__()
        self.fail = fail
        self.seen = 0

    def resolve_data(self, write_item: WriteItem) -> Any:
        self.seen += 1
        if self.seen > 1:
            self.fail()
        return super().resolve_data(write_item)


def nothing() -> None: ...


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@long
@pytest.mark.parametrize("dies", some([0, 1], 2))
def test_a_killed_process_leaves_what_was_there_and_nothing_for_the_next_save(
    dies: int, folder: str, model: Model, fs: StateroomFileSystem, tmp_path: Path
) -> None:
    def dying(rank: int) -> None:
        save(folder, 5.0, planner=Failing(killed if rank == dies else nothing))

    with pytest.raises(ProcessException):
        run_processes(2, tmp_path, dying)
    with pytest.raises(NotFound):
        model.checkpoint("latest")
    assert not fs.exists(f"{folder}/.metadata")
    run_processes(2, tmp_path, lambda _: save(folder, 1.0))
    with pytest.raises(ProcessException):
        run_processes(3, tmp_path, dying)
    check(load(folder), 1.0)
    save(folder, 2.0)
    check(load(folder), 2.0)
    assert [file.path for file in model.checkpoint("latest").files()] == [".metadata", "__0_0.distcp"]


def test_if_one_process_raises_all_do_and_nothing_is_saved(folder: str, model: Model, tmp_path: Path) -> None:
    def out_of_memory() -> None:
        raise MemoryError("no memory left")

    def work(rank: int) -> None:
        with pytest.raises(CheckpointException, match="no memory left"):
            save(folder, 1.0, planner=Failing(out_of_memory if rank == 1 else nothing))

    run_processes(2, tmp_path, work)
    with pytest.raises(NotFound):
        model.checkpoint("latest")


def distcp(number: float, path: Path) -> bytes:
    dcp.save(state_of(number), checkpoint_id=path, no_dist=True)
    return (path / "__0_0.distcp").read_bytes()


@pytest.mark.parametrize("writes", ["before its files", "after its files"])
def test_files_of_another_save_never_become_part_of_a_checkpoint(
    writes: str, folder: str, model: Model, server: Server, tmp_path: Path
) -> None:
    other = StateroomFileSystem(url=server.base_url, skip_instance_cache=True)
    theirs = distcp(9.0, tmp_path / "other")

    def intrude() -> None:
        other.makedirs(folder)
        other.pipe_file(f"{folder}/__0_0.distcp", theirs)

    class Racing(FsspecWriter):
        def write_data(self, *arguments: Any) -> Any:
            if writes == "before its files":
                intrude()
            return super().write_data(*arguments)

        def finish(self, **arguments: Any) -> None:
            if writes == "after its files":
                intrude()
            super().finish(**arguments)

    with pytest.raises(CheckpointException, match="was written by another save meanwhile: nothing was saved"):
        dcp.save(state_of(1.0), storage_writer=Racing(folder), no_dist=True)
    with pytest.raises(NotFound):
        model.checkpoint("latest")
    save(folder, 3.0)
    check(load(folder), 3.0)


def test_of_saves_at_once_each_is_whole_or_refused(folder: str, model: Model, server: Server) -> None:
    results: list[float] = []
    refused: list[str] = []

    def one(number: float) -> None:
        for _ in range(5):
            try:
                save(folder, number)
                results.append(number)
            except CheckpointException as error:
                refused.append(str(error))

    jobs = [threading.Thread(target=one, args=(number,)) for number in (1.0, 2.0, 3.0)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    save(folder, 4.0)
    check(load(folder), 4.0)
    assert all("another save" in text or "__0_0.distcp" in text or ".metadata.tmp" in text for text in refused)
    assert len(results) == model.checkpoint("latest").version - 1
    for checkpoint in model.checkpoints(trash=True):
        found = model.load(model.restore(checkpoint))
        check(found, found["notes"]["list"][1])


def test_a_file_of_an_earlier_attempt_is_told(
    folder: str, model: Model, fs: StateroomFileSystem, tmp_path: Path
) -> None:
    local = tmp_path / "local"
    fs.pipe_file(f"{folder}/__0_0.distcp", distcp(1.0, local))
    fs.makedirs(folder)
    fs.pipe_file(f"{folder}/.metadata.tmp", (local / ".metadata").read_bytes())
    with pytest.raises(Conflict, match=r"__0_0\.distcp was written before this save began: nothing was saved"):
        fs.mv(f"{folder}/.metadata.tmp", f"{folder}/.metadata")
    with pytest.raises(NotFound):
        model.checkpoint("latest")


def test_files_may_be_written_one_by_one_and_again(
    folder: str, model: Model, fs: StateroomFileSystem, tmp_path: Path
) -> None:
    wrong, right = distcp(1.0, tmp_path / "wrong"), distcp(2.0, tmp_path / "right")
    for data in (wrong, right):
        fs.pipe_file(f"{folder}/__0_0.distcp", data)
    assert fs.info(f"{folder}/__0_0.distcp")["size"] == len(right)
    assert fs.ls(folder, detail=False) == [f"{fs._strip_protocol(folder)}/__0_0.distcp"]
    with pytest.raises(InvalidRequest, match="part of a save that has not ended"):
        fs.cat_file(f"{folder}/__0_0.distcp")
    with pytest.raises(FileNotFoundError):
        fs.mv(f"{folder}/.metadata.tmp", f"{folder}/.metadata")
    fs.pipe_file(f"{folder}/.metadata.tmp", (tmp_path / "right/.metadata").read_bytes())
    fs.mv(f"{folder}/.metadata.tmp", f"{folder}/.metadata")
    check(model.load("latest"), 2.0)
    assert fs.cat_file(f"{folder}/__0_0.distcp") == right


@pytest.mark.parametrize("missing", [True, False])
def test_a_description_that_does_not_fit_the_files_saves_nothing(
    missing: bool, folder: str, model: Model, fs: StateroomFileSystem, tmp_path: Path
) -> None:
    local = tmp_path / "local"
    data = distcp(1.0, local)
    if not missing:
        fs.pipe_file(f"{folder}/__0_0.distcp", data[: len(data) // 2])
    fs.pipe_file(f"{folder}/.metadata.tmp", (local / ".metadata").read_bytes())
    with pytest.raises(StateroomError, match=r"__0_0\.distcp"):
        fs.mv(f"{folder}/.metadata.tmp", f"{folder}/.metadata")
    fs.pipe_file(f"{folder}/.metadata.tmp", b"no pickle")
    with pytest.raises(InvalidRequest, match="is not the file that FsspecWriter writes"):
        fs.mv(f"{folder}/.metadata.tmp", f"{folder}/.metadata")
    with pytest.raises(NotFound):
        model.checkpoint("latest")


def test_a_folder_is_removed_whole_with_what_a_save_left(
    folder: str, model: Model, fs: StateroomFileSystem, tmp_path: Path
) -> None:
    save(folder, 1.0)
    with pytest.raises(InvalidRequest, match="removed as a whole"):
        fs.rm(f"{folder}/.metadata")
    with pytest.raises(IsADirectoryError, match="recursive=True"):
        fs.rm(folder)
    fs.pipe_file(f"{folder}/__1_0.distcp", distcp(2.0, tmp_path / "local"))
    assert len(fs.find(folder)) == 3
    fs.rm(f"{folder}/__1_0.distcp")
    assert len(fs.find(folder)) == 2
    fs.pipe_file(f"{folder}/__1_0.distcp", b"")
    fs.rm(folder, recursive=True)
    assert not fs.exists(folder)
    with pytest.raises(CheckpointNotFound):
        model.checkpoint("latest")
    with pytest.raises(FileNotFoundError):
        fs.rm(folder, recursive=True)


def test_a_file_of_any_kind_is_kept_beside_checkpoints_and_never_replaces_one(
    model_name: str, fs: StateroomFileSystem
) -> None:
    path = f"stateroom://{model_name}/run-7/notes.txt"
    with pytest.warns(StateroomWarning, match=r"notes.txt is kept for a day, because it is not a checkpoint"):
        fs.pipe_file(path, b"some notes")
    assert fs.cat_file(path) == b"some notes"
    assert fs.cat_file(path, 5, -1) == b"note"
    assert fs.cat_ranges([path, path], [0, 5], [4, 10]) == [b"some", b"notes"]
    with fsspec.open(path) as file:
        assert file.read(4) == b"some"
    before = fs.ukey(path), fs.modified(path)
    with pytest.warns(StateroomWarning):
        fs.pipe_file(path, b"others")
    assert fs.ukey(path) != before[0]
    assert fs.modified(path) >= before[1]
    assert fs.ls(path.rpartition("/")[0], detail=False) == [fs._strip_protocol(path)]
    with fs.open(path, "wb") as file:
        torch.save({"weight": torch.ones(3)}, file)
    assert torch.load(fs.open(path))["weight"].tolist() == [1, 1, 1]
    with pytest.raises(NotACheckpoint):
        fs.pipe_file(path, b"some notes")
    fs.rm(path)


def test_a_save_takes_nothing_away_that_is_not_its_own(folder: str, model: Model, fs: StateroomFileSystem) -> None:
    for name in ("notes.txt", "deeper/__0_0.distcp"):
        with warnings.catch_warnings(action="ignore"):
            fs.pipe_file(f"{folder}/{name}", b"some notes")
    save(folder, 1.0)
    top = fs._strip_protocol(folder)
    assert fs.ls(folder, detail=False) == [f"{top}/{name}" for name in (".metadata", "__0_0.distcp", "notes.txt")]
    assert fs.cat_file(f"{folder}/notes.txt") == b"some notes"
    assert fs.exists(f"{folder}/deeper/__0_0.distcp")
    assert [file.path for file in model.checkpoint("latest").files()] == [".metadata", "__0_0.distcp"]


def test_a_save_of_many_tensors_takes_few_requests(folder: str, model: Model, server: Server) -> None:
    net = {f"layer.{number}": torch.full((1_100,), float(number)) for number in range(300)}
    seen = len(server.requests)
    dcp.save({"model": net, "epoch": 1}, checkpoint_id=folder, no_dist=True)
    assert len([each for each in server.requests[seen:] if model.name in each["path"]]) < 30
    found = model.load("latest")
    assert all(torch.equal(found["model"][key], value) for key, value in net.items())
    state = {"model": {key: torch.zeros(1_100) for key in net}}
    dcp.load(state, checkpoint_id=folder, no_dist=True)
    assert all(torch.equal(state["model"][key], value) for key, value in net.items())


@pytest.mark.parametrize("options", [{"thread_count": 3}, {"single_file_per_rank": False}], ids=["threads", "files"])
def test_a_process_may_write_several_files(options: dict[str, Any], folder: str, model: Model) -> None:
    dcp.save(state_of(1.0), storage_writer=FsspecWriter(folder, **options), no_dist=True)
    assert len(model.checkpoint("latest").files()) > 2
    check(model.load("latest"), 1.0)
    check(load(folder), 1.0)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("a/b/__0_0.distcp", "cannot be saved to: name a folder in it"),
        ("a/b/folder/.metadata", "write .metadata.tmp and rename it"),
        ("a/b/folder/__0.metadata.tmp", "leave use_collectives out"),
        ("a/b/fol\x01der/__0_0.distcp", "which not every system can hold"),
        ("a/b/../__0_0.distcp", "has the segment '..'"),
        (f"a/b/{'x' * 300}/__0_0.distcp", "more than 255 bytes"),
        ("a/b/con/__0_0.distcp", "Windows cannot hold"),
        ("a/b/..", "has the segment '..'"),
        (f"a/b/{'x' * 300}", "more than 255 bytes|1 to 200 characters"),
    ],
)
def test_a_name_that_no_save_can_have_is_explained(path: str, error: str, fs: StateroomFileSystem) -> None:
    with pytest.raises(InvalidRequest, match=error):
        fs.pipe_file(f"stateroom://{path}", b"")
    assert not fs.exists(f"stateroom://{path}")


@pytest.mark.parametrize("name", ["a\0b", "a\udc80b"], ids=["NUL", "surrogate"])
@pytest.mark.parametrize("action", ["exists", "info", "ls", "cat_file", "makedirs", "rm", "touch"])
def test_a_name_that_is_no_text_is_explained(action: str, name: str, fs: StateroomFileSystem) -> None:
    with pytest.raises(InvalidRequest, match="must be Unicode text without NUL"):
        getattr(fs, action)(f"stateroom://a/b/run/{name}")


@pytest.mark.parametrize(
    "name", ["sub/__0_0.distcp", "../__0_0.distcp", "__0_0.DISTCP"], ids=["below", "above", "in capitals"]
)
def test_a_description_of_files_elsewhere_saves_nothing(
    name: str, folder: str, model: Model, fs: StateroomFileSystem, tmp_path: Path
) -> None:
    fs.pipe_file(f"{folder}/__0_0.distcp", distcp(1.0, tmp_path / "local"))
    metadata = (tmp_path / "local/.metadata").read_bytes()
    old, new = (b"\x8c" + bytes([len(text)]) + text.encode() for text in ("__0_0.distcp", name))
    assert old in metadata
    fs.pipe_file(f"{folder}/.metadata.tmp", metadata.replace(old, new))
    with pytest.raises(InvalidRequest, match=r"\.metadata\.tmp names no file that was written: nothing was saved"):
        fs.mv(f"{folder}/.metadata.tmp", f"{folder}/.metadata")
    with pytest.raises(NotFound):
        model.checkpoint("latest")


@pytest.mark.filterwarnings("ignore:.*is kept for a day:stateroom.StateroomWarning")
def test_a_file_that_is_renamed_to_itself_stays(model_name: str, fs: StateroomFileSystem) -> None:
    path = f"{model_name}/run-7/notes.txt"
    fs.pipe_file(f"stateroom://{path}", b"some notes")
    for other in (path, f"{path}/", f"stateroom:///{path}", f"//{path}"):
        fs.mv(f"stateroom://{path}", other)
        fs.mv(other, f"stateroom://{path}")
        assert fs.cat_file(other) == b"some notes"
    assert fs.find(f"stateroom:///{model_name}/run-7") == [path]


@pytest.mark.filterwarnings("ignore:.*is kept for a day:stateroom.StateroomWarning")
def test_a_removed_file_takes_what_it_has_replaced_along_and_no_other(model_name: str, fs: StateroomFileSystem) -> None:
    path = f"stateroom://{model_name}/run-7/notes"
    fs.pipe_file(path, b"some notes")
    with fs.open(path, "wb") as file:
        torch.save({"weight": torch.ones(3)}, file)
    fs.rm(path)
    assert not fs.exists(path)
    fs.pipe_file(path, b"some notes")
    fs.pipe_file(f"{path}/below", b"others")
    with pytest.raises(IsADirectoryError, match="is a folder, too"):
        fs.rm(path)
    assert fs.cat_file(f"{path}/below") == b"others"
    fs.rm(f"{path}/below")
    fs.rm(path)
    assert not fs.exists(path)


def test_a_token_that_may_not_write_saves_nothing_and_loads(
    fresh_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = fresh_server()
    monkeypatch.setenv("STATEROOM_URL", server.base_url)
    tokens = {scope: make_token(catalog_url(server), scope, scope) for scope in ("admin", "read", "write")}

    def take(scope: str) -> None:
        monkeypatch.setenv("STATEROOM_TOKEN", tokens[scope])
        StateroomFileSystem.clear_instance_cache()

    take("read")
    with pytest.raises(CheckpointException, match="scope write"):
        save("stateroom://a/b/folder", 1.0)
    take("write")
    for number in (1.0, 2.0):
        save("stateroom://a/b/folder", number)
    take("read")
    check(load("stateroom://a/b/folder"), 2.0)


def test_a_quota_holds_for_saves_by_name(fresh_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server = fresh_server()
    monkeypatch.setenv("STATEROOM_URL", server.base_url)
    with server.client() as http, Client(server.base_url) as client:
        http.put("/v1/namespaces/small", json={"quota_bytes": 100_000})
        with pytest.raises(CheckpointException, match="quota"):
            save("stateroom://small/net/folder", 1.0)
        with pytest.raises(NotFound):
            client.model("small/net").checkpoint("latest")


def test_the_folder_is_the_one_that_torch_writes_to_a_disk(folder: str, model: Model, tmp_path: Path) -> None:
    items = distcp(1.0, tmp_path / "local")
    save(folder, 1.0)
    downloaded = model.download("latest", tmp_path / "downloaded")
    assert (downloaded / "__0_0.distcp").read_bytes() == items
    check(load(str(downloaded)), 1.0)


def test_our_reader_loads_what_was_saved_by_name(folder: str, model: Model) -> None:
    save(folder, 1.0)
    state = {"rows": torch.zeros(SHAPE)}
    dcp.load(state, storage_reader=StateroomReader(model, "latest", component="model"), no_dist=True)
    assert torch.equal(state["rows"], weight(1.0))

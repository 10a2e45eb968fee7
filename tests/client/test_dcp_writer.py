"""torch.distributed.checkpoint saves to a server: many processes, one checkpoint."""

import os
import pickle
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.planner import WriteItem
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.multiprocessing.spawn import ProcessException

from stateroom import Client, InvalidRequest, Model, NotFound
from stateroom.integrations.dcp import StateroomReader, StateroomWriter
from tests.conftest import StartServer
from tests.support.measure import long, measure, some
from tests.support.processes import run_processes
from tests.support.scripts import run_script
from tests.support.server import Server
from tests.support.tokens import catalog_url, make_token
from tests.support.waiting import assert_soon

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
"""torch warns of no_dist=True."""

SLACK = 128 * 1024
"""Bytes that a process may send or receive beside its own."""


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name)


def trained(steps: int, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network of 2.5 MB that is sharded over all processes, after some steps of training."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(900, 700), nn.ReLU(), nn.Linear(700, 10), nn.BatchNorm1d(10))
    if dist.is_initialized():
        fully_shard(net, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    torch.manual_seed(1)
    for _ in range(steps):
        net(torch.randn(4, 900)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return net, optimizer


def state_of(net: nn.Module, optimizer: torch.optim.Optimizer, **more: Any) -> dict[str, Any]:
    weights, state = get_state_dict(net, optimizer)
    return {"model": weights, "optimizer": state, **more}


def whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [whole(each) for each in value]
    return value.full_tensor() if isinstance(value, DTensor) else value


def check_same(found: Any, expected: Any, at: str = "") -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), at
        for key, each in expected.items():
            check_same(found[key], each, f"{at}.{key}")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), at
    else:
        assert found == expected, at


def moved(server: Server, model: Model, field: str, seen: int = 0) -> int:
    """The bytes of bodies in requests for a model, from the log's record number ``seen`` on."""
    return sum(each[field] for each in server.requests[seen:] if model.name in each["path"])


def save(state: dict[str, Any], model: Model, **fields: Any) -> Any:
    writer = StateroomWriter(model, **fields)
    dcp.save(state, storage_writer=writer)
    return writer.checkpoint


@long
@pytest.mark.parametrize(("saving", "loading"), measure([(3, 2)], [(1, 2), (2, 3), (3, 1), (3, 2), (4, 2)]))
def test_any_number_of_processes_save_one_checkpoint_and_any_number_resume(
    saving: int, loading: int, model: Model, server: Server, tmp_path: Path
) -> None:
    more = {"epoch": 3, "notes": {"text": "hi", "list": [1, 2]}}

    def work(rank: int) -> None:
        state = state_of(*trained(2), **more)
        first = save(state, model, step=7, metrics={"acc": 0.5})
        assert (first is None) == (rank != 0)
        expected = whole({name: state[name] for name in ("model", "optimizer")})
        dist.barrier()
        seen = len(server.requests)
        dist.barrier()
        save({**state, "epoch": 4}, model, alias="last")
        dist.barrier()
        if rank == 0:
            torch.save(expected, tmp_path / "expected.pt")
            assert (first.version, first.step, first.epoch) == (1, 7, 3)
            assert moved(server, model, "bytes_in", seen) < 3 * SLACK  # of 7.6 MB

    run_processes(saving, tmp_path, work)
    expected = torch.load(tmp_path / "expected.pt")
    assert [each.epoch for each in model.checkpoints()] == [4, 3]
    assert model.checkpoint("last").version == 2

    def load(rank: int) -> None:
        net, optimizer = trained(0, seed=9)
        state = state_of(net, optimizer, epoch=0, notes={"text": "", "list": []})
        dcp.load(state, storage_reader=StateroomReader(model, 1))
        assert {name: state[name] for name in more} == more
        set_state_dict(net, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        check_same(whole(dict(zip(("model", "optimizer"), get_state_dict(net, optimizer), strict=True))), expected)

    run_processes(loading, tmp_path, load)
    check_same(model.state_dict(1, component="model", map_location="cpu"), expected["model"])

    folder = tmp_path / "folder"
    model.download(1, folder)
    assert sorted(path.name for path in folder.iterdir()) == [".metadata", *(f"__{n}_0.distcp" for n in range(saving))]
    plain = {"model": {key: torch.zeros_like(value) for key, value in expected["model"].items()}, "epoch": 0}
    dcp.load(plain, checkpoint_id=folder, no_dist=True)
    assert plain["epoch"] == 3
    check_same(plain["model"], expected["model"])


def grid() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {
        "rows": torch.randn(1001, 300),
        "columns": torch.randn(700, 1001),
        "both": torch.randn(501, 401),
        "half": torch.randn(400, 300).bfloat16(),
        "all": torch.randn(300, 200),
        "few": torch.randn(3, 2),
        "none": torch.zeros(0, 4),
        "scalar": torch.tensor(2.5),
    }


def placed(tensors: dict[str, torch.Tensor], mesh: Any, *, swapped: bool = False) -> dict[str, DTensor]:
    """Distribute tensors over a mesh of two dimensions; ``swapped``: in another way than they were saved."""
    rows, columns = (Shard(1), Shard(0)) if swapped else (Shard(0), Shard(1))
    placements = {
        "rows": [rows, Replicate()],
        "columns": [Replicate(), columns],
        "both": [rows, columns],
        "half": [columns, rows],
        "few": [rows, Replicate()],
    }
    return {
        key: distribute_tensor(value, mesh, placements.get(key, [Replicate(), Replicate()]))
        for key, value in tensors.items()
    }


@long
def test_rows_columns_and_both_are_saved_and_loaded_in_any_other_way(
    model: Model, server: Server, tmp_path: Path
) -> None:
    expected = grid()

    def work(rank: int) -> None:
        state = placed(expected, init_device_mesh("cpu", (2, 2)))
        save({"net": state}, model)

    def load(rank: int) -> None:
        mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2))
        blank = {key: torch.zeros_like(value) for key, value in expected.items()}
        for swapped in (False, True):
            state = {"net": placed(blank, mesh, swapped=swapped)}
            dcp.load(state, storage_reader=StateroomReader(model))
            check_same(whole(state["net"]), expected)

    run_processes(4, tmp_path, work)
    for loading in measure([4], [4, 2]):
        run_processes(loading, tmp_path, load)
    check_same(model.state_dict("latest", component="net", map_location="cpu"), expected)


@long
@pytest.mark.parametrize("loading", some([4, 2], 2))
def test_each_process_sends_and_receives_only_its_shards(
    loading: int, model: Model, server: Server, tmp_path: Path
) -> None:
    weight = torch.randn(4000, 500)

    def work(rank: int) -> None:
        mesh = init_device_mesh("cpu", (2,))
        save({"weight": distribute_tensor(weight, mesh, [Shard(0)])}, model)

    def load(rank: int) -> None:
        mesh = init_device_mesh("cpu", (loading,))
        state = {"weight": distribute_tensor(torch.zeros_like(weight), mesh, [Shard(0)])}
        dcp.load(state, storage_reader=StateroomReader(model))
        check_same(whole(state), {"weight": weight})

    run_processes(2, tmp_path, work)
    assert_soon(lambda: moved(server, model, "bytes_in") >= weight.nbytes)
    assert moved(server, model, "bytes_in") <= weight.nbytes + SLACK
    seen = len(server.requests)
    run_processes(loading, tmp_path, load)
    assert_soon(lambda: moved(server, model, "bytes_out", seen) >= weight.nbytes)
    assert moved(server, model, "bytes_out", seen) <= weight.nbytes + loading * SLACK


def test_columns_of_saved_rows_travel_without_the_others(model: Model, server: Server, tmp_path: Path) -> None:
    weight = torch.randn(3000, 1000)

    def work(rank: int) -> None:
        mesh = init_device_mesh("cpu", (2,))
        save({"net": {"weight": distribute_tensor(weight, mesh, [Shard(0)])}}, model)

    def load(rank: int) -> None:
        mesh = init_device_mesh("cpu", (4,))
        state = {"net": {"weight": distribute_tensor(torch.zeros_like(weight), mesh, [Shard(1)])}}
        dcp.load(state, storage_reader=StateroomReader(model))
        check_same(whole(state["net"]), {"weight": weight})

    run_processes(2, tmp_path, work)
    assert_soon(lambda: moved(server, model, "bytes_in") >= weight.nbytes)
    seen = len(server.requests)
    run_processes(4, tmp_path, load)
    assert_soon(lambda: moved(server, model, "bytes_out", seen) >= weight.nbytes)
    assert moved(server, model, "bytes_out", seen) <= weight.nbytes + 4 * SLACK


class Odd:
    """No value that torch.load takes by itself."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Odd)

    __hash__ = None


def kinds() -> dict[str, Any]:
    large = torch.randn(600, 900)
    return {
        "large": large,
        "transposed": large.t(),
        "columns": large[:, 100:400],
        "rows": large[100:200],
        "conjugate": torch.randn(50, 60, dtype=torch.complex64).conj(),
        "float8": torch.randn(100, 100).to(torch.float8_e4m3fn).view(torch.uint8),
        "blocks": torch.randint(0, 256, (17 * 1024 * 1024 + 3,), dtype=torch.uint8),
        "wide": torch.randint(0, 256, (4, 5 * 1024 * 1024), dtype=torch.uint8).t(),
        "pair": (1, torch.randn(3000)),
        "text": "é" * 10_000,
    }


def test_any_tensor_and_any_value_comes_back(model: Model, server: Server) -> None:
    expected = kinds()
    writer = StateroomWriter(model)
    dcp.save(expected, storage_writer=writer, no_dist=True)
    assert writer.checkpoint is not None
    state = {
        key: torch.zeros(value.shape, dtype=value.dtype) if isinstance(value, torch.Tensor) else None
        for key, value in expected.items()
    }
    seen = len(server.requests)
    dcp.load(state, storage_reader=StateroomReader(model), no_dist=True)
    assert torch.equal(state["pair"][1], expected["pair"][1])
    del state["pair"]
    del expected["pair"]
    check_same(state, expected)
    assert len([each for each in server.requests[seen:] if each["method"] == "GET"]) < 20


def test_many_small_values_come_in_few_requests(model: Model, server: Server) -> None:
    large = torch.randn(1000, 1000)
    groups = {f"group{number}": {"lr": 0.1 * number, "step": torch.tensor(number)} for number in range(100)}
    dcp.save({"a": large, **groups, "z": large + 1}, storage_writer=StateroomWriter(model), no_dist=True)
    state = {name: {"lr": 0.0, "step": torch.tensor(0)} for name in groups}
    seen = len(server.requests)
    dcp.load(state, storage_reader=StateroomReader(model), no_dist=True)
    check_same(state, groups)
    requests = [each for each in server.requests[seen:] if model.name in each["path"]]
    assert len(requests) < 10
    assert sum(each["bytes_out"] for each in requests) < 1_000_000


def test_values_that_torch_does_not_load_by_itself_need_a_word(model: Model) -> None:
    dcp.save({"odd": Odd(), "a": torch.ones(3)}, storage_writer=StateroomWriter(model), no_dist=True)
    state = {"odd": None, "a": torch.zeros(3)}
    with pytest.raises(CheckpointException, match="weights_only=True"):
        dcp.load(state, storage_reader=StateroomReader(model), no_dist=True)
    dcp.load(state, storage_reader=StateroomReader(model, weights_only=False), no_dist=True)
    assert state["odd"] == Odd()


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


def out_of_memory() -> None:
    raise MemoryError("no memory left")


def nothing() -> None: ...


def shards() -> dict[str, Any]:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return {key: distribute_tensor(torch.randn(900, 700), mesh, [Shard(0)]) for key in "abc"}


def check_nothing(model: Model) -> None:
    with pytest.raises(NotFound):
        model.checkpoint("latest")


def test_if_one_process_raises_all_do_and_nothing_is_saved(model: Model, tmp_path: Path) -> None:
    def work(rank: int) -> None:
        state = shards()
        for failing in (1, 0):
            planner = Failing(out_of_memory if rank == failing else nothing)
            with pytest.raises(CheckpointException, match="no memory left"):
                dcp.save(state, storage_writer=StateroomWriter(model), planner=planner)
        dist.barrier()
        check_nothing(model)
        dist.barrier()
        save(state, model)

    run_processes(3, tmp_path, work)
    assert model.checkpoint("latest").version == 1


@pytest.mark.parametrize("killed", [0, 1])
def test_if_one_process_is_killed_nothing_is_saved(killed: int, model: Model, tmp_path: Path) -> None:
    def work(rank: int) -> None:
        planner = Failing((lambda: os.kill(os.getpid(), signal.SIGKILL)) if rank == killed else nothing)
        dcp.save(shards(), storage_writer=StateroomWriter(model), planner=planner)

    with pytest.raises(ProcessException):
        run_processes(2, tmp_path, work)
    check_nothing(model)


def test_a_shard_that_was_swept_before_the_end_is_told(fresh_server: StartServer, tmp_path: Path) -> None:
    server = fresh_server("--grace", "0", "--sweep-interval", "0.2")
    with Client(server.base_url) as client:
        model = client.model("a/b")

        class Late(StateroomWriter):
            def finish(self, **arguments: Any) -> None:
                server.restart()  # ends the lease of what is staged; with a grace of 0 it goes at the next sweep
                assert_soon(lambda: '"blobs":1' in server.log.replace(" ", ""))
                self._model = Client(server.base_url).model("a/b")
                super().finish(**arguments)

        state = {"a": torch.randn(300, 300)}
        with pytest.raises(CheckpointException, match=r"gone from the server by now.*Nothing was saved; save again"):
            dcp.save(state, storage_writer=Late(model), no_dist=True)
        model = Client(server.base_url).model("a/b")
        check_nothing(model)
        dcp.save(state, storage_writer=StateroomWriter(model), no_dist=True)
        assert model.checkpoint("latest").version == 1


def test_two_jobs_that_save_the_same_at_once_make_two_checkpoints(model: Model) -> None:
    state = {"a": torch.randn(900, 700), "epoch": 1}
    found: list[int] = []

    def one() -> None:
        writer = StateroomWriter(model)
        dcp.save(state, storage_writer=writer, no_dist=True)
        assert writer.checkpoint is not None
        found.append(writer.checkpoint.version)

    jobs = [threading.Thread(target=one) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert sorted(found) == [1, 2, 3]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda server: Client(server.base_url, token="wrong"), "token"),
        (lambda server: Client("http://127.0.0.1:1", retry_seconds=0), "no Stateroom server responds"),
    ],
)
def test_what_keeps_a_save_from_the_server_is_told_to_all(
    fresh_server: StartServer, make: Any, error: str, tmp_path: Path
) -> None:
    server = fresh_server()
    make_token(catalog_url(server), "all", "admin")

    def work(rank: int) -> None:
        model = make(server).model("a/b")
        with pytest.raises(CheckpointException, match=error):
            save(shards(), model)

    run_processes(2, tmp_path, work)


def test_a_quota_holds_for_shards(fresh_server: StartServer) -> None:
    server = fresh_server()
    with server.client() as http, Client(server.base_url) as client:
        http.put("/v1/namespaces/small", json={"quota_bytes": 1_000_000})
        model = client.model("small/net")
        with pytest.raises(CheckpointException, match="quota"):
            dcp.save({"a": torch.randn(900, 700)}, storage_writer=StateroomWriter(model), no_dist=True)
        check_nothing(model)


def test_a_save_is_one_of_all_processes(model: Model) -> None:
    with pytest.raises(InvalidRequest, match="use_collectives=False"):
        dcp.save({"a": torch.ones(3)}, storage_writer=StateroomWriter(model), no_dist=True, use_collectives=False)
    sparse = {"a": torch.ones(3).to_sparse()}
    with pytest.raises(CheckpointException):
        dcp.save(sparse, storage_writer=StateroomWriter(model), no_dist=True)
    check_nothing(model)


def test_an_id_is_an_alias_and_loads_what_was_saved_under_it(model: Model) -> None:
    writer = StateroomWriter(model, epoch=5, tags={"by": "me"})
    assert writer.checkpoint_id is None
    for value in (1.0, 2.0):
        metadata = dcp.save(
            {"a": torch.full((3,), value)}, storage_writer=writer, checkpoint_id="epoch-5", no_dist=True
        )
    assert writer.checkpoint is not None
    assert (writer.checkpoint.version, writer.checkpoint.epoch, writer.checkpoint.tags) == (2, 5, {"by": "me"})
    assert metadata.storage_meta.checkpoint_id == str(writer.checkpoint)
    state = {"a": torch.zeros(3)}
    dcp.load(state, storage_reader=StateroomReader(model), checkpoint_id="epoch-5", no_dist=True)
    assert state["a"].tolist() == [2, 2, 2]
    with pytest.raises(CheckpointException, match="alias"):
        dcp.save({"a": torch.ones(3)}, storage_writer=writer, checkpoint_id="a/b c", no_dist=True)
    assert model.checkpoint("latest").version == 2
    with pytest.raises(InvalidRequest):
        StateroomWriter(model, epoch="three")


def test_a_writer_is_pickled_without_its_connections(model: Model) -> None:
    writer = StateroomWriter(model, step=3)
    dcp.save({"a": torch.ones(3)}, storage_writer=writer, no_dist=True)
    copy = pickle.loads(pickle.dumps(writer))
    assert copy.checkpoint is None
    dcp.save({"a": torch.ones(3)}, storage_writer=copy, no_dist=True)
    assert (copy.checkpoint.version, copy.checkpoint.step) == (2, 3)


def test_a_save_goes_on_beside_the_training(model: Model, tmp_path: Path) -> None:
    expected = torch.arange(600_000.0).reshape(600, 1000)

    def work(rank: int) -> None:
        weight = distribute_tensor(expected, init_device_mesh("cpu", (2,)), [Shard(0)])
        writer = StateroomWriter(model, alias="async")
        future = dcp.async_save({"weight": weight}, storage_writer=writer)
        getattr(future, "upload_completion", future).result()
        assert (writer.checkpoint is None) == (rank != 0)

    run_processes(2, tmp_path, work)
    state = {"weight": torch.zeros(600, 1000)}
    dcp.load(state, storage_reader=StateroomReader(model, "async"), no_dist=True)
    assert torch.equal(state["weight"], expected)


BY_ANOTHER_PROCESS = """
import sys
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType
from stateroom import Client
from stateroom.integrations.dcp import StateroomWriter

url, model, store = sys.argv[1:]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
writer = StateroomWriter(Client(url).model(model), step=3)
state = {"weight": torch.arange(600_000.0), "epoch": 2}
by = AsyncCheckpointerType.PROCESS
metadata = dcp.async_save(state, storage_writer=writer, async_checkpointer_type=by).result()
print(metadata.storage_meta.checkpoint_id, writer.checkpoint)
dist.destroy_process_group()
"""


def test_another_process_may_do_the_saving(model: Model, server: Server, tmp_path: Path) -> None:
    env = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    done = run_script(BY_ANOTHER_PROCESS, server.base_url, model.name, tmp_path / "store", env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{model.name}@1", "None"]
    state = {"weight": torch.zeros(600_000), "epoch": 0}
    dcp.load(state, storage_reader=StateroomReader(model), no_dist=True)
    assert (state["epoch"], model.checkpoint(1).step) == (2, 3)
    assert torch.equal(state["weight"], torch.arange(600_000.0))

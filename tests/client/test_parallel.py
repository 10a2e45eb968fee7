"""Downloads in parallel ranges, over connections that break, stall and damage the bytes."""

import functools
import io
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from torch import nn

from stateroom import Client, DigestMismatch, Model, PartialLoadError, ServerUnavailable
from stateroom._download import to_file
from tests.client.faults import Faulty, breaks_after, damages_at, faulty, stalls_after
from tests.conftest import StartServer
from tests.functional.torch_files import same, saved
from tests.store.devices import mounted_tmpfs
from tests.support.measure import long, measure, some
from tests.support.scripts import run_script
from tests.support.server import Server

BLOCK = 16 * 1024 * 1024


@functools.cache
def big_state() -> dict[str, torch.Tensor]:
    """A storage of several blocks, and some that are smaller, 40 MB together."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"wide": 6_000_000, "conv": 1_000_000, "fc": 3_000_000, "bias": 300, "none": 0}
    return {key: torch.empty(size).uniform_(generator=generator) for key, size in sizes.items()}


@pytest.fixture(scope="module")
def big(server: Server) -> str:
    """The name of a model whose checkpoint is ``big_state()``."""
    with Client(server.base_url) as client:
        client.model("tests/big-parallel").upload(io.BytesIO(saved({"epoch": 1, "model": big_state()})))
    return "tests/big-parallel"


def impatient(relay: Faulty, **options: Any) -> Client:
    return Client(relay.url, **{"retries": 3, "timeout": 30, **options})


# What comes is what torch.load gives


def kinds() -> dict[str, Any]:
    base = torch.arange(3_000_000, dtype=torch.float32)
    net = nn.Linear(300, 1000)
    opt = torch.optim.Adam(net.parameters())
    net(torch.ones(2, 300)).sum().backward()
    opt.step()
    return {
        "shared": {"a": base, "b": base, "view": base[100:400].view(20, 15).t(), "end": base[-5:]},
        "small": {f"{i}": torch.full((3,), float(i)) for i in range(300)},
        "optimizer": {"model": net.state_dict(), "optimizer": opt.state_dict(), "epoch": 3},
        "dtypes": {
            str(dtype): torch.arange(700_000).to(dtype)
            for dtype in (torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.complex64, torch.float64)
        },
        "others": {
            "sparse": torch.eye(900).to_sparse(),
            "quantized": torch.quantize_per_tensor(torch.rand(600_000), 0.1, 0, torch.qint8),
            "parameter": nn.Parameter(torch.rand(400_000), requires_grad=False),
            "conj": torch.rand(300_000, dtype=torch.complex64).conj(),
            "empty": torch.zeros(0, 3),
            "dense": torch.rand(500_000),
        },
    }


@long
@pytest.mark.parametrize(
    ("kind", "legacy"), some(product(["shared", "small", "optimizer", "dtypes", "others"], [False, True]), 3)
)
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated", "ignore:torch.quantize_per_tensor")
def test_an_object_is_what_torch_loads_of_the_upload(kind: str, legacy: bool, client: Client, model_name: str) -> None:
    obj = {"object": kinds()[kind]}
    file = saved(obj, _use_new_zipfile_serialization=not legacy)
    model = client.model(model_name)
    model.upload(io.BytesIO(file))
    assert same(model.load("latest"), torch.load(io.BytesIO(file), weights_only=True))
    assert same(model.load("latest", lambda storage, _: storage), torch.load(io.BytesIO(file), weights_only=True))
    meta = model.load("latest", "meta") if kind not in {"others", "optimizer"} else None
    assert meta is None or all(tensor.is_meta for tensor in meta["object"].values())


def test_each_storage_is_memory_of_its_own(server: Server, big: str, tmp_path: Path) -> None:
    state = Client(server.base_url).model(big).state_dict("latest")
    assert same(dict(state), big_state())
    for key, tensor in state.items():
        assert tensor.untyped_storage().nbytes() == big_state()[key].numel() * 4
    torch.save(state["conv"], tmp_path / "conv.pt")
    assert (tmp_path / "conv.pt").stat().st_size < 1_000_000 * 4 + 4096


@long
@pytest.mark.parametrize(("connections", "verify"), some(product([3, 9, 1], [True, False]), 3))
def test_it_is_the_same_over_however_many_connections(connections: int, verify: bool, server: Server, big: str) -> None:
    with Client(server.base_url, connections=connections, verify=verify) as client:
        assert same(dict(client.model(big).state_dict("latest")), big_state())


def test_what_is_cast_on_its_way_is_verified_and_equal(server: Server, big: str) -> None:
    model = Client(server.base_url).model(big)
    for _ in range(2):  # the second time, its checksums are known before it is sent
        state = model.state_dict("latest", dtype="bfloat16", dtype_exclude=["fc"])
        assert same(dict(state), {k: v if k == "fc" else v.bfloat16() for k, v in big_state().items()})


def test_a_part_of_a_storage_comes_alone(client: Client, model_name: str) -> None:
    base = torch.rand(9_000_000)
    client.model(model_name).save({"first": base[:6_000_000], "second": base[6_000_000:], "x": torch.ones(3)})
    state = client.model(model_name).state_dict("latest", include=["second", "x"])
    assert same(dict(state), {"second": base[6_000_000:].clone(), "x": torch.ones(3)})
    assert state["second"].untyped_storage().nbytes() == 3_000_000 * 4


def test_unsafe_objects_may_look_at_their_tensors_while_they_are_built(client: Client, model_name: str) -> None:
    model = client.model(model_name)
    with pytest.warns(UserWarning, match="weights_only=False"):
        model.save({"seen": Looks(torch.rand(900_000)), "w": torch.rand(2_000_000)})
    found = model.load("latest", weights_only=False)
    assert found["seen"].total == float(found["seen"].tensor.sum()) > 0


class Looks:
    """Computes something of its tensor when it is unpickled."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.total = tensor, float(tensor.sum())

    def __reduce__(self) -> tuple[type, tuple[torch.Tensor]]:
        return Looks, (self.tensor,)


def test_one_progress_counts_all_connections(server: Server, big: str) -> None:
    heard: list[tuple[int, int | None]] = []
    with Client(server.base_url, progress=lambda _label, done, total: heard.append((done, total))) as client:
        client.model(big).state_dict("latest")
    assert heard == sorted(heard)
    assert heard[-1][0] == heard[-1][1] > 40_000_000


# Connections that fail


def test_ranges_that_break_off_go_on_where_they_stopped(server: Server, big: str) -> None:
    faults = [breaks_after(size) for size in (3_000_000, 9_000_000, 5_000_000, 100)]
    with faulty(lambda: server.port, *faults) as relay, impatient(relay) as client:
        assert same(dict(client.model(big).state_dict("latest")), big_state())
    assert relay.faults == []
    asked = sum(end - start for start, end in relay.ranges)
    assert asked > 40_000_000 + 8_000_000  # what was asked again
    starts = [start for start, _ in relay.ranges]
    assert len(set(starts)) == len(starts)  # no range was begun anew but the one of which nothing had come


def test_a_connection_that_stalls_is_given_up_and_replaced(server: Server, big: str) -> None:
    over = threading.Event()
    with (
        faulty(lambda: server.port, stalls_after(2_000_000, over)) as relay,
        impatient(relay, timeout=1, retries=None, retry_seconds=600) as client,
    ):
        assert same(dict(client.model(big).state_dict("latest")), big_state())
        over.set()
    assert relay.faults == []


def test_a_server_that_is_restarted_meanwhile_is_come_back_to(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    with Client(server.base_url) as client:
        client.model("a/b").upload(io.BytesIO(saved(big_state())))

    def restart(_client: object, sent: int, data: bytes) -> bytes:
        if sent == 0:
            server.restart()
        return data

    with (
        faulty(lambda: server.port, breaks_after(10**9), restart) as relay,
        impatient(relay, retries=None, retry_seconds=600) as client,
    ):
        assert same(dict(client.model("a/b").state_dict("latest")), big_state())


def test_a_server_that_stays_away_is_an_error_and_not_an_object(server: Server, big: str) -> None:
    with faulty(lambda: server.port, *[breaks_after(0)] * 100) as relay, impatient(relay, retries=1) as client:
        model = client.model(big)
        with pytest.raises(ServerUnavailable):
            model.state_dict("latest")


def test_a_damaged_range_is_fetched_again(server: Server, big: str) -> None:
    with (
        faulty(lambda: server.port, damages_at(1_000_000), damages_at(2_000_000)) as relay,
        impatient(relay) as client,
    ):
        assert same(dict(client.model(big).state_dict("latest")), big_state())
    assert relay.faults == []
    again = [end - start for start, end in relay.ranges if end - start <= BLOCK]
    assert len(again) >= 2  # a block each, not a run


def test_damage_that_comes_again_and_again_is_refused(server: Server, big: str) -> None:
    with faulty(lambda: server.port, *[damages_at(1_000_000)] * 100) as relay, impatient(relay) as client:
        model = client.model(big)
        with pytest.raises(DigestMismatch, match="damaged"):
            model.state_dict("latest")


def test_damage_is_refused_however_the_connection_ends_after_it(server: Server, big: str) -> None:
    """What was found damaged is not forgotten when the same answer breaks off later."""

    def both(client: Any, sent: int, data: bytes) -> bytes | None:
        return damages_at(1_000_000)(client, sent, data) if sent < 9_000_000 else None

    with (
        faulty(lambda: server.port, breaks_after(10**9), both) as relay,  # the second range begins with 7 MB of a block
        impatient(relay, connections=1) as client,
    ):
        assert same(dict(client.model(big).state_dict("latest")), big_state())
    assert relay.faults == []
    assert len(relay.ranges) > 4  # three, and what was damaged and what was lost again


def test_a_damaged_cast_is_found_by_its_checksum(server: Server, big: str) -> None:
    with faulty(lambda: server.port, damages_at(1_000_000)) as relay, impatient(relay) as client:
        model = client.model(big)
        with pytest.raises(DigestMismatch):
            model.state_dict("latest", dtype="float16")


def test_without_verify_nothing_is_compared(server: Server, big: str) -> None:
    with faulty(lambda: server.port, damages_at(1_000_000)) as relay, impatient(relay, verify=False) as client:
        assert not same(dict(client.model(big).state_dict("latest")), big_state())


def test_a_token_is_sent_with_every_range(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off", "STATEROOM_SERVER_TOKEN": "secret" * 6})
    with Client(server.base_url, "secret" * 6) as client:
        client.model("a/b").upload(io.BytesIO(saved(big_state())))
        assert same(dict(client.model("a/b").state_dict("latest")), big_state())


def test_what_goes_through_a_proxy_comes_too(server: Server, big: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes absolute addresses is a proxy to itself."""
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("HTTP_PROXY", server.base_url)
    with Client("http://stateroom.localhost:1") as client:
        assert same(dict(client.model(big).state_dict("latest")), big_state())


# Threads and processes


@long
def test_threads_load_through_one_client(server: Server, big: str) -> None:
    count = measure(3, 8)
    with Client(server.base_url) as client, ThreadPoolExecutor(count) as pool:
        model = client.model(big)
        found = pool.map(lambda _: same(dict(model.state_dict("latest")), big_state()), range(count))
        assert all(found)


FORKS = """
import os, sys
import torch
from stateroom import Client

torch.set_num_threads(1)
model = Client(sys.argv[1]).model(sys.argv[2])
expected = [t.numpy().tobytes() for t in model.state_dict("latest").values()]
pid = os.fork()
assert [t.numpy().tobytes() for t in model.state_dict("latest").values()] == expected
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""


def test_a_forked_process_fetches_in_parallel_too(server: Server, big: str) -> None:
    done = run_script(FORKS, server.base_url, big)
    assert done.returncode == 0, done.stderr


INTERRUPTED = """
import os, signal, sys, threading
from stateroom import Client

heard, told = threading.Event(), threading.Event()
def progress(label, done, total):
    heard.set()
    told.wait()

def interrupt():
    heard.wait()
    os.kill(os.getpid(), signal.SIGINT)
    told.set()

threading.Thread(target=interrupt, daemon=True).start()
before = threading.active_count()
try:
    Client(sys.argv[1], progress=progress).model(sys.argv[2]).state_dict("latest")
except KeyboardInterrupt:
    assert threading.active_count() <= before, threading.enumerate()
    sys.exit(0)
"""


def test_an_interrupted_load_leaves_no_thread_that_writes(server: Server, big: str) -> None:
    done = run_script(INTERRUPTED, server.base_url, big)
    assert done.returncode == 0, done.stderr


# Servers without an index

KEPT = ("content-type", "etag", "stateroom-checkpoint")


def test_a_server_that_has_no_index_is_fetched_from_as_ever(server: Server, big: str, scripted: Any) -> None:
    from tests.client.conftest import Answer, Seen, problem

    def without_index(request: Seen) -> Answer:
        if "/index" in request.path:
            return problem(404, "not-found")
        url, content = server.base_url + request.path, request.body or None
        answer = httpx.request(request.method, url, content=content, trust_env=False, verify=False, timeout=60)
        kept = {name.title(): answer.headers[name] for name in KEPT if name in answer.headers}
        return Answer(answer.status_code, answer.content, kept)

    old = scripted(without_index)
    with Client(old.url) as client:
        assert same(dict(client.model(big).state_dict("latest")), big_state())
        net = net_like(big_state())
        client.model(big).load_into(net, "latest")
        assert same({k: v.detach() for k, v in net.state_dict().items()}, big_state())
        assert client.model(big).load("latest")["epoch"] == 1


def test_a_torchscript_archive_is_refused_as_ever(client: Client, model_name: str) -> None:
    from stateroom import Conflict

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(300, 1000)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x)

    net = Net()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(net), file)
    file.seek(0)
    model = client.model(model_name)
    model.upload(file)
    with pytest.raises(Conflict):
        model.load("latest", weights_only=False)
    assert same(dict(model.state_dict("latest")), dict(net.state_dict()))


# Into a model's own memory


class Net(nn.Module):
    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for key, tensor in state.items():
            self.register_parameter(key, nn.Parameter(torch.zeros_like(tensor)))


def net_like(state: dict[str, torch.Tensor]) -> Net:
    return Net(state)


@pytest.fixture
def relayed(server: Server, big: str) -> Iterator[tuple[Faulty, Model]]:
    with faulty(lambda: server.port) as relay, impatient(relay) as client:
        yield relay, client.model(big)


@pytest.mark.parametrize("way", ["load_into", "warmstart"])
def test_bytes_are_received_in_the_models_own_memory(way: str, server: Server, big: str) -> None:
    net = net_like(big_state())
    before = {key: (parameter, parameter.data_ptr()) for key, parameter in net.named_parameters()}
    with Client(server.base_url) as client:
        getattr(client.model(big), way)(net, "latest")
    assert same({k: v.detach() for k, v in net.state_dict().items()}, big_state())
    for key, parameter in net.named_parameters():
        assert parameter is before[key][0]
        assert parameter.data_ptr() == before[key][1]
        assert parameter.requires_grad


MEMORY = """
import sys
import torch
from torch import nn
from stateroom import Client

def high_water():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        for key, size in (("wide", 6_000_000), ("conv", 1_000_000), ("fc", 3_000_000), ("bias", 300), ("none", 0)):
            self.register_parameter(key, nn.Parameter(torch.full((size,), 2.0)))

net = Net()
model = Client(sys.argv[1], connections=2).model(sys.argv[2])
model.checkpoint("latest")
before = high_water()
getattr(model, sys.argv[3])(net, "latest")
print(high_water() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
@pytest.mark.parametrize("way", ["load_into", "warmstart"])
def test_loading_in_place_takes_no_memory_of_the_checkpoints_size(way: str, server: Server, big: str) -> None:
    done = run_script(MEMORY, server.base_url, big, way)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 25_000_000  # of 40 MB


def test_what_does_not_fit_as_it_is_comes_through_a_buffer(client: Client, model_name: str) -> None:
    base = torch.rand(900_000)
    state = {
        "cast": torch.rand(500_000),
        "strided": torch.rand(700, 600),
        "tied.a": base,
        "tied.b": base,
        "part": base[:450_000],
        "plain": torch.rand(400_000),
    }
    client.model(model_name).save(state)
    net = nn.Module()
    net.register_parameter("cast", nn.Parameter(torch.zeros(500_000, dtype=torch.float64)))
    net.register_parameter("strided", nn.Parameter(torch.zeros(600, 700).t()))
    tied = nn.Module()
    tied.register_parameter("a", nn.Parameter(torch.zeros(900_000)))
    tied.register_parameter("b", tied.a)
    net.add_module("tied", tied)
    net.register_buffer("part", torch.zeros(450_000))
    net.register_parameter("plain", nn.Parameter(torch.zeros(400_000)))
    strides = net.strided.stride()
    client.model(model_name).load_into(net, "latest")
    assert net.strided.stride() == strides
    assert net.tied.b is net.tied.a
    for key, value in net.state_dict().items():
        assert torch.equal(value.float(), state[key]), key


def test_tied_memory_of_the_model_gets_the_last_of_two_storages(client: Client, model_name: str) -> None:
    client.model(model_name).save({"a": torch.full((800_000,), 1.0), "b": torch.full((800_000,), 2.0)})
    net = nn.Module()
    net.register_parameter("a", nn.Parameter(torch.zeros(800_000)))
    net.register_parameter("b", net.a)
    client.model(model_name).load_into(net, "latest")
    assert set(net.a.tolist()) == {2.0}


class Doubling(nn.Module):
    """What it loads is not what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(500_000))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict[prefix + "weight"] = state_dict[prefix + "weight"] * 2
        super()._load_from_state_dict(state_dict, prefix, *args)


def hooked() -> nn.Module:
    net = nn.Module()
    net.register_parameter("weight", nn.Parameter(torch.zeros(500_000)))

    def double(_module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        state[prefix + "weight"] = state[prefix + "weight"] * 2

    net.register_load_state_dict_pre_hook(double)
    return net


@pytest.mark.parametrize("make", [Doubling, hooked])
@pytest.mark.parametrize("way", ["load_into", "warmstart"])
def test_modules_that_listen_are_given_a_state_dict_as_ever(
    way: str, make: Any, client: Client, model_name: str
) -> None:
    weight = torch.rand(500_000)
    client.model(model_name).save({"weight": weight})
    net = make()
    seen: list[torch.Tensor] = []
    net.register_load_state_dict_post_hook(lambda module, _: seen.append(module.weight.detach().clone()))
    getattr(client.model(model_name), way)(net, "latest")
    assert torch.equal(net.weight, weight * 2)
    assert torch.equal(seen[0], weight * 2)


def test_versions_and_extra_state_are_torchs_own_business(client: Client, model_name: str) -> None:
    """A BatchNorm saved before it counted its batches gets its counter from torch, as ever."""
    norm = nn.BatchNorm1d(200_000)
    nn.init.uniform_(norm.weight)
    state = norm.state_dict()
    del state["num_batches_tracked"]
    state._metadata[""]["version"] = 1
    client.model(model_name).save(state)
    again = nn.BatchNorm1d(200_000)
    again.num_batches_tracked.fill_(7)
    client.model(model_name).load_into(again, "latest", strict=False)
    assert torch.equal(again.weight, norm.weight)


def test_a_load_in_place_that_fails_says_what_is_in_place(relayed: tuple[Faulty, Model]) -> None:
    relay, model = relayed
    relay.faults += [breaks_after(10**9), *[breaks_after(2_000_000)] * 100]
    net = net_like(big_state())
    with pytest.raises(PartialLoadError) as failed:
        Client(relay.url, retries=0, connections=1).model(model.name).load_into(net, "latest")
    assert isinstance(failed.value.__cause__, ServerUnavailable)
    assert {*failed.value.loaded, *failed.value.remaining} == set(big_state())
    for key in failed.value.loaded:
        assert torch.equal(net.get_parameter(key), big_state()[key])


def test_damage_in_place_is_fetched_again_and_then_said(relayed: tuple[Faulty, Model]) -> None:
    relay, model = relayed
    relay.faults += [damages_at(1_000_000)]
    net = net_like(big_state())
    model.load_into(net, "latest")
    assert same({k: v.detach() for k, v in net.state_dict().items()}, big_state())
    relay.faults += [damages_at(1_000_000)] * 100
    with pytest.raises(PartialLoadError) as failed:
        model.warmstart(net_like(big_state()), "latest")
    assert isinstance(failed.value.__cause__, DigestMismatch)


def test_a_staged_load_touches_nothing_before_all_is_verified(relayed: tuple[Faulty, Model]) -> None:
    relay, model = relayed
    relay.faults += [damages_at(1_000_000)] * 100
    net = net_like(big_state())
    with pytest.raises(DigestMismatch):
        model.load_into(net, "latest", staged=True)
    assert not any(parameter.any() for parameter in net.parameters())


def test_bytes_for_another_device_are_copied_there() -> None:
    from stateroom._load.device import Device

    storage = torch.UntypedStorage(10)
    place, spare = Device(storage), memoryview(bytearray(4))
    for at in (0, 4, 6):
        room = place.room(at, spare)
        room[:] = bytes(range(at, at + 4))
        place.put(at, room)
    assert bytes(storage.tolist()) == bytes(range(10))


def test_a_full_disk_is_no_broken_connection(server: Server, big: str, tmp_path: Path) -> None:
    with Client(server.base_url) as client, mounted_tmpfs(tmp_path / "small", 20) as folder:
        with pytest.raises(OSError, match="No space left"):
            client.model(big).download("latest", folder / "big.pt")
        assert not list(folder.iterdir())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_storages_are_moved_straight_to_a_gpu(server: Server, big: str) -> None:
    state = Client(server.base_url).model(big).state_dict("latest", map_location="cuda:0")
    assert all(tensor.device == torch.device("cuda:0") for tensor in state.values())
    assert same({key: tensor.cpu() for key, tensor in state.items()}, big_state())


# Into files


@pytest.mark.parametrize("device", [None, "cpu"])
def test_a_download_into_a_file_comes_in_parallel(
    device: str | None, relayed: tuple[Faulty, Model], tmp_path: Path
) -> None:
    relay, model = relayed
    relay.faults += [breaks_after(3_000_000)]
    path = model.download("latest", tmp_path / "out.pt", device)
    assert same(torch.load(path)["model"], big_state())
    assert relay.faults == []
    relay.faults += [damages_at(2_000_000)] * 100
    with pytest.raises(DigestMismatch):
        model.download("latest", tmp_path / "again.pt", device)
    assert [each.name for each in tmp_path.iterdir()] == ["out.pt"]


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_a_state_dict_into_a_file_comes_in_parallel(
    kind: str, dtype: str | None, relayed: tuple[Faulty, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    monkeypatch.setattr(to_file, "WORTHWHILE", BLOCK)  # half of its 40 MB are
    relay, model = relayed
    path = model.download_state_dict("latest", tmp_path / "out", format=kind, dtype=dtype)
    assert len(relay.ranges) > 1
    expected = {key: tensor.to(torch.bfloat16) if dtype else tensor for key, tensor in big_state().items()}
    found = torch.load(path) if kind == "pt" else load_file(path)
    assert same(dict(sorted(found.items())), dict(sorted(expected.items())))
    relay.faults += [damages_at(2_000_000)] * 100
    with pytest.raises(DigestMismatch):
        model.download_state_dict("latest", tmp_path / "again", format=kind, dtype=dtype)

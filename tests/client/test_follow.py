"""Modules that follow a ref: only changed tensors are fetched, and no forward pass ever sees half an update."""

import queue
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn

from stateroom import Client, InvalidRequest, Model, NotFound, PartialLoadError, StateDictMismatch, Unauthorized, Update
from stateroom._load.gate import Gate
from tests.client.faults import Faulty, faulty
from tests.conftest import StartServer
from tests.functional.torch_files import same
from tests.support.server import Server
from tests.support.tokens import catalog_url, make_token, revoke_token
from tests.support.waiting import LONG_ENOUGH, assert_soon

WIDE, HEAD = 1_000_000, 500_000


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name)


@pytest.fixture
def relay(server: Server) -> Iterator[Faulty]:
    with faulty(lambda: server.port) as relay:
        yield relay


def network(wide: float = 0.0, head: float = 0.0, small: float = 0.0) -> nn.Module:
    net = nn.Module()
    for key, size, value in (("wide", WIDE, wide), ("head", HEAD, head), ("small", 3, small)):
        net.register_parameter(key, nn.Parameter(torch.full((size,), float(value))))
    net.register_buffer("empty", torch.zeros(0))
    return net


def values(net: nn.Module) -> dict[str, float]:
    """The value of which each tensor is full; NaN if it has several."""
    found = {}
    for key, tensor in net.state_dict().items():
        held = set(tensor.unique().tolist())
        found[key] = held.pop() if len(held) == 1 else float("nan")
    return {key: value for key, value in found.items() if key != "empty"}


def test_each_move_fetches_what_changed_and_loads_it(model: Model, relay: Faulty) -> None:
    for state in (network(1, 1, 1), network(1, 2, 1), network(1, 2, 2)):
        model.save(state.state_dict())
    model.alias("prod", 1)
    net = network()
    with Client(relay.url) as behind:
        following = behind.model(model.name).follow(net, "prod")
        first = next(following)
        assert (first.previous, first.changed) == (None, ("wide", "head", "small", "empty"))
        assert values(net) == {"wide": 1, "head": 1, "small": 1}
        for version, changed, size in (
            (2, ("head",), 4 * HEAD),
            (3, ("small",), 12),
            (1, ("head", "small"), 4 * HEAD + 12),
        ):
            relay.ranges.clear()
            model.update(following.current or 0, metrics={"seen": version})  # no move: nothing to tell
            model.alias("prod", version)
            before, update = following.current, next(following)
            assert (update.checkpoint.version, update.previous, update.changed) == (version, before, changed)
            assert (update.bytes, update.applied, following.current) == (size, True, update.checkpoint)
            assert sum(end - start for start, end in relay.ranges) < size + 100_000
        assert values(net) == {"wide": 1, "head": 1, "small": 1}
        following.close()
        model.alias("prod", 2)
        assert list(following) == []


class Scaled(nn.Module):
    """A module with loading code of its own: only the whole state is right for it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(300, 300))
        self.bias = nn.Parameter(torch.zeros(300))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        scaled = {key: value * 2 if key.startswith(prefix) else value for key, value in state.items()}
        super()._load_from_state_dict(scaled, prefix, *rest)


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Linear(300, 500), nn.BatchNorm1d(500), nn.Linear(500, 3)),
        lambda: nn.DataParallel(nn.Sequential(nn.Linear(300, 500), nn.Linear(500, 3))),
        lambda: nn.Sequential(nn.Linear(300, 500), nn.Linear(500, 3)).half(),
        lambda: nn.Sequential(Scaled(), nn.Linear(300, 3)),
    ],
    ids=["plain", "wrapped", "cast", "observed"],
)
def test_after_any_moves_it_is_what_load_into_loads(model: Model, make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(1)
    trained = make().float()
    inner = trained.module if isinstance(trained, nn.DataParallel) else trained
    optimizer = sgd(inner)
    for step in range(4):
        if step:
            inner[step % len(inner)].bias.data += 1
        if step == 2:
            inner[0].weight.grad = torch.ones_like(inner[0].weight)
            optimizer.step()
        model.save({"net": trained.state_dict(), "sgd": optimizer.state_dict()})
    net, other = make(), make()
    into = {"net": net, "sgd": sgd(net)}
    model.alias("prod", 1)
    with model.follow(into, "prod") as following:
        for version in (1, 2, 4, 3, 4, 1):
            model.alias("prod", version)
            next(following)
            model.load_into({"net": other, "sgd": (expected := sgd(other))}, version)
            assert same(net.state_dict(), other.state_dict())
            assert same(into["sgd"].state_dict(), expected.state_dict())


def test_a_server_that_dies_within_an_update_changes_nothing_and_is_waited_for(fresh_server: StartServer) -> None:
    server = fresh_server()
    reader = make_token(catalog_url(server), "reader", "read")
    writer = make_token(catalog_url(server), "writer", "write")
    with Client(server.base_url, writer) as direct:
        for value in (1, 2):
            direct.model("a/b").save(network(value, value, value).state_dict())
        direct.model("a/b").alias("prod", 1)

    def dies(_client: socket.socket, sent: int, data: bytes) -> bytes | None:
        if sent < HEAD:
            return data
        server.kill()
        return None

    net = network()
    with faulty(lambda: server.port) as relay, Client(relay.url, reader, retries=0, connections=1) as client:
        following = client.model("a/b").follow(net, "prod")
        next(following)
        relay.faults.append(dies)
        with Client(server.base_url, writer) as direct:
            direct.model("a/b").alias("prod", 2)
        with ThreadPoolExecutor() as pool, following:
            coming = pool.submit(next, following)
            assert_soon(lambda: server.process.poll() is not None)
            assert values(net) == {"wide": 1, "head": 1, "small": 1}
            assert not coming.done()
            server.restart()
            assert coming.result(LONG_ENOUGH).checkpoint.version == 2
            assert values(net) == {"wide": 2, "head": 2, "small": 2}
            coming = pool.submit(next, following)
            revoke_token(catalog_url(server), "reader")
            with Client(server.base_url, writer) as direct:
                assert_soon(lambda: direct.model("a/b").update(2, tags={"seen": str(coming)}) and coming.done())
            with pytest.raises(Unauthorized):
                coming.result(LONG_ENOUGH)


class Middle(nn.Module):
    """The middle of a forward pass, where a test has something happen."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.meanwhile()
        return x


@pytest.mark.parametrize("frozen", [True, False])
def test_a_forward_pass_sees_one_checkpoint_if_it_freezes_and_only_then(model: Model, frozen: bool) -> None:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), Middle(), nn.Linear(1, 1, bias=False)).requires_grad_(False)
    for value in (2.0, 4.0):
        model.save({f"{layer}.weight": torch.full((1, 1), value) for layer in (0, 2)})
    fetched: queue.Queue[Update] = queue.Queue()
    versions = [1, 2, 1, 2, 1]
    moves = iter(versions[1:])

    def moved_in_the_middle() -> None:
        """The alias moves, and the thread has the new tensors and begins to apply them."""
        model.alias("prod", next(moves))
        update = fetched.get(timeout=LONG_ENOUGH)
        if not frozen:
            assert_soon(lambda: update.applied)

    def apply(update: Update) -> None:
        fetched.put(update)
        update.apply()

    net[1].meanwhile = moved_in_the_middle
    model.alias("prod", versions[0])
    outputs = []
    with model.follow(net, "prod", apply="manual", callback=apply) as following:
        first = fetched.get(timeout=LONG_ENOUGH)
        assert_soon(lambda: first.applied)
        for version in versions[1:]:
            with following.frozen() if frozen else nullcontext():
                outputs.append(net(torch.ones(1)).item())
            assert_soon(lambda version=version: following.current.version == version)
    assert outputs == ([4.0, 16.0, 4.0, 16.0] if frozen else [8.0] * 4)


def test_a_gate_lets_readers_in_together_and_writers_alone_and_keeps_nobody_out() -> None:
    gate, state, writes = Gate(), [0, 0], 300

    def read() -> int:
        seen = 0
        while seen < writes:
            with gate.reading(), gate.reading():
                seen, other = state
                assert seen == other
        return seen

    def write() -> None:
        for _ in range(writes // 2):
            with gate.writing():
                state[0] += 1
                state[1] += 1

    with ThreadPoolExecutor() as pool:
        reads = [pool.submit(read) for _ in range(3)]
        written = [pool.submit(write) for _ in range(2)]
        assert [each.result(LONG_ENOUGH) for each in (*reads, *written)] == [writes] * 3 + [None] * 2
    with gate.reading(), pytest.raises(InvalidRequest, match="leave it first"), gate.writing():
        pass


def test_an_update_is_applied_when_it_is_told_to_and_never_after_a_newer_one(model: Model) -> None:
    for value in (1, 2, 3):
        model.save(network(value, value, value).state_dict())
    model.alias("prod", 1)
    net = network()
    following = model.follow(net, "latest", apply="manual")
    first = next(following)
    assert (values(net), first.applied, following.current) == ({"wide": 0, "head": 0, "small": 0}, False, None)
    model.save(network(3, 3, 4).state_dict())
    second = next(following)
    assert second.previous is None
    with pytest.raises(InvalidRequest, match="a newer update has replaced it"):
        first.apply()
    with following.frozen(), pytest.raises(InvalidRequest, match="leave it first"):
        second.apply()
    second.apply()
    second.apply()
    assert values(net) == {"wide": 3, "head": 3, "small": 4}
    model.save(network(5, 5, 5).state_dict())
    third = next(following)
    following.close()
    with pytest.raises(InvalidRequest, match="following has ended"):
        third.apply()
    assert values(net) == {"wide": 3, "head": 3, "small": 4}
    with pytest.raises(InvalidRequest, match="neither 'auto' nor 'manual'"):
        model.follow(net, "prod", apply="later")  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="has no alias 'other'"):
        model.follow(net, "other", callback=print)


def test_what_does_not_fit_is_left_out_and_what_is_gone_ends_it(model: Model) -> None:
    model.save(network(1, 1, 1).state_dict())
    model.save({"another": torch.zeros(3)})
    model.save(network(1, 3, 1).state_dict())
    model.alias("prod", 1)
    net, other = network(), network()
    told: queue.Queue[Update] = queue.Queue()
    following, in_thread = model.follow(net, "prod"), model.follow(other, "prod", callback=told.put)
    assert next(following).checkpoint.version == told.get().checkpoint.version == 1
    model.alias("prod", 2)
    with pytest.raises(StateDictMismatch):
        next(following)
    assert values(net) == {"wide": 1, "head": 1, "small": 1}
    model.alias("prod", 3)
    assert next(following).changed == told.get(timeout=LONG_ENOUGH).changed == ("head",)
    assert values(net) == values(other) == {"wide": 1, "head": 3, "small": 1}
    with pytest.raises(InvalidRequest, match="follows with a callback"):
        next(in_thread)
    model.unalias("prod")
    with pytest.raises(NotFound):
        next(following)
    assert_soon(lambda: isinstance(in_thread.error, NotFound))


def test_after_an_update_that_failed_halfway_the_next_one_loads_everything(model: Model) -> None:
    """The second module refuses a value when the first one has been loaded."""

    class Refuses(nn.Linear):
        def _load_from_state_dict(self, state: dict[str, Any], *rest: Any) -> None:
            if (state["bias"] == 2).all():
                raise RuntimeError("not this one")
            super()._load_from_state_dict(state, *rest)

    for value in (1.0, 2.0):
        states = [nn.Linear(3, 1).state_dict(), nn.Linear(3, 1).state_dict()]
        model.save({"a": states[0], "b": {key: torch.full_like(each, value) for key, each in states[1].items()}})
    model.alias("prod", 1)
    a, b = nn.Linear(3, 1), Refuses(3, 1)
    with model.follow({"a": a, "b": b}, "prod") as following:
        next(following)
        model.alias("prod", 2)
        with pytest.raises(PartialLoadError, match="only partly loaded"):
            next(following)
        assert following.current is None
        model.alias("prod", 1)
        assert next(following).changed == ("a.weight", "a.bias", "b.weight", "b.bias")
        assert all(torch.equal(a.state_dict()[key], each) for key, each in model.state_dict(1, component="a").items())
        assert b.weight.unique().tolist() == b.bias.tolist() == [1.0]

import io
import weakref
from collections import OrderedDict

import pytest
import torch
from torch import nn

from stateroom import InvalidRequest
from stateroom._torch import drain, rank, refuse_shards, target_tensors, unsafe_globals, unwrap, walk, whole_modules
from tests.support.scripts import run_script

SHARDED = """
import io, os
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "5", "WORLD_SIZE": "1"}
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
tensor = distribute_tensor(torch.zeros(4, 4), init_device_mesh("cpu", (1,)), [Shard(0)])
from stateroom import Client, ShardedTensor
from stateroom._torch import target_tensors
model = Client("http://127.0.0.1:9", retries=0).model("a/b")
net = torch.nn.Linear(4, 4, bias=False)
net.weight = torch.nn.Parameter(tensor)
for obj, where in (({"net": {"w": [tensor]}}, "net.w.0"), ({"net": net}, "net.weight"), (tensor, "the object itself")):
    try:
        model.save(obj)
    except ShardedTensor as error:
        assert str(error).startswith(where + " is a DTensor"), error
        assert "full_state_dict=True" in str(error), error
    else:
        raise SystemExit("no error")
try:
    target_tensors(net)
except ShardedTensor as error:
    assert "loaded into" in str(error), error
dist.destroy_process_group()
"""


def test_rank_zero_of_the_group_is_refused_a_sharded_tensor_before_anything_is_sent() -> None:
    done = run_script(SHARDED)
    assert done.returncode == 0, done.stderr[-2000:]


def test_plain_tensors_are_no_shards() -> None:
    refuse_shards({"net": nn.Linear(2, 2), "w": [torch.zeros(2), nn.Parameter(torch.zeros(2))]}, "")


def test_the_rank_is_torchruns_until_the_group_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rank() == 0
    monkeypatch.setenv("RANK", "3")
    assert rank() == 3
    monkeypatch.setenv("RANK", "")
    assert rank() == 0


def test_a_walk_visits_what_containers_hold_once_and_ends() -> None:
    loop: list[object] = [1]
    loop.append(loop)
    tree = {"a": {"b": [10, (20,)]}, "c": loop}
    assert list(walk(tree)) == [("a.b.0", 10), ("a.b.1.0", 20), ("c.0", 1)]


def test_whole_modules_are_found_wherever_they_lie() -> None:
    net = nn.Linear(2, 2)
    assert whole_modules(net) == ("The object itself",)
    assert whole_modules({"models": [net], "w": net.weight}) == ("models.0",)
    assert whole_modules(net.state_dict()) == ()


def test_unsafe_globals_are_those_that_torch_will_not_load() -> None:
    def names(obj: object) -> tuple[str, ...] | None:
        file = io.BytesIO()
        torch.save(obj, file)
        return unsafe_globals(file)

    assert names({"w": torch.zeros(2), "meta": OrderedDict(a=1)}) == ()
    assert names({"net": nn.Linear(2, 2)}) == ("torch.nn.modules.linear.Linear",)
    assert names({"x": 1 << 5000}) is None, "torch's own scan stops at a very large int"


def test_wrappers_are_seen_through_however_nested() -> None:
    def compiled(module: nn.Module) -> nn.Module:
        return torch.compile(module, backend="eager")

    net = nn.Sequential(nn.Linear(2, 2))
    assert unwrap(net) is net
    assert unwrap(nn.DataParallel(net)) is net
    assert unwrap(compiled(nn.DataParallel(compiled(net)))) is net


def test_a_target_without_memory_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="weight is on the meta device"):
        target_tensors(nn.Linear(2, 2, device="meta"))


def test_a_lazy_target_is_refused_until_it_is_made() -> None:
    net = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(InvalidRequest, match=r"0\.weight is not initialized.*run one batch"):
        target_tensors(net)
    net(torch.zeros(1, 2))
    assert list(target_tensors(net)) == ["0.weight", "0.bias"]


def test_drained_tensors_are_let_go() -> None:
    tensors = [torch.full((2,), float(i)) for i in range(6)]
    alive = [weakref.ref(tensor) for tensor in tensors]
    tree = {
        "state": {0: {"exp_avg": tensors[0], "step": 3}},
        "param_groups": [{"betas": (tensors[1], [tensors[2], "text"]), "lr": 0.1}],
        "list": [tensors[3], (tensors[4],)],
        "w": tensors[5],
    }
    drained = drain(tree)
    del tree, tensors
    for i, key in enumerate(
        ["state.0.exp_avg", "param_groups.0.betas.0", "param_groups.0.betas.1.0", "list.0", "list.1.0", "w"]
    ):
        taken = next(drained)
        assert taken[0] == key
        assert taken[1].tolist() == [i, i]
        del taken
        assert [each() is not None for each in alive] == [j > i for j in range(6)]
    assert list(drained) == []

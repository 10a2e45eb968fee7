"""torch.distributed.checkpoint loads checkpoints of a server, on any number of processes: the slices that each has."""

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.planner import LoadPlan
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from stateroom import Client, Conflict, InvalidRequest, Model
from stateroom._digest import BLOCK_SIZE
from stateroom._download.index import Fetching
from stateroom._download.layout import Layout, Stored
from stateroom._download.receiver import Receiver
from stateroom._download.slices import ByteRanges
from stateroom.integrations.dcp import StateroomReader
from tests.functional.torch_files import FORMATS, saved
from tests.support.docs import python_of
from tests.support.processes import run_processes
from tests.support.server import Server
from tests.support.waiting import assert_soon

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
"""torch warns of no_dist=True."""

SLACK = 64 * 1024
"""Bytes that a process may receive beside its own: the header, and small gaps between tensors."""


def network() -> nn.Sequential:
    """2.5 MB: more than what is fetched whole."""
    return nn.Sequential(nn.Linear(900, 700), nn.ReLU(), nn.Linear(700, 10))


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name)


def check_equal(found: dict[str, Any], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        whole = found[key].full_tensor() if isinstance(found[key], DTensor) else found[key]
        assert torch.equal(whole, value.to(whole.dtype)), key


def blank(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in state.items()}


def sizes_sent(server: Server, model: Model, bodies: int) -> list[int]:
    """Return the sizes of the bodies that were sent of state_dicts of the model, of which there are so many."""

    def sent() -> list[int]:
        return [
            each["bytes_out"]
            for each in server.requests
            if each["route"].endswith("/state_dict") and model.name in each["path"]
        ]

    assert_soon(lambda: len(sent()) >= bodies)
    return sent()


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_each_process_of_fsdp_receives_only_its_rows(ranks: int, model: Model, server: Server, tmp_path: Path) -> None:
    expected = network().state_dict()
    model.save({"model_state_dict": expected, "epoch": 3})

    def work(rank: int) -> None:
        net = network()
        mesh = init_device_mesh("cpu", (ranks,))
        for layer in (net[0], net[2], net):
            fully_shard(layer, mesh=mesh)
        state = {"model": net.state_dict()}
        dcp.load(state, storage_reader=StateroomReader(model, "latest", add_prefix="model."))
        check_equal(state["model"], expected)

    run_processes(ranks, tmp_path, work)
    size = sum(tensor.nbytes for tensor in expected.values())
    sent = sizes_sent(server, model, bodies=2 * ranks)
    assert max(sent) <= size / ranks + SLACK
    assert sum(sent) <= size + ranks * SLACK


def test_tensor_parallel_layers_are_split_along_either_dimension(model: Model, tmp_path: Path) -> None:
    expected = network().state_dict()
    model.save(expected)

    def work(rank: int) -> None:
        plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
        net = parallelize_module(network(), init_device_mesh("cpu", (2,)), plan)
        state = net.state_dict()
        dcp.load(state, storage_reader=StateroomReader(model))
        assert state["2.weight"].to_local().shape == (10, 350)
        check_equal(state, expected)

    run_processes(2, tmp_path, work)


@pytest.mark.parametrize(("ranks", "columns"), [(2, 1024), (3, 1000)])
def test_columns_travel_without_the_others(
    ranks: int, columns: int, model: Model, server: Server, tmp_path: Path
) -> None:
    expected = {"weight": torch.randn(1500, columns), "cube": torch.randn(30, 500, 40)}
    model.save(expected)

    def work(rank: int) -> None:
        mesh = init_device_mesh("cpu", (ranks,))
        whole = {f"model.{key}": torch.zeros(tensor.shape) for key, tensor in expected.items()}
        state = {key: distribute_tensor(tensor, mesh, [Shard(1)]) for key, tensor in whole.items()}
        dcp.load(state, storage_reader=StateroomReader(model, add_prefix="model."))
        check_equal({key.removeprefix("model."): tensor for key, tensor in state.items()}, expected)

    run_processes(ranks, tmp_path, work)
    size = sum(tensor.nbytes for tensor in expected.values())

    def sent() -> list[int]:
        routes = ("/state_dict", "/tensors/{key}")
        seen = [each for each in server.requests if model.name in each["path"] and each["route"].endswith(routes)]
        return [each["bytes_out"] for each in seen]

    assert_soon(lambda: len(sent()) >= 3 * ranks)
    assert size <= sum(sent()) <= size + ranks * SLACK


def test_parts_that_torch_chunk_does_not_make_come_with_their_rows(model: Model) -> None:
    weight = torch.randn(1000, 1000)
    model.save({"weight": weight})
    reader = StateroomReader(model)
    planner, plan = planned(reader, {"weight": (target := torch.zeros(1000, 1000))})
    part = replace(
        plan.items[0],
        storage_offsets=torch.Size([10, 7]),
        dest_offsets=torch.Size([10, 7]),
        lengths=torch.Size([900, 500]),
    )
    (plan,) = reader.prepare_global_plan([replace(plan, items=[part])])
    reader.read_data(plan, planner).wait()
    expected = torch.zeros(1000, 1000)
    expected[10:910, 7:507] = weight[10:910, 7:507]
    assert torch.equal(target, expected)


def kinds_of_tensors() -> dict[str, torch.Tensor]:
    large = torch.randn(600, 900)
    return {
        "large": large,
        "tied": large,
        "transposed": large.t(),
        "rows": large[100:200],
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "half": torch.randn(7, 5).bfloat16(),
        "mask": torch.tensor([True, False]),
        "complex": torch.randn(4, dtype=torch.complex64),
        "float8": torch.randn(16).to(torch.float8_e4m3fn),
    }


@pytest.mark.parametrize("kind", [*FORMATS, "safetensors"])
def test_any_tensor_of_any_format_is_loaded(kind: str, model: Model) -> None:
    expected = kinds_of_tensors()
    contiguous = {key: value.clone().contiguous() for key, value in expected.items()}
    data = save(contiguous) if kind == "safetensors" else saved(expected, **FORMATS[kind])
    model.upload(io.BytesIO(data))
    state = blank(expected)
    dcp.load(state, storage_reader=StateroomReader(model), no_dist=True)
    assert {key: value.view(torch.uint8).tolist() if value.dim() else value for key, value in state.items()} == {
        key: value.view(torch.uint8).tolist() if value.dim() else value for key, value in contiguous.items()
    }


def test_targets_may_have_another_dtype_or_layout(model: Model) -> None:
    weight = torch.randn(600, 900)
    model.save({"a": weight, "b": weight})
    state = {"a": torch.zeros(600, 900, dtype=torch.float16), "b": torch.zeros(900, 600).t()}
    dcp.load(state, storage_reader=StateroomReader(model), no_dist=True)
    assert torch.equal(state["a"], weight.half())
    assert torch.equal(state["b"], weight)


def test_keys_are_selected_and_renamed_and_tensors_cast(model: Model, server: Server) -> None:
    state_dict = {"module.a.weight": torch.randn(1000, 1000), "module.b.weight": torch.randn(1000, 1000)}
    model.save({"ema": state_dict, "raw": {"module.a.weight": torch.zeros(1)}})
    reader = StateroomReader(
        model, component="ema", strip_prefix="module.", include="a.*", rename={"a.": "first."}, dtype=torch.bfloat16
    )
    state = {"first.weight": torch.zeros(1000, 1000)}
    dcp.load(state, storage_reader=reader, no_dist=True)
    assert torch.equal(state["first.weight"], state_dict["module.a.weight"].bfloat16().float())
    assert sum(sizes_sent(server, model, bodies=2)) <= 2_000_000 + SLACK


def test_an_optimizer_is_a_component_as_well(model: Model) -> None:
    net = network()
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(2, 900)).sum().backward()
    optimizer.step()
    model.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()})
    expected = optimizer.state_dict()["state"][0]["exp_avg"]
    state = {"state": {0: {"exp_avg": torch.zeros_like(expected)}}}
    dcp.load(state, storage_reader=StateroomReader(model, component="optimizer"), no_dist=True)
    assert torch.equal(state["state"][0]["exp_avg"], expected)


def test_several_components_are_loaded_at_once(model: Model) -> None:
    model.save({"net": {"a": torch.ones(3)}, "ema": {"a": torch.full((3,), 2.0)}, "other": {"a": torch.zeros(3)}})
    state = {"model": {"a": torch.zeros(3)}, "average": {"of": {"a": torch.zeros(3)}}}
    reader = StateroomReader(model, component={"model": "net", "average.of": "ema"})
    dcp.load(state, storage_reader=reader, no_dist=True)
    assert state["model"]["a"].tolist() == [1, 1, 1]
    assert state["average"]["of"]["a"].tolist() == [2, 2, 2]
    with pytest.raises(InvalidRequest, match="either add_prefix or a mapping of components"):
        StateroomReader(model, component={"model": "net"}, add_prefix="a.")


def test_the_model_may_be_named_and_the_ref_come_with_the_call(
    model: Model, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATEROOM_URL", server.base_url)
    for number in (1, 2):
        model.save({"weight": torch.full((3,), float(number))})
    state = {"weight": torch.zeros(3)}
    reader = StateroomReader(model.name)
    dcp.load(state, storage_reader=reader, no_dist=True)
    assert state["weight"].tolist() == [2, 2, 2]
    dcp.load(state, storage_reader=reader, checkpoint_id="v1", no_dist=True)
    assert state["weight"].tolist() == [1, 1, 1]


def planned(reader: StateroomReader, state: dict[str, torch.Tensor]) -> tuple[DefaultLoadPlanner, LoadPlan]:
    """Do the steps of ``dcp.load`` before processes exchange their plans."""
    planner = DefaultLoadPlanner()
    metadata = reader.read_metadata()
    planner.set_up_planner(state, metadata, is_coordinator=False)
    reader.set_up_storage_reader(metadata, is_coordinator=False)
    return planner, reader.prepare_local_plan(planner.create_local_plan())


def test_all_processes_load_the_version_that_the_coordinator_found(model: Model) -> None:
    states = [{"weight": torch.zeros(3)}, {"weight": torch.zeros(3)}]
    readers = [StateroomReader(model), StateroomReader(model)]
    model.save({"weight": torch.ones(3)})
    ours, plan = planned(readers[0], states[0])
    model.save({"weight": torch.full((3,), 2.0), "more": torch.zeros(5)})
    theirs, other_plan = planned(readers[1], states[1])
    plans = readers[0].prepare_global_plan([plan, other_plan])
    for reader, planner, each in zip(readers, (ours, theirs), plans, strict=True):
        reader.read_data(each, planner).wait()
    assert [state["weight"].tolist() for state in states] == [[1, 1, 1], [1, 1, 1]]


def test_versions_that_differ_in_shape_are_not_mixed(model: Model) -> None:
    readers = [StateroomReader(model), StateroomReader(model)]
    model.save({"weight": torch.ones(4)})
    _, plan = planned(readers[0], {"weight": torch.zeros(4)})
    model.save({"weight": torch.ones(3)})
    state = {"weight": torch.zeros(3)}
    planner, other_plan = planned(readers[1], state)
    plans = readers[0].prepare_global_plan([plan, other_plan])
    with pytest.raises(Conflict, match=r"'latest' moved from .*@2 to .*@1 meanwhile, and weight is not the same"):
        readers[1].read_data(plans[1], planner)
    assert state["weight"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("options", "state", "error"),
    [
        ({"ref": "epoch:9"}, {"a": torch.zeros(2)}, "no checkpoint of epoch 9"),
        ({"component": "nope"}, {"a": torch.zeros(2)}, "nope"),
        ({}, {"model.a": torch.zeros(2)}, "Missing key in checkpoint state_dict: model.a"),
        ({}, {"a": torch.zeros(3)}, "Size mismatch"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(
    options: dict[str, Any], state: dict[str, torch.Tensor], error: str, model: Model
) -> None:
    model.save({"model": {"a": torch.ones(2)}})
    with pytest.raises(CheckpointException, match=error):
        dcp.load(state, storage_reader=StateroomReader(model, **options), no_dist=True)
    assert not any(value.any() for value in state.values())


def test_whole_blocks_are_compared_with_their_digests() -> None:
    size = 3 * BLOCK_SIZE + 10
    blocks = tuple(bytes([number]) * 32 for number in range(4))
    small = Stored(0, 50, "blake3:", (bytes([9]) * 32,))
    large = Stored(100, 100 + size, "blake3-16m:", blocks)
    layout = Layout("/file", large.end, "etag", None, None, (small, large), "little")
    ranges = ByteRanges(Fetching(layout, cast("Receiver", None), None))
    for first, last in [(0, size), (1, size), (0, size - 1), (BLOCK_SIZE, 2 * BLOCK_SIZE), (5, 9), (9, BLOCK_SIZE + 9)]:
        parts = list(ranges.parts(100 + first, 100 + last))
        assert [100 + first, *(part.end for part in parts)] == [*(part.start for part in parts), 100 + last]
        whole = range(-(-first // BLOCK_SIZE), 4 if last == size else last // BLOCK_SIZE)
        assert [block for part in parts for block in part.blocks] == [blocks[number] for number in whole]
    parts = list(ranges.parts(0, large.end))
    assert [(part.start, part.end) for part in parts] == [(0, 50), (50, 100), (100, large.end)]
    assert [part.blocks for part in parts] == [small.blocks, (), blocks]


def test_the_code_in_the_documentation_runs(server: Server, client: Client, tmp_path: Path) -> None:
    code = python_of("docs/frameworks.md", "Distributed checkpoints")
    assert "dcp.load(" in code
    code = code.replace("http://127.0.0.1:8765", server.base_url)
    expected = network().state_dict()
    client.model("vision/classifier").save(expected, loss=-1e9)

    def work(rank: int) -> None:
        names: dict[str, Any] = {}
        exec(compile(code, "docs/frameworks.md", "exec"), names)
        check_equal(names["net"].state_dict(), expected)

    run_processes(2, tmp_path, work)


def test_the_client_alone_imports_no_integration_and_says_what_one_needs() -> None:
    code = "import sys, stateroom; assert not any('integrations' in name for name in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = """
import sys
sys.modules["torch"] = None
try:
    import stateroom.integrations.dcp
except ImportError as error:
    print(error)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "stateroom.integrations.dcp needs torch" in printed
    assert "pip install 'stateroom[torch]'" in printed

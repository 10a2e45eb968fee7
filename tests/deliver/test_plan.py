"""Plans, made from real torch files and read back by real torch."""

import argparse
import collections
import io
import json
import pathlib
import random
import warnings
import zipfile
from typing import Any

import numpy as np
import pytest
import torch

from app.deliver.plan import Wanted, plan
from app.deliver.plan_wire import plan_in_child, select
from app.errors import HostileCheckpoint, SelectionError
from app.formats.index import index
from app.formats.manifest_json import encode
from app.select.keys import select_keys
from app.select.query import StateDictQuery
from app.values.work import Work
from tests.deliver.planning import load, materialise, planned, save, served_file, served_state_dict


class Custom:
    def __init__(self) -> None:
        self.weight = torch.arange(4.0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Custom) and torch.equal(self.weight, other.weight)

    __hash__ = None  # type: ignore[assignment]  # compared, never a key


def general_checkpoint() -> dict[str, Any]:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Linear(3, 3))
    adam = torch.optim.Adam(net.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(adam, 2)
    net(torch.randn(2, 1, 5, 5)).sum().backward()
    adam.step()
    schedule.step()
    return {
        "epoch": 3,
        "loss": np.float64(0.25),
        "model_state_dict": net.state_dict(),
        "optimizer_state_dict": adam.state_dict(),
        "scheduler": schedule.state_dict(),
        "torch_rng": torch.get_rng_state(),
        "python_rng": random.Random(0).getstate(),
        "numpy_rng": np.random.RandomState(0).get_state(),
        "array": np.arange(6.0).reshape(2, 3),
        "args": argparse.Namespace(lr=0.1, name="x", path=pathlib.PurePosixPath("a/b")),
        "ordered": collections.OrderedDict(b=1, a=2),
        "default": collections.defaultdict(list, {"k": [1]}),
        "frozen": frozenset({1, 2}),
        "slice": slice(1, None, 2),
        "bytes": b"\0\xff",
        "set": {1, 2},
        "complex": 1 + 2j,
        "big": 2**200,
        "text": "ü\ud800",
        "none": None,
        "custom": Custom(),
        "embedding": torch.nn.Parameter(torch.randn(3, 2)),
        "device": "cpu",
    }


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape, a.stride(), a.storage_offset(), a.requires_grad) == (
            b.dtype, b.shape, b.stride(), b.storage_offset(), b.requires_grad,
        )  # fmt: skip
        assert torch.equal(a, b)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
        assert getattr(a, "_metadata", None) == getattr(b, "_metadata", None)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def test_every_field_of_a_general_checkpoint_survives_file():
    original = general_checkpoint()
    again = torch.load(io.BytesIO(served_file(save(original))), weights_only=False)
    assert_same(again, original)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_field_survives_whatever_pickle_protocol_wrote_it(protocol):
    original = general_checkpoint()
    again = torch.load(io.BytesIO(served_file(save(original, pickle_protocol=protocol))), weights_only=False)
    assert_same(again, original)


def test_a_rewritten_file_is_laid_out_so_that_torch_may_calculate_its_offsets(tmp_path):
    original = general_checkpoint()
    path = tmp_path / "again.pt"
    path.write_bytes(served_file(save(original)))
    with torch.utils.serialization.config.patch("load.calculate_storage_offsets", True):
        assert_same(torch.load(path, weights_only=False, mmap=True), torch.load(path, weights_only=False))


def test_the_zips_own_checksums_are_right_also_of_storages_that_were_cut():
    base = torch.arange(10_000.0)
    data = save({"a": base[10:20], "b": base[9_000:9_500].view(50, 10), "c": torch.zeros(0)})
    with zipfile.ZipFile(io.BytesIO(served_state_dict(data))) as archive:
        assert archive.testzip() is None


def test_a_component_always_loads_with_weights_only_and_says_what_it_left_out():
    state = general_checkpoint()
    state["optimizer_state_dict"]["param_groups"][0]["odd"] = argparse.Namespace(x=1)
    state["optimizer_state_dict"]["param_groups"][0]["lr"] = np.float64(0.125)
    data = save(state)
    made = planned(data, Wanted(query=StateDictQuery(component="optimizer_state_dict")))
    assert made.left_out == ("param_groups.0.odd",)
    loaded = load(materialise(made, data))
    group = loaded["param_groups"][0]
    assert group["lr"] == 0.125
    assert type(group["lr"]) is float
    del state["optimizer_state_dict"]["param_groups"][0]["odd"]
    state["optimizer_state_dict"]["param_groups"][0]["lr"] = 0.125
    assert_same(loaded, state["optimizer_state_dict"])


def test_the_root_is_what_belongs_to_no_component():
    data = save(general_checkpoint())
    made = planned(data, Wanted(query=StateDictQuery(component="")))
    loaded = load(materialise(made, data))
    assert "model_state_dict" not in loaded
    assert "optimizer_state_dict" not in loaded
    assert loaded["loss"] == 0.25
    assert loaded["bytes"] == b"\0\xff"
    assert loaded["set"] == {1, 2}
    assert loaded["complex"] == 1 + 2j
    assert loaded["big"] == 2**200
    assert loaded["embedding"].requires_grad
    assert {"array", "args", "custom", "frozen", "slice"} <= set(made.left_out)


def test_a_tree_is_filtered_by_the_joined_paths_of_its_leaves():
    data = save(general_checkpoint())
    loaded = load(served_state_dict(data, component="optimizer_state_dict", include=("state.*.exp_avg",)))
    assert set(loaded) == {"state"}
    assert all(set(state) == {"exp_avg"} for state in loaded["state"].values())
    rest = load(served_state_dict(data, component="", include=("scheduler.*", "embedding")))
    assert set(rest) == {"scheduler", "embedding"}


def test_a_state_dict_keeps_its_metadata_so_that_a_strict_load_means_the_same():
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    loaded = load(served_state_dict(save({"model": net.state_dict()})))
    assert_same(loaded, net.state_dict())
    net.load_state_dict(loaded, strict=True)


def test_tied_weights_stay_tied_and_views_stay_views():
    weight = torch.randn(100, 100)
    data = save({"a": weight, "b": weight, "column": weight[:, 3], "flipped": weight.t(), "other": torch.zeros(5)})
    loaded = load(served_state_dict(data, exclude=("other",)))
    assert len({tensor.untyped_storage().data_ptr() for tensor in loaded.values()}) == 1
    assert torch.equal(loaded["column"], weight[:, 3])
    assert loaded["flipped"].stride() == (1, 100)


def test_a_small_view_of_a_large_storage_does_not_drag_it_along():
    base = torch.randn(1_000_000)
    data = save({"head": base[:10], "tail": base[-10:], "all": base})
    small = served_state_dict(data, include=("head", "tail"))
    assert len(small) < 4_000
    loaded = load(small)
    assert torch.equal(loaded["head"], base[:10])
    assert torch.equal(loaded["tail"], base[-10:])
    assert loaded["tail"].untyped_storage().nbytes() == 48  # 40 bytes, cut at a multiple of 16


def test_a_location_that_shares_its_text_with_the_users_own_is_replaced_alone():
    location = "cpu"
    data = save({"device": location, "w": torch.zeros(3), location: "cpu"})
    loaded = torch.load(io.BytesIO(served_file(data, device="meta")), weights_only=True)
    assert loaded["device"] == "cpu"
    assert loaded["cpu"] == "cpu"
    assert loaded["w"].device.type == "meta"


DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64, torch.complex128, torch.complex32, torch.uint16, torch.uint32,
    torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_survives_whole_and_cut(dtype):
    raw = torch.randint(0, 2, (64, 16), dtype=torch.uint8).view(-1)
    full = raw.view(dtype) if dtype is not torch.bool else raw.to(torch.bool)
    data = save({"full": full, "part": full.clone()[8:12]})
    for served in (served_state_dict(data), served_file(data)):
        loaded = load(served)
        for key, value in {"full": full, "part": full[8:12]}.items():
            assert loaded[key].dtype == dtype
            assert torch.equal(loaded[key].view(torch.uint8), value.view(torch.uint8))


def quantized() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch wants to be rid of quantized tensors; files with them exist
        return torch.quantize_per_tensor(torch.randn(4, 5), 0.1, 0, torch.qint8)


def elements(tensor: torch.Tensor) -> torch.Tensor:
    """What a tensor of any layout holds, as a plain one."""
    if tensor.is_sparse:
        return tensor.to_dense()
    return tensor.int_repr() if tensor.is_quantized else tensor.detach().clone()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(3, 4).to_sparse(),
        quantized(),
        torch.zeros(()),
        torch.zeros(0, 5),
        torch.zeros(1).expand(10_000),
        torch.randn(2, dtype=torch.complex64).conj(),
        torch.randn(2, dtype=torch.complex64).conj().imag,
        torch.nn.Parameter(torch.randn(3), requires_grad=False),
        torch.zeros(2, device="meta"),
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    ],
    ids=["sparse", "quantized", "scalar", "empty", "expanded", "conj", "neg", "parameter", "meta", "channels-last"],
)
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")  # says torch.load of a quantized tensor
def test_tensors_of_every_kind_survive(tensor):
    data = save({"x": tensor, "y": torch.ones(3)})
    for served in (served_state_dict(data), served_file(data)):
        loaded = load(served)["x"]
        assert type(loaded) is type(tensor)
        for name in ("shape", "dtype", "layout", "device"):
            assert getattr(loaded, name) == getattr(tensor, name)
        assert (loaded.is_conj(), loaded.is_neg()) == (tensor.is_conj(), tensor.is_neg())
        if tensor.layout == torch.strided:
            assert loaded.stride() == tensor.stride()
        if tensor.device.type != "meta":
            assert torch.equal(elements(loaded), elements(tensor))


def test_a_tensor_subclass_outside_of_torch_is_served_as_the_tensor_it_is():
    class Tagged(torch.Tensor):
        pass

    Tagged.__qualname__ = "Tagged"
    globals()["Tagged"] = Tagged
    data = save({"w": torch.randn(3).as_subclass(Tagged), "v": torch.zeros(2)})
    loaded = load(served_state_dict(data))
    assert type(loaded["w"]) is torch.Tensor


def test_meta_has_shapes_and_no_bytes():
    data = save({"model": {"w": torch.zeros(1000, 1000), "b": torch.zeros(7)}})
    served = served_state_dict(data, device="meta")
    assert len(served) < 3_000
    assert {key: (t.shape, t.device.type) for key, t in load(served).items()} == {
        "w": (torch.Size([1000, 1000]), "meta"),
        "b": (torch.Size([7]), "meta"),
    }


def test_only_the_keys_that_a_warm_start_matched_are_sent():
    data = save({"a": torch.zeros(100), "b": torch.zeros(200), "c": torch.zeros(300)})
    made = planned(data, Wanted(query=StateDictQuery(add_prefix="x."), only=("x.c", "x.a")))
    assert list(load(materialise(made, data))) == ["x.a", "x.c"]


def test_nothing_matched_is_an_error_with_near_misses():
    data = save({"model": {"conv1.weight": torch.zeros(3)}})
    with pytest.raises(SelectionError) as refused:
        served_state_dict(data, include=("conv.weight",))
    assert refused.value.near == ("conv1.weight",)


def test_a_plan_made_in_a_child_is_the_plan_made_here():
    data = save(general_checkpoint())
    manifest = index(memoryview(data)).manifest
    skeleton = data[manifest.skeleton.start : manifest.skeleton.end]
    for wanted in (
        Wanted(device="cuda:1"),
        Wanted(query=StateDictQuery(include=("0.*",), rename=(("0.", "conv."),), device="cpu")),
        Wanted(query=StateDictQuery(component="optimizer_state_dict", exclude=("*.step",))),
        Wanted(query=StateDictQuery(), only=("0.weight",)),
    ):
        here, there = plan(manifest, skeleton, wanted), plan_in_child(encode(manifest), skeleton, wanted)
        assert materialise(there, data) == materialise(here, data)
        assert (there.rules, there.left_out, there.storages) == (here.rules, here.left_out, here.storages)


def test_keys_selected_in_a_child_are_those_selected_here():
    keys = [f"layer{i}.weight" for i in range(40_000)] + ["half \ud800"]
    query = StateDictQuery(include=("re:layer[0-9]+9.*", "half*"), rename=(("layer", "block"),), add_prefix="model.")
    with pytest.raises(HostileCheckpoint):
        select_keys(keys, query, Work.here())  # which shows that a child has to do it
    selected = select(keys, query)
    assert selected == select_keys(keys, query)
    assert selected[-1] == (40_000, "model.half \ud800")
    with pytest.raises(SelectionError, match="none of the") as refused:
        select(keys, StateDictQuery(include=("re:layer[0-9]+x",), rename=(("layer", "block"),)))
    assert refused.value.code == "no-keys-matched"


@pytest.mark.parametrize(
    ("prefix", "text"),
    [((), "{}"), (("module.",), '{"strip_prefix":"module."}'), (("a.", "b."), '{"strip_prefix":["a.","b."]}')],
)
def test_plans_that_were_kept_before_there_were_several_prefixes_are_still_read(prefix: tuple[str, ...], text: str):
    wanted = Wanted(query=StateDictQuery(strip_prefix=prefix))
    query = json.loads(wanted.to_json())["query"]
    assert (
        json.dumps({key: value for key, value in query.items() if key == "strip_prefix"}, separators=(",", ":")) == text
    )
    assert Wanted.from_json(wanted.to_json()) == wanted


def test_what_is_wanted_survives_its_text():
    wanted = Wanted(
        query=StateDictQuery(component="", include=("b", "a"), rename=(("x", "y"), ("re:(.)", r"\1")), device="cuda:3"),
        only=("k",),
    )
    again = Wanted.from_json(wanted.to_json())
    assert again.to_json() == wanted.to_json()
    assert again.query is not None
    assert again.query.rename == wanted.query.rename  # type: ignore[union-attr]  # it was given above


@pytest.mark.parametrize("only", [None, (), ("k",), tuple(f"k{number}\udcff" for number in range(5_000))])
def test_a_list_of_keys_survives_its_text_in_one_line_too(only: tuple[str, ...] | None):
    wanted = Wanted(query=StateDictQuery(device="cpu"), only=only)
    assert Wanted.from_json(wanted.to_json()) == wanted
    before = json.dumps({"device": None, "only": only, "query": {"device": "cpu"}})  # as plans were kept once
    assert Wanted.from_json(before) == wanted


def test_a_component_is_found_whatever_its_neighbours_are_called():
    weight = torch.randn(5)
    for obj in (
        {(1, 2): [1], (3, 4): {"w": weight}},
        {None: [1], "None": {"w": weight}},
        {True: [0], "True": {"w": weight}},
        {2**20000: {"w": weight}},
    ):
        assert torch.equal(load(served_state_dict(save(obj)))["w"], weight)


def test_a_root_and_a_component_under_one_path_are_told_apart():
    data = save({None: {"w": torch.ones(2)}, "None": [torch.zeros(3)]})
    assert torch.equal(load(served_state_dict(data, component=""))["None"][0], torch.zeros(3))


def test_a_tensor_without_elements_takes_no_bytes_wherever_it_says_it_lies():
    base = torch.zeros(1000)
    empty = base.as_strided((0,), (1,), 2**59)
    loaded = load(served_state_dict(save({"empty": empty, "w": base[500:510]})))
    assert loaded["empty"].shape == (0,)
    assert torch.equal(loaded["w"], base[500:510])


def test_numbers_too_long_to_print_are_kept():
    parameter = torch.nn.Parameter(torch.zeros(2))
    state = torch.optim.SGD([parameter], lr=1.0).state_dict()
    state["param_groups"][0]["huge"] = 2**20000
    data = save({"model": {"w": parameter.data}, "optimizer": state})
    assert torch.load(io.BytesIO(served_file(data)), weights_only=False)["optimizer"] == state


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_weights_only_allows_is_kept_whatever_protocol_wrote_it(protocol):
    values = {
        "counter": collections.Counter({30: 1, 80: 1}),
        "set": {1, 2},
        "bytes": b"\0\xff",
        "bytearray": bytearray(b"abc"),
        "keys": {(1, "a"): 2, None: 3, 1.5: 4},
        "ordered": collections.OrderedDict(a=1),
        "device": torch.device("cuda:1"),
        "size": torch.Size([2, 3]),
        "dtype": torch.float16,
    }
    data = save({"model": {"w": torch.zeros(2)}, "t": torch.ones(1), "values": values}, pickle_protocol=protocol)
    made = planned(data, Wanted(query=StateDictQuery(component="")))
    loaded = load(materialise(made, data))["values"]
    assert made.left_out == ()
    assert loaded == values
    assert {key: type(value) for key, value in loaded.items()} == {key: type(value) for key, value in values.items()}


class Nonsense:
    def __reduce__(self) -> tuple[Any, ...]:
        return torch.device, ("nonsense",)


def test_a_call_that_torch_would_refuse_is_left_out_and_so_is_a_key():
    values = {"device": Nonsense(), frozenset({1}): 2, "kept": 1}
    data = save({"model": {"w": torch.zeros(2)}, "t": torch.ones(1), "a": values})
    made = planned(data, Wanted(query=StateDictQuery(component="")))
    assert load(materialise(made, data))["a"] == {"kept": 1}
    assert made.left_out == ("a.device", "a.(key)")


def test_an_empty_storage_seen_as_two_dtypes_stays_two():
    empty = torch.empty(0)
    loaded = load(served_file(save({"a": empty, "b": empty.view(torch.int32)})))
    assert {key: tensor.dtype for key, tensor in loaded.items()} == {"a": torch.float32, "b": torch.int32}


def test_a_quantized_tensor_has_no_meta_and_is_named():
    data = save({"q": quantized(), "w": torch.zeros(3)})
    made = planned(data, Wanted(query=StateDictQuery(device="meta")))
    assert list(load(materialise(made, data))) == ["w"]
    assert made.left_out == ("q",)


def test_a_checkpoint_may_be_called_after_the_hour_it_was_saved(tmp_path):
    path = tmp_path / "2024-01-01T12:30:00.pt"
    torch.save({"w": torch.ones(2)}, path)
    assert torch.equal(load(served_state_dict(path.read_bytes()))["w"], torch.ones(2))


def test_integers_whose_hashes_collide_cost_no_more_than_others():
    state = {k * (2**61 - 1): {"step": torch.tensor(1.0)} for k in range(3)}
    optimizer = {"state": state, "param_groups": [{"params": list(state)}]}
    data = save({"m": {"w": torch.zeros(1)}, "optimizer": optimizer})
    assert load(served_state_dict(data, component="optimizer", include=("state.*",))).keys() == {"state"}


def test_a_long_list_of_truth_values_is_no_attack() -> None:
    """A byte each in the pickle, which are walked for components, for tensors, for what is kept, and written."""
    mask = [True, False] * 60_000
    data = save({"mask": mask, "w": torch.zeros(2)})
    assert torch.load(io.BytesIO(served_state_dict(data)))["mask"] == mask
    assert torch.load(io.BytesIO(served_file(data)))["mask"] == mask

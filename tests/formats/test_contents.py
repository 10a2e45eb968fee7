"""Components, tensors and facts, found in files that torch wrote."""

import collections
import io
import math
from typing import Any

import numpy as np
import pytest
import torch

from app.errors import HostileCheckpoint
from app.formats.index import Index, index
from app.formats.manifest_json import decode, encode
from app.formats.pickle.machine import parse
from app.formats.tree import walk
from app.values.work import MIN_STEPS, Work


def index_of(obj: Any, **options: Any) -> Index:
    buffer = io.BytesIO()
    torch.save(obj, buffer, **options)
    return index(memoryview(buffer.getvalue()))


def components_of(obj: Any) -> list[tuple[Any, ...]]:
    return [(c.path, c.kind, c.keys) for c in index_of(obj).manifest.components]


W, B = torch.zeros(3, 4), torch.ones(3)


def optimizer(kind: type[torch.optim.Optimizer], **options: Any) -> dict[str, Any]:
    parameter = torch.nn.Parameter(torch.zeros(5, 2))
    made = kind([parameter], lr=0.1, **options)
    parameter.grad = torch.ones(5, 2)
    made.step()
    return made.state_dict()


def test_a_flat_file_is_the_component_with_the_empty_name():
    found = index_of({"w": W, "b": B}).manifest
    assert [(c.name, c.path, c.kind, c.keys, c.nbytes) for c in found.components] == [("", (), "state_dict", 2, 60)]
    assert [(t.component, t.key, t.shape) for t in found.tensors] == [(0, "w", (3, 4)), (0, "b", (3,))]


def test_every_state_dict_and_optimizer_in_a_file_is_a_component():
    assert components_of(
        {
            "epoch": 3,
            "modelA_state_dict": {"w": W},
            "nested": {"models": [{"w": W}, {"b": B}]},
            "optimizerA_state_dict": optimizer(torch.optim.SGD),
        }
    ) == [
        (("modelA_state_dict",), "state_dict", 1),
        (("nested", "models", 0), "state_dict", 1),
        (("nested", "models", 1), "state_dict", 1),
        (("optimizerA_state_dict",), "optimizer", 0),
    ]


def test_an_optimizer_shows_its_tensors_by_path_and_its_param_groups():
    found = index_of({"m": {"w": W}, "o": optimizer(torch.optim.Adam)}).manifest
    keys = [t.key for t in found.tensors if t.component == 1]
    assert keys == ["state.0.step", "state.0.exp_avg", "state.0.exp_avg_sq"]
    assert '"lr":0.1' in str(found.components[1].param_groups)


def test_extra_state_does_not_keep_a_mapping_from_being_a_state_dict():
    assert components_of({"w": W, "layer._extra_state": {"a": 1}}) == [((), "state_dict", 2)]


def test_a_mapping_with_anything_else_in_it_is_no_state_dict():
    assert components_of({"w": W, "note": "x"}) == []
    assert components_of({0: W}) == []


def test_the_same_state_dict_under_two_names_is_two_components():
    shared = {"w": W}
    assert components_of({"model": shared, "ema": shared}) == [
        (("model",), "state_dict", 1),
        (("ema",), "state_dict", 1),
    ]


def test_parameters_and_subclasses_of_dict_count():
    state_dict = collections.defaultdict(None, {"w": torch.nn.Parameter(W)})
    assert components_of({"model": state_dict}) == [(("model",), "state_dict", 1)]


def test_what_belongs_to_no_component_belongs_to_the_root():
    found = index_of({"model": {"w": W}, "embedding": B, "list": [B]}).manifest
    assert [(t.component, t.path) for t in found.tensors] == [(0, ("w",)), (None, ("embedding",)), (None, ("list", 0))]


def test_a_list_that_holds_itself_is_walked_once():
    loop: list[Any] = [W]
    loop.append(loop)
    assert [t.path for t in index_of({"loop": loop}).manifest.tensors] == [("loop", 0)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (3.0, 3),
        (torch.tensor(3), 3),
        (torch.tensor(3.0, dtype=torch.bfloat16), 3),
        (np.int64(3), 3),
        (np.float32(3), 3),
        ("3", None),
        (True, None),
        (-1, -1),  # as YOLO marks a finished training
        (3.5, None),
        (torch.tensor([3]), 3),
        (torch.tensor([[3.0]]), 3),
        (torch.tensor([3, 4]), None),
        (torch.tensor([]), None),
        (-(2**70), None),
        (2**70, None),
        (float("nan"), None),
    ],
    ids=repr,
)
def test_an_epoch_is_lifted_from_whatever_holds_a_count(value, expected):
    assert index_of({"epoch": value, "model": {"w": W}}).facts.epoch == expected


def test_facts_are_epoch_step_loss_and_the_other_numbers():
    facts = index_of(
        {
            "epoch": 2,
            "global_step": 70,
            "loss": torch.tensor(0.5),
            "best_acc": np.float64(0.75),
            "lr": 1,
            "model": {"w": W},
        }
    ).facts
    assert (facts.epoch, facts.step, facts.loss, facts.metrics) == (2, 70, 0.5, {"best_acc": 0.75, "lr": 1.0})


def test_a_tensor_of_one_element_is_a_number_as_its_item_is():
    found = index_of({"loss": torch.tensor([0.5]), "acc": torch.ones(3)[1:2], "model": {"w": W}}).facts
    assert (found.loss, found.metrics) == (0.5, {"acc": 1.0})


def test_the_first_of_the_names_for_a_step_wins_and_the_others_are_metrics():
    facts = index_of({"iter": 5, "step": 7, "model": {"w": W}}).facts
    assert (facts.step, facts.metrics) == (7, {"iter": 5.0})


def test_a_loss_may_be_nan():
    assert math.isnan(index_of({"loss": float("nan"), "model": {"w": W}}).facts.loss or 0)


def test_a_flat_state_dict_has_no_facts_even_if_a_key_is_called_epoch():
    assert index_of({"epoch": torch.tensor(3), "w": W}).facts.epoch is None


def test_tied_weights_name_one_storage():
    found = index_of({"a": W, "b": W, "row": W[1]}).manifest
    assert len(found.storages) == 1
    assert [(t.key, t.offset, t.stride, t.storage) for t in found.tensors] == [
        ("a", 0, (4, 1), 0),
        ("b", 0, (4, 1), 0),
        ("row", 4, (1,), 0),
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"w": W},
        lambda: {"model": {"\ud800": W}, "o": optimizer(torch.optim.Adam), "epoch": 1},
        lambda: [B, (W, {"x": B.half()})],
        lambda: {"\ud83d\ude00": {"\ud83d\ude00": W, "\U0001f600": B}, "\U0001f600": {"é": W}},
    ],
    ids=["flat", "general", "list", "two halves of a character beside it"],
)
def test_a_manifest_survives_its_encoding(make):
    manifest = index_of(make()).manifest
    assert decode(encode(manifest)) == manifest
    assert encode(manifest) == encode(decode(encode(manifest)))


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "x" * 201])
def test_a_number_under_a_name_that_cannot_be_kept_is_no_metric(name):
    assert index_of({name: 3, "lr": 1, "model": {"w": W}}).facts.metrics == {"lr": 1.0}


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: {str(i): {"w": W} for i in range(10_001)}, "components"),
        (lambda: {f"{i:04000}": {"w": W} for i in range(300)}, "components"),
    ],
    ids=["many", "long"],
)
def test_what_every_listing_shows_has_to_stay_small(make, rule):
    with pytest.raises(HostileCheckpoint) as refused:
        index_of(make())
    assert refused.value.rule == rule


def test_a_state_dict_referred_to_without_end_is_refused_in_time():
    big = {f"x{i}._extra_state": None for i in range(5_000)} | {"w": W}
    with pytest.raises(HostileCheckpoint) as refused:
        index_of([big] * 20_000)
    assert refused.value.rule == "too-much-work"


def test_containers_that_share_containers_that_share_containers_are_refused():
    layer: list[Any] = [W]
    for _ in range(30):
        layer = [layer, layer]
    with pytest.raises(HostileCheckpoint) as refused:
        index_of(layer)
    assert refused.value.rule == "too-much-work"


def test_a_number_in_a_large_storage_costs_no_more_than_its_own_bytes():
    big = torch.arange(1_000_000.0)
    buffer = io.BytesIO()
    torch.save({"loss": big[77], "model": {"w": big}, **{f"m{i}": big[i] for i in range(50)}}, buffer)
    largest = 0

    class Watched:
        def __len__(self) -> int:
            return len(buffer.getvalue())

        def __getitem__(self, part: slice) -> memoryview:
            nonlocal largest
            data = buffer.getbuffer()[part]
            largest = max(largest, len(data))
            return data

    found = index(Watched())
    assert (found.facts.loss, found.facts.metrics["m49"]) == (77.0, 49.0)
    assert largest < 100_000


@pytest.mark.parametrize(
    "make",
    [
        lambda: [i % 10 for i in range(60_000)],
        lambda: [True] * 100_000,
        lambda: {"a": {"b": {"tokens": list(range(120_000))}}},
        lambda: [()] * 60_000,
    ],
    ids=["labels", "mask", "nested", "empty"],
)
def test_long_lists_of_plain_values_are_no_bomb(make):
    """They take fewer steps than their bytes allow, even without most of those that any file may take."""
    buffer = io.BytesIO()
    torch.save({"model": {"w": W}, "extra": make()}, buffer)
    found = index(memoryview(buffer.getvalue()), Work(MIN_STEPS // 20))
    assert [c.name for c in found.manifest.components] == ["model"]


def test_a_key_longer_than_any_name_is_refused():
    with pytest.raises(HostileCheckpoint) as refused:
        index_of({"x" * 4097: W})
    assert refused.value.rule == "key-length"


def test_a_dict_of_one_key_many_times_referred_to_many_times_is_refused_in_time():
    pairs = b"".join(b"X\1\0\0\0aK\1" for _ in range(20_000))
    pickled = b"\x80\x02](}(" + pairs + b"uq\0" + b"h\0" * 20_000 + b"e."
    with pytest.raises(HostileCheckpoint) as refused:
        list(walk(parse(pickled), lambda node: False, Work()))
    assert refused.value.rule == "too-much-work"

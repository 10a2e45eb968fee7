"""One tensor, its rows and its shards, as torch slices it."""

from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.deliver.plan import Plan, TensorForm, Wanted, plan, plan_listed
from app.deliver.plan_wire import plan_in_child
from app.errors import SelectionError
from app.formats.index import index
from app.formats.manifest_json import encode
from app.select.one_tensor import TensorQuery, parse_rows, parse_shard
from app.values.span import Span
from app.values.work import Work
from tests.deliver.planning import big_endian, materialise, planned, save
from tests.formats.kinds_of_tensors import LISTED, NOT_LISTED

pytestmark = pytest.mark.filterwarnings("ignore")  # of quantized, sparse and nested tensors

CANNOT = {"qint8", "quint8", "qint32", "per channel", "quint4x2", "meta", "meta parameter"}


def raw(data: bytes, key: str, **wanted: Any) -> torch.Tensor:
    """The tensor that a client makes of the raw elements."""
    want = Wanted(tensor=TensorQuery(key, format="raw", **wanted))
    made = planned(data, want)
    assert made.tensor is not None
    assert listed(data, want) in (None, made)
    body = bytearray(materialise(made, data))
    dtype = getattr(torch, made.tensor.dtype)
    elements = torch.frombuffer(body, dtype=torch.uint8).view(dtype) if body else torch.empty(0, dtype=dtype)
    return elements.reshape(made.tensor.shape)


def listed(data: bytes, want: Wanted) -> Plan | None:
    """The plan by the manifest alone, if that is enough."""
    manifest = index(memoryview(data)).manifest
    return plan_listed(manifest, data[manifest.skeleton.start : manifest.skeleton.end], want, Work())


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Compare dtypes, shapes and bytes."""
    other = other.resolve_conj().resolve_neg()
    return (one.dtype, one.shape) == (other.dtype, other.shape) and bytes_of(one) == bytes_of(other)


def bytes_of(tensor: torch.Tensor) -> bytes:
    flat = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor).view(-1)
    return flat.view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("kind", sorted(set(LISTED) - CANNOT))
def test_a_tensor_of_any_kind_is_the_one_that_was_saved(kind: str, endian: str) -> None:
    tensor = LISTED[kind]()
    data = save({"other": torch.ones(3), "it": tensor})
    data = big_endian(data) if endian == "big" else data
    if endian == "big" and kind in {"uint16", "uint64", "complex32"}:
        with pytest.raises(SelectionError, match="does not swap") as caught:
            raw(data, "it")
        assert caught.value.code == "not-one-tensor"
        return
    assert equal(raw(data, "it"), tensor)
    if tensor.dim() and tensor.shape[0]:
        assert equal(raw(data, "it", rows=(1, None)), tensor[1:])
        assert equal(raw(data, "it", rows=(1, None), shard=(0, 2)), tensor[1:].chunk(2)[0])


@pytest.mark.parametrize("kind", sorted(CANNOT | set(NOT_LISTED)))
def test_a_tensor_that_is_not_plain_elements_is_refused_with_the_reason(kind: str) -> None:
    tensor = {**LISTED, **NOT_LISTED}[kind]()
    data = save({"a": torch.ones(3), "it": tensor})
    with pytest.raises(SelectionError, match=r"'it' (is|has)") as caught:
        raw(data, "it")
    assert caught.value.code == "not-one-tensor"


def test_a_safetensors_file_has_the_one_tensor() -> None:
    tensor = torch.arange(60.0).view(10, 6)
    data = save({"module.w": tensor, "other": torch.ones(3)})
    made = planned(data, Wanted(tensor=TensorQuery("module.w", rows=(2, 5))))
    loaded = safetensors.torch.load(materialise(made, data))
    assert list(loaded) == ["module.w"]
    assert torch.equal(loaded["module.w"], tensor[2:5])
    assert made.tensor == TensorForm("float32", (3, 6))
    cast = planned(data, Wanted(tensor=TensorQuery("module.w", dtype="bf16", dim=1, shard=(1, 3))))
    assert torch.equal(
        safetensors.torch.load(materialise(cast, data))["module.w"], tensor.bfloat16().chunk(3, dim=1)[1]
    )


def test_a_dtype_that_safetensors_lacks_is_refused_there_and_sent_raw() -> None:
    data = save({"it": torch.ones(2, dtype=torch.complex128)})
    with pytest.raises(SelectionError, match="use format raw"):
        planned(data, Wanted(tensor=TensorQuery("it")))
    assert raw(data, "it").dtype == torch.complex128


@settings(deadline=None)
@given(st.data())
def test_any_slice_is_that_of_torch(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=3))
    tensor = torch.arange(float(torch.Size(shape).numel())).view(shape)
    tensor = tensor.to(data.draw(st.sampled_from([torch.float32, torch.int8, torch.complex64, torch.complex128])))
    order = data.draw(st.permutations(range(len(shape))))
    tensor = tensor.permute(order)
    bound = st.none() | st.integers(-tensor.shape[0], tensor.shape[0])
    rows = data.draw(st.none() | st.tuples(bound, bound))
    expected = tensor if rows is None else tensor[rows[0] : rows[1]]
    wanted: dict[str, Any] = {"rows": rows}
    if data.draw(st.booleans()):
        count = data.draw(st.integers(1, 9))
        number = data.draw(st.integers(0, count - 1))
        dim = data.draw(st.integers(-len(shape), len(shape) - 1))
        wanted |= {"dim": dim, "shard": (number, count)}
        chunks = expected.chunk(count, dim)
        expected = chunks[number] if number < len(chunks) else expected.narrow(dim, 0, 0)
    assert equal(raw(save({"it": tensor, "rest": torch.ones(3)}), "it", **wanted), expected)


@pytest.mark.parametrize("kind", ["transposed", "expanded", "0-dim", "empty", "uint16", "float8_e5m2"])
def test_the_manifest_alone_is_enough_for_most_tensors(kind: str) -> None:
    data = save({"it": LISTED[kind](), "other": torch.ones(3)})
    assert listed(data, Wanted(tensor=TensorQuery("it"))) is not None
    assert listed(data, Wanted(tensor=TensorQuery("that"))) is None


@pytest.mark.parametrize("kind", ["conjugate", "negative", "qint8", "meta"])
def test_only_the_skeleton_tells_what_a_tensor_of_some_kinds_is(kind: str) -> None:
    data = save({"it": LISTED[kind](), "other": torch.ones(3)})
    assert listed(data, Wanted(tensor=TensorQuery("it", format="raw"))) is None


def test_rows_of_a_contiguous_tensor_are_a_span_of_the_upload() -> None:
    data = save({"it": torch.randn(100, 30)})
    (storage,) = index(memoryview(data)).manifest.storages
    made = planned(data, Wanted(tensor=TensorQuery("it", rows=(10, 20), format="raw")))
    start = storage.span.start
    assert list(made.file.pieces()) == [Span(start + 10 * 120, start + 20 * 120)]
    assert made.storages[0].source == Span(start + 10 * 120, start + 20 * 120)


@pytest.mark.parametrize(
    ("shape", "wanted", "text"),
    [
        ((10, 4), {"rows": (5, 20)}, r"rows=5:20 is out of range for 10 rows: 'it' has shape \[10, 4\]"),
        ((10, 4), {"rows": (-11, None)}, r"rows=-11: is out of range for 10 rows"),
        ((), {"rows": (0, 1)}, r"rows=0:1 needs a dimension, and a scalar has none: 'it' has shape \[\]"),
        ((), {"shard": (0, 1)}, r"dim=0 is out of range for 0 dimensions"),
        ((10, 4), {"dim": 2, "shard": (0, 2)}, r"dim=2 is out of range for 2 dimensions"),
        ((10, 4), {"dim": -3, "shard": (0, 2)}, r"dim=-3 is out of range for 2 dimensions"),
    ],
)
def test_a_slice_that_is_not_there_is_refused_with_the_shape(
    shape: tuple[int, ...], wanted: dict[str, Any], text: str
) -> None:
    data = save({"it": torch.zeros(shape), "other": torch.ones(3)})
    with pytest.raises(SelectionError, match=text) as caught:
        raw(data, "it", **wanted)
    assert caught.value.code == "bad-slice"


@pytest.mark.parametrize("text", ["", "5", "a:b", "1:2:3", "::2", "1.0:2", " 1:2", "9" * 30 + ":", "--1:", "²:3"])
def test_rows_are_two_bounds(text: str) -> None:
    with pytest.raises(SelectionError, match="START:STOP"):
        parse_rows(text)


@pytest.mark.parametrize("text", ["", "1", "8/8", "0/0", "-1/8", "1/-8", "1/2/3", "a/b", "0/" + "9" * 30])
def test_a_shard_is_a_number_of_a_count(text: str) -> None:
    with pytest.raises(SelectionError, match="NUMBER/COUNT"):
        parse_shard(text)


def test_bounds_are_read() -> None:
    assert parse_rows(":") == (None, None)
    assert parse_rows("-3:") == (-3, None)
    assert parse_rows("2:10") == (2, 10)
    assert parse_shard("7/8") == (7, 8)


def test_a_key_is_found_in_the_model_then_in_the_only_component_that_has_it() -> None:
    net = torch.nn.Linear(3, 2)
    adam = torch.optim.Adam(net.parameters())
    net(torch.ones(3)).sum().backward()
    adam.step()
    state = net.state_dict()
    data = save(
        {
            "model": state,
            "ema": {"weight": torch.ones(2, 3), "only": torch.ones(1), "both": torch.ones(2)},
            "teacher": {"both": torch.zeros(2)},
            "optimizer": adam.state_dict(),
            "loose": {"list": [torch.ones(4)]},
        }
    )
    assert torch.equal(raw(data, "weight"), state["weight"])
    assert torch.equal(raw(data, "weight", component="ema"), torch.ones(2, 3))
    assert torch.equal(raw(data, "only"), torch.ones(1))
    assert torch.equal(raw(data, "state.0.exp_avg"), adam.state_dict()["state"][0]["exp_avg"])
    with pytest.raises(SelectionError, match="2 components have a tensor 'both'") as caught:
        raw(data, "both")
    assert (caught.value.code, set(caught.value.near)) == ("tensor-ambiguous", {"ema", "teacher"})
    with pytest.raises(SelectionError, match="did you mean 'weight'") as caught:
        raw(data, "wieght")
    assert (caught.value.code, caught.value.near) == ("unknown-tensor", ("weight",))
    with pytest.raises(SelectionError, match="is not a tensor: it is float"):
        raw(data, "param_groups.0.lr", component="optimizer")


def test_a_key_that_two_paths_share_is_ambiguous() -> None:
    data = save({"optimizer": {"state": {0: {"m": torch.ones(2)}, "0": {"m": torch.zeros(2)}}, "param_groups": []}})
    with pytest.raises(SelectionError, match="is the name of 2 values") as caught:
        raw(data, "state.0.m", component="optimizer")
    assert caught.value.code == "tensor-ambiguous"


def test_a_child_process_plans_the_same() -> None:
    data = save({"it": torch.randn(9, 8).t()})
    manifest = index(memoryview(data)).manifest
    skeleton = data[manifest.skeleton.start : manifest.skeleton.end]
    wanted = Wanted(tensor=TensorQuery("it", rows=(1, 4), dim=1, shard=(1, 2), dtype="float16"))
    assert plan_in_child(encode(manifest), skeleton, wanted) == plan(manifest, skeleton, wanted)
    assert Wanted.from_json(wanted.to_json()) == wanted


def test_a_part_of_a_view_that_repeats_its_elements_has_a_limit() -> None:
    data = save({"it": torch.ones(1).expand(1 << 20, 1 << 20)})
    with pytest.raises(SelectionError) as caught:
        raw(data, "it")
    assert caught.value.code == "too-expanded"
    assert torch.equal(raw(data, "it", rows=(-1, None), shard=(3, 1 << 19), dim=1), torch.ones(1, 2))

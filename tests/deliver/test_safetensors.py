"""Safetensors files, made of real checkpoints and read back by the safetensors package."""

import io
import json
import warnings
import zipfile
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from app.deliver.cost import check_cost
from app.deliver.plan import Wanted, plan
from app.deliver.plan_wire import plan_in_child
from app.errors import SelectionError
from app.formats.index import index
from app.formats.manifest_json import encode
from app.formats.safetensors.write import Content
from app.select.query import StateDictQuery
from app.values.conversion import Conversion, merged
from app.values.dtype import DTYPES
from app.values.span import Span
from app.values.work import Work
from tests.deliver.planning import big_endian, materialise, planned, save, served_state_dict

HELD = [
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
    "complex64",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e8m0fnu",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "float4_e2m1fn_x2",
]


def of_every_dtype() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name in HELD:
        raw = torch.randint(0, 256, (96,), dtype=torch.uint8, generator=generator)
        made[f"of.{name}"] = raw.view(getattr(torch, name)) if name != "bool" else raw > 100
    return made


def metadata_of(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"]


def raw(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.resolve_conj().resolve_neg().contiguous().view(-1).view(torch.uint8)


def assert_same(loaded: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(loaded) == set(expected)
    for key, tensor in expected.items():
        assert (loaded[key].dtype, loaded[key].shape) == (tensor.dtype, tensor.shape), key
        assert torch.equal(raw(loaded[key]), raw(tensor)), key


def test_a_plain_state_dict_is_written_byte_for_byte_as_the_package_writes_it():
    state_dict = {**of_every_dtype(), 'ü"\n\u2028': torch.zeros(2, 3), "empty": torch.zeros(0, 4)}
    assert served_state_dict(save(state_dict), format="safetensors") == safetensors.torch.save(
        state_dict, {"format": "pt"}
    )


def views() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    image = torch.randn(3, 5, 7, 11)
    return {
        "permuted": image.permute(2, 0, 3, 1),
        "channels_last": image.contiguous(memory_format=torch.channels_last),
        "sliced": image[:, 1:4, ::2, 3:9],
        "expanded": torch.randn(1).expand(1000, 70),
        "conjugate": torch.randn(7, 3, dtype=torch.complex64).conj().t(),
        "negative": torch.randn(7, dtype=torch.complex64).conj().imag,
        "both": torch.view_as_complex(torch.randn(4, 2))[1:].conj(),
        "scalar": torch.tensor(3.0),
        "column": torch.randn(100, 100)[:, 5],
        "transposed": torch.randn(3000, 2000).t(),
        "bools": torch.randn(100, 100).gt(0).t(),
        "halves": torch.randn(40, 30, dtype=torch.float16).t(),
        "doubles": torch.randn(40, 30, dtype=torch.float64)[::3],
        "parameter": torch.nn.Parameter(torch.randn(3, 2).t()),
    }


def test_every_view_becomes_its_elements_in_order():
    state_dict = views()
    data = served_state_dict(save(state_dict), format="safetensors")
    assert_same(safetensors.torch.load(data), state_dict)
    noted = json.loads(metadata_of(data)["stateroom.made_contiguous"])
    assert noted == [key for key, tensor in state_dict.items() if not tensor.is_contiguous()]


def test_tied_weights_are_written_each_and_noted():
    weight = torch.randn(50, 60)
    state_dict = {"a": weight, "alone": torch.zeros(3), "b": weight, "part": weight[3:5], "transposed": weight.t()}
    data = served_state_dict(save(state_dict), format="safetensors")
    assert_same(safetensors.torch.load(data), state_dict)
    assert json.loads(metadata_of(data)["stateroom.shared"]) == [["a", "b", "part", "transposed"]]
    flat = torch.randn(20)
    apart = served_state_dict(save({"a": flat[:10], "b": flat[10:]}), format="safetensors")
    assert "stateroom.shared" not in metadata_of(apart)


def test_a_safetensors_file_keeps_its_own_texts_and_comes_back_as_it_was():
    tensors = {"a": torch.randn(5, 3), "b": torch.randn(2)}
    data = safetensors.torch.save(tensors, {"format": "pt"})
    assert served_state_dict(data, format="safetensors") == data
    of_numpy = served_state_dict(safetensors.torch.save(tensors, {"format": "np"}), format="safetensors")
    assert metadata_of(of_numpy) == {"format": "pt"}  # what reads it now is torch
    named = safetensors.torch.save(tensors, {"epoch": "4", "author": "me"})
    assert metadata_of(served_state_dict(named, format="safetensors")) == {"epoch": "4", "author": "me", "format": "pt"}


def test_an_optimizer_is_written_under_dotted_names_and_what_is_no_tensor_is_named():
    net = torch.nn.Linear(4, 3)
    adam = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 4)).sum().backward()
    adam.step()
    data = save({"model": net.state_dict(), "optimizer": adam.state_dict()})
    made = planned(data, Wanted(query=StateDictQuery(component="optimizer", format="safetensors")))
    loaded = safetensors.torch.load(materialise(made, data))
    state = adam.state_dict()["state"]
    assert_same(loaded, {f"state.{i}.{key}": tensor for i in state for key, tensor in state[i].items()})
    assert {"param_groups.0.lr", "param_groups.0.betas.1"} <= set(made.left_out)


@pytest.mark.parametrize("stored", ["zip", "legacy"])
def test_files_of_every_age_can_be_converted(stored):
    state_dict = {**views(), "wide": torch.randn(40, 50)}
    data = save(state_dict, _use_new_zipfile_serialization=stored == "zip")
    assert_same(safetensors.torch.load(served_state_dict(data, format="safetensors")), state_dict)


def test_big_endian_elements_are_swapped():
    state_dict = {"f": torch.randn(2000), "c": torch.randn(9, dtype=torch.complex64).conj(), "b": torch.arange(9) > 3}
    state_dict |= {"h": torch.randn(6, 4, dtype=torch.float16).t(), "d": torch.randn(3, dtype=torch.float64)}
    data = big_endian(save(state_dict))
    assert_same(safetensors.torch.load(served_state_dict(data, format="safetensors")), state_dict)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64], ids=str)
def test_elements_of_a_big_endian_file_that_torch_does_not_swap_are_refused(dtype: torch.dtype) -> None:
    """They have other numbers on each machine: whichever a safetensors file had, some torch.load would disagree."""
    data = big_endian(
        save({"w": torch.randn(3), "u": torch.arange(300).to(dtype), "none": torch.empty(0, dtype=dtype)})
    )
    with pytest.raises(SelectionError, match=r"'u'.*big-endian") as refused:
        served_state_dict(data, format="safetensors")
    assert refused.value.code == "not-in-safetensors"
    rest = safetensors.torch.load(served_state_dict(data, format="safetensors", exclude=("u",)))
    assert sorted(rest) == ["none", "w"]
    kept = torch.load(io.BytesIO(served_state_dict(data)))
    assert torch.equal(kept["u"].view(torch.uint8), torch.load(io.BytesIO(data))["u"].view(torch.uint8))


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: torch.quantize_per_tensor(torch.randn(4, 5), 0.1, 0, torch.qint8), "quantized"),
        (lambda: torch.zeros(3, 4).to_sparse(), "sparse"),
        (lambda: torch.zeros(3, 4).to_sparse_csr(), "sparse"),
        (lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), "nested"),
        (lambda: torch.zeros(3, device="meta"), "meta"),
        (lambda: torch.zeros(3, dtype=torch.complex32), "complex32"),
        (lambda: torch.zeros(3, dtype=torch.complex128), "complex128"),
    ],
    ids=["quantized", "coo", "csr", "nested", "meta", "complex32", "complex128"],
)
def test_what_the_format_cannot_hold_is_refused_by_name(make, why):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = save({"good": torch.zeros(3), "bad.weight": make()})
    with pytest.raises(SelectionError, match=rf"'bad\.weight'.*{why}") as refused:
        served_state_dict(data, format="safetensors")
    assert refused.value.code == "not-in-safetensors"
    assert set(safetensors.torch.load(served_state_dict(data, format="safetensors", exclude=("bad.*",)))) == {"good"}


def test_a_key_that_the_format_uses_itself_is_refused():
    with pytest.raises(SelectionError, match="rename it"):
        served_state_dict(save({"__metadata__": torch.zeros(3)}), format="safetensors")
    with pytest.raises(SelectionError, match="half a character"):
        served_state_dict(save({"\ud800": torch.zeros(3)}), format="safetensors")


def test_a_view_that_would_grow_beyond_measure_is_refused():
    small = save(
        {"x": torch.zeros(1).expand(1 << 28), "y": torch.zeros(2)}
    )  # 1 GiB written out: as much as there may be
    made = planned(small, Wanted(query=StateDictQuery(format="safetensors")))
    assert made.file.size > 1 << 30
    large = save({"huge": torch.zeros(1).expand(1 << 29), "y": torch.zeros(2)})
    with pytest.raises(SelectionError, match="'huge'") as refused:
        served_state_dict(large, format="safetensors")
    assert refused.value.code == "too-expanded"


def test_a_view_that_takes_too_many_reads_is_refused():
    data = save({"x": torch.zeros(16)})
    manifest = index(memoryview(data)).manifest
    rows = 1 << 15
    size = 4 * rows * rows  # a square matrix of 4 GiB: 256 blocks for each of 256 strips
    whole = replace(manifest, size=size, storages=(replace(manifest.storages[0], span=Span(0, size)),))
    f32 = DTYPES["float32"]

    def content(shape, stride):
        conversion = Conversion(Span(0, size), f32, f32, merged(shape, stride))
        return Content("x", f32, shape, conversion)

    check_cost([content((rows, rows - 1), (rows, 1))], whole, Work())  # each strip lies in one block or two
    with pytest.raises(SelectionError) as refused:
        check_cost([content((rows, rows), (1, rows))], whole, Work())
    assert refused.value.code == "too-strided"
    check_cost([content((64,) * 4, tuple(64**i for i in range(4)))], whole, Work())
    with pytest.raises(SelectionError, match="not contiguous in any dimension") as refused:
        check_cost([content((2,) * 24, tuple(2**i for i in range(24)))], whole, Work())
    assert refused.value.code == "too-strided"


def test_a_plan_made_in_a_child_is_the_plan_made_here():
    data = save(views())
    manifest = index(memoryview(data)).manifest
    skeleton = data[manifest.skeleton.start : manifest.skeleton.end]
    for query in (
        StateDictQuery(format="safetensors", dtype="bf16"),
        StateDictQuery(dtype="fp16", dtype_exclude=("s*",)),
    ):
        wanted = Wanted.from_json(Wanted(query=query).to_json())
        here, there = plan(manifest, skeleton, wanted), plan_in_child(encode(manifest), skeleton, wanted)
        assert materialise(there, data) == materialise(here, data)
        assert (there.left_out, there.storages, there.format) == (here.left_out, here.storages, here.format)


# Casts, in both formats


@pytest.mark.parametrize("format_", ["pt", "safetensors"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_floating_tensors_are_cast_and_no_others(dtype, format_):
    state_dict = {key: tensor for key, tensor in of_every_dtype().items() if key != "of.float4_e2m1fn_x2"} | views()
    out = served_state_dict(save(state_dict), format=format_, dtype=dtype)
    loaded = torch.load(io.BytesIO(out), weights_only=True) if format_ == "pt" else safetensors.torch.load(out)
    assert set(loaded) == set(state_dict)
    for key, tensor in state_dict.items():
        expected = tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor
        assert loaded[key].dtype == expected.dtype, key
        if format_ == "pt":
            assert loaded[key].stride() == tensor.stride(), key
        assert torch.equal(loaded[key].isnan(), expected.isnan()), key
        numbers = ~expected.isnan()
        if tensor.dtype == expected.dtype:
            assert torch.equal(raw(loaded[key]), raw(tensor)), key
        else:
            assert torch.equal(loaded[key].resolve_neg()[numbers], expected.resolve_neg()[numbers]), key


def test_what_is_excluded_keeps_its_dtype_even_where_it_is_tied_to_what_is_cast():
    weight = torch.randn(100, 100)
    data = save({"a.weight": weight, "b.weight": weight, "norm.weight": weight, "view": weight[2:4].t()})
    out = served_state_dict(data, dtype="bf16", rename=(("norm.", "kept."),), dtype_exclude=("kept.*",))
    loaded = torch.load(io.BytesIO(out), weights_only=True)
    assert loaded["kept.weight"].dtype == torch.float32
    assert torch.equal(loaded["kept.weight"], weight)
    cast = [loaded[key] for key in ("a.weight", "b.weight", "view")]
    assert {tensor.dtype for tensor in cast} == {torch.bfloat16}
    assert len({tensor.untyped_storage().data_ptr() for tensor in cast}) == 1
    assert torch.equal(loaded["view"], weight[2:4].t().to(torch.bfloat16))


@pytest.mark.parametrize("format_", ["pt", "safetensors"])
def test_an_optimizers_step_is_never_cast(format_):
    net = torch.nn.Linear(4, 3)
    adam = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 4)).sum().backward()
    adam.step()
    data = save({"model": net.state_dict(), "optimizer": adam.state_dict()})
    out = served_state_dict(data, component="optimizer", dtype="bf16", format=format_)
    if format_ == "pt":
        state = torch.load(io.BytesIO(out), weights_only=True)["state"][0]
    else:
        state = {key.removeprefix("state.0."): value for key, value in safetensors.torch.load(out).items()}
    assert state["step"].dtype == torch.float32
    assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == torch.bfloat16


def test_a_cast_file_has_the_checksums_of_its_own_bytes(tmp_path):
    data = save({"a": torch.randn(3000), "b": torch.randn(30).double(), "c": torch.arange(9)})
    out = served_state_dict(data, dtype="bf16")
    with zipfile.ZipFile(io.BytesIO(out)) as archive:
        assert archive.testzip() is None
    path = tmp_path / "cast.pt"
    path.write_bytes(out)
    with torch.utils.serialization.config.patch("load.calculate_storage_offsets", True):
        mapped = torch.load(path, weights_only=True, mmap=True)
    assert {key: tensor.dtype for key, tensor in mapped.items()} == {
        "a": torch.bfloat16, "b": torch.bfloat16, "c": torch.int64,
    }  # fmt: skip


def test_sparse_and_nested_tensors_are_cast_and_quantized_ones_stay():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_channel(
            torch.randn(2, 3), torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), 0, torch.qint8
        )
        tensors = {"sparse": torch.eye(3).to_sparse(), "quantized": quantized, "meta": torch.zeros(3, device="meta")}
        tensors["nested"] = torch.nested.nested_tensor([torch.ones(2), torch.zeros(3)])
        loaded = torch.load(io.BytesIO(served_state_dict(save(tensors), dtype="half")), weights_only=True)
    assert loaded["sparse"].dtype == loaded["meta"].dtype == loaded["nested"].dtype == torch.float16
    assert torch.equal(loaded["sparse"].to_dense(), torch.eye(3).half())
    assert torch.equal(loaded["quantized"].q_per_channel_scales(), quantized.q_per_channel_scales())
    assert torch.equal(loaded["quantized"].int_repr(), quantized.int_repr())


def test_a_big_endian_file_stays_one_when_it_is_cast():
    state_dict = {"f": torch.randn(2000), "i": torch.arange(9)}
    out = served_state_dict(big_endian(save(state_dict)), dtype="bf16")
    loaded = torch.load(io.BytesIO(out), weights_only=True)
    assert torch.equal(loaded["f"], state_dict["f"].to(torch.bfloat16))
    assert torch.equal(loaded["i"], state_dict["i"])


def test_meta_has_the_new_dtype():
    loaded = torch.load(
        io.BytesIO(served_state_dict(save({"w": torch.zeros(9)}), device="meta", dtype="bf16")), weights_only=True
    )
    assert loaded["w"].dtype == torch.bfloat16
    assert loaded["w"].is_meta

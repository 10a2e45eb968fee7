"""Objects that people hand to torch.save, drawn at random: containers, plain values, tensors of every kind."""

import collections
from typing import Any

import torch
from hypothesis import strategies as st

DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int16, torch.int32,
    torch.int64, torch.bool, torch.complex64, torch.complex128, torch.complex32, torch.uint16, torch.uint32,
    torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
)  # fmt: skip
FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
SIZES = st.lists(st.sampled_from([0, 1, 2, 3, 5, 40]), max_size=3)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.integers(-(2**80), 2**80) | st.floats(allow_nan=False) | st.booleans() | st.none()
leaves = (
    numbers
    | texts
    | st.binary(max_size=9)
    | st.sampled_from([torch.Size([2, 3]), torch.device("cpu"), torch.float16, complex(1, -2)])
)
keys = texts | st.integers(-3, 300) | st.sampled_from(["model", "state_dict", "epoch", "weight", "a.b", ""])


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """A dense tensor, of random bits, of random layout; now and then a Parameter, or one that requires grad."""
    dtype = draw(st.sampled_from(DTYPES))
    tensor = _filled(dtype, draw(SIZES), draw(st.integers(0, 255)))
    layout = draw(st.sampled_from(["contiguous", "transposed", "sliced", "expanded", "offset"]))
    if layout == "transposed" and tensor.dim() > 1:
        tensor = tensor.transpose(0, -1)
    elif layout == "sliced" and tensor.dim():
        tensor = tensor[::2]
    elif layout == "expanded":
        tensor = tensor.unsqueeze(0).expand(3, *tensor.shape)
    elif layout == "offset" and tensor.dim() and tensor.shape[0] > 1:
        tensor = tensor[1:]
    if dtype in FLOATING:
        kind = draw(st.sampled_from(["tensor", "tensor", "grad", "parameter"]))
        if kind == "grad":
            tensor.requires_grad_()
        elif kind == "parameter":
            tensor = torch.nn.Parameter(tensor)
    return tensor


@st.composite
def peculiar(draw: st.DrawFn) -> torch.Tensor:
    """Tensors that are no plain rows of numbers."""
    kind = draw(st.sampled_from(["conj", "neg", "quantized", "per channel", "coo", "csr", "meta"]))
    size = draw(st.sampled_from([(2, 3), (4, 4)]))
    complex_ = torch.complex(torch.arange(6.0), torch.ones(6)).reshape(2, 3)
    match kind:
        case "conj":
            return complex_.conj()
        case "neg":
            return complex_.conj().imag
        case "quantized":
            return torch.quantize_per_tensor(torch.ones(size), 0.5, 3, torch.qint8)
        case "per channel":
            scales, points = torch.ones(size[0]) / 3, torch.zeros(size[0], dtype=torch.int64)
            return torch.quantize_per_channel(torch.ones(size), scales, points, 0, torch.quint8)
        case "coo":
            return torch.eye(*size).to_sparse()
        case "csr":
            return torch.eye(*size).to_sparse_csr()
        case _:
            return torch.empty(size, device="meta")


def _filled(dtype: torch.dtype, size: list[int], seed: int) -> torch.Tensor:
    """Any bits at all, NaNs and subnormals among them; of a bool only 0 and 1."""
    tensor = torch.empty(size, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    top = 2 if dtype is torch.bool else 256
    raw = torch.randint(0, top, (tensor.numel() * tensor.itemsize,), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).reshape(size) if tensor.numel() else tensor


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    mappings = st.dictionaries(keys, inner, max_size=5)
    return (
        mappings
        | mappings.map(collections.OrderedDict)
        | st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(texts, st.integers(0, 9), max_size=3).map(collections.Counter)
    )


@st.composite
def checkpoints(draw: st.DrawFn) -> dict[Any, Any]:
    """A mapping with a tensor at least; some of its tensors are tied, some are views of one another."""
    pool = draw(st.lists(tensors() | peculiar(), min_size=1, max_size=4))
    base = _filled(torch.float32, [6, 4], 0)
    shared = [*pool, pool[0], base, base[1:3], base.t(), base.detach()]
    tree = draw(st.dictionaries(keys, st.recursive(leaves | st.sampled_from(shared), _containers, max_leaves=12)))
    return {"tensor": base, **tree, draw(keys): pool[0]}


saving = st.sampled_from(
    [
        {},
        {"_use_new_zipfile_serialization": False},
        {"pickle_protocol": 3},
        {"pickle_protocol": 4},
        {"pickle_protocol": 5},
        {"_use_new_zipfile_serialization": False, "pickle_protocol": 4},
    ]
)

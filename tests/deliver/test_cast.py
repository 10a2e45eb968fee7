"""Casting: every bit pattern is rounded as torch does, and by the definition of rounding."""

import struct

import pytest
import torch

from app.deliver.cast import cast

TARGETS = ["float32", "float16", "bfloat16"]
CANONICAL_NAN = {"float32": 0x7FC00000, "float16": 0x7E00, "bfloat16": 0x7FC0}
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

SMALL = [
    "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu",
]  # fmt: skip


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(INTEGERS[tensor.element_size()])


def every_pattern(dtype: str) -> torch.Tensor:
    kind = getattr(torch, dtype)
    return torch.arange(256**kind.itemsize).to(INTEGERS[kind.itemsize]).view(kind)


def wide_sample(dtype: str) -> torch.Tensor:
    """Every exponent with mantissas that lie at, just below and just above each kind of tie; and noise."""
    kind = getattr(torch, dtype)
    integers, mantissa = (torch.int32, 23) if dtype == "float32" else (torch.int64, 52)
    generator = torch.Generator().manual_seed(0)
    exponents = torch.arange(1 << (8 * kind.itemsize - mantissa), dtype=torch.int64) << mantissa
    low = [0, 1, (1 << mantissa) - 1]
    for cut in range(mantissa):
        half = 1 << cut
        low += [half, half - 1, half + 1, 3 * half, (1 << mantissa) - half]
    mantissas = torch.tensor([value & ((1 << mantissa) - 1) for value in low])
    noise = torch.randint(-(2**63), 2**63 - 1, (1 << 18,), generator=generator, dtype=torch.int64)
    sample = torch.cat([(exponents[:, None] | mantissas).view(-1), noise])
    return sample.to(integers).view(kind)


def made(source: torch.Tensor, to: str) -> torch.Tensor:
    data = cast(memoryview(bits(source).numpy().tobytes()), str(source.dtype).removeprefix("torch."), to)
    return torch.frombuffer(data, dtype=getattr(torch, to))


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("dtype", [*SMALL, "float32", "float64"])
def test_every_bit_pattern_is_rounded_as_torch_rounds_it(dtype, to):
    source = every_pattern(dtype) if dtype in SMALL else wide_sample(dtype)
    expected, result = source.to(getattr(torch, to)), made(source, to)
    nans = expected.isnan()
    assert torch.equal(result.isnan(), nans)
    assert torch.equal(bits(result)[~nans], bits(expected)[~nans])
    width = result.element_size() * 8
    assert set((bits(result)[nans].to(torch.int64) & ((1 << width) - 1)).tolist()) <= {CANONICAL_NAN[to]}


def test_float32_becomes_the_nearest_bfloat16_and_of_two_the_even_one():
    source = wide_sample("float32")
    source = source[source.isfinite()]
    patterns = bits(source).to(torch.int64) & 0xFFFFFFFF
    kept, rest = patterns >> 16, patterns & 0xFFFF
    expected = kept + ((rest > 0x8000) | ((rest == 0x8000) & (kept % 2 == 1))).to(torch.int64)
    assert torch.equal(bits(made(source, "bfloat16")).to(torch.int64) & 0xFFFF, expected)


def test_a_value_does_not_depend_on_its_neighbours_or_on_where_it_lies():
    """Vectorised and scalar code have to agree: what lies at a strip's end is scalar."""
    source = wide_sample("float32")[:10_007]
    raw = bits(source).numpy().tobytes()
    whole = cast(memoryview(raw), "float32", "bfloat16")
    shifted = memoryview(b"x" + raw)[1:]
    assert cast(shifted, "float32", "bfloat16") == whole
    for place in (0, 1, 63, 64, 5_000, 10_006):
        assert (
            cast(memoryview(raw)[4 * place : 4 * place + 4], "float32", "bfloat16") == whole[2 * place : 2 * place + 2]
        )


def test_bytes_that_cannot_be_written_to_are_read_without_a_warning():
    assert struct.unpack("<e", cast(memoryview(struct.pack("<f", 1.5)), "float32", "float16")) == (1.5,)

"""Honest files that are truncated, or have one byte changed."""

import torch

from tests.functional.torch_files import saved
from tests.hostile.corpus.base import HONEST, Files, refused, safetensors, survived
from tests.hostile.corpus.safetensors_files import header
from tests.hostile.corpus.torchscript_files import program

WHOLE = {
    **HONEST,
    "safetensors": safetensors(header()),
    "torchscript": program(),
    "saved": saved({"model": {"weight": torch.arange(8.0)}, "epoch": 3}),
    "saved before 1.6": saved(
        {"model": {"weight": torch.arange(8.0)}, "epoch": 3}, _use_new_zipfile_serialization=False
    ),
}
CUTS, FLIPS = 40, 40


def files() -> Files:
    for what, whole in WHOLE.items():
        yield refused(f"{what}: nothing", b"", "empty", "magic")
        for end in sorted({len(whole) * n // CUTS for n in range(1, CUTS)} | {1, 3, 4, 7, 8, 9, len(whole) - 1}):
            yield refused(
                f"{what}: the first {end} of {len(whole)} bytes",
                whole[:end],
                "magic",
                "truncated",
                "zip-end",
                "length",
                "zip-directory",
                "opcode",
                "stack-underflow",
            )
        for start in range(len(whole) // 10, len(whole), len(whole) // 10):
            yield refused(
                f"{what}: without the first {start} bytes", whole[start:], "magic", "tar", "truncated", "zip-end"
            )
        for start in range(0, len(whole) - 20, len(whole) // 10):
            yield survived(f"{what}: without 20 bytes at {start}", whole[:start] + whole[start + 20 :])
            yield survived(f"{what}: 20 bytes twice at {start}", whole[: start + 20] + whole[start:])
        for number in range(FLIPS):
            at = len(whole) * number // FLIPS
            for bit in (0x01, 0x20, 0x80):
                flipped = whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]
                yield survived(f"{what}: byte {at} ^ {bit:#x}", flipped)

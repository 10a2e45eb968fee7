"""Damage done on purpose: small changes of honest files, most of them where the structure is."""

import io
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from random import Random

import torch

from tests.deliver.planning import save


def _general() -> dict[str, object]:
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "loss": 0.5,
        "model_state_dict": net.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
    }


def _views() -> dict[str, object]:
    base = torch.arange(60.0).reshape(6, 10)
    return {
        "base": base,
        "part": base[2:4],
        "turned": base.t(),
        "spread": torch.ones(1).expand(4, 4),
        "empty": base[:0],
    }


def _script() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is on its way out, its files are not
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    return file.getvalue()


@cache
def honest() -> Mapping[str, bytes]:
    """Files to damage, the same each time."""
    torch.manual_seed(0)
    legacy = {"_use_new_zipfile_serialization": False}
    return {
        "zip": save(_general()),
        "legacy": save(_general(), **legacy),
        "views": save(_views()),
        "legacy views": save(_views(), **legacy),
        "flat": save(torch.nn.Linear(3, 2).state_dict()),
        "module": save(torch.nn.Linear(3, 2)),
        "protocol 4": save(_views(), pickle_protocol=4),
        "script": _script(),
    }


NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 63) - 1, (1 << 64) - 1)
CODES = b".0123(]}tqrRcbBXKMJGaeusNTIFhjV\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x93\x94\x95Q"
"""Opcodes of pickles."""


def _flip(data: bytearray, at: int, random: Random) -> None:
    data[at] ^= 1 << random.randrange(8)


def _set(data: bytearray, at: int, random: Random) -> None:
    data[at] = random.randrange(256)


def _code(data: bytearray, at: int, random: Random) -> None:
    data[at] = random.choice(CODES)


def _number(data: bytearray, at: int, random: Random) -> None:
    width = random.choice((1, 2, 4, 8))
    data[at : at + width] = (random.choice(NUMBERS) & ((1 << 8 * width) - 1)).to_bytes(width, "little")


def _add(data: bytearray, at: int, random: Random) -> None:
    value = int.from_bytes(data[at : at + 4], "little") + random.choice((-16, -8, -4, -1, 1, 4, 8, 16))
    data[at : at + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")


def _remove(data: bytearray, at: int, random: Random) -> None:
    del data[at : at + random.choice((1, 1, 2, 8, 64))]


def _repeat(data: bytearray, at: int, random: Random) -> None:
    data[at:at] = data[at : at + random.choice((1, 1, 2, 8, 64, 256))]


def _copy(data: bytearray, at: int, random: Random) -> None:
    length, source = random.choice((1, 2, 4, 8, 32)), random.randrange(len(data))
    data[at : at + length] = data[source : source + length]


def _cut(data: bytearray, at: int, random: Random) -> None:
    del data[at:]


_WAYS: tuple[Callable[[bytearray, int, Random], None], ...] = (
    _flip, _flip, _set, _code, _code, _number, _number, _add, _add, _remove, _repeat, _copy, _cut,
)  # fmt: skip


def mutated(seed: int) -> tuple[str, bytes]:
    """The ``seed``-th damaged file, and the name of what it was."""
    random = Random(seed)
    name, whole = random.choice(list(honest().items()))
    data = bytearray(whole)
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        if data:
            random.choice(_WAYS)(data, _place(data, random), random)
    return name, bytes(data)


def damaged(whole: bytes, times: int, random: Random) -> bytes:
    """``whole`` with damage anywhere in it."""
    data = bytearray(whole)
    for _ in range(times):
        random.choice(_WAYS[:-1])(data, random.randrange(len(data)), random)
    return bytes(data)


def _place(data: bytearray, random: Random) -> int:
    """Often near a mark of the structure, else anywhere."""
    if random.random() < 0.6:
        mark = random.choice(
            (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"\x80\x02}", b"X", b"q", b"ctorch")
        )
        places = [at for at in range(len(data)) if data.startswith(mark, at)] if len(mark) > 1 else []
        if places:
            return min(len(data) - 1, max(0, random.choice(places) + random.randrange(-4, 60)))
    return random.randrange(len(data))

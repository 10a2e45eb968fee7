"""Damage done on purpose: small changes of a file, most of them where the structure is."""

from collections.abc import Callable
from random import Random

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


def damaged(whole: bytes, random: Random) -> bytes:
    """``whole`` with one to six small changes."""
    data = bytearray(whole)
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        if data:
            random.choice(_WAYS)(data, _place(data, random), random)
    return bytes(data)


def damaged_anywhere(whole: bytes, times: int, random: Random) -> bytes:
    """``whole`` with so many changes, none of which cuts it off."""
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

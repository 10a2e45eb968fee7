"""Small files that ask for large memory are refused within 256 MiB, in a process that has no more."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.formats.zips import Entry, Zip
from tests.hostile.make import checkpoint, with_tensor
from tests.support.measure import only_long
from tests.support.scripts import run_script

READ = """
import resource, sys
from app.errors import RefusedCheckpoint
from app.formats.readers import read
file = memoryview(open(sys.argv[1], "rb").read())
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = used + (256 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    read(file)
except RefusedCheckpoint as error:
    print(error.rule)
"""

MILLION = 1_000_000


def many(count: int, make: bytes) -> bytes:
    return b"".join(make.replace(b"####", struct.pack("<I", n)) for n in range(count))


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "memo slot 2^32 - 1": (lambda: b"Nr\xff\xff\xff\xff0NN.", "stack-left"),
    "4 million memo slots": (lambda: b"N" + many(4 * MILLION + 1, b"r####") + b".", "memo-slots"),
    "nested lists": (lambda: b"]" * MILLION + b"a" * (MILLION - 1) + b".", "nesting"),
    "5 million lists on the stack": (lambda: b"]" * 5 * MILLION + b".", "stack-size"),
    "5 million marks": (lambda: b"(" * 5 * MILLION + b".", "nesting"),
    "nested tuples": (lambda: b")" + b"\x85" * MILLION + b".", "nesting"),
    "LONG4 of 2 GiB": (lambda: b"\x8b\xff\xff\xff\x7f" + b"\x01" * 100 + b".", "length"),
    "BINBYTES8 of 2^62": (lambda: b"\x8e" + struct.pack("<Q", 2**62) + b".", "length"),
    "BYTEARRAY8 of 2^63 - 1": (lambda: b"\x96" + struct.pack("<Q", 2**63 - 1) + b".", "length"),
    "BINUNICODE8 of 2^64 - 1": (lambda: b"\x8d" + b"\xff" * 8 + b".", "length"),
    "a frame of 2^64 - 1": (lambda: b"\x80\x04\x95" + b"\xff" * 8 + b"N.", "length"),
    "too many opcodes": (lambda: b"N0" * (10 * MILLION) + b"N.", "opcodes"),
    "a decimal number of a million digits": (lambda: b"L" + b"9" * MILLION + b"L\n.", "value"),
    "keys that collide, and no opcode": (lambda: b"}(" + many(500_000, b"J####K\x01") + b"u\xff", "opcode"),
}
"""Pickles, each with the rule that refuses it."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=only_long if name == "too many opcodes" else ()) for name in BOMBS]
)
def test_a_pickle_bomb_is_refused(tmp_path: Path, name: str) -> None:
    pickle, broken = BOMBS[name]
    (tmp_path / "bomb").write_bytes(checkpoint(pickle()))
    assert refusal_in_a_small_process(tmp_path / "bomb") == broken


def test_a_zip_of_a_million_records_is_refused(tmp_path: Path) -> None:
    count = {"count": 10**6, "here": 10**6}
    archive = Zip([Entry(b"r/data.pkl", b"N.")], end={"count": 65535, "here": 65535}, end64=count)
    (tmp_path / "bomb").write_bytes(archive.build())
    assert refusal_in_a_small_process(tmp_path / "bomb") == "zip-records"


def test_sharing_of_sharing_of_sharing_is_read_and_costs_nothing(tmp_path: Path) -> None:
    laughs = b")" + b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(200))
    (tmp_path / "bomb").write_bytes(with_tensor(laughs))
    assert refusal_in_a_small_process(tmp_path / "bomb") == ""


def refusal_in_a_small_process(file: Path) -> str:
    """The rule under which a process with 256 MiB refuses the file, "" if it reads it."""
    done = run_script(READ, file)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
